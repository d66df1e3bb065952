"""The command: files contain the functions' results, figures show the required remarks, bad input is one sentence."""

import json
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_attention import tiny, woken

from hrvit_lab import __main__ as root
from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.attention import block_attention
from hrvit_lab.insight.segments import segments
from hrvit_lab.insight.similarity import similarity
from hrvit_lab.insight.views_command import VIEWS
from hrvit_lab.insight.what import WHAT
from hrvit_lab.network.build import build
from hrvit_lab.network.named import IMAGENET, open_network
from hrvit_lab.plots import images, insight
from hrvit_lab.train.transforms.normalise import Normalise

REMARK = "Random weights: nothing here was learned."
SILENT = "The BatchNorm after attention is zero, as at initialisation"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an image, a mask, and the YAML file of a small segmenter."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (45, 67, 3), dtype=np.uint8)).save("image.png")
    Image.fromarray(rng.integers(0, 5, (45, 67), dtype=np.uint8)).save("mask.png")
    config = tiny("cross_shaped", head="segformer")
    Path("small.yaml").write_text(config.to_yaml(), encoding="utf-8")
    return tmp_path


def test_every_name_has_a_view() -> None:
    assert list(VIEWS) == list(WHAT)


def test_the_command_writes_figures_and_the_arrays_of_the_functions(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = f"insight {folder}/small.yaml image.png --out out --resolution 64 --pixel 9,50 --truth mask.png"
    assert root.main(arguments.split()) == 0
    printed = capsys.readouterr().out
    assert REMARK in printed and SILENT in printed and "not shown" not in printed
    stems = {"attention_heads", "branch_rollout", *WHAT}
    expected = {f"{stem}.{ending}" for stem in stems for ending in ("png", "svg")} | {f"{name}.npz" for name in WHAT}
    assert {path.name for path in Path("out").iterdir()} == expected | {"about.json"}
    for stem in stems:
        text = " ".join(re.findall(r">([^<>]+)</text>", Path(f"out/{stem}.svg").read_text(encoding="utf-8")))
        assert "small.yaml, 64×64" in text and REMARK in text and SILENT in text, stem
        with Image.open(f"out/{stem}.png") as picture:
            assert picture.width == 1480
    about = json.loads(Path("out/about.json").read_text())
    assert about["pixel"] == [9, 50] and about["trained"] is False and about["resolution_px"] == [64, 64]
    # The same arrays from the functions.
    network = open_network("small.yaml")
    assert network.name == open_network(str(folder / "small.yaml")).name == "small.yaml"
    with Image.open("image.png") as image:
        fitted = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC, (11, 0, 56, 45)))
    x_1CHW = Normalise(*IMAGENET)(fitted)[None]
    arrays = np.load("out/attention.npz")
    found = block_attention(network.model, x_1CHW)
    assert set(arrays) == {one.place.name for one in found}
    for one in found:
        side = 4 * 2**one.place.branch
        np.testing.assert_allclose(arrays[one.place.name], one.of_token((9 // side, 50 // side)), atol=1e-5)
    answer, kept = segments(network.model, x_1CHW), np.load("out/segments.npz")
    np.testing.assert_array_equal(kept["prediction"], answer.prediction)
    with Image.open("mask.png") as mask:
        truth = np.asarray(mask.resize((64, 64), Image.Resampling.NEAREST, (11, 0, 56, 45)))
    np.testing.assert_array_equal(kept["wrong"], answer.prediction != truth)
    assert f"Wrong: {100 * kept['wrong'].mean():.1f} % of the pixels" in printed


def test_two_networks_are_compared_by_similarity(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each reads the image with its own normalisation; the figure and its remarks name both."""
    model = woken(build(tiny("window")))
    Path("run").mkdir()
    Path("run/config.yaml").write_text(tiny("window").to_yaml())
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, "run/model.safetensors")
    data = {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "resolution": [32, 32]}
    Path("run/result.json").write_text(json.dumps({"data": data}))
    arguments = "insight small.yaml image.png --beside run --what similarity --resolution 64 --out out"
    assert root.main(arguments.split()) == 0
    assert "maps, and 2 of run, at 8 × 8 positions" in capsys.readouterr().out
    with Image.open("image.png") as image:
        fitted = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC, (11, 0, 56, 45)))
    first, second = open_network("small.yaml"), open_network("run")
    x, y = (Normalise(one.mean, one.std)(fitted)[None] for one in (first, second))
    expected = similarity([(x, y)], first.model, second.model)
    with np.load("out/similarity.npz") as arrays:
        np.testing.assert_allclose(arrays["cka"], expected.cka, atol=1e-6)
        assert tuple(arrays["maps"]) == expected.rows and tuple(arrays["maps_beside"]) == expected.columns
    text = " ".join(re.findall(r">([^<>]+)</text>", Path("out/similarity.svg").read_text(encoding="utf-8")))
    assert "small.yaml, 64×64, and run" in text and "small.yaml: " + REMARK in text and "run: Weights model" in text
    assert json.loads(Path("out/about.json").read_text())["beside"] == "run"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", ["--seed 1", "--pixel 1,1", "--resolution 96", "--block stages.0.branches.0.0"])
def test_views_of_other_settings_are_never_replaced(
    folder: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """Views of the same settings are added; without --out, each call has a new folder."""
    arguments = ["insight", "small.yaml", "image.png", "--resolution", "64", "--what", "statistics"]
    assert root.main([*arguments, "--out", "out"]) == 0
    before = contents(Path("out"))
    capsys.readouterr()
    views = ["--what", "statistics,attention"]
    assert root.main([*arguments, *views, *change.split(), "--out", "out"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "never overwritten; choose another folder with --out" in line and change[2:].split()[0] in line
    assert contents(Path("out")) == before
    assert root.main([*arguments, "--what", "similarity", "--out", "out"]) == 0
    assert {path.name for path in before} | {"similarity.npz"} <= {path.name for path in Path("out").iterdir()}
    for _ in range(2):
        assert root.main(arguments) == 0
    assert [path.name for path in sorted(Path("results/insight").iterdir())] == [
        "small.yaml-image", "small.yaml-image-2",
    ]  # fmt: skip


def test_trained_weights_are_named_and_never_called_random(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        root.main(
            ["insight", "hrvit_nano.fashion_mnist", "image.png", "--what", "evidence", "--class", "9", "--out", "out"]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "hrvit_nano.fashion_mnist, 32×32" in printed and "evidence for ankle boot (class 9)" in printed
    assert "Weights hrvit_nano.fashion_mnist, trained at 32×32." in printed and "Random" not in printed
    assert "Random" not in Path("out/evidence.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["run", "run/model.safetensors"])
def test_the_folder_of_a_training_is_opened_with_its_weights(folder: Path, name: str) -> None:
    model = woken(build(tiny("window")))
    Path("run").mkdir()
    Path("run/config.yaml").write_text(tiny("window").to_yaml())
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, "run/model.safetensors")
    data = {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "resolution": [32, 48], "class_names": ["a", "b\x1b[31m"]}
    Path("run/result.json").write_text(json.dumps({"data": data}))
    network = open_network(name)
    assert network.trained and not network.model.training and "model.safetensors" in network.weights
    assert (network.mean, network.std) == ((0.1, 0.2, 0.3), (1, 2, 3)) and network.resolution_px == (32, 48)
    assert network.class_names == ("a", r"b\x1b[31m")
    for key, tensor in network.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key])
    # A recipe, which the training engine writes, takes precedence.
    Path("run/recipe.yaml").write_text("data: {mean: [0.5, 0.5, 0.5], std: [1, 1, 1], resolution_px: [64, 64]}")
    assert open_network(name).mean == (0.5, 0.5, 0.5) and open_network(name).resolution_px == (64, 64)


def test_random_weights_depend_only_on_the_seed(folder: Path) -> None:
    a, b, c = (open_network("small.yaml", seed=seed).model.state_dict()["stem.conv1.weight"] for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_timm_model_has_the_views_that_it_supports(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        root.main(
            ["insight", "timm:test_resnet", "image.png", "--resolution", "64", "--what", "similarity", "--out", "out"]
        )
        == 0
    )
    assert REMARK in capsys.readouterr().out and np.load("out/similarity.npz")["cka"].shape == (5, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("small.yaml image.png --what atention", "--what: unknown view 'atention'; did you mean 'attention'?"),
        ("small.yaml image.png --what attention --block stages.0.branches.0.9", "did you mean 'stages.0.branches.0."),
        ("small.yaml image.png --block stages.9", "attention: unknown block 'stages.9'; use one of"),
        ("small.yaml image.png --what features --class 3", "--what leaves out evidence, but an option of evidence"),
        ("small.yaml image.png --what features --beside small.yaml", "--what leaves out similarity, but an option of"),
        ("small.yaml image.png --beside hrvit_nanno", "is unknown; did you mean 'hrvit_nano'"),
        ("small.yaml image.png --what similarity --resolution 8 --beside small.yaml", "CKA needs at least 4"),
        ("small.yaml image.png --pixel 64,0", "pixel 64,0 is outside of the image, which has 64 rows"),
        ("small.yaml image.png --pixel nine", "--pixel: 'nine' is not a pixel; write ROW,COLUMN"),
        ("small.yaml missing.png", "missing.png cannot be decoded (No such file or directory)"),
        ("small.yaml broken.png", "broken.png cannot be decoded"),
        ("small.yaml photo:nobody", "the photograph nobody.png of scikit-image is missing"),
        ("small.yaml image.png --what evidence --class 5", "evidence: class 5 does not exist; the network has classes"),
        ("small.yaml image.png --what segments --truth image.png", "image.png has pixels of mode RGB; a mask has"),
        ("small.yaml image.png --what segments --truth odd.png", "odd.png has class 9, but the network has classes"),
        ("small.yaml image.png --what segments --truth tiny.png", "tiny.png has size 2×3, but the image 45×67; give"),
        ("small.yaml image.png --out image.png/out", "Not a directory"),
        ("small.yaml image.png --out image.png", "File exists"),
        ("plain.yaml image.png --what attention", "the network has no attention map: identity mixes no tokens"),
        ("hrvit_nanno image.png", "is unknown; did you mean 'hrvit_nano'"),
        (". image.png", "contains no best.safetensors, last.safetensors, model.safetensors"),
        ("lonely.safetensors image.png", "lonely.safetensors has no config.yaml beside it"),
        ("timm:test_resnet image.png --what attention", "ResNet shows no attention"),
        ("timm:test_resnet image.png --what contributions", "ResNet has no blocks of an HRViT"),
        ("timm:test_vit image.png --what features --resolution 150", "features: the network can't be run with an"),
        ("small.yaml image.png --what receptive_field --resolution 4", "resolution = 4×4 is too small"),
        ("small.yaml image.png --resolution 9000", "use at most 2048 pixels a side"),
    ],
)  # fmt: skip
def test_bad_input_is_reported_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    Image.fromarray(np.full((45, 67), 9, np.uint8)).save("odd.png")
    Image.fromarray(np.zeros((2, 3), np.uint8)).save("tiny.png")
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Path("plain.yaml").write_text(tiny("identity").to_yaml())
    save_file({"a": torch.zeros(1)}, "lonely.safetensors")
    size = [] if "--resolution" in arguments else ["--resolution", "64"]
    out = [] if "--out" in arguments else ["--out", "out"]
    assert root.main(["insight", *arguments.split(), *size, *out]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and "Traceback" not in printed.err
    assert not list(Path().glob("out/*.png"))


def test_earlier_views_are_kept_when_a_later_one_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plain.yaml").write_text(tiny("identity").to_yaml())
    arguments = "insight plain.yaml image.png --resolution 64 --what similarity,attention --out out"
    assert root.main(arguments.split()) == 2
    assert Path("out/similarity.npz").is_file() and not Path("out/attention.npz").exists()
    assert capsys.readouterr().err.startswith("error: attention: the network has no attention map")


def test_the_python_code_on_the_docs_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parent.parent / "docs" / "insight.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(code, "insight.md", "exec"), {})
    assert "stage 5, branch 3, block 0 (8, 64, 96)" in capsys.readouterr().out


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_the_attention_map_is_drawn_at_its_position_with_the_token_marked() -> None:
    image = np.full((20, 30, 3), 128, dtype=np.uint8)
    map_HW = np.zeros((20, 30))
    map_HW[4:8, 12:16] = 0.25
    map_HW[8:12, 12:16] = 0.75
    figure = insight.attention_heads(image, map_HW[None], (8, 12, 12, 16), (9, 13), "block x", "net, 20×30", REMARK)
    [ax] = figure.axes
    _, head, _ = ax.images  # the mean, the head, the bar of colours
    assert "head 0\nlargest 75 %" in [text.get_text() for text in ax.texts]
    drawn = np.asarray(head.get_array())
    coloured = np.ptp(drawn, axis=-1) > 0.05
    assert np.array_equal(coloured, map_HW > 0)
    np.testing.assert_allclose(drawn[9, 13], images.HEAT(1.0)[:3], atol=1e-6)
    assert list(head.get_extent()) == [0, 30, 20, 0]
    crosses = [line.get_xydata().tolist() for line in ax.lines]  # type: ignore[union-attr]
    assert crosses == [[[13.5, 9.5]]] * 4
    assert [patch.get_bbox().bounds for patch in ax.patches] == [(12, 8, 4, 4)] * 4  # type: ignore[attr-defined]
    placed = [head.get_transform(), *(line.get_transform() for line in ax.lines[2:])]
    placed += [patch.get_data_transform() for patch in ax.patches[2:]]
    assert len({tuple(each.transform((13.5, 9.5))) for each in placed}) == 1  # all on the same picture
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "net, 20×30" in texts and "row 9, column 13" in texts and REMARK in texts


def test_classes_have_the_colours_of_the_legend() -> None:
    image, numbers = np.zeros((4, 6, 3), np.uint8), np.repeat([[3, 3, 3, 7, 7, 255]], 4, axis=0)
    figure = insight.segments(image, numbers, np.zeros((4, 6)), None, "", ["a", "b", "c", "coat"], "net, 4×6")
    drawn = np.asarray(figure.axes[0].images[1].get_array())
    [legend] = figure.legends
    handles = [cast(Any, handle) for handle in legend.legend_handles]
    colours = {text.get_text(): handle.get_color() for text, handle in zip(legend.texts, handles, strict=True)}
    assert list(colours) == ["coat", "class 7", "no label"]
    for name, column in (("coat", 0), ("class 7", 3), ("no label", 5)):
        np.testing.assert_allclose(colours[name], drawn[0, column])


def test_a_map_of_zeros_shows_only_the_grey_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(images.over(image, np.zeros((5, 6))), images.pale(image))


def test_an_unreadable_result_is_reported_in_one_sentence(folder: Path) -> None:
    Path("config.yaml").write_text(tiny("window").to_yaml())
    save_file({k: v.contiguous() for k, v in build(tiny("window")).state_dict().items()}, "model.safetensors")
    Path("result.json").write_text("{")
    with pytest.raises(ConfigError, match=r"result\.json is not valid JSON"):
        open_network(".")
