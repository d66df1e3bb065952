"""Composites: items of Fashion-MNIST on photographs, with a class for each pixel. Generated; nothing is downloaded.

A scene is a function of (split, size, index). One to six items, scaled to 0.5 to 4 times their 28 pixels, are drawn on
a crop of a photograph, each in a random colour and inside the scene; later items cover earlier ones. Labels 0 … 9 are
the items' classes, and 10 is the background, so no pixel is ignored. Training scenes use Fashion-MNIST's training
images, and validation scenes its test images. No photograph is used in both splits.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.find import DEBIAN_FASHION_MNIST, FASHION_SPLITS
from hrvit_lab.train.data.idx import FASHION_CLASSES, read_fashion
from hrvit_lab.train.data.photographs import read_photograph
from hrvit_lab.train.data.samples import SPLITS, check_index
from hrvit_lab.train.datasets import Task

SCENES = {"train": 20_000, "val": 1_000}
BACKGROUNDS = {
    "train": ("astronaut", "brick", "camera", "chelsea", "grass", "ihc", "motorcycle_left"),
    "val": ("cell", "coffee", "coins", "gravel", "moon", "page", "text"),
}
BACKGROUND = len(FASHION_CLASSES)
SIZES = (32, 512)
MAX_ITEMS = 6
SCALES = (0.5, 4.0)
INK = 12
"""Pixels with values above this (of 255) belong to an item."""
DRAWS_BEFORE, DRAWS_PER_ITEM = 6, 8


@dataclass(frozen=True, eq=False)
class Composites:
    """Scenes of one split.

    Attributes:
        items: uint8 (N, 28, 28).
        labels: uint8 (N,).
        backgrounds: photographs, RGB.
        size: side of a scene in pixels.
        number: number of scenes.
    """

    items: np.ndarray
    labels: np.ndarray
    backgrounds: tuple[Image.Image, ...]
    split: str
    size: int
    number: int
    class_names: tuple[str, ...] = (*FASHION_CLASSES, "background")
    task: Task = "segmentation"

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:
        scene_HWC, labels_HW, _ = self.drawn(index)
        return Image.fromarray(scene_HWC), Image.fromarray(labels_HW)

    def drawn(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A scene with the class and the item of each pixel; items are numbered from 1, and 0 is the background.

        Returns:
            uint8 (size, size, 3), (size, size), (size, size).
        """
        check_index(index, len(self))
        draws = uniform("composites", self.split, index, DRAWS_BEFORE + DRAWS_PER_ITEM * MAX_ITEMS)
        scene_HWC = background(self.backgrounds, self.size, draws[1:DRAWS_BEFORE])
        labels_HW = np.full((self.size, self.size), BACKGROUND, np.uint8)
        items_HW = np.zeros_like(labels_HW)
        placed = draws[DRAWS_BEFORE:].reshape(MAX_ITEMS, DRAWS_PER_ITEM)[: 1 + int(draws[0] * MAX_ITEMS)]
        for number, item in enumerate(placed, 1):
            self._place(scene_HWC, labels_HW, items_HW, number, item)
        return scene_HWC.round().astype(np.uint8), labels_HW, items_HW

    def name(self, index: int) -> str:
        check_index(index, len(self))
        return f"{self.split} composite {index}"

    def _place(
        self, scene_HWC: np.ndarray, labels_HW: np.ndarray, items_HW: np.ndarray, item_number: int, draws: np.ndarray
    ) -> None:
        """Draw one item into a scene, its labels and its items."""
        which, scale, x, y, flip, *colour = draws
        number = int(which * len(self.items))
        lowest, highest = SCALES[0], min(SCALES[1], self.size / 32)  # no item is larger than 7/8 of a scene
        side = round(self.items.shape[1] * lowest * (highest / lowest) ** scale)
        left, top = (int(place * (self.size - side + 1)) for place in (x, y))
        rows, columns = slice(top, top + side), slice(left, left + side)
        item = self.items[number][:, ::-1] if flip < 0.5 else self.items[number]
        grey, cover = (_resized(image, side).astype(np.float32) / 255 for image in (item, outline(item)))
        tint = np.array(colour, np.float32) * 0.6 + 0.4
        ink_HWC = (64 + 191 * grey)[..., None] * tint
        scene_HWC[rows, columns] += cover[..., None] * (ink_HWC - scene_HWC[rows, columns])
        labels_HW[rows, columns][cover >= 0.5] = self.labels[number]
        items_HW[rows, columns][cover >= 0.5] = item_number


def open_composites(split: str, root: Path | None, *, size: int = 128, number: int | None = None) -> Composites:
    """Composites.

    Args:
        root: folder of Fashion-MNIST's idx files; default: the folder of Debian's package.
        size: side of a scene, 32 to 512 pixels. Below 128, items are at most ``size / 32`` times their 28 pixels.
        number: number of scenes; default: 20,000 for training and 1,000 for validation.
    """
    prefix = dict(zip(SPLITS, FASHION_SPLITS, strict=True))[split]  # type: ignore[index]
    items, labels = read_fashion(root or DEBIAN_FASHION_MNIST, prefix)
    photographs = tuple(map(read_photograph, BACKGROUNDS[split]))
    return Composites(items, labels, photographs, split, *check_scenes(size, number, SCENES[split]))


def check_scenes(size: int, number: int | None, default: int) -> tuple[int, int]:
    """(size, number of scenes).

    Raises:
        ConfigError: out of range.
    """
    number = default if number is None else number
    if not SIZES[0] <= size <= SIZES[1]:
        raise ConfigError(f"size = {size} is out of range; use {SIZES[0]} to {SIZES[1]} pixels")
    if not 1 <= number <= 10**9:
        raise ConfigError(f"number = {number} is out of range; use 1 to 1,000,000,000 scenes")
    return size, number


def uniform(name: str, split: str, index: int, number: int) -> np.ndarray:
    """Random numbers in [0, 1), float64, that depend only on the arguments; from a bit stream that numpy keeps
    stable."""
    key = np.random.SeedSequence([*name.encode(), SPLITS.index(split), index])
    bits: np.ndarray = np.random.PCG64(key).random_raw(number)
    return (bits >> 11) * 2.0**-53


def background(photographs: tuple[Image.Image, ...], size: int, draws: np.ndarray) -> np.ndarray:
    """A random square crop of a photograph, float32 (size, size, 3), of ``size`` pixels or more, scaled to ``size``."""
    which, extent, x, y, flip = draws
    photograph = photographs[int(which * len(photographs))]
    least, most = min(size, *photograph.size), min(photograph.size)
    side = least * (most / least) ** extent
    left, top = x * (photograph.width - side), y * (photograph.height - side)
    box = (left, top, min(left + side, photograph.width), min(top + side, photograph.height))
    crop = np.asarray(photograph.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap=2.0), np.float32)
    return crop[:, ::-1].copy() if flip < 0.5 else crop.copy()


def outline(item: np.ndarray) -> np.ndarray:
    """The mask of an item, 255 or 0; uint8 (28, 28).

    Dark pixels belong to it if there are brighter ones to their left, right, top and bottom.
    """
    ink = item > INK
    ahead = (np.logical_or.accumulate(ink, axis) for axis in (0, 1))
    behind = (np.logical_or.accumulate(ink[::-1, ::-1], axis)[::-1, ::-1] for axis in (0, 1))
    enclosed = np.logical_and.reduce([*ahead, *behind])
    return (ink | enclosed).astype(np.uint8) * 255


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
