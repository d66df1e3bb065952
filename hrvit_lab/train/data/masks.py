"""Images with masks: files with one number per pixel, which a table converts to class labels."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.broken import BrokenSample
from hrvit_lab.train.data.image_files import MAX_PIXELS, SUFFIXES, open_image
from hrvit_lab.train.data.image_folders import list_files
from hrvit_lab.train.data.samples import IGNORED, check_index
from hrvit_lab.train.datasets import Task

MAX_CLASSES = 255
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
"""Lossless formats. JPEG would change the numbers."""
INTEGER_MODES = ("L", "P", "1", "I", "I;16", "I;16L", "I;16B")
INVALID = -1


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """Image files with one mask each.

    Attributes:
        root: the folder of the data set.
        images, masks: bytes (N,), paths relative to ``root``.
        class_names: names of labels 0 … C − 1.
        table: int16 (256,): the label of each number in a mask, ``IGNORED``, or ``INVALID``.
    """

    root: Path
    images: np.ndarray
    masks: np.ndarray
    class_names: tuple[str, ...]
    table: np.ndarray
    task: Task = "segmentation"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:
        path, mask = self.root / self.name(index), self.root / os.fsdecode(self.masks[index])
        image, numbers = open_image(path), read_numbers(mask)
        if image.size != numbers.shape[::-1]:
            height, width = numbers.shape
            raise BrokenSample(
                f"{mask} has {width}×{height} pixels, but its image {path.name} has {image.width}×{image.height}; "
                "give both the same size, or remove both"
            )
        return image, Image.fromarray(self.labels(numbers, mask))

    def labels(self, numbers: np.ndarray, mask: Path) -> np.ndarray:
        """The labels, uint8, of the numbers in a mask.

        Raises:
            BrokenSample: if a number has no label; names the mask.
        """
        beyond = (numbers < 0) | (numbers >= len(self.table))
        labels = self.table[np.where(beyond, 0, numbers)]
        valid = (labels != INVALID) & ~beyond
        if not valid.all():
            odd = np.unique(numbers[~valid]).tolist()
            shown = ", ".join(map(str, odd[:5])) + (", …" if len(odd) > 5 else "")
            raise BrokenSample(
                f"{mask} has labels out of range: {shown}; valid are {ranges(np.flatnonzero(self.table != INVALID))}; "
                "repair it, or remove it and its image"
            )
        return labels.astype(np.uint8)

    def name(self, index: int) -> str:
        check_index(index, len(self))
        return os.fsdecode(self.images[index])


def read_numbers(path: Path) -> np.ndarray:
    """The numbers in a mask, int32 (H, W); for an image with a palette, the indices.

    Raises:
        BrokenSample: if it is missing, broken, too large, in a lossy format, or has several channels.
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=MASK_FORMATS) as mask:
            if mask.width * mask.height > MAX_PIXELS:
                raise BrokenSample(
                    f"{path} has {mask.width}×{mask.height} pixels, more than {MAX_PIXELS:,}; scale it down, or "
                    "remove it"
                )
            if mask.mode not in INTEGER_MODES:
                raise BrokenSample(
                    f"{path} has pixels of mode {mask.mode}; a mask has one channel of integers: save the labels, not "
                    "their colours"
                )
            return np.array(mask, dtype=np.int32)
    except BrokenSample:
        raise
    except Exception as error:  # for a broken file, Pillow can raise almost any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif isinstance(error, Image.UnidentifiedImageError):
            reason = f"it is none of {', '.join(MASK_FORMATS)}"
        raise BrokenSample(f"{path} cannot be decoded ({reason}); repair or remove it") from error


def label_table(labels: Mapping[int, int]) -> np.ndarray:
    """The table of `MaskFiles` from number → label; all other numbers are invalid."""
    table = np.full(256, INVALID, np.int16)
    for number, label in labels.items():
        table[number] = label
    return table


def own_labels(num_classes: int) -> np.ndarray:
    """The table for masks that already contain labels: 0 … C − 1, and ``IGNORED``."""
    return label_table({label: label for label in range(num_classes)} | {IGNORED: IGNORED})


def paired(
    root: Path, images: Path, masks: Path, *, image_end: str = "", mask_end: str = ""
) -> list[tuple[Path, Path]]:
    """Pair the images in one folder with the masks in another by relative path without suffix.

    Args:
        image_end, mask_end: text between the common name and the suffix; files without it are ignored.
    Raises:
        ConfigError: if a folder is missing or has no images, or an image has no mask or several.
    """
    found: list[dict[str, Path]] = []
    for folder, end in ((images, image_end), (masks, mask_end)):
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder; images are in {images.relative_to(root)} and their masks in "
                              f"{masks.relative_to(root)}, both below {root}")  # fmt: skip
        named: dict[str, Path] = {}
        for path in list_files(folder):
            shared = path.relative_to(folder).with_suffix("").as_posix()
            if path.suffix.lower() not in SUFFIXES or not shared.endswith(end):
                continue
            first = named.setdefault(shared.removesuffix(end), path)
            if first != path:
                raise ConfigError(f"{first} and {path.name} belong to the same sample; remove one of them")
        found.append(named)
    of_image, of_mask = found
    if not of_image:
        raise ConfigError(f"{images} has no image; add some ({', '.join(SUFFIXES)})")
    if alone := [path for name, path in of_image.items() if name not in of_mask]:
        raise ConfigError(
            f"{len(alone)} of {len(of_image)} images have no mask *{mask_end} in {masks}, the first is {alone[0]}; add "
            "the masks, or remove the images"
        )
    return [(path, of_mask[name]) for name, path in of_image.items()]


def mask_files(
    root: Path, pairs: Sequence[tuple[Path, Path]], class_names: Sequence[str], table: np.ndarray
) -> MaskFiles:
    """Create `MaskFiles` from pairs (image, mask)."""
    names = np.array([[os.fsencode(path.relative_to(root)) for path in pair] for pair in pairs])
    return MaskFiles(root, names[:, 0], names[:, 1], tuple(class_names), table)


def ranges(numbers: np.ndarray) -> str:
    """Ascending numbers as text with ranges.

    >>> ranges(np.array([0, 1, 2, 3, 255]))
    '0 to 3, 255'
    """
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)
