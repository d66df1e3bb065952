"""``hrvit-lab export``: files that runtimes load compute what the network computes; cards; refused requests."""

import errno
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from operators import RealOperators
from PIL import Image
from random_configs import with_one_block_a_branch
from torch import Tensor, nn

from hrvit_lab import PRESETS, build
from hrvit_lab.__main__ import main
from hrvit_lab.config import ConfigError, HRViTConfig, preset
from hrvit_lab.export import __main__ as cli
from hrvit_lab.export import command, data_command, formats, onnx_graph, write
from hrvit_lab.export.accuracy import class_counts, compare_accuracy
from hrvit_lab.export.agreement import Check, compare, difference
from hrvit_lab.export.data_command import ImagesWithLabels, in_memory, measure_accuracy, recipe_for
from hrvit_lab.export.folder import finish, unfinished
from hrvit_lab.export.formats import FORMATS, check_request
from hrvit_lab.export.graph import side_step
from hrvit_lab.export.int8 import quantize
from hrvit_lab.export.request import FREE_AXES, Request
from hrvit_lab.export.slim import slim
from hrvit_lab.export.write import SPARE_BYTES, ExportedFile, check_agreement, export_network
from hrvit_lab.files import try_lock
from hrvit_lab.latency import race as lab
from hrvit_lab.latency.models import build_measurable, randomize_norms
from hrvit_lab.latency.roofline import Ceilings
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.named import NamedNetwork, named_config, open_network
from hrvit_lab.network.quiet import quiet
from hrvit_lab.network.seeding import seeded
from hrvit_lab.train.assemble import make_transforms
from hrvit_lab.train.recipe import load_recipe

SMALL = HRViTConfig(
    name="small", depths=((1, 1), (1, 1)), widths=(8, 16), stem_width=8, head_dims=4, window_sizes=2, mlp_ratios=2,
    num_classes=5, head_widths=2, head_features=8,
)  # fmt: skip
"""Two branches, exported in seconds; the slow run exports the networks that people use."""

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


def run(line: str) -> int:
    """Run a command line and return its exit code."""
    return main(line.split())


@pytest.fixture
def ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Races without the measurement of the machine's ceilings."""
    monkeypatch.setattr(lab, "measure_ceilings", lambda *_, **__: Ceilings(gemm_flop_s=1e9, copy_byte_s=1e9))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the file ``small.yaml``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL.to_yaml())
    return tmp_path


# -- the command ---------------------------------------------------------------------------------------------


# A race needs every entry to be timed; its method is tested with the latency lab, so one format is raced by default.
@pytest.mark.parametrize(
    ("name", "race"),
    [
        ("torchscript", True),
        ("pt2", False),
        # After these two, a process that had run some 1,400 other tests ended without a word in the next export.
        pytest.param("onnx", False, marks=pytest.mark.slow),
        pytest.param("openvino", False, marks=pytest.mark.slow),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in FORMATS if name != "torchscript"),
    ],
)
def test_a_file_with_a_card_is_written(small: Path, capsys: pytest.CaptureFixture[str], name: str, race: bool) -> None:
    arguments = f"export small.yaml --format {name} --resolution 64x96 --dynamic batch --seed 3"
    assert run(f"{arguments} {'--threads 1 --max-seconds 0.5' if race else '--no-race'}") == 0
    folder = small / "results" / "export" / f"small.yaml-{name}"
    files = {FORMATS[name].file, *FORMATS[name].beside, "card.md", "card.json", "config.yaml"}
    assert {path.name for path in folder.iterdir()} == files
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    output = capsys.readouterr().out
    assert "random, another shape, 3×3×64×96: agrees" in output and "Wrote card.json, card.md" in output
    card = json.loads((folder / "card.json").read_text())
    network = open_network("small.yaml", seed=3)
    assert card["costs"]["params"] == sum(parameter.numel() for parameter in network.model.parameters())
    assert HRViTConfig.from_dict(card["config"]).id == SMALL.id
    assert (card["input_shape"], card["output_shapes"], card["free"]) == ([1, 3, 64, 96], [[1, 5]], ["batch"])
    assert (card["max_batch"], card["max_side_px"]) == (65_536, None)
    exact = name in ("pt2", "torchscript")  # other runtimes may turn NaN into numbers
    assert all(check["agrees"] for check in card["checks"] if exact or "NaN" not in check["images"])
    assert all(check["relative_error"] < 1e-4 for check in card["checks"])
    assert card["files"][FORMATS[name].file]["bytes"] == (folder / FORMATS[name].file).stat().st_size
    text = (folder / "card.md").read_text()
    assert f"| config | `config.yaml`, id `{SMALL.id}` |" in text
    assert "| images | float32, 1 × 3 × 64 × 96; up to 65,536 images |" in text
    assert f"# `small.yaml` as {name}" in text and torch.__version__ in text
    if race:
        assert card["latency"]["latency_ms"]["low"] <= card["latency"]["latency_ms"]["value"]
        assert card["latency"]["rounds"] >= 7 and "A/A control" in text and "interleaved rounds" in text
    else:
        assert card["latency"] is None and "The latency was not measured." in text
    assert str(Path(write.__file__).parent.parent.parent).encode() not in (folder / FORMATS[name].file).read_bytes()
    check_lines(folder, text, network.model)


def check_lines(folder: Path, card: str, model: nn.Module) -> None:
    """Run the card's code, with random images in place of zeros, and compare its output with the plain network's."""
    [code] = [part.partition("```")[0] for part in card.split("```python\n")[1:]]
    assert len([line for line in code.splitlines() if line and not line.startswith("import")]) == 3
    with seeded(3):
        randomize_norms(model)
    images = torch.randn(1, 3, 64, 96)
    before = os.getcwd()
    os.chdir(folder)
    try:
        found: dict[str, Any] = {"given": images}
        exec(code, found)
        assert tuple(found["output"].shape) == (1, 5)
        is_torch = isinstance(found["images"], Tensor)
        lines = code.splitlines()
        [place] = [index for index, line in enumerate(lines) if line.startswith("images = ")]
        lines[place] = "images = given" if is_torch else "images = given.numpy()"
        exec("\n".join(lines), found)
    finally:
        os.chdir(before)
    with torch.no_grad():
        expected = model.eval()(images).numpy()
    output = found["output"].detach().numpy() if is_torch else found["output"]
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(output, expected, atol=1e-4 * np.abs(expected).max())


def test_a_second_file_gets_another_folder_and_a_chosen_folder_must_be_new(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "export small.yaml --format torchscript --resolution 32 --no-race"
    assert run(line) == run(line) == 0
    first = small / "results" / "export" / "small.yaml-torchscript"
    assert {path.name for path in first.parent.iterdir()} == {first.name, f"{first.name}-2"}
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    capsys.readouterr()
    assert run(f"{line} --out {first}") == 2
    assert "which is never overwritten; choose a new folder with --out" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before


def test_the_card_of_a_trained_network_tells_its_images_and_classes(small: Path) -> None:
    assert run("export hrvit_nano.fashion_mnist --format torchscript --no-race --out made") == 0
    card, text = json.loads(Path("made/card.json").read_text()), Path("made/card.md").read_text()
    assert card["trained"] and card["resolution_px"] == [32, 32] and card["mean"] == [0.286] * 3
    assert card["class_names"][0] == "t-shirt" and "0…1, less mean 0.286, divided by 0.353" in text
    assert "weights hrvit_nano.fashion_mnist" in text
    config = preset("hrvit_nano.fashion_mnist")
    assert (card["preset"], card["changes"]["num_classes"], card["config_id"]) == ("hrvit_nano", 10, config.id)
    assert HRViTConfig.from_dict({"preset": "hrvit_nano", **card["changes"]}).id == config.id
    params = card["costs"]["params"]
    assert "| config | `hrvit_nano`, " in text and f"`num_classes = 10`, id `{config.id}` |" in text
    assert f"| parameters | {params:,} ({params * 4 / 2**20:.2f}\N{NO-BREAK SPACE}MiB in float32) |" in text


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_after_an_interruption_or_an_error_nothing_is_left(
    small: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        assert list(Path("results/export").glob(".export-*/model.pt"))
        raise stop

    monkeypatch.setattr(command, "race_file", stopped)
    line = "export small.yaml --format torchscript --resolution 32"
    if stop is KeyboardInterrupt:
        assert run(line) == 130
    else:
        with pytest.raises(RuntimeError):
            run(line)
    assert not Path("results").exists()


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    for name in ("made", "made-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "theirs").write_text("x")
    with unfinished(tmp_path) as folder:
        (folder / "ours").write_text("y")
        (tmp_path / "made-3").write_text("a file")
        assert finish(folder, tmp_path / "made") == tmp_path / "made-4"
    assert {path.name for path in tmp_path.iterdir()} == {"made", "made-2", "made-3", "made-4"}
    assert (tmp_path / "made" / "theirs").exists() and (tmp_path / "made-4" / "ours").exists()


def test_folders_that_were_there_or_are_not_empty_are_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for inside in ("", "a", "a/b"):
        with pytest.raises(ConfigError), unfinished(tmp_path / "mine" / inside):
            raise ConfigError("refused")
        assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(ConfigError), unfinished(tmp_path / "mine" / "a" / "b"):
        (tmp_path / "mine" / "a" / "theirs").write_text("x")
        raise ConfigError("refused")
    assert [path.name for path in (tmp_path / "mine" / "a").iterdir()] == ["theirs"]


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with unfinished(tmp_path) as folder:
        (folder / "ours").write_text("y")
        assert finish(folder, tmp_path / "made") == tmp_path / "made"
    assert (tmp_path / "made" / "ours").exists()


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    names = [f".export-{digit * 32}" for digit in "abc"]
    for name in [*names, ".export-mine"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt2").write_text("half")
    lock = try_lock(tmp_path / f"{names[1]}.lock")  # its process is alive
    assert lock is not None
    with unfinished(tmp_path) as folder:
        there = {path.name for path in tmp_path.iterdir() if path.is_dir()}
        assert there == {names[1], ".export-mine", folder.name}
        with unfinished(tmp_path):
            assert folder.is_dir()
    lock.release(unlink=True)
    with unfinished(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".export-mine"]


def test_a_race_that_fails_does_not_fail_the_export(
    small: Path, ceilings: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise OSError("the file vanished | `here`")

    monkeypatch.setattr(ExportedFile, "forward", refused)
    arguments = "export small.yaml --format torchscript --resolution 32 --max-seconds 0.1 --threads 1 --out made"
    assert run(arguments) == 0
    card = json.loads(Path("made/card.json").read_text())
    assert card["latency"]["latency_ms"] is None
    assert card["latency"]["reason"] == "OSError: the file vanished | `here`"
    assert "The latency was not measured: `OSError: the file vanished | 'here'`." in Path("made/card.md").read_text()


def test_the_command_line_names_every_format() -> None:
    assert tuple(cli.FORMATS) == tuple(FORMATS) and cli.FREE_AXES == FREE_AXES


# -- every format × network × free axes ----------------------------------------------------------------------

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "nano": lambda: build_measurable(named_config("hrvit_nano")),
    "b1": lambda: build_measurable(named_config("hrvit_b1")),
    "b1 segformer": lambda: build_measurable(named_config("hrvit_b1_segformer_ade20k")),
    "mit_b0": lambda: build_measurable(named_config("mit_b0")),
    "cswin_tiny": lambda: build_measurable(named_config("cswin_tiny")),
    "resnet18": lambda: build_measurable(named_config("timm:resnet18")),
}
QUICK = {("nano", "torchscript", ("batch",)), ("resnet18", "torchscript", ())}


@pytest.mark.parametrize(
    ("network", "name", "free"),
    [
        pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow, pytest.mark.timeout(3600)])
        for case in [(network, name, free) for network in NETWORKS for name in FORMATS for free in ((), ("batch",))]
    ],
)
def test_every_network_in_every_format(tmp_path: Path, network: str, name: str, free: tuple[str, ...]) -> None:
    model = NETWORKS[network]().eval()
    side = 32 if (network, name, free) in QUICK else 224
    request = Request(name, (side, side), 2, free)
    export_network(model, request, tmp_path, name=network)
    run = FORMATS[name].load(tmp_path / FORMATS[name].file, request)
    for batch in (1, 2, 5) if free else (2,):
        images = torch.randn(batch, 3, side, side)
        with torch.inference_mode():
            expected = model(images)
            [output] = run(images)
        assert output.shape == expected.shape and expected.abs().max() > 0.01
        assert (output - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(("name", "free"), [("pt2", ()), ("pt2", ("batch",)), ("torchscript", ())])
def test_a_file_has_the_operators_of_the_deployed_network(tmp_path: Path, name: str, free: tuple[str, ...]) -> None:
    """The attention of small windows is two products, others are fused."""
    served, request = deploy(build(with_one_block_a_branch(PRESETS["hrvit_nano"]))), Request(name, (64, 64), 2, free)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), RealOperators() as counted:
        served(images)
    path = tmp_path / FORMATS[name].file
    with quiet():
        FORMATS[name].write(served, request, path)
    if name == "pt2":
        nodes = [str(node.target) for node in torch.export.load(path).graph.nodes]
    else:
        nodes = [node.kind() for node in torch.jit.load(str(path)).inlined_graph.nodes()]
    wanted = counted.calls["aten.bmm.default"]
    assert wanted > 2
    assert sum(node in ("aten.bmm.default", "aten::bmm") for node in nodes) == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in FORMATS for dtype in FORMATS[name].dtypes if dtype != "float32"]
)
def test_every_number_format(tmp_path: Path, name: str, dtype: str) -> None:
    model = build_measurable(SMALL)
    images = torch.randn(4, 3, 64, 96) if dtype == "int8" else None
    exported = export_network(model, Request(name, (64, 96), 1, (), dtype, calibration=images), tmp_path)
    assert all(check.agrees for check in exported.checks if check.required)
    assert exported.checks[0].relative_error > {"bfloat16": 1e-3, "float16": 1e-5, "int8": 1e-4}[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FORMATS if "size" in FORMATS[name].free])
def test_a_free_size(tmp_path: Path, name: str) -> None:
    model = build_measurable(SMALL)
    assert side_step(model) == 16  # stride 8 × window 2
    exported = export_network(model, Request(name, (64, 96), 1, FREE_AXES, side_step=16), tmp_path)
    assert {check.shape for check in exported.checks} >= {(1, 3, 32, 48), (3, 3, 48, 32), (1, 3, 64, 96)}
    assert all(check.agrees for check in exported.checks if check.required)


def test_free_sides_are_multiples_of_what_the_windows_need() -> None:
    """By hand: strides 4, 8, 16, 32; windows 1, 2, 7, 7 in b1; spatial reductions 8, 4, 2, 1 in MiT."""
    assert PRESETS["hrvit_b1"].window_sizes == (1, 2, 7, 7)
    assert side_step(build(PRESETS["hrvit_b1"])) == 224
    assert side_step(build(PRESETS["mit_b0"])) == 32
    assert side_step(build(SMALL.replace(attention="global"))) == 8
    assert side_step(nn.Conv2d(3, 8, 1)) == 32


def test_the_limits_of_free_axes() -> None:
    free = Request("pt2", (64, 96), 65_535, FREE_AXES, side_step=24)
    assert (free.max_batch, free.max_side_px) == (65_536, 8184)  # 341 × 24
    assert {shape[0] for shape in free.other_shapes} == {1, 65_536}
    assert Request("pt2", free=("size",), side_step=4096).max_side_px == 4 * 4096
    assert (Request("pt2").max_batch, Request("pt2").max_side_px) == (None, None)


# -- the comparison ------------------------------------------------------------------------------------------


def test_a_wrong_file_is_not_kept(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that ignores the position of the pixels agrees on constant images only."""

    def shuffled(path: Path, request: Request) -> Callable[[Tensor], list[Tensor]]:
        return lambda images: [network(images.flip(3))]

    network = open_network("small.yaml").model.eval()
    with seeded(0):
        randomize_norms(network)
    row = FORMATS["torchscript"]
    monkeypatch.setitem(FORMATS, "torchscript", formats.Format(row.runtime, row.file, row.write, shuffled, row.lines))
    assert run("export small.yaml --format torchscript --resolution 32 --no-race") == 2
    error = capsys.readouterr().err
    assert "on images that are random (1×3×32×32), the relative error is" in error and error.count("\n") == 1
    assert not (small / "results").exists()


@pytest.mark.parametrize(("factor", "code"), [(1.4, 0), (1.6, 2)])
def test_a_wrong_int8_file_is_not_kept(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], factor: float, code: int
) -> None:
    """Outputs on images from calibration decide; on others, with larger values, they are wrong here."""
    (small / "images").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(small / "images" / f"{index}.png")
    network = open_network("small.yaml").model.eval()
    with seeded(0):
        randomize_norms(network)

    def load(path: Path, request: Request) -> Callable[[Tensor], list[Tensor]]:
        seen = request.calibration
        assert seen is not None and seen.shape == (3, 3, 32, 32)
        return lambda images: [(factor if images.abs().max() <= seen.abs().max() else -1) * network(images)]

    def write(served: nn.Module, request: Request, path: Path) -> None:
        path.write_bytes(b"a graph")

    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=write, load=load))
    line = "export small.yaml --format onnx --dtype int8 --data images --resolution 32 --no-race --out made"
    assert run(line) == code
    if code:
        error = capsys.readouterr().err
        assert "on images that are from calibration (1×3×32×32), the relative error is 0.6" in error
        assert not Path("made").exists()
    else:
        checks = json.loads(Path("made/card.json").read_text())["checks"]
        assert checks[0]["relative_error"] == pytest.approx(0.4) and checks[0]["agrees"]
        large = next(check for check in checks if check["images"] == "±10,000")
        assert large["relative_error"] == pytest.approx(2) and not large["agrees"]


def test_differences_by_hand() -> None:
    nan = float("nan")
    a, b = torch.tensor([3.0, 5.0, nan]), torch.tensor([3.0, 4.0, nan])
    error, same_nan = difference([a], [b])
    assert error == pytest.approx(0.2) and same_nan
    assert difference([torch.tensor([3.0, 4.0, 1.0])], [b]) == (0.0, False)
    assert difference([torch.tensor([3.0, nan, nan])], [b]) == (float("inf"), False)
    assert difference([a[:2]], [b]) == (float("inf"), False)
    assert difference([torch.tensor([nan])], [torch.tensor([nan])]) == (0.0, True)


def test_images_that_are_compared() -> None:
    seen: list[Tensor] = []

    def run(images: Tensor) -> list[Tensor]:
        seen.append(images)
        return [images.mean((1, 2, 3))]

    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 2, 3))

    checks = compare(Mean(), run, Request("pt2", (4, 6), 2, ("batch",)))
    assert [tuple(images.shape) for images in seen] == [(2, 3, 4, 6), (1, 3, 4, 6), (4, 3, 4, 6), *[(2, 3, 4, 6)] * 4]
    assert [float(images.abs().max()) for images in seen[3:6]] == [0.0, 1.0, 1e4]
    assert int(seen[6].isnan().sum()) == 1 and all(check.agrees for check in checks)
    assert [check.required for check in checks] == [True] * 6 + [False]


def test_int8_is_compared_on_images_from_calibration() -> None:
    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 2, 3))

    seen: list[Tensor] = []

    def run(images: Tensor) -> list[Tensor]:
        seen.append(images)
        return [images.mean((1, 2, 3))]

    calibration = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 3, 4, 6)
    request = Request("onnx", (4, 6), 2, ("batch", "size"), "int8", side_step=2, calibration=calibration)
    checks = compare(Mean(), run, request)
    shapes = [request.shape, *request.other_shapes]
    assert [check.shape for check in checks if check.required] == shapes and (4, 3, 6, 4) in shapes
    for images, shape in zip(seen, shapes, strict=False):
        torch.testing.assert_close(images, torch.tensor([0.0, 1, 2, 0])[: shape[0], None, None, None].expand(shape))


def test_required_checks_decide() -> None:
    bad = Check("random", (1, 3, 4, 4), 0.5, 1e-4, True, True)
    shown_only = Check("random with one NaN", (1, 3, 4, 4), 0.0, 1e-4, False, False)
    check_agreement((shown_only,), "x", Request("pt2"))
    with pytest.raises(ConfigError, match=r"above the tolerance of 0\.0001, so no file is left"):
        check_agreement((shown_only, bad), "x", Request("pt2"))


# -- int8 ----------------------------------------------------------------------------------------------------


def test_int8_against_rounding_by_hand(tmp_path: Path) -> None:
    """A linear of pixels. Weights are rounded to 127 steps of their largest absolute value, inputs and outputs to a
    255th of the range of a batch, whose ends are means over batches."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 1, bias=False).eval().requires_grad_(False)
    images = torch.rand(8, 3, 4, 4) * 3 - 1
    images[:2] *= 1.2
    request = Request("onnx", (4, 4), 2, dtype="int8", calibration=images)
    path = tmp_path / "model.onnx"
    onnx_graph.write(layer, request, path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    x, w = images.numpy(), layer.weight.numpy().reshape(4, 3)

    def signed(values: np.ndarray, most: Any) -> np.ndarray:
        return np.asarray(np.clip(np.round(values / (most / 127)), -127, 127) * (most / 127))

    def span(values: np.ndarray) -> tuple[float, float]:
        pairs = values.reshape(4, -1)  # batches of two images
        return float(pairs.min(1).mean()), float(pairs.max(1).mean())

    def spread(values: np.ndarray) -> np.ndarray:
        low, high = span(values)
        step = (high - low) / 255
        zero = np.round(-low / step)
        return np.asarray((np.clip(np.round(values / step) + zero, 0, 255) - zero) * step)

    low, high = span(layer(images).numpy())
    step = (high - low) / 255  # of the outputs, which are rounded and clipped, too
    wanted = np.einsum("oc,nchw->nohw", signed(w, np.abs(w).max(1, keepdims=True)), spread(x)).clip(low, high)
    load = FORMATS["onnx"].load(path, request)
    found = np.concatenate([load(pair)[0].numpy() for pair in images.split(2)])
    assert np.abs(found - wanted).max() < 1.01 * step
    assert np.abs(found - np.einsum("oc,nchw->nohw", w, x)).max() > 0.1 * step
    phases: list[str] = []
    exported = export_network(layer, request, tmp_path, begins=phases.append)
    assert phases == [
        "calibrating and writing model.onnx", "loading it by ONNX Runtime", "comparing it with the network"
    ]  # fmt: skip
    assert all(check.tolerance == 0.5 for check in exported.checks)
    assert [check.images for check in exported.checks if check.required] == ["from calibration"]


def onnx_file(path: Path, *, loop: bool = False) -> Path:
    """A graph of two additions of equal constants, with metadata and shapes; with ``loop``, in a branch."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper

    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])

    constants = [
        helper.make_tensor(f"constant_{i}", onnx.TensorProto.FLOAT, [2], values)
        for i, values in enumerate(([1.0, 2.0], [1.0, 2.0], [3.0, 4.0]))
    ]
    nodes = [
        helper.make_node("Add", ["images", "constant_0"], ["between"], name="first", doc_string="text"),
        helper.make_node("Mul", ["between", "constant_1"], ["scaled"], name="second"),
        helper.make_node("Clip", ["scaled", "", ""], ["clipped"], name="third"),
        helper.make_node("Add", ["clipped", "constant_2"], ["output"], name="fourth"),
    ]
    nodes[0].metadata_props.add(key="traced from", value="x" * 5000)
    if loop:
        inner = helper.make_graph([helper.make_node("Neg", ["output"], ["negated"])], "then", [], [value("negated")])
        condition = helper.make_tensor("condition", onnx.TensorProto.BOOL, [], [True])
        constants.append(condition)
        nodes.append(helper.make_node("If", ["condition"], ["last"], then_branch=inner, else_branch=inner))
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("images")],
        [value("last" if loop else "output")],
        constants,
        value_info=[value("between")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.parametrize("loop", [False, True])
def test_a_slim_file_computes_the_same(tmp_path: Path, loop: bool) -> None:
    onnx = pytest.importorskip("onnx")
    path = onnx_file(tmp_path / "a.onnx", loop=loop)
    before = path.stat().st_size
    slim(path)
    slim(path)
    graph = onnx.load(path).graph
    assert path.stat().st_size < before - 5000 and not graph.value_info
    assert not any(place.metadata_props or place.doc_string for place in (*graph.node, graph))
    assert len(graph.initializer) == (4 if loop else 2)
    assert [value.name for value in (*graph.input, *graph.output)] == ["images", "last" if loop else "output"]
    assert graph.node[2].input[1:] == ["", ""]
    [output] = FORMATS["onnx"].load(path, Request("onnx"))(torch.tensor([5.0, 6.0]))
    assert output.tolist() == [(-1 if loop else 1) * (5 + 1 + 3), (-1 if loop else 1) * ((6 + 2) * 2 + 4)]


def test_calibration_needs_a_batch(tmp_path: Path) -> None:
    request = Request("onnx", (4, 4), 3, dtype="int8", calibration=torch.rand(2, 3, 4, 4))
    with pytest.raises(ConfigError, match="calibration needs at least one batch of 3 images, but --data has 2"):
        export_network(nn.Conv2d(3, 4, 1), request, tmp_path)


def test_accuracy_by_hand() -> None:
    """Four images, two classes: three are right before, two after; intersections divided by unions by hand."""
    truth, before, after = [0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 1, 0]
    was, now = (
        np.stack([class_counts(np.array([a]), np.array([b]), 2) for a, b in zip(truth, guesses, strict=True)])
        for guesses in (before, after)
    )
    top1 = compare_accuracy(was, now, "top1")
    assert (top1.before, top1.after, top1.images) == (75.0, 50.0, 4)
    assert top1.change_low <= -25.0 <= top1.change_high <= 0.0
    miou = compare_accuracy(was, now, "miou")
    assert miou.before == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert miou.after == pytest.approx(100 * (1 / 3 + 1 / 3) / 2)
    same = compare_accuracy(was, was, "top1")
    assert (same.change_low, same.change_high) == (0.0, 0.0)


def test_the_interval_covers_a_known_change() -> None:
    """Of 400 images, 20 are lost and 8 are won; the standard error of the difference is √28 / 400."""
    right, wrong = class_counts(np.array([0]), np.array([0]), 2), class_counts(np.array([0]), np.array([1]), 2)
    was = np.stack([right] * 300 + [wrong] * 100)
    now = np.stack([wrong] * 20 + [right] * 280 + [right] * 8 + [wrong] * 92)
    found = compare_accuracy(was, now, "top1")
    half = 1.96 * 100 * 28**0.5 / 400
    assert found.after - found.before == pytest.approx(-3.0)
    assert found.change_low == pytest.approx(-3.0 - half, abs=0.4)
    assert found.change_high == pytest.approx(-3.0 + half, abs=0.4)
    assert "75.00 % before and 72.00 % after, a change of -3.00 points" in found.sentence
    lost = replace(found, change_high=-0.51)
    assert not lost.within and lost.sentence.endswith("The loss is more than 0.5 points.")
    assert replace(found, change_high=-0.5).within
    few = compare_accuracy(np.stack([right] * 50), np.stack([right] * 49 + [wrong]), "top1")  # 1 of 50: by chance
    assert few.after == 98.0 and few.within and "The loss" not in few.sentence


def test_the_counts_of_many_classes_are_small() -> None:
    """With a thousand classes, as in ImageNet, 2,000 images must fit into memory."""
    counts = class_counts(np.array([3]), np.array([7]), 1000)
    assert counts.nbytes <= 3 * 1000 * 8
    assert [np.flatnonzero(row).tolist() for row in counts] == [[], [3], [7]]


@pytest.mark.parametrize("name", ["hrvit_micro.fashion_mnist", "hrvit_nano.fashion_mnist", "hrvit_nano"])
@pytest.mark.parametrize("side", [32, 64])
def test_images_are_made_at_the_size_of_the_request(name: str, side: int) -> None:
    """Not at the size of the recipe's own network, and enlarged afterwards: that blurs them."""
    network = NamedNetwork(name, nn.Identity(), "", trained=True)
    recipe = recipe_for("fashion_mnist", network, Request("onnx", (side, side + 4), dtype="int8"))
    assert recipe.task == "classification"
    assert recipe.data.resolution_px == recipe.evaluation.resolution_px == (side, side + 4)
    image, _ = make_transforms(recipe)[1](Image.new("L", (28, 28)), 0)
    assert image.shape == (3, side, side + 4)
    scenes = recipe_for("composites", network, Request("onnx", (side, side), dtype="int8"))
    assert scenes.data.resolution_px == load_recipe("composites").data.resolution_px


class Five:
    """Five images, the numbers 0 to 4; those above 2 are light."""

    class_names = ("dark", "light")
    task = "classification"

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return float(index), int(index > 2)

    def name(self, index: int) -> str:
        return str(index)


def test_images_that_do_not_fit_are_refused_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def images() -> Iterator[Tensor]:
        for value in read:
            yield torch.full((3, 4, 6), value)

    read = iter([0.0, 1.0])
    request = Request("onnx", (4, 6), dtype="int8")
    monkeypatch.setattr(data_command, "MAX_IMAGE_BYTES", 2 * 3 * 4 * 6 * 4 - 1)
    with pytest.raises(ConfigError, match=r"2 images of 4×6 take 0 MiB, more than 0 MiB; use fewer with --some, or a"):
        in_memory(images(), 2, request, "--some")
    monkeypatch.setattr(data_command, "MAX_IMAGE_BYTES", 2 * 3 * 4 * 6 * 4)
    assert in_memory(images(), 2, request, "--some").mean((1, 2, 3)).tolist() == [0.0, 1.0]


def test_the_last_batch_is_filled_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images in batches of two; the file is wrong on one of them."""

    def transform(value: Any, target: Any) -> tuple[Tensor, Any]:
        return torch.full((3, 4, 4), value), target

    sizes: dict[str, list[int]] = {"plain": [], "file": []}

    def plain(images: Tensor, who: str = "plain") -> Tensor:
        sizes[who].append(len(images))
        value = images.mean((1, 2, 3))
        return torch.stack([2.5 - value, value - 2.5], 1)

    outputs = torch.empty(2, 2)

    def file(images: Tensor) -> list[Tensor]:
        return [outputs.copy_(plain(images - 1, "file"))]  # overwritten by the next call, as by OpenVINO

    samples: Any = Five()
    tests = ImagesWithLabels(samples, (4, 0, 3, 1, 2), transform, "top1")
    seen: list[int] = []
    monkeypatch.setattr(data_command, "IMAGES_AT_ONCE", 4)
    for at_once in (64, 1, 100 * 16):  # pixels: two of the file's batches, one, two by the other limit
        monkeypatch.setattr(data_command, "PIXELS_AT_ONCE", at_once)
        found = measure_accuracy(plain, file, tests, Request("onnx", (4, 4), 2), 0, seen.append)
        assert (found.before, found.after, found.images) == (100.0, 80.0, 5)
    assert sizes == {"plain": [4, 2, 2, 2, 2, 4, 2], "file": [2] * 9} and seen == [4, 1, 2, 2, 1, 4, 1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name for name in FORMATS if "int8" in FORMATS[name].dtypes])
def test_int8_calibrated_on_a_folder(small: Path, ceilings: None, name: str) -> None:
    (small / "images" / "more").mkdir(parents=True)
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (50, 60, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(small / "images" / "more" / f"{index}.png")
    line = f"export small.yaml --format {name} --resolution 32 --dtype int8 --data images --max-seconds 0.1 --threads 1"
    assert run(f"{line} --out made --batch-size 2") == 0
    card, text = json.loads(Path("made/card.json").read_text()), Path("made/card.md").read_text()
    assert (card["dtype"], card["calibration_images"], card["accuracy"]) == ("int8", 6, None)
    assert "Calibrated on 6 images. Not measured: the images have no labels." in text
    assert 1e-4 < card["checks"][0]["relative_error"] < 0.5 and card["latency"]["latency_ms"]["value"] > 0
    files = {FORMATS[name].file, *FORMATS[name].beside, "card.md", "card.json", "config.yaml"}
    assert {path.name for path in Path("made").iterdir()} == files


# -- requests that are refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("small.yaml --format tflite", "unknown format 'tflite'; use one of onnx, openvino, pt2, torchscript"),
        ("small.yaml --format onxx", "unknown format 'onxx'; did you mean 'onnx'?"),
        ("small.yaml", "the following arguments are required: --format"),
        ("small.yaml --format pt2 --dtype fp8", "unknown number format 'fp8'"),
        (
            "small.yaml --format onnx --dtype bf16",
            "format onnx does not support bfloat16; use --dtype float32 or float16",
        ),
        ("small.yaml --format pt2 --resolution 7", "resolution = 7×7 is too small: the coarsest of 2 branches"),
        ("small.yaml --format pt2 --resolution 0", "'0' is not a size"),
        ("small.yaml --format pt2 --batch-size 0", "'0' is invalid; give a whole number from 1 to 65536"),
        ("small.yaml --format pt2 --dynamic colour", "unknown axis 'colour'; use one of batch, size"),
        (
            "small.yaml --format torchscript --dynamic size",
            "format torchscript has no free size; remove size from --dynamic",
        ),
        (
            "small.yaml --format pt2 --dynamic size --resolution 40",
            "with a free size, the sides of images of small.yaml are multiples of 16 pixels",
        ),
        (
            "small.yaml --format pt2 --dynamic size --resolution 8208x16",
            "with a free size, sides have at most 8192 pixels, but --resolution is 8208×16; use a smaller one, or",
        ),
        ("timm:vit_tiny_patch16_224 --format pt2 --dynamic size", "cannot be exported to pt2 with a free size"),
        ("small.yamll --format pt2", "model 'small.yamll' is unknown"),
        ("absent.yaml --format pt2", "absent.yaml"),
        ("timm:resnet1 --format pt2", "timm has no such model; did you mean 'resnet1"),
        ("small.yaml --format pt2 --out small.yaml", "small.yaml is a file; choose a new folder with --out"),
        ("small.yaml --format pt2 --out .", "already contains"),
        ("small.yaml --format pt2 --out small.yaml/made", "small.yaml"),
        ("small.yaml --format pt2 --max-seconds 0", "'0' is invalid"),
        ("small.yaml --format torchscript --dtype int8", "format torchscript does not support int8"),
        ("small.yaml --format onnx --dtype int8", "int8 needs images for calibration; give a recipe or a folder"),
        ("small.yaml --format onnx --data .", "--data calibrates int8, but --dtype is float32; remove --data"),
        ("small.yaml --format onnx --dtype int8 --data .", "contains no images (.png, .jpg"),
        ("small.yaml --format torchscript --dtype int8 --data .", "format torchscript does not support int8"),
        ("small.yaml --format onnx --dtype int8 --data . --resolution 7", "resolution = 7×7 is too small"),
        ("small.yaml --format onnx --dtype int8 --data absent", "absent"),
        (
            "small.yaml --format pt2 --calibration-images 5",
            "--calibration-images is a number of images of --data, which",
        ),
        (
            "small.yaml --format pt2 --test-images 5",
            "--test-images is a number of images of --data, which is not given",
        ),
        ("small.yaml --format onnx --dtype int8 --data . --test-images 5", "--test-images is for images with labels"),
        (
            "small.yaml --format pt2 --no-race --threads 1",
            "--threads is for the race, but --no-race is given; remove one",
        ),
        ("small.yaml --format pt2 --no-race --max-seconds 1", "--max-seconds is for the race, but --no-race is given"),
    ],
)
def test_invalid_requests_are_one_sentence(
    small: Path, capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    assert main(["export", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("error: ") and error.count("\n") == 1, error
    assert not list(small.glob("results/export/*"))


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].packages])
def test_a_format_without_its_package(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    package = FORMATS[name].packages[0]
    real = importlib.util.find_spec
    monkeypatch.setattr(formats, "find_spec", lambda wanted: None if wanted == package else real(wanted))
    assert main(["export", "small.yaml", "--format", name]) == 2
    assert capsys.readouterr().err == f"error: format {name} needs {package}; run: pip install {package}\n"


@pytest.mark.parametrize(("name", "package"), [("openvino", "nncf"), ("pt2", "torchao")])
def test_int8_without_the_package_that_quantizes(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, package: str
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda wanted: None if wanted == package else object())
    assert main(["export", "small.yaml", "--format", name, "--dtype", "int8", "--data", "."]) == 2
    assert capsys.readouterr().err == f"error: format {name} in int8 needs {package}; run: pip install {package}\n"


def test_a_full_disk(small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = shutil.disk_usage(small)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=1000))
    assert run("export small.yaml --format torchscript --resolution 32 --no-race") == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error and "choose another folder" in error and error.count("\n") == 1
    assert not (small / "results").exists()


@pytest.mark.parametrize(
    "raised", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed")]
)
def test_a_disk_that_fills_while_the_file_is_written(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: Exception
) -> None:
    """Exporters raise their own errors; the free space then tells the reason."""
    real = shutil.disk_usage(small)

    def fails(*_: object) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=1000))
        raise raised

    row = FORMATS["torchscript"]
    monkeypatch.setitem(FORMATS, "torchscript", formats.Format(row.runtime, row.file, fails, row.load, row.lines))
    assert run("export small.yaml --format torchscript --resolution 32 --no-race") == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error and error.count("\n") == 1
    assert not (small / "results").exists()


@pytest.mark.parametrize(("place", "shown"), [(None, "deep"), ("model.pt", "deep"), ("/elsewhere/a", "/elsewhere/a")])
def test_an_error_of_the_system_names_a_folder_that_exists(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str | None, shown: str
) -> None:
    """Not the unfinished folder, which is hidden and removed."""

    def fails(served: nn.Module, request: Request, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", None if place is None else str(path.parent / place))

    monkeypatch.setitem(FORMATS, "torchscript", replace(FORMATS["torchscript"], write=fails))
    assert run("export small.yaml --format torchscript --resolution 32 --no-race --out deep/made") == 2
    assert capsys.readouterr().err == (
        f"error: {shown}: No space left on device; free some space there, or choose another folder\n"
    )


def test_copies_for_calibration_are_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the system's temporary folder; and four times the weights fit on the disk before."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    before = tempfile.gettempdir()
    seen: list[Path] = []

    def stopped(*_: object, **__: object) -> None:
        seen.append(Path(tempfile.gettempdir()))
        raise RuntimeError("stopped")

    monkeypatch.setattr(quantization, "quantize_static", stopped)
    with pytest.raises(RuntimeError, match="stopped"):
        quantize(tmp_path / "a.onnx", tmp_path / "b.onnx", "images", torch.zeros(1, 3, 4, 4), 1)
    assert seen == [tmp_path] and tempfile.gettempdir() == before
    layer, request = nn.Linear(1000, 1000), Request("onnx", dtype="int8", calibration=torch.zeros(1, 3, 224, 224))
    needed = 4 * 4 * (1000 * 1000 + 1000) + SPARE_BYTES
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=needed - 1))
    with pytest.raises(OSError, match="No space left"):
        export_network(layer, request, tmp_path)


def test_an_error_of_a_library_that_is_no_error_of_the_system(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Libraries raise OSError without an error number, too."""

    def fails(*_: object) -> None:
        raise OSError("no such operator")

    row = FORMATS["torchscript"]
    monkeypatch.setitem(FORMATS, "torchscript", formats.Format(row.runtime, row.file, fails, row.load, row.lines))
    assert run("export small.yaml --format torchscript --resolution 32 --no-race") == 2
    error = capsys.readouterr().err
    assert "small.yaml cannot be exported to torchscript at 32×32 in float32 (OSError: no such operator)" in error


def test_a_folder_that_cannot_be_created_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Path.mkdir

    def mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name.startswith(".export"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(PermissionError) as caught, unfinished(tmp_path / "out"):
        pass
    assert caught.value.filename == str(tmp_path / "out")


def test_python_requests_are_checked_too() -> None:
    model = build(SMALL)
    for request, sentence in [
        (Request("odd"), "format 'odd' is unknown"),
        (Request("pt2", dtype="int4"), "format pt2 does not support int4"),
        (Request("pt2", batch_size=0), "batch_size is 0; use at least 1"),
        (Request("pt2", free=("depth",)), "axis 'depth' is unknown; use batch or size"),
        (Request("pt2", batch_size=65_537, free=("batch",)), "there are at most 65536 images, but batch_size is 65537"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            check_request(request, model, "small")
