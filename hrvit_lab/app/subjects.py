"""The networks and images that "Look inside" offers. Uploads are bounded, and no path comes from a page."""

import hashlib
import io
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from hrvit_lab.app import memory_cap
from hrvit_lab.app.folders import find_networks, results_root, runs_root
from hrvit_lab.app.memory_cap import MAX_BYTES, MAX_SIDE, check_weights
from hrvit_lab.config import PRESETS, SEGMENTERS, HRViTConfig, read_config, shipped
from hrvit_lab.config.shipped import FOLDER
from hrvit_lab.errors import ConfigError
from hrvit_lab.files import MIB
from hrvit_lab.network.baselines import TIMM, NetworkConfig, TimmConfig

if TYPE_CHECKING:
    from PIL.Image import Image

    from hrvit_lab.network.named import NamedNetwork

PHOTOGRAPHS = ("chelsea", "astronaut", "coffee", "rocket")
MAX_UPLOAD_BYTES = 8 * MIB
MAX_UPLOAD_PIXELS = 40_000_000
UPLOADED = "your own image"
SIDES = (224, 64, 128, 320, 512)
"""Of images, in pixels; the first one for networks without a side of their own."""


def networks() -> dict[str, str]:
    """Names as they are shown, and what `open_network` takes: shipped weights first, then trainings, then presets.

    The last one is the prefix ``timm:``, to which the name of a model is added.
    """
    found = {f"{name} (trained)": name for name in shipped()}
    own = find_networks(runs_root(sys.argv[1:]), results_root(sys.argv[1:]))
    found |= {name: str(path) for name, path in own.items()}
    found |= {f"{name} (random weights)": name for name in (*PRESETS, *SEGMENTERS)}
    return found | {"a model of timm (random weights)": TIMM}


@st.cache_resource(max_entries=4, show_spinner="Loading the network")
def network(name: str, modified_ns: int) -> "NamedNetwork":
    """The network; loaded again if its files have changed.

    Raises:
        ConfigError: if it can't be loaded, is too large, or does not read images of three channels.
    """
    from hrvit_lab.network.named import open_network

    check_network(name)
    return open_network(name)


def check_network(name: str) -> None:
    """Check, before it is built, that a network is small enough and reads images of three channels.

    Raises:
        ConfigError: if it does not, or its config can't be read.
    """
    from hrvit_lab.network.named import trained_files

    if name.startswith(TIMM):
        check_weights(name, TimmConfig(name))
        return
    path = Path(name)
    config: str | Path = name
    if name not in shipped() and path.exists():
        config, weights = trained_files(path)
        if weights.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{weights} has more than {MAX_BYTES // MIB:,} MiB; save the weights only")
    found = read_config(config)
    check_weights(path.name, found)
    if found.in_chans != 3:
        raise ConfigError(f"{path.name} has in_chans = {found.in_chans}, but images have 3; choose another network")


def check_view(found: "NamedNetwork", side: int, what: str) -> None:
    """Check that a view of a network fits in memory.

    Raises:
        ConfigError: if it does not.
    """
    memory_cap.check_view(found.name, _config(found), side, what)


def _config(found: "NamedNetwork") -> NetworkConfig:
    config: Any = getattr(found.model, "config", None)
    return config if isinstance(config, HRViTConfig) else TimmConfig(found.name)


def modified(name: str) -> int:
    """When the files of a training, or of a folder with weights, last changed; 0 for other networks."""
    path = Path(name)
    if name in shipped() or not path.exists():
        return 0
    folder = path if path.is_dir() else path.parent
    return max((_time(file) for file in folder.glob("*")), default=0)


def _time(file: Path) -> int:
    """When a file last changed; 0 if it is gone, as a temporary file of a training may be."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def images(network_name: str) -> list[str]:
    """The images offered for a network: samples of its data first, then photographs, then an upload."""
    return [*samples(network_name), *(f"photograph {name}" for name in PHOTOGRAPHS), UPLOADED]


def samples(network_name: str) -> list[str]:
    """Names of the test images in the sheet of a network's data set: its classes, or scenes of a segmenter."""
    from PIL import Image

    about = shipped().get(network_name)
    if about is None or not sample_sheet(about.dataset).is_file():
        return []
    if about.score == "top1":
        return list(about.classes)
    with Image.open(sample_sheet(about.dataset)) as sheet:
        return [f"scene {number}" for number in range(1, 1 + sheet.width // sheet.height)]


def sample_sheet(dataset: str) -> Path:
    """A strip of square test images: one of each class, in the order of the classes; or some scenes."""
    return FOLDER / f"{dataset}.png"


def read_truth(network_name: str, choice: str, side: int) -> NDArray[np.uint8] | None:
    """The class of each pixel of a scene that was chosen, (side, side), numbered as the network's classes are.

    None for other images, whose classes are not known.
    """
    from PIL import Image, ImageOps

    about = shipped().get(network_name)
    if about is None or choice not in (names := samples(network_name)) or not label_sheet(about.dataset).is_file():
        return None
    labels = _cut(label_sheet(about.dataset), names.index(choice))
    return np.array(ImageOps.fit(labels, (side, side), Image.Resampling.NEAREST))


def label_sheet(dataset: str) -> Path:
    """The classes of each pixel of a data set's scenes, as grey values; a strip like that of `sample_sheet`."""
    return FOLDER / f"{dataset}.labels.png"


def _cut(path: Path, number: int) -> "Image":
    """A square of a strip."""
    from PIL import Image

    with Image.open(path) as sheet:
        side_px = sheet.height
        return sheet.crop((side_px * number, 0, side_px * (number + 1), side_px))


def read_image(network_name: str, choice: str, uploaded: bytes | None, side: int) -> NDArray[np.uint8]:
    """The chosen image, scaled to cover a square and cropped to its centre: (side, side, 3). It is decoded once.

    Raises:
        ConfigError: if an upload is missing, too large or no image.
    """
    if choice != UPLOADED:
        return _square(network_name, choice, "", side, None)
    if uploaded is None:
        raise ConfigError("no image is uploaded yet; choose a file")
    return _square("", choice, hashlib.sha256(uploaded).hexdigest(), side, uploaded)


@st.cache_data(max_entries=16, show_spinner=False)
def _square(network_name: str, choice: str, digest: str, side: int, _uploaded: bytes | None) -> NDArray[np.uint8]:
    """As `read_image`; the digest stands for the upload, so that its bytes are not kept."""
    from PIL import Image, ImageOps

    from hrvit_lab.train.data.photographs import read_photograph

    about = shipped().get(network_name)
    if _uploaded is not None:
        image = read_upload(_uploaded)
    elif about is not None and choice in (names := samples(network_name)):
        image = _cut(sample_sheet(about.dataset), names.index(choice)).convert("RGB")
    else:
        image = read_photograph(choice.removeprefix("photograph "))
    return np.array(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))


def read_upload(content: bytes) -> "Image":
    """Decode an uploaded image to RGB.

    Raises:
        ConfigError: if it is too large or no image.
    """
    from PIL import Image

    from hrvit_lab.train.data.image_files import FORMATS, decode_image

    if len(content) > MAX_UPLOAD_BYTES:
        raise ConfigError(f"the file has more than {MAX_UPLOAD_BYTES // MIB} MiB; upload a smaller image")
    too_many = f"the image has too many pixels; scale it below {MAX_UPLOAD_PIXELS:,} in all"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as header:  # reads the size, and decodes nothing
                pixels = header.width * header.height
    except Image.DecompressionBombError:
        raise ConfigError(too_many) from None
    except Exception:  # for a broken file, Pillow can raise almost any exception
        raise ConfigError(f"the file is no image that can be read; upload one of {', '.join(FORMATS)}") from None
    if pixels > MAX_UPLOAD_PIXELS:
        raise ConfigError(too_many)
    return decode_image(io.BytesIO(content), "the image")


def sides(found: "NamedNetwork") -> list[int]:
    """Sides of images that may be chosen, in pixels; the network's own first, unless it is too small or too large."""
    own = found.resolution_px[0] if found.resolution_px else SIDES[0]
    config = _config(found)
    if not isinstance(config, HRViTConfig):
        about: Any = getattr(found.model, "pretrained_cfg", None) or {}
        return [own] if about.get("fixed_input_size") else list(dict.fromkeys((own, *sorted(SIDES))))
    return [side for side in dict.fromkeys((own, *sorted(SIDES))) if config.strides[-1] <= side <= MAX_SIDE]
