"""``hrvit-lab export sensitivity``: what int8 costs each part, against rounding by hand; interrupted runs continue."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from hrvit_lab import HRViT, build
from hrvit_lab.__main__ import main
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.config.plan import plan
from hrvit_lab.export import sensitivity, sensitivity_command
from hrvit_lab.export.graph import served_form
from hrvit_lab.export.request import Request
from hrvit_lab.export.sensitivity import Cost, Images, Piece, Sensitivity, pieces
from hrvit_lab.latency.models import randomize_norms
from hrvit_lab.network.blocks import cross_shaped
from hrvit_lab.network.blocks.attend import attention_map
from hrvit_lab.plots.sensitivity import PieceError, sensitivity_figure

SMALL = HRViTConfig(
    name="small", depths=((1, 1), (1, 1)), widths=(8, 16), stem_width=8, head_dims=4, window_sizes=2, mlp_ratios=2,
    num_classes=5, head_widths=2, head_features=8,
)  # fmt: skip


class Two(nn.Module):
    """Two layers of pixels, with a mean as the output."""

    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1, bias=False)
        self.second = nn.Conv2d(6, 4, 1, bias=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(images_BCHW))).mean((2, 3))


def signed(values: Tensor, most: Tensor) -> Tensor:
    """Values rounded to 127 steps of ``most``."""
    return (values / (most / 127)).round().clamp(-127, 127) * (most / 127)


def spread(values: Tensor, seen: Tensor) -> Tensor:
    """Values rounded to 255 steps between the smallest and the largest of ``seen``, means over batches of 2, and 0."""
    batches = torch.stack([batch.flatten() for batch in seen.split(2)])
    low, high = batches.amin(1).mean().clamp(max=0), batches.amax(1).mean().clamp(min=0)
    step = (high - low) / 255
    zero = (-low / step).round()
    return ((values / step).round() + zero).clamp(0, 255).sub(zero) * step


@pytest.mark.parametrize("layer", ["first", "second"])
def test_one_layer_against_rounding_by_hand(tmp_path: Path, layer: str) -> None:
    """Inputs, weights and outputs of one layer are rounded; the other layer is exact."""
    torch.manual_seed(0)
    network = Two().eval().requires_grad_(False)
    images = torch.rand(8, 3, 4, 4) * 2 - 1
    images[:2] *= 2  # so that the extremes of one batch are not those of all
    request = Request("onnx", (4, 4), 2, dtype="int8", calibration=images)
    with torch.no_grad():
        hidden = network.first(images)
        exact = network(images)
        weight = getattr(network, layer).weight
        steps = signed(weight, weight.abs().amax((1, 2, 3), keepdim=True))
        if layer == "first":
            convolved = nn.functional.conv2d(spread(images, images), steps)
            wanted = network.second(torch.relu(spread(convolved, hidden))).mean((2, 3))
        else:
            active = torch.relu(hidden)
            convolved = nn.functional.conv2d(spread(active, active), steps)
            wanted = spread(convolved, network.second(active)).mean((2, 3))
    subject = Sensitivity(network, request, Images(images), tmp_path)
    found = {piece.part: piece for piece in pieces(subject.source, network)}
    assert list(found) == ["first", "second"]
    cost = subject.cost(found[layer].nodes)
    assert cost.weights == weight.numel() and cost.accuracy is None
    assert cost.relative_error == pytest.approx(float((wanted - exact).norm() / exact.norm()), rel=0.15)
    everything = subject.cost()
    assert everything.weights == 3 * 6 + 6 * 4 and everything.relative_error > 0.5 * cost.relative_error


def test_the_accuracy_of_one_part(tmp_path: Path) -> None:
    """A layer with one huge weight per channel loses its small ones: the labels that depend on them change."""
    torch.manual_seed(0)
    network = Two().eval().requires_grad_(False)
    network.second.weight[:, 0] = 300 * network.second.weight.abs().max()  # of a channel that is nearly 0
    network.first.weight[0] *= 1e-4
    images = torch.rand(64, 3, 4, 4) * 2 - 1
    with torch.no_grad():
        labels = network(images).argmax(1).tolist()
    request = Request("onnx", (4, 4), 5, dtype="int8", calibration=images)
    subject = Sensitivity(network, request, Images(images, tuple(labels), "top1", 4), tmp_path)
    first, second = (subject.cost(piece.nodes).accuracy for piece in pieces(subject.source, network))
    assert first is not None and second is not None
    assert first.before == second.before == 100 and first.images == 64
    assert second.after < first.after - 5 and second.change_low <= second.after - 100 <= second.change_high


def test_outputs_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "MAX_OUTPUT_BYTES", 8 * 4 * 4 - 1)
    images = torch.rand(8, 3, 4, 4)
    with pytest.raises(ConfigError, match=r"outputs of 8 images take .* use fewer with --test-images"):
        Sensitivity(
            Two().eval(), Request("onnx", (4, 4), 2, dtype="int8", calibration=images), Images(images), tmp_path
        )


@pytest.mark.parametrize("stages", [True, False])
def test_the_figure_has_every_part(stages: bool) -> None:
    parts = ("attention", "ffn", "patch_embed")
    points = [
        PieceError(s if stages else None, b if stages else None, part if stages else f"layer{s}.{b}", 0.01 * (s + 1))
        for s in range(3) for b in range(2) for part in (parts if stages else parts[:1])
    ]  # fmt: skip
    figure = sensitivity_figure(points, 0.1, "a network")
    drawn = sum(np.size(line.get_xdata()) for ax in figure.axes for line in ax.lines if line.get_marker() != "None")
    assert drawn == len(points)
    assert len(figure.axes) == (2 if stages else 1)


def write_run(folder: Path, model: HRViT) -> None:
    folder.mkdir()
    (folder / "config.yaml").write_text(model.config.to_yaml())
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with weights of a small network and a folder of images."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = build(SMALL)
    randomize_norms(model)
    write_run(tmp_path / "run", model)
    write_run(tmp_path / "grey", build(SMALL.replace(in_chans=1)))
    (tmp_path / "images").mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    return tmp_path


COMMAND = "export sensitivity run --data images --resolution 32 --batch-size 2 --out made"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_product_belongs_to_a_part_of_the_plan(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(SMALL).eval()
    randomize_norms(model)
    images = torch.randn(2, 3, 32, 32)
    request = Request("onnx", (32, 32), 2, dtype="int8", calibration=images)
    subject = Sensitivity(served_form(model), request, Images(images), tmp_path)
    found = pieces(subject.source, model)
    in_block = ("attention", "shortcut", "ffn")
    wanted: list[tuple[Any, ...]] = [("stem", None, "stem")]
    for s, (fusion, branches) in enumerate(plan(SMALL).stages):
        wanted += [(s, None, "fusion")] if fusion else []
        for branch, patch_embed, _, _ in branches:
            wanted += [(s, branch, part) for part in ((*(("patch_embed",) if patch_embed else ()), *in_block))]
    assert sorted(map(str, [piece.key for piece in found])) == sorted(map(str, [*wanted, ("head", None, "head")]))
    named = [node for piece in found for node in piece.nodes]
    assert len(named) == len(set(named)) > 20
    # The two kernels of a MixCFN are merged to one, ffn.conv.
    weights = dict(served_form(model).named_parameters())
    matrices = sum(
        w.numel() for name, w in weights.items() if w.ndim > 1 and "conv_a" not in name and "conv_b" not in name
    )
    assert sum(subject.cost(piece.nodes).weights for piece in found) == subject.cost().weights == matrices


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_interrupted_run_continues(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = Sensitivity.cost, 0

    def interrupted(subject: Sensitivity, nodes: Sequence[str] = ()) -> sensitivity.Cost:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real(subject, nodes)

    monkeypatch.setattr(Sensitivity, "cost", interrupted)
    assert main(COMMAND.split()) == 130
    assert "run it again to continue" in capsys.readouterr().err
    rows = (trained / "made" / "rows.jsonl").read_text().splitlines()
    assert len(rows) == 3 and json.loads(rows[0])["part"] == "everything"
    (trained / "made" / "rows.jsonl").write_text("\n".join([*rows[:2], rows[2][:40], "[]", ""]))  # as after a crash
    assert main(COMMAND.split()) == 0
    shown = capsys.readouterr().out
    assert "Everything in int8: relative error" in shown and "top1" not in shown
    table = (trained / "made" / "sensitivity.csv").read_text().splitlines()
    assert calls == 4 + len(table) - 1 - 2
    assert main(COMMAND.replace("made", "other").split()) == 0
    assert (trained / "other" / "sensitivity.csv").read_text().splitlines() == table
    assert {path.name for path in (trained / "made").iterdir()} == {
        "rows.jsonl", "settings.json", "sensitivity.csv", "sensitivity.png", "sensitivity.svg",
    }  # fmt: skip
    assert main([*COMMAND.split(), "--seed", "1"]) == 2
    assert "made has results of another seed (0, not 1); choose a new folder" in capsys.readouterr().err


def test_rows_of_another_graph_are_refused(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(COMMAND.split()) == 0
    before = json.loads((trained / "made" / "settings.json").read_text())["settings"]["graph"]
    monkeypatch.setattr(cross_shaped, "attend_served", lambda q, v, **_: attention_map(q, v) @ v)  # same outputs
    assert main(COMMAND.split()) == 2
    assert f"made has results of another graph ({before}, not " in capsys.readouterr().err
    assert main(COMMAND.replace("made", "other").split()) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("hrvit_nano --data images", "hrvit_nano has random weights, whose sensitivity says nothing; give a network"),
        ("run", "the following arguments are required: --data"),
        ("run --data absent", "absent"),
        ("run --data proxy", "--data proxy has 10 classes, but run has 5 outputs"),
        ("run --data composites", "--data composites is for segmentation, which the outputs of run are not; give the"),
        ("grey --data images", "grey reads images of 1 channels, but those of --data have 3; choose a network with"),
        ("run --data absent --resolution 7", "resolution = 7×7 is too small"),
        ("run --data images --resolution 32 --batch-size 9", "calibration needs at least one batch of 9 images"),
        ("run --data images --out images/0.png", "images/0.png"),
    ],
)
def test_invalid_requests_are_one_sentence(
    trained: Path, capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    assert main(["export", "sensitivity", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("error: ") and error.count("\n") == 1, error


def test_damaged_settings(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (trained / "made").mkdir()
    (trained / "made" / "settings.json").write_text("[")
    assert main(COMMAND.split()) == 2
    assert "settings.json can't be read; choose a new folder with --out" in capsys.readouterr().err
    (trained / "made" / "settings.json").unlink()
    (trained / "made" / "rows.jsonl").write_text("")
    assert main(COMMAND.split()) == 2
    assert "made has rows.jsonl without settings.json" in capsys.readouterr().err


# -- the folder of the results, with costs that are given --------------------------------------------------------------

FOUND = [Piece(0, 0, "ffn", ("a",)), Piece(1, 0, "ffn", ("b",)), Piece("head", None, "head", ("c",))]
FILES = {"rows.jsonl", "settings.json", "sensitivity.csv", "sensitivity.png", "sensitivity.svg"}


class Given:
    """Costs without a runtime, which count the pieces that are measured."""

    measured: list[tuple[str, ...]]

    def __init__(self, served: nn.Module, request: Request, images: Images, folder: Path) -> None:
        self.graph = "0" * 16
        self.source = folder / "float32.onnx"
        self.source.write_bytes(b"a graph")

    def cost(self, nodes: Sequence[str] = ()) -> Cost:
        self.measured.append(tuple(nodes))
        return Cost(100, 0.25, None)


@pytest.fixture
def given(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the results; costs are given."""
    Given.measured = []
    monkeypatch.setattr(sensitivity_command, "Sensitivity", Given)
    monkeypatch.setattr(sensitivity_command, "pieces", lambda *_: FOUND)
    return trained / "made"


def test_other_files_in_the_folder_are_kept(given: Path) -> None:
    (given / ".unfinished").mkdir(parents=True)  # of a run that was killed
    (given / ".unfinished" / "int8.onnx").write_bytes(b"half")
    others = {given / "model.onnx": "mine", given / "ranges.json": "mine", given / "float32.onnx": "mine"}
    for path, text in others.items():
        path.write_text(text)
    assert main(COMMAND.split()) == 0
    assert {path: path.read_text() for path in others} == others
    assert {path.name for path in given.iterdir()} == FILES | {path.name for path in others}


def test_a_line_after_an_unfinished_one_is_read(given: Path) -> None:
    assert main(COMMAND.split()) == 0
    rows = (given / "rows.jsonl").read_text().splitlines()
    assert Given.measured == [(), ("a",), ("b",), ("c",)] and len(rows) == 4
    (given / "rows.jsonl").write_text("\n".join([*rows[:2], rows[2][:30]]))  # as after a crash
    Given.measured = []
    assert main(COMMAND.split()) == 0 == main(COMMAND.split())
    assert Given.measured == [("b",), ("c",)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"weights": 100', '"weights": "many"'), ('"products": 1', '"products": null'),
        ('"relative_error": 0.25', '"relative_error": NaN'), ('"relative_error": 0.25', '"relative_error": "0.25"'),
        ('"accuracy": null', '"accuracy": {"score": "top1"}'), ('"branch": 0', '"branch": [0]'),
        ('"accuracy": null', '"accuracy": {"score": "top1", "before": 1, "after": 1, "change_low": 0, "change_high": 0,'
         ' "images": 4}'),
    ],
)  # fmt: skip
def test_damaged_rows_are_measured_again(given: Path, before: str, after: str) -> None:
    assert main(COMMAND.split()) == 0
    rows = (given / "rows.jsonl").read_text().splitlines()
    assert before in rows[1]
    (given / "rows.jsonl").write_text("\n".join([rows[0], rows[1].replace(before, after), *rows[2:], ""]))
    Given.measured = []
    assert main(COMMAND.split()) == 0
    assert Given.measured == [("a",)]


def test_an_error_of_the_runtime_is_one_sentence_and_rows_are_kept(
    given: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(subject: Given, nodes: Sequence[str] = ()) -> Cost:
        if nodes:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL\nin a node")
        return Cost(100, 0.25, None)

    monkeypatch.setattr(Given, "cost", broken)
    assert main(COMMAND.split()) == 2
    error = capsys.readouterr().err
    assert "ONNXRuntimeError" in error and error.startswith("error: ") and error.count("\n") == 1
    assert {path.name for path in given.iterdir()} == {"rows.jsonl", "settings.json"}


def test_other_images_of_the_same_folder_are_other_results(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND.split()) == 0
    Image.new("RGB", (40, 40), "red").save(given.parent / "images" / "0.png")
    assert main(COMMAND.split()) == 2
    assert "made has results of another content of the images" in capsys.readouterr().err
