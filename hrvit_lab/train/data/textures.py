"""Textures: mosaics of photographed textures, with a class for each pixel. Generated; nothing is downloaded.

A scene is a function of (split, size, index): three to six cells around random points, each filled with a grey crop of
one texture with random scale, brightness and contrast. Training scenes use the left parts of the photographs,
validation scenes the right parts; a strip between them is not used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.composites import check_scenes, uniform
from hrvit_lab.train.data.photographs import read_photograph
from hrvit_lab.train.data.samples import check_index
from hrvit_lab.train.datasets import Task

SCENES = {"train": 20_000, "val": 1_000}
TEXTURES = {
    "brick": "brick", "grass": "grass", "gravel": "gravel", "tissue": "ihc", "print": "page", "handwriting": "text",
}  # fmt: skip
"""The classes with their photographs."""
GAP = 16
"""Pixels between the parts of a photograph."""
CELLS = (3, 6)
ZOOM = (0.5, 1.0)
"""Side of a crop, as a share of the largest square in a part."""
BRIGHTNESS, CONTRAST = (90.0, 166.0), (30.0, 60.0)
"""Mean and standard deviation of a cell, in grey levels; limited to 0 … 255."""
DRAWS_PER_CELL = 9


@dataclass(frozen=True, eq=False)
class Textures:
    """Mosaics of one split.

    Attributes:
        parts: of the photographs, mode L, in the order of the classes.
        size: side of a mosaic in pixels.
        number: number of mosaics.
    """

    parts: tuple[Image.Image, ...]
    split: str
    size: int
    number: int
    class_names: tuple[str, ...] = tuple(TEXTURES)
    task: Task = "segmentation"

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:
        check_index(index, len(self))
        draws = uniform("textures", self.split, index, 1 + DRAWS_PER_CELL * CELLS[1])
        cells = draws[1:].reshape(CELLS[1], DRAWS_PER_CELL)[: CELLS[0] + int(draws[0] * (1 + CELLS[1] - CELLS[0]))]
        nearest_HW = nearest(cells[:, :2] * self.size, self.size)
        mosaic_HW = np.zeros((self.size, self.size), np.uint8)
        labels_HW = np.zeros((self.size, self.size), np.uint8)
        for number, cell in enumerate(cells):
            here = nearest_HW == number
            label = int(cell[2] * len(self.parts))
            labels_HW[here] = label
            mosaic_HW[here] = self._crop(label, cell[3:])[here]
        return Image.fromarray(mosaic_HW), Image.fromarray(labels_HW)

    def name(self, index: int) -> str:
        check_index(index, len(self))
        return f"{self.split} mosaic {index}"

    def _crop(self, label: int, draws: np.ndarray) -> np.ndarray:
        """A square of one part, uint8 (size, size)."""
        zoom, x, y, flip, bright, contrast = draws
        part = self.parts[label]
        side = min(part.size) * _between(ZOOM, zoom)
        left, top = x * (part.width - side), y * (part.height - side)
        box = (left, top, min(left + side, part.width), min(top + side, part.height))
        crop = part.resize((self.size, self.size), Image.Resampling.BILINEAR, box, reducing_gap=2.0)
        table = levels(crop.histogram(), _between(BRIGHTNESS, bright), _between(CONTRAST, contrast))
        grey = table[np.asarray(crop)]
        return grey[:, ::-1] if flip < 0.5 else grey


def open_textures(split: str, root: Path | None, *, size: int = 128, number: int | None = None) -> Textures:
    """Textures.

    Args:
        size: side of a scene, 32 to 512 pixels.
        number: number of scenes; default: 20,000 for training and 1,000 for validation.
    """
    if root is not None:
        raise ConfigError("data set 'textures' is part of scikit-image and has no root; remove root")
    parts = tuple(part_of(read_photograph(name).convert("L"), split) for name in TEXTURES.values())
    return Textures(parts, split, *check_scenes(size, number, SCENES[split]))


def part_of(photograph: Image.Image, split: str) -> Image.Image:
    """The left part of a photograph for training, the right one for validation."""
    middle, (width, height) = photograph.width // 2, photograph.size
    columns = (0, middle - GAP // 2) if split == "train" else (middle + GAP // 2, width)
    return photograph.crop((columns[0], 0, columns[1], height))


def levels(histogram: Sequence[int], mean: float, deviation: float) -> np.ndarray:
    """A look-up table of grey levels, uint8 (256,), that gives pixels this mean and standard deviation."""
    grey, count = np.arange(256), np.array(histogram)
    number = int(count.sum())
    average = int(grey @ count) / number  # from integers: equal on every machine
    spread = math.sqrt(max(int(grey**2 @ count) / number - average**2, 1.0))
    return ((grey - average) * (deviation / spread) + mean).round().clip(0, 255).astype(np.uint8)


def nearest(points: np.ndarray, size: int) -> np.ndarray:
    """The index of the nearest of the points (N, 2), as (x, y), for each pixel's centre; int64 (size, size)."""
    centres = np.arange(size) + 0.5
    across, down = ((centres[:, None] - points[:, axis]) ** 2 for axis in (0, 1))
    distances: np.ndarray = across[None, :, :] + down[:, None, :]
    return distances.argmin(axis=2)


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share
