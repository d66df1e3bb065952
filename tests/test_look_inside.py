"""The page "Look inside" shows the results of `hrvit_lab.insight`; the size of uploads is bounded."""

import doctest
import io
import os
import shutil
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from streamlit.testing.v1 import AppTest
from test_app import run

from hrvit_lab import create_model
from hrvit_lab.app import pixel_choice, subjects
from hrvit_lab.app.pages import look_inside
from hrvit_lab.config import PRESETS, ConfigError, shipped
from hrvit_lab.insight.attention import block_attention
from hrvit_lab.insight.what import WHAT
from hrvit_lab.network.named import open_network
from hrvit_lab.train.data import image_files, photographs
from hrvit_lab.train.transforms.normalise import Normalise

pytestmark = pytest.mark.usefixtures("main_module")

NAME = "hrvit_nano.fashion_mnist"
CLASSES = shipped()[NAME].classes


def draw_look_inside() -> None:
    from hrvit_lab.app.pages import look_inside

    look_inside.show()


def texts(app: AppTest) -> str:
    return " ".join(each.value for each in (*app.markdown, *app.caption, *app.info, *app.error))


def key_of(
    what: str, pixel: tuple[int, int] = (20, 7), side: int = 32, name: str = NAME, **asked: Any
) -> look_inside.Key:
    image = subjects.read_image(NAME, "ankle boot", None, side)
    return look_inside.view_key(name, 0, image, what, look_inside.Asked(pixel, **asked))


def png_of_size(width: int, height: int) -> bytes:
    """The start of a PNG file with this size in its header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_docstring_examples() -> None:
    assert doctest.testmod(pixel_choice).attempted > 0 and doctest.testmod(pixel_choice).failed == 0


def test_a_first_visit_shows_a_trained_network(results: Path) -> None:
    app = run(draw_look_inside)
    assert app.selectbox(key="network").value == "hrvit_micro.fashion_mnist (trained)"
    assert "Pixel: row 32, column 32 of 64 × 64." in texts(app)
    assert "19 blocks" in texts(app) and "Random weights" not in texts(app)
    assert not app.error and len(app.get("image")) == 2


def test_random_weights_are_reported(results: Path) -> None:
    app = run(draw_look_inside)
    app.selectbox(key="network").set_value("hrvit_nano (random weights)").run()
    assert not app.exception and not app.error
    assert "Random weights" in texts(app) and "attention does not reach the output" in texts(app)


def columns_of_figures(app: AppTest) -> list[Any]:
    return [column for column in app.columns if column.get("image")]


def said(column: Any) -> str:
    return " ".join(each.value for each in (*column.markdown, *column.caption))


def test_two_networks_are_shown_side_by_side(results: Path) -> None:
    """In two columns of half the page each, outside of the columns of the menus, with the same block."""
    app = run(draw_look_inside)
    assert [column.weight for column in app.columns] == pytest.approx([1 / 3, 2 / 3, 1])
    app.selectbox(key="beside").set_value("hrvit_nano (random weights)").run()
    block = "stages.3.branches.1.0"
    app.selectbox(key="block of hrvit_micro.fashion_mnist").set_value(block).run()
    assert not app.exception and not app.error
    assert [column.weight for column in app.columns] == pytest.approx([1 / 3, 2 / 3, 1 / 2, 1 / 2])
    left, right = columns_of_figures(app)
    assert [len(column.get("image")) for column in (left, right)] == [2, 2]
    for column, name in ((left, "hrvit\\_micro\\.fashion"), (right, "hrvit\\_nano")):
        assert f"**{name}" in said(column) and "in stage 3, branch 1, block 0" in said(column)
    assert "Random weights" in said(right) and "Random weights" not in said(left)


def test_a_block_that_the_second_network_lacks_is_said_to_be_missing(results: Path) -> None:
    app = run(draw_look_inside)
    app.selectbox(key="beside").set_value("mit_b0 (random weights)").run()
    app.selectbox(key="block of hrvit_micro.fashion_mnist").set_value("stages.4.branches.2.1").run()
    left, right = columns_of_figures(app)
    assert "in stage 4, branch 2, block 1" in said(left) and "has no block" not in said(left)
    assert "has no block stages" in said(right) and "in stage 0, branch 0, block 1" in said(right)


def test_the_maps_of_two_networks_are_compared(results: Path) -> None:
    """Above the similarity of each with itself, the similarity of both."""
    app = run(draw_look_inside)
    app.selectbox(key="beside").set_value("hrvit_nano (random weights)").run()
    app.segmented_control(key="what").set_value("similarity").run()
    assert not app.exception and not app.error and len(app.get("image")) == 3
    assert [len(column.get("image")) for column in columns_of_figures(app)] == [1, 1]
    assert "17 maps, and 17 of hrvit\\_nano, at 2 × 2 positions" in texts(app)
    assert "hrvit\\_nano\\: Random weights" in texts(app)


def test_a_network_can_be_beside_itself(results: Path) -> None:
    app = run(draw_look_inside)
    app.selectbox(key="beside").set_value("hrvit_micro.fashion_mnist (trained)").run()
    assert not app.exception and [len(column.get("image")) for column in columns_of_figures(app)] == [2, 2]


@pytest.mark.parametrize("pixel", [(20, 7), (0, 0), (31, 31)])
def test_maps_of_the_page_equal_those_of_insight(pixel: tuple[int, int]) -> None:
    view = look_inside._view(key_of("attention", pixel))
    found = open_network(NAME)
    image = subjects.read_image(NAME, "ankle boot", None, 32)
    with np.load(io.BytesIO(view.arrays)) as arrays:
        for block in block_attention(found.model, Normalise(found.mean, found.std)(image)[None]):
            stride = block.place.stride
            expected = block.of_token((pixel[0] // stride[0], pixel[1] // stride[1]))
            assert np.array_equal(arrays[block.place.name], expected)
    assert f"row {pixel[0]}, column {pixel[1]}" in view.said


QUICK = ("attention", "rollout", "features")


@pytest.mark.parametrize(
    "what",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WHAT if name != "segments"],
)
def test_every_view_is_drawn(what: str) -> None:
    view = look_inside._view(key_of(what, side=64))
    assert view.pictures and view.said
    for png in view.pictures.values():
        assert min(Image.open(io.BytesIO(png)).size) > 200


def test_another_pixel_or_block_of_an_image_does_not_run_the_network_again() -> None:
    look_inside._view.clear()
    look_inside._attention.clear()
    runs: list[int] = []
    model = subjects.network(NAME, 0).model
    hook = model.register_forward_pre_hook(lambda *_: runs.append(1))
    try:
        views = [look_inside._view(key_of("attention", pixel)) for pixel in ((20, 7), (3, 30))]
        look_inside._view(key_of("attention", (3, 30), block="stages.2.branches.1.0"))
        look_inside._view(key_of("rollout", (3, 30)))
        assert len(runs) == 1
        look_inside._view(key_of("attention", side=64))
        assert len(runs) == 2
    finally:
        hook.remove()
    found = open_network(NAME)
    image = subjects.read_image(NAME, "ankle boot", None, 32)
    maps = {one.place.name: one for one in block_attention(found.model, Normalise(found.mean, found.std)(image)[None])}
    for view, pixel in zip(views, ((20, 7), (3, 30)), strict=True):
        with np.load(io.BytesIO(view.arrays)) as arrays:
            for name, one in maps.items():
                token = pixel[0] // one.place.stride[0], pixel[1] // one.place.stride[1]
                assert np.array_equal(arrays[name], one.of_token(token))


def test_few_views_are_computed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight sessions that ask at once; each view can need all the memory that one is allowed."""
    running, most, lock = [0], [0], threading.Lock()

    def slow(*_: Any) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return "shown"

    monkeypatch.setattr("hrvit_lab.insight.views_command.show", slow)
    key = key_of("attention")
    look_inside._shown(key)
    with ThreadPoolExecutor(8) as sessions:
        assert len([*sessions.map(look_inside._shown, [key] * 8)]) == 8
    assert most[0] == look_inside.MAX_VIEWS


def test_another_pixel_draws_a_view_of_the_whole_image_only_once(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A click on the page, whose network runs again only for views that follow the pixel."""
    drawn: list[str] = []

    def counted(key: Any) -> Any:
        drawn.append(key.what)
        return real(key)

    real = look_inside._shown
    monkeypatch.setattr(look_inside, "_shown", counted)
    app = run(draw_look_inside)
    image = subjects.read_image("hrvit_micro.fashion_mnist", "ankle boot", None, 64)
    for what in ("contributions", "features", "attention"):
        look_inside._view.clear()
        drawn.clear()
        app.segmented_control(key="what").set_value(what).run()
        row = app.number_input(key="row of ankle boot at 64")
        row.set_value(int(row.value or 0) - 5).run()
        assert drawn == [what] * (2 if what == "attention" else 1) and not app.exception
    for what, about in WHAT.items():
        two = [look_inside.view_key(NAME, 0, image, what, look_inside.Asked(pixel)) for pixel in ((1, 2), (3, 4))]
        assert (two[0] != two[1]) == ("pixel" in about.reads)
    assert "Attention, rollout and receptive field follow" in texts(app)


def test_a_view_that_a_network_lacks_is_reported_in_one_sentence(results: Path) -> None:
    with pytest.raises(ConfigError, match="segment"):
        look_inside._view(key_of("segments"))


def test_figures_for_papers_are_drawn_on_demand() -> None:
    key = key_of("features")
    [(stem, picture)] = look_inside._view(key).pictures.items()
    assert b"<svg" in look_inside._file(key, stem, "svg")[:1000]
    paper, shown = (Image.open(io.BytesIO(one)) for one in (look_inside._file(key, stem, "png"), picture))
    assert paper.width == pytest.approx(2 * shown.width, abs=2)


@pytest.mark.parametrize("side", [28, 32, 224, 512])
def test_a_click_selects_the_pixel_under_it(side: int) -> None:
    """A naive search of the pixel whose square on the screen contains the click."""
    for x in range(0, 336, 13):
        row, column = (next(c for c in range(side) if c * 336 <= at * side < (c + 1) * 336) for at in (335 - x, x))
        assert pixel_choice.clicked_pixel({"x": x, "y": 335 - x, "width": 336, "height": 336}, side) == (row, column)
    assert pixel_choice.clicked_pixel(None, side) == (side // 2, side // 2)


def test_the_mark_is_at_the_pixel() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    shown = pixel_choice.marked(image, 3, 30)
    rows, columns = np.nonzero(shown.any(-1))
    scale = shown.shape[0] // 32
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx((3 + 0.5) * scale, abs=1)
    assert np.median(columns) == pytest.approx((30 + 0.5) * scale, abs=scale)


# -- networks and images ----------------------------------------------------------------------------------


def test_samples_are_images_of_their_classes() -> None:
    """The shipped network classifies most of them correctly; in another order, it would be about one in ten."""
    found = open_network(NAME)
    images = [subjects.read_image(NAME, name, None, 32) for name in CLASSES]
    batch = torch.stack([Normalise(found.mean, found.std)(image) for image in images])
    with torch.inference_mode():
        predicted = found.model(batch).argmax(1)
    assert int((predicted == torch.arange(len(CLASSES))).sum()) >= 8


def test_trainings_of_the_owners_folder_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("title: Mine")
    monkeypatch.setattr("sys.argv", ["app.py", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)])
    (folder / "config.yaml").write_text(PRESETS["hrvit_nano"].to_yaml())
    assert "training mine" not in subjects.networks()  # it has no weights yet
    (folder / "best.safetensors").write_bytes(b"no weights")
    assert subjects.networks()["training mine"] == str(folder)
    app = run(draw_look_inside)
    app.selectbox(key="network").set_value("training mine").run()
    assert not app.exception and len(app.error) == 1


def test_weights_beside_a_config_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/insight.md says of published weights: a file of any kind, and a config that names a preset."""
    folder, outside = tmp_path / "runs" / "published", tmp_path / "outside"
    for each in (folder, outside, tmp_path / "runs" / "bare"):
        each.mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["app.py", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)])
    model = create_model("hrvit_nano", num_classes=10)
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, folder / "nano.pth")
    save_file({name: each.contiguous() for name, each in model.state_dict().items()}, folder / "nano.safetensors")
    torch.save(model.state_dict(), outside / "secret.pth")
    (folder / "leads-out.pth").symlink_to(outside / "secret.pth")
    (tmp_path / "runs" / "leads-out").symlink_to(outside)
    shutil.copy(outside / "secret.pth", tmp_path / "runs" / "bare" / "nano.pth")  # without a config
    (folder / "notes.txt").write_text("no weights")
    for each in (folder, outside):
        (each / "config.yaml").write_text("preset: hrvit_nano\nnum_classes: 10\n")
    found = {name: path for name, path in subjects.networks().items() if str(tmp_path) in path}
    assert found == {f"weights published/{name}": str(folder / name) for name in ("nano.pth", "nano.safetensors")}
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        for path in found.values():
            opened = subjects.network(path, subjects.modified(path))
            assert torch.equal(opened.model(image), model.eval()(image)) and opened.trained
    app = run(draw_look_inside)
    app.selectbox(key="network").set_value("weights published/nano.pth").run()
    assert not app.exception and not app.error and "nano.pth" in texts(app).replace("\\", "")
    assert "Random weights" not in texts(app)


def test_weights_that_changed_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("preset: hrvit_nano\n")
    before = []
    for number in range(2):
        torch.manual_seed(number)
        torch.save(create_model("hrvit_nano").state_dict(), tmp_path / "nano.pth")
        os.utime(tmp_path / "nano.pth", (1e9 + number, 1e9 + number))
        os.utime(tmp_path / "config.yaml", (1e9 - 1, 1e9 - 1))
        path = str(tmp_path / "nano.pth")
        before.append(subjects.network(path, subjects.modified(path)).model.state_dict()["stem.conv1.weight"])
    assert not torch.equal(*before)


def test_short_trainings_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "train" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["app.py", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)])
    for name in ("result.json", "config.yaml", "model.safetensors"):
        (folder / name).touch()
    assert subjects.networks()["short training mine"] == str(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no image that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "no image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image that can be read"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "no image that can be read"),
        (png_of_size(20_000, 10_000), "too many pixels; scale it below 40,000,000"),
        (png_of_size(10_000, 10_000), "too many pixels"),
        (png_of_size(7_000, 7_000), "too many pixels"),
        (png_of_size(64, 64), "the image cannot be decoded"),
        (b"\0" * (8 * 2**20 + 1), "more than 8 MiB"),
    ],
    ids=["empty", "svg", "eps", "header", "200 megapixels", "100 megapixels", "49 megapixels", "truncated", "large"],
)
def test_an_upload_that_is_no_image_is_reported_in_one_sentence(content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        subjects.read_image(NAME, subjects.UPLOADED, content, 32)
    assert len(str(raised.value).splitlines()) == 1


def test_an_upload_is_shown_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert np.array_equal(subjects.read_image(NAME, subjects.UPLOADED, file.getvalue(), 48), pixels)
    with pytest.raises(ConfigError, match="no image is uploaded yet"):
        subjects.read_image(NAME, subjects.UPLOADED, None, 48)


def test_an_image_is_decoded_once(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads by their content, photographs by their name; once for each side."""
    decoded: list[str] = []

    def counted(name: str, decode: Any) -> Any:
        def count_and_decode(*arguments: Any) -> Any:
            decoded.append(name)
            return decode(*arguments)

        return count_and_decode

    monkeypatch.setattr(image_files, "decode_image", counted("bytes", image_files.decode_image))
    monkeypatch.setattr(photographs, "read_photograph", counted("photograph", photographs.read_photograph))
    subjects._square.clear()
    file = io.BytesIO()
    Image.fromarray(np.full((48, 48, 3), 77, np.uint8)).save(file, "PNG")
    for network in (NAME, NAME, "hrvit_b1"):
        image = subjects.read_image(network, subjects.UPLOADED, file.getvalue(), 32)
        assert image.shape == (32, 32, 3) and (image == 77).all()
        image[:] = 0  # each caller has its own copy
    assert decoded == ["bytes"]
    assert subjects.read_image(NAME, subjects.UPLOADED, file.getvalue(), 64).shape == (64, 64, 3)
    assert decoded == ["bytes"] * 2
    app = run(draw_look_inside)
    app.selectbox(key="image of hrvit_micro.fashion_mnist").set_value("photograph chelsea").run()
    for _ in range(2):
        app.run()
    assert not app.exception and decoded == ["bytes", "bytes", "photograph", "bytes"]  # a photograph is a file
