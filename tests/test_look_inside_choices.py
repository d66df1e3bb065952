"""What is chosen on the page "Look inside" reaches the figures: class, truth, models of timm, pixel."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest
from test_app import run
from test_look_inside import NAME, columns_of_figures, draw_look_inside, key_of, said, texts

from hrvit_lab.app import memory_cap, pixel_choice, subjects
from hrvit_lab.app.pages import look_inside
from hrvit_lab.cost.count import count
from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.evidence import occlusion_evidence
from hrvit_lab.insight.segments import segments
from hrvit_lab.network import named
from hrvit_lab.network.baselines import TIMM, TimmConfig
from hrvit_lab.network.named import NamedNetwork
from hrvit_lab.train.data.composites import open_composites
from hrvit_lab.train.data.find import DEBIAN_FASHION_MNIST
from hrvit_lab.train.transforms.normalise import Normalise

pytestmark = pytest.mark.usefixtures("main_module")

# -- classes ----------------------------------------------------------------------------------------------


def test_the_class_of_the_evidence_can_be_chosen(results: Path) -> None:
    """The second network has the class of the same name, and says so if it has none."""
    app = run(draw_look_inside)
    for key, value in (
        ("network", f"{NAME} (trained)"), ("what", "evidence"), (f"class of {NAME}", "bag (class 8)"),
        ("beside", "hrvit_nano (random weights)"),
    ):  # fmt: skip
        widget = app.segmented_control(key=key) if key == "what" else app.selectbox(key=key)
        widget.set_value(value).run()
    assert not app.exception and not app.error
    left, right = columns_of_figures(app)
    assert "evidence for bag \\(class 8\\)" in said(left)
    assert "has no bag" in said(right) and "largest score\\: class" in said(right)
    # The same arrays as with --class 8.
    found, image = subjects.network(NAME, 0), subjects.read_image(NAME, "ankle boot", None, 32)
    expected = occlusion_evidence(found.model, Normalise(found.mean, found.std)(image)[None], 8, 4)
    with np.load(io.BytesIO(look_inside._view(key_of("evidence", class_number=8)).arrays)) as arrays:
        np.testing.assert_allclose(arrays["occlusion"], expected, atol=1e-6)


def test_the_same_class_of_another_network_has_the_same_name() -> None:
    def network(names: tuple[str, ...], classes: int) -> NamedNetwork:
        model = torch.nn.Identity()
        model.num_classes = classes  # type: ignore[assignment]
        return NamedNetwork("any", model, "", trained=False, class_names=names)

    clothes, others, unnamed = network(("coat", "bag"), 2), network(("bag", "hat"), 2), network((), 3)
    assert look_inside.same_class(clothes, others, 1) == 0
    assert look_inside.same_class(clothes, others, 0) is None
    assert look_inside.same_class(clothes, unnamed, 1) is None
    assert look_inside.same_class(unnamed, clothes, 1) is None
    assert look_inside.same_class(unnamed, network((), 2), 1) == 1
    assert look_inside.same_class(unnamed, network((), 2), 2) is None


# -- the truth of scenes ------------------------------------------------------------------------------------

SEGMENTER = "hrvit_nano.composites"


def test_the_classes_of_scenes_are_those_of_the_generated_data_set() -> None:
    """The sheets hold scenes 0, 1, 2, 5, 6 and 8 of the test scenes."""
    if not DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    scenes = open_composites("val", None, size=128)
    for name, index in zip(subjects.samples(SEGMENTER), (0, 1, 2, 5, 6, 8), strict=True):
        image, labels, _ = scenes.drawn(index)
        assert np.array_equal(subjects.read_image(SEGMENTER, name, None, 128), image)
        assert np.array_equal(subjects.read_truth(SEGMENTER, name, 128), labels)  # type: ignore[arg-type]


def test_a_scene_is_shown_with_its_errors() -> None:
    """The pixels that differ from the truth; those of another scene are many more."""
    names, found = subjects.samples(SEGMENTER), subjects.network(SEGMENTER, 0)
    assert subjects.read_truth(SEGMENTER, "photograph chelsea", 128) is None
    assert subjects.read_truth(NAME, "ankle boot", 32) is None and subjects.read_truth("hrvit_b1", names[0], 64) is None
    wrong = np.zeros((len(names), len(names)))
    for i, name in enumerate(names):
        image = subjects.read_image(SEGMENTER, name, None, 128)
        predicted = segments(found.model, Normalise(found.mean, found.std)(image)[None]).prediction
        for j, other in enumerate(names):
            wrong[i, j] = 100 * (predicted != subjects.read_truth(SEGMENTER, other, 128)).mean()
    assert np.diag(wrong).mean() < 15 and (wrong.argmin(1) == np.arange(len(names))).all()
    truth = subjects.read_truth(SEGMENTER, names[2], 128)
    assert truth is not None
    image = subjects.read_image(SEGMENTER, names[2], None, 128)
    asked = look_inside.Asked((3, 4), truth=truth.tobytes())
    view = look_inside._view(look_inside.view_key(SEGMENTER, 0, image, "segments", asked))
    with np.load(io.BytesIO(view.arrays)) as arrays:
        assert np.array_equal(arrays["wrong"], arrays["prediction"] != truth)
    assert f"Wrong: {wrong[2, 2]:.1f} % of the pixels" in view.said and "px of a boundary" in view.said


def test_the_second_network_has_the_truth_if_its_classes_are_the_same() -> None:
    segmenter, classifier = subjects.network(SEGMENTER, 0), subjects.network(NAME, 0)
    asked = look_inside.Asked((3, 4), truth=b"classes")
    assert look_inside._of_second(asked, segmenter, segmenter) == asked
    assert look_inside._of_second(asked, segmenter, classifier) == asked._replace(truth=None)


def test_the_page_of_a_segmenter_shows_errors_at_boundaries(results: Path) -> None:
    app = run(draw_look_inside)
    app.selectbox(key="network").set_value(f"{SEGMENTER} (trained)").run()
    app.segmented_control(key="what").set_value("segments").run()
    assert not app.exception and not app.error and "px of a boundary" in texts(app)
    app.selectbox(key=f"image of {SEGMENTER}").set_value("photograph chelsea").run()
    assert not app.exception and "px of a boundary" not in texts(app)


# -- models of timm -----------------------------------------------------------------------------------------

OF_TIMM = "a model of timm (random weights)"


def test_a_model_of_timm_is_typed(results: Path) -> None:
    """Its attention is that of insight; a second network reads the same image; a view that it lacks is one sentence."""
    app = run(draw_look_inside)
    app.selectbox(key="beside").set_value(OF_TIMM).run()
    assert not app.exception and "19 blocks" in said(columns_of_figures(app)[0])
    [info] = app.info  # vit_tiny_patch16_224, whose size is fixed
    assert "the network can't be run with an image of 64×64" in info.value
    app.text_input(key="timm beside").set_value("test_vit").run()
    assert not app.exception and not app.info and "6 blocks; in block 5" in said(columns_of_figures(app)[1])
    app.selectbox(key="beside").set_value("nothing").run()
    app.selectbox(key="network").set_value(OF_TIMM).run()
    app.text_input(key="timm network").set_value("test_vit").run()
    assert not app.exception and not app.error and not app.info
    assert app.selectbox(key="side of timm:test_vit").options[0] == "160"
    assert "6 blocks; in block 5" in texts(app) and "Random weights" in texts(app)
    app.selectbox(key="block of timm:test_vit").set_value("blocks.2.attn").run()
    assert "6 blocks; in block 2" in texts(app)
    app.segmented_control(key="what").set_value("contributions").run()
    assert not app.exception and len(app.info) == 1 and "has no blocks of an HRViT" in app.info[0].value


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("resnet", "timm has no such model"),
        ("../../etc/passwd", "timm has no such model"),
        ("", "timm has no such model"),
        ("resnet18", "timm:resnet18 has 45 MiB of weights, and the app builds networks of at most 10 MiB"),
    ],
)
def test_a_model_of_timm_that_is_unknown_or_too_large_is_not_built(
    monkeypatch: pytest.MonkeyPatch, typed: str, message: str
) -> None:
    monkeypatch.setattr(memory_cap, "MAX_WEIGHT_BYTES", 10 * 2**20)
    monkeypatch.setattr(named, "open_network", lambda *_: pytest.fail("the network was built"))
    subjects.network.clear()
    with pytest.raises(ConfigError, match=message) as raised:
        subjects.network(TIMM + typed, 0)
    assert len(str(raised.value).splitlines()) == 1


def test_a_view_of_a_model_of_timm_has_a_memory_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    found = subjects.network("timm:test_resnet", 0)
    subjects.check_view(found, 160, "evidence")
    counts = count(TimmConfig("timm:test_resnet"), 160)
    expected = 4 * counts.params + 16 * 4 * counts.activations  # the occlusions are run in batches of 16
    monkeypatch.setattr(memory_cap, "MAX_BYTES", int(1.01 * expected))
    subjects.check_view(found, 160, "evidence")
    monkeypatch.setattr(memory_cap, "MAX_BYTES", int(0.99 * expected))
    with pytest.raises(ConfigError, match="timm:test_resnet needs about"):
        subjects.check_view(found, 160, "evidence")
    subjects.check_view(found, 160, "features")


# -- the pixel ----------------------------------------------------------------------------------------------

ABOUT = "ankle boot at 64"


def numbers(app: AppTest) -> tuple[Any, Any]:
    return app.number_input(key=f"row of {ABOUT}").value, app.number_input(key=f"column of {ABOUT}").value


def test_a_click_and_the_numbers_choose_the_same_pixel(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever was last: click, number, the same click again, number again."""
    drawn: list[tuple[int, int]] = []

    def image_to_click(shown: Any, *, key: str, on_click: Callable[[], None], **_: Any) -> None:
        """A button instead of the image. Like the component, it sets the state of its key and calls back."""
        blue = (shown == (0, 158, 230)).all(-1)
        drawn.append((int(np.argmax(blue.sum(1))) // 5, int(np.argmax(blue.sum(0))) // 5))

        def click() -> None:
            st.session_state[key] = {"x": 42, "y": 320, "width": 336, "height": 336}
            on_click()

        st.button("click", key="click", on_click=click)

    monkeypatch.setattr(pixel_choice, "streamlit_image_coordinates", image_to_click)
    app = run(draw_look_inside)

    def shows(row: int, column: int) -> bool:
        said = f"the token at row {row}, column {column} gives" in texts(app)
        return said and f"Pixel: row {row}, column {column} of 64" in texts(app) and drawn[-1] == (row, column)

    assert numbers(app) == (32, 32) and shows(32, 32)
    app.button(key="click").click().run()
    assert numbers(app) == (60, 8) and shows(60, 8)
    app.number_input(key=f"row of {ABOUT}").set_value(5).run()
    assert numbers(app) == (5, 8) and shows(5, 8)
    app.button(key="click").click().run()
    assert numbers(app) == (60, 8) and shows(60, 8)
    app.number_input(key=f"column of {ABOUT}").set_value(63).run()
    assert numbers(app) == (60, 63) and shows(60, 63)
    assert not app.exception and not app.error and not app.warning
    # Another image begins at its centre, within its own bounds.
    app.selectbox(key="side of hrvit_micro.fashion_mnist").set_value(128).run()
    row = app.number_input(key="row of ankle boot at 128")
    assert not app.exception and (row.value, row.min, row.max) == (64, 0, 127)
