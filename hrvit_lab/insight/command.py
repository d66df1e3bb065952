"""Run ``hrvit-lab insight``: open the network and the image, write figures and arrays one after another."""

import argparse
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hrvit_lab import cli
from hrvit_lab.config import SEGMENTERS, ConfigError
from hrvit_lab.environment import environment
from hrvit_lab.files import MIB, read_bounded, user_path, write_atomically
from hrvit_lab.insight.locate import token_at
from hrvit_lab.insight.segments import IGNORED
from hrvit_lab.insight.views_command import VIEWS, Shown, Subject, show
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.named import NamedNetwork, open_network
from hrvit_lab.plots import save
from hrvit_lab.train.data.image_files import open_image
from hrvit_lab.train.data.masks import read_numbers
from hrvit_lab.train.data.photographs import read_photograph
from hrvit_lab.train.run import numbered_folder, plain_name
from hrvit_lab.train.transforms.normalise import Normalise

FOLDER = Path("results") / "insight"
ABOUT = "about.json"
MAX_ABOUT_BYTES = MIB
PHOTO = "photo:"
MAX_SIDE_PX = 2048
"""Gradients of larger images do not fit into the memory of most machines."""


def insight(options: argparse.Namespace) -> int:
    """Write what the command line asks for and return the exit code.

    Raises:
        ConfigError: for an invalid model, image, pixel or block; a folder with views of other inputs; or a view that
            was asked for and that the network does not have. Files of earlier views are kept.
    """
    console = cli.console(soft_wrap=True)
    if options.resolution and max(options.resolution) > MAX_SIDE_PX:
        raise ConfigError(
            f"--resolution {cli.show_size(options.resolution)} is too large; use at most {MAX_SIDE_PX} pixels a side"
        )
    of_view = {
        "attention": options.block, "similarity": options.beside, "evidence": options.class_number,
        "segments": options.truth,
    }  # fmt: skip
    asked = {name for name, value in of_view.items() if value is not None} | set(options.what or ())
    if options.what and (unused := asked.difference(options.what)):
        name = min(unused)
        raise ConfigError(
            f"--what leaves out {name}, but an option of {name} is given; add {name} to --what, or remove it"
        )
    network = open_network(options.model, seed=options.seed, resolution=options.resolution)
    subject = make_subject(options, network)
    about = {
        "model": options.model, "seed": options.seed, "weights": network.weights, "trained": network.trained,
        "image": options.image, "resolution_px": subject.size, "pixel": subject.pixel, "block": options.block,
        "class": options.class_number, "truth": options.truth, "beside": options.beside, "note": subject.note,
    }  # fmt: skip
    if options.out is not None:
        check_same(options.out, about)
    out = options.out or numbered_folder(FOLDER, f"{Path(options.model).name}-{Path(options.image).stem}")
    out.mkdir(parents=True, exist_ok=True)
    about["environment"] = environment()
    write_atomically(out / ABOUT, json.dumps(about, indent=2, default=str) + "\n")
    console.print(f"{subject.label}; pixel at row {subject.pixel[0]}, column {subject.pixel[1]}. {subject.note}")
    for name in options.what or VIEWS:
        try:
            shown = show(name, subject)
        except ConfigError as error:
            if name in asked:
                raise ConfigError(f"{name}: {error}") from None
            console.print(f"{name}: not shown, because {error}")
            continue
        write(out, name, shown)
        console.print(f"{name}: {shown.said}")
    console.print(f"Wrote figures (PNG, SVG) and arrays (NPZ) in {out}")
    return 0


def check_same(out: Path, about: Mapping[str, Any], file: str = ABOUT) -> None:
    """Check that the results in a folder are of the same network and image, with the same settings.

    Args:
        file: name of the JSON file in which earlier results keep them.
    Raises:
        ConfigError: if not; names the first difference.
    """
    path = out / file
    if not path.exists():
        return
    try:
        before = json.loads(read_bounded(path, MAX_ABOUT_BYTES))
        old = {name: before.get(name) for name in about}
    except (OSError, ValueError, AttributeError, RecursionError):
        old = {}
    new = json.loads(json.dumps(about, default=str))
    if odd := next((name for name in new if name not in old or old[name] != new[name]), None):
        raise ConfigError(
            f"{out} contains results of other inputs ({odd.removesuffix('_px')} differs), which are never overwritten; "
            "choose another folder with --out"
        )


def make_subject(options: argparse.Namespace, network: NamedNetwork) -> Subject:
    """The network with its image, and the second network.

    Raises:
        ConfigError: for an image that can't be read, or a size, pixel or truth that does not fit.
    """
    segmenter = network.name in SEGMENTERS
    size = options.resolution or network.resolution_px or ((512, 512) if segmenter else (224, 224))
    check_accepts(network, size)
    picture = open_picture(options.image)
    image = np.array(fitted(picture, size, Image.Resampling.BICUBIC))
    pixel = options.pixel or (size[0] // 2, size[1] // 2)
    token_at(pixel, size, (1, 1))  # checks the pixel
    tensor = Normalise(network.mean, network.std)(image)[None]
    truth = None
    if options.truth is not None:
        classes = int(getattr(network.model, "num_classes", 0) or 0)
        labels = read_truth(options.truth, (picture.height, picture.width), classes)
        truth = np.array(fitted(Image.fromarray(labels), size, Image.Resampling.NEAREST)).astype(np.int64)
    beside = None
    if options.beside is not None:
        second = open_network(options.beside, seed=options.seed, resolution=size)
        check_accepts(second, size)
        beside = Subject(second, image, Normalise(second.mean, second.std)(image)[None], pixel)
    return Subject(network, image, tensor, pixel, options.block, options.class_number, truth, beside)


def check_accepts(network: NamedNetwork, size: tuple[int, int]) -> None:
    """Check that a network reads images with three channels of this size.

    Raises:
        ConfigError: otherwise.
    """
    if not isinstance(network.model, HRViT):
        return
    if (channels := network.model.config.in_chans) != 3:
        raise ConfigError(f"in_chans = {channels}, but images have 3 channels; choose a network with in_chans = 3")
    network.model.config.check_resolution(size)


def open_picture(name: str) -> Image.Image:
    """An image file or ``photo:NAME`` as RGB.

    Raises:
        ConfigError: if it can't be decoded; names the file.
    """
    if name.startswith(PHOTO):
        return read_photograph(plain_name(name.removeprefix(PHOTO)))
    return open_image(user_path(name))


def fitted(picture: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Scaled to cover (height, width), the centre."""
    return ImageOps.fit(picture, (size[1], size[0]), how)


def read_truth(path: Path, image: tuple[int, int], classes: int) -> NDArray[np.uint8]:
    """The class of each pixel from a mask, (H, W); 255 for pixels without a class.

    Raises:
        ConfigError: if it is no mask of the image's size with classes of the network.
    """
    numbers = read_numbers(path)
    if numbers.shape != image:
        raise ConfigError(
            f"{path} has size {cli.show_size((numbers.shape[0], numbers.shape[1]))}, but the image "
            f"{cli.show_size(image)}; give a mask of the same size"
        )
    odd = numbers[((numbers < 0) | (numbers >= classes)) & (numbers != IGNORED)]
    if odd.size:
        raise ConfigError(
            f"{path} has class {odd[0]}, but the network has classes 0 to {classes - 1}; give the labels that it "
            f"predicts, and {IGNORED} for pixels without a label"
        )
    return numbers.astype(np.uint8)


def write(out: Path, name: str, shown: Shown) -> None:
    """Write the figures and arrays of a view."""
    file = io.BytesIO()
    arrays: dict[str, Any] = shown.arrays
    np.savez_compressed(file, **arrays)
    write_atomically(out / f"{name}.npz", file.getvalue())
    for stem, figure in shown.figures.items():
        save(figure, out / stem)
