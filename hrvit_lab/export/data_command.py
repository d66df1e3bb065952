"""The images of an int8 export: for calibration, and for the accuracy before and after."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageOps
from torch import Tensor

from hrvit_lab.cli import show_size
from hrvit_lab.config import shipped
from hrvit_lab.errors import ConfigError
from hrvit_lab.export.accuracy import Accuracy, compare_accuracy, image_counts
from hrvit_lab.export.request import Request
from hrvit_lab.files import MIB, user_path
from hrvit_lab.network.named import NamedNetwork
from hrvit_lab.parts.head import HEAD
from hrvit_lab.train import assemble
from hrvit_lab.train.data.image_files import open_image
from hrvit_lab.train.data.samples import Samples
from hrvit_lab.train.loader import Transform
from hrvit_lab.train.recipe import AnyRecipe, load_recipe
from hrvit_lab.train.transforms.normalise import Normalise

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
CALIBRATION, TESTS = "--calibration-images", "--test-images"
MAX_IMAGE_BYTES = 4096 * MIB
"""Images that are held in memory together."""
IMAGES_AT_ONCE, PIXELS_AT_ONCE = 64, 16 * 224 * 224
"""Limits of what the network processes together when its accuracy is measured: memory, and time between two signs of
progress."""
SCORES = {"classification": "top1", "segmentation": "miou"}


@dataclass(frozen=True)
class ImagesWithLabels:
    """Images with labels.

    Attributes:
        samples: the split, of which ``indices`` are used.
        transform: (image, target) → tensor and target.
        score: ``"top1"`` or ``"miou"``.
    """

    samples: Samples
    indices: tuple[int, ...]
    transform: Transform
    score: str


def open_images(
    data: str, network: NamedNetwork, request: Request, calibration: int, tests: int, seed: int
) -> tuple[Tensor, ImagesWithLabels | None]:
    """Calibration images, (N, C, H, W), and labelled test images; None for a folder, whose images have no labels.

    Args:
        data: a folder of images; or a recipe, whose training images calibrate and whose validation images test.
        calibration, tests: how many images at most, drawn with ``seed``.
    Raises:
        ConfigError: if there is no such folder or recipe, or its images do not fit the network or memory.
    """
    if request.channels != 3:
        raise ConfigError(
            f"{network.name} reads images of {request.channels} channels, but those of --data have 3; choose a network "
            "with in_chans = 3"
        )
    folder = user_path(data)
    if folder.is_dir():
        return of_folder(folder, network, request, calibration, seed), None
    recipe = recipe_for(data, network, request)
    check_task(data, network, recipe)
    train, test = (assemble.open_split(recipe, split, None) for split in ("train", "val"))
    classes = network.config.num_classes if network.config else 0
    if classes != len(test.class_names):
        raise ConfigError(
            f"--data {data} has {len(test.class_names)} classes, but {network.name} has {classes} outputs; give "
            "the data that it was trained on, or a folder of images"
        )
    if recipe.data.mean is None or recipe.data.std is None:
        raise ConfigError(f"--data {data} has no data.mean and data.std; give another recipe, or a folder of images")
    transform = assemble.make_transforms(recipe)[1]
    chosen = drawn(len(train), calibration, seed)
    images = (resized(transform(*train[index])[0], request) for index in chosen)
    indices = drawn(len(test), tests, seed)
    found = in_memory(images, len(chosen), request, CALIBRATION)
    return found, ImagesWithLabels(test, indices, transform, SCORES[recipe.task])


def recipe_for(data: str, network: NamedNetwork, request: Request) -> AnyRecipe:
    """The recipe, with its settings for a shipped network; images are classified at the request's size.

    Raises:
        ConfigError: if there is no such recipe.
    """
    model = network.name if network.name in shipped() else None
    recipe = load_recipe(data, model)
    if recipe.task != "classification":
        return recipe
    sizes = [(f"{section}.resolution_px", list(request.resolution)) for section in ("data", "evaluation")]
    return load_recipe(data, model, sizes)


def check_task(data: str, network: NamedNetwork, recipe: AnyRecipe) -> None:
    """Check that the network's outputs are those of the recipe's task.

    Raises:
        ConfigError: if they are not.
    """
    head = HEAD[(network.config.head if network.config else None) or "classifier"]  # None: timm's own
    if not head.present or head.whole_image != (recipe.task == "classification"):
        raise ConfigError(
            f"--data {data} is for {recipe.task}, which the outputs of {network.name} are not; give the data that it "
            "was trained on, or a folder of images"
        )


def of_folder(folder: Path, network: NamedNetwork, request: Request, most: int, seed: int) -> Tensor:
    """Images of a folder and its subfolders, scaled and cropped to the request's size and normalised.

    Raises:
        ConfigError: if there are none, or one cannot be read, or they take too much memory.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ConfigError(f"{folder} contains no images ({', '.join(SUFFIXES)}); give another folder with --data")
    normalise = Normalise(network.mean, network.std)
    height, width = request.resolution
    chosen = drawn(len(files), most, seed)
    images = (normalise(np.array(ImageOps.fit(open_image(files[index]), (width, height)))) for index in chosen)
    return in_memory(images, len(chosen), request, CALIBRATION)


def in_memory(images_CHW: Iterable[Tensor], number: int, request: Request, option: str) -> Tensor:
    """Images of the request's size in one tensor, (N, C, H, W).

    Args:
        number: how many there are. They are read one after the other, after the check.
        option: the one that limits their number.
    Raises:
        ConfigError: if they take more than ``MAX_IMAGE_BYTES``.
    """
    shape = (number, *request.shape[1:])
    needed = math.prod(shape) * torch.float32.itemsize
    if needed > MAX_IMAGE_BYTES:
        raise ConfigError(
            f"{number:,} images of {show_size(request.resolution)} take {needed / MIB:,.0f} MiB, more than "
            f"{MAX_IMAGE_BYTES / MIB:,.0f} MiB; use fewer with {option}, or a smaller --resolution"
        )
    found = torch.empty(shape)
    for index, image_CHW in enumerate(images_CHW):
        found[index] = image_CHW
    return found


def drawn(number: int, most: int, seed: int) -> tuple[int, ...]:
    """``most`` of the first ``number`` indices, in random order; all if there are fewer."""
    order = torch.randperm(number, generator=torch.Generator().manual_seed(seed))
    return tuple(order[:most].tolist())


def resized(image_CHW: Tensor, request: Request) -> Tensor:
    """The image at the request's size."""
    if image_CHW.shape[-2:] == torch.Size(request.resolution):
        return image_CHW
    return F.interpolate(image_CHW[None], request.resolution, mode="bilinear", antialias=True)[0]


@torch.inference_mode()
def measure_accuracy(
    plain: Callable[[Tensor], Any],
    file: Callable[[Tensor], Any],
    tests: ImagesWithLabels,
    request: Request,
    seed: int,
    seen: Callable[[int], object] = lambda images: None,
) -> Accuracy:
    """The score of a network and of a file on the same images.

    Args:
        plain: images (B, C, H, W) of any B → logits (B, classes) or (B, classes, h, w). It gets several of the file's
            batches at once, which takes less time.
        file: as ``plain`` for the request's B; or a list with the logits.
        seen: called with a number of images after they were processed.
    """
    classes, size = len(tests.samples.class_names), request.batch_size
    at_once = max(1, min(IMAGES_AT_ONCE, PIXELS_AT_ONCE // math.prod(request.resolution)) // size) * size
    counts: tuple[list[Any], list[Any]] = ([], [])
    for first in range(0, len(tests.indices), at_once):
        pairs = [tests.transform(*tests.samples[i]) for i in tests.indices[first : first + at_once]]
        images = torch.stack([resized(image, request) for image, _ in pairs])
        missing = -len(images) % size
        images = torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images
        for run, own_size, kept in ((plain, len(images), counts[0]), (file, size, counts[1])):
            for start, batch in zip(range(0, len(images), own_size), images.split(own_size), strict=True):
                output = run(batch)  # counted before the next call, which may overwrite it
                logits = output[0] if isinstance(output, list) else output
                own = pairs[start : start + own_size]
                kept.extend(
                    image_counts(scores, target, classes) for scores, (_, target) in zip(logits, own, strict=False)
                )
        seen(len(pairs))
    before, after = (np.stack(kept) for kept in counts)
    return compare_accuracy(before, after, tests.score, seed)
