"""Page "Look inside": click on a pixel of an image, and see what a network does with it."""

import io
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from hrvit_lab.app import subjects
from hrvit_lab.app.pixel_choice import choose_pixel
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError
from hrvit_lab.insight.what import WHAT
from hrvit_lab.network.baselines import TIMM

if TYPE_CHECKING:
    from torch import Tensor

    from hrvit_lab.insight.attention import BlockAttention
    from hrvit_lab.insight.views_command import Shown, Subject
    from hrvit_lab.network.named import NamedNetwork

SCREEN_DPI = 100
MAX_VIEWS = 2
"""Views computed at a time, of all sessions."""

INTRODUCTION = (
    "Click on a pixel of the image, or give its row and column. {following} follow; the other figures are of the whole "
    "image. Every figure can be downloaded with its numbers."
)
WARNING = ":material/warning: "
TIMM_EXAMPLE = "vit_tiny_patch16_224"
TIMM_HELP = (
    "Any model of timm, with random weights: `resnet50`, `swin_tiny_patch4_window7_224`, … Most have receptive field, "
    "similarity, features and evidence; vision transformers and Swin also have attention."
)
LAST_BLOCK, PREDICTED = "the last of the finest branch", "the predicted class"


def show() -> None:
    """Draw the page."""
    st.markdown(INTRODUCTION.format(following=_following()))
    left, right = st.columns([1, 2], gap="large")
    try:
        with left:
            found, name = _network()
            shown = [(found, name), *_second()]
            choice, side = _image_choice(found, name)
            uploaded = _upload(choice)
        with right if len(shown) > 1 else left:
            image = subjects.read_image(name, choice, uploaded, side)
            pixel = choose_pixel(image, f"{choice} at {side}")
        with st.container() if len(shown) > 1 else right:  # two networks have the whole width, below the image
            what = st.segmented_control(
                "What", list(WHAT), default="attention", key="what", required=True, bind="query-params",
                format_func=_words, label_visibility="collapsed",
            ) or "attention"  # fmt: skip
            asked = Asked(pixel, _block(found, what), _class(found, what), _truth(name, choice, side))
            if len(shown) > 1 and "beside" in WHAT[what].reads:
                _draw(2, found, name, image, what, asked._replace(beside=_version(shown[1][1])))
            for place, column in enumerate(st.columns(len(shown), gap="large")):
                with column:
                    _draw(place, *shown[place], image, what, _of_second(asked, found, shown[1][0]) if place else asked)
    except ConfigError as error:
        st.error(plain(error), icon=":material/error:")


def _words(what: str) -> str:
    return what.replace("_", " ")


def _following() -> str:
    """The views that depend on the pixel, as the start of a sentence."""
    *some, last = [_words(name) for name, what in WHAT.items() if "pixel" in what.reads]
    return f"{', '.join(some)} and {last}".capitalize()


# -- what is looked at -----------------------------------------------------------------------------------


def _network() -> tuple["NamedNetwork", str]:
    names = subjects.networks()
    shown = st.selectbox("Network", list(names), key="network", bind="query-params")
    return _opened(names[shown], "network")


def _second() -> list[tuple["NamedNetwork", str]]:
    """The network beside it, if one is chosen."""
    names = subjects.networks()
    shown = st.selectbox("Beside it", ["nothing", *names], key="beside", bind="query-params")
    if shown == "nothing":
        return []
    return [_opened(names[shown], "beside")]


def _opened(name: str, key: str) -> tuple["NamedNetwork", str]:
    """The chosen network; that of a model of timm is typed."""
    if name == TIMM:
        name += st.text_input("Name in timm", TIMM_EXAMPLE, max_chars=100, key=f"timm {key}", help=TIMM_HELP).strip()
    return subjects.network(*_version(name)), name


def _version(name: str) -> tuple[str, int]:
    """A network, and when its files last changed."""
    return name, subjects.modified(name)


def _image_choice(found: "NamedNetwork", name: str) -> tuple[str, int]:
    offered = subjects.images(name)
    first = offered.index("ankle boot") if "ankle boot" in offered else 0
    choice = st.selectbox("Image", offered, first, key=f"image of {name}")
    side = st.selectbox(
        "Side, px", subjects.sides(found), key=f"side of {name}",
        help="The image is scaled to a square of this side. The first one is that of the training, if it is known.",
    )  # fmt: skip
    return choice, side


def _truth(name: str, choice: str, side: int) -> bytes | None:
    found = subjects.read_truth(name, choice, side)
    return None if found is None else found.tobytes()


def _upload(choice: str) -> bytes | None:
    if choice != subjects.UPLOADED:
        return None
    file = st.file_uploader("Image file", type=["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"], key="photo")
    return None if file is None else file.getvalue()


def _block(found: "NamedNetwork", what: str) -> str | None:
    """The block whose heads are shown; only attention asks for one."""
    if "block" not in WHAT[what].reads or not (names := _blocks(found)):
        return None
    chosen = st.selectbox("Heads of block", [LAST_BLOCK, *names], key=f"block of {found.name}", width=360)
    return chosen if chosen in names else None


def _class(found: "NamedNetwork", what: str) -> int | None:
    """The class whose evidence is shown; None: the predicted one."""
    if "class_number" not in WHAT[what].reads or not (names := _class_names(found)):
        return None
    chosen = st.selectbox("Evidence for", [PREDICTED, *names], key=f"class of {found.name}", width=360)
    return names.index(chosen) if chosen in names else None


def _class_names(found: "NamedNetwork") -> list[str]:
    """The classes in words; each differs from all others."""
    from hrvit_lab.insight.evidence import class_label

    return [class_label(found.class_names, number) for number in range(int(getattr(found.model, "num_classes", 0)))]


def _blocks(found: "NamedNetwork") -> list[str]:
    from hrvit_lab.insight.attention import attention_blocks

    return attention_blocks(found.model)


# -- figures ---------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What is asked of a network and an image: fields of `Subject`, so small or flat that they can be in a key."""

    pixel: tuple[int, int] | None = None
    block: str | None = None
    class_number: int | None = None
    truth: bytes | None = None
    beside: tuple[str, int] | None = None


class Key(NamedTuple):
    """Of a view: network, time of its files, pixels of the image and its side, name, and what is asked."""

    name: str
    modified_ns: int
    pixels: bytes
    side: int
    what: str
    asked: Asked


def view_key(name: str, modified_ns: int, image: NDArray[np.uint8], what: str, asked: Asked) -> Key:
    """The key of a view, without what the view does not read: a click on another pixel finds the same view again."""
    unread = {field: None for field in Asked._fields if field not in WHAT[what].reads}
    return Key(name, modified_ns, image.tobytes(), image.shape[0], what, asked._replace(**unread))


def _of_second(asked: Asked, first: "NamedNetwork", second: "NamedNetwork") -> Asked:
    """The same block, class and truth for the second network; a sentence if it lacks one."""
    block, number, truth = asked.block, asked.class_number, asked.truth
    if block is not None and block not in _blocks(second):
        st.caption(plain(f"{second.name} has no block {block} with attention; its own {LAST_BLOCK} is shown."))
        block = None
    if number is not None:
        name, number = _class_names(first)[number], same_class(first, second, number)
        if number is None:
            st.caption(plain(f"{second.name} has no {name}; {PREDICTED} is shown."))
    if second.class_names != first.class_names:
        truth = None
    return asked._replace(block=block, class_number=number, truth=truth)


def same_class(first: "NamedNetwork", second: "NamedNetwork", number: int) -> int | None:
    """The number of a class of the first network in the second: that of the same name, or without names, the same."""
    if number < len(first.class_names):
        name = first.class_names[number]
        return second.class_names.index(name) if name in second.class_names else None
    return number if not second.class_names and number < len(_class_names(second)) else None


def _draw(place: int, found: "NamedNetwork", name: str, image: NDArray[np.uint8], what: str, asked: Asked) -> None:
    """The figures of a view, with the sentence and the files.

    Args:
        place: on the page: 0 is the first network, 1 the second, 2 is of both.
    """
    key = view_key(name, subjects.modified(name), image, what, asked)
    try:
        view = _view(key)
    except ConfigError as error:
        st.info(plain(f"{found.name}: {error}"))
        return
    st.markdown(f"**{plain(found.name)}**: {plain(view.said)}.")
    if view.warning:
        st.caption(WARNING + plain(view.warning))
    for stem, png in view.pictures.items():
        st.image(png, width="stretch", alt=f"{stem.replace('_', ' ')} of {found.name}: {view.said}")
        with st.container(horizontal=True):
            for suffix in ("png", "svg"):
                st.download_button(
                    suffix.upper(), partial(_file, key, stem, suffix), f"{stem}.{suffix}", on_click="ignore",
                    key=f"{suffix} {stem} {place}", icon=":material/download:",
                )  # fmt: skip
    st.download_button(
        "Arrays (NPZ)", view.arrays, f"{what}.npz", key=f"npz {place}", on_click="ignore",
        icon=":material/download:",
    )  # fmt: skip


class View(NamedTuple):
    """A view as it is shown: PNG files by name, an NPZ file, a sentence, and what must be said of random weights."""

    pictures: dict[str, bytes]
    arrays: bytes
    said: str
    warning: str


@st.cache_data(max_entries=64, show_spinner="Computing")
def _view(key: Key) -> View:
    """A view at the resolution of a screen.

    Raises:
        ConfigError: if the network does not have this view.
    """
    from hrvit_lab.plots.style import fix_layout

    shown, warning = _shown(key)
    file = io.BytesIO()
    arrays: dict[str, Any] = shown.arrays
    np.savez_compressed(file, **arrays)
    pictures = {}
    for stem, figure in shown.figures.items():
        buffer = io.BytesIO()
        fix_layout(figure)  # else it is computed twice
        figure.savefig(buffer, format="png", dpi=SCREEN_DPI, pil_kwargs={"compress_level": 1})
        pictures[stem] = buffer.getvalue()
    return View(pictures, file.getvalue(), shown.said, warning)


def _file(key: Key, stem: str, suffix: str) -> bytes:
    """A figure of a view for a paper; drawn when it is downloaded."""
    from hrvit_lab.plots import draw

    drawing = draw(_shown(key)[0].figures[stem])
    return drawing.png if suffix == "png" else drawing.svg.encode()


def _shown(key: Key) -> tuple["Shown", str]:
    from hrvit_lab.insight.views_command import show as show_view

    subject = _subject(key, (key.name, key.modified_ns), key.asked)
    if key.asked.beside is not None:
        subject = replace(subject, beside=_subject(key, key.asked.beside, Asked()))
    both = [one for one in (subject, subject.beside) if one is not None]
    warnings = [
        one.note if len(both) == 1 else f"{one.network.name}: {one.note}" for one in both if not one.network.trained
    ]
    with _turns():
        return show_view(key.what, subject), " ".join(warnings)


@st.cache_resource(show_spinner=False)
def _turns() -> threading.BoundedSemaphore:
    """Held while a view is computed. Sessions are threads; each view can need all that one is allowed."""
    return threading.BoundedSemaphore(MAX_VIEWS)


def _subject(key: Key, version: tuple[str, int], asked: Asked) -> "Subject":
    """One of the networks of a view with the image."""
    from hrvit_lab.insight.views_command import Subject

    found = subjects.network(*version)
    subjects.check_view(found, key.side, key.what)
    image, tensor = _read(found, key.pixels, key.side)

    def attention_of(*_: Any) -> "tuple[BlockAttention, ...]":
        return _attention(*version, key.pixels, key.side)

    pixel = asked.pixel or (key.side // 2, key.side // 2)
    truth = None
    if asked.truth is not None:
        truth = np.frombuffer(asked.truth, np.uint8).reshape(key.side, key.side).astype(np.int64)
    return Subject(found, image, tensor, pixel, asked.block, asked.class_number, truth, attention_of=attention_of)


@st.cache_resource(max_entries=2, show_spinner=False)
def _attention(name: str, modified_ns: int, pixels: bytes, side: int) -> "tuple[BlockAttention, ...]":
    """The attention of all blocks, which serves every pixel.

    Raises:
        ConfigError: if the network has none.
    """
    from hrvit_lab.insight.attention import block_attention

    found = subjects.network(name, modified_ns)
    return block_attention(found.model, _read(found, pixels, side)[1])


def _read(found: "NamedNetwork", pixels: bytes, side: int) -> "tuple[NDArray[np.uint8], Tensor]":
    """The image, (side, side, 3), and the same as the network reads it, (1, 3, side, side)."""
    from hrvit_lab.train.transforms.normalise import Normalise

    image = np.frombuffer(pixels, np.uint8).reshape(side, side, 3).copy()
    return image, Normalise(found.mean, found.std)(image)[None]
