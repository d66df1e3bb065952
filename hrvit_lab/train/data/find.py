"""Find a data set and its number of classes without reading images and without torch.

To add a data set, add a line to ``FINDERS``; see `hrvit_lab.train.data.memory`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from hrvit_lab.errors import ConfigError, suggest
from hrvit_lab.files import user_path
from hrvit_lab.train.data.image_folders import FolderImages, list_images
from hrvit_lab.train.datasets import IN_MEMORY

MAX_BYTES = 4 * 2**30  # of uint8 pixels; fits into 16 GiB of memory with two workers
MAX_SIDE = 4096
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_SPLITS = ("train", "t10k")
FASHION_FILES = (("images", 3), ("labels", 1))
"""Contents and number of dimensions of its files."""


def find_classes(
    name: str, *, resolution: int | Sequence[int], root: str | Path | None = None, train_limit: int | None = None
) -> int:
    """The number of classes of a data set, without reading an image.

    Args:
        name, resolution, root, train_limit: as for `hrvit_lab.train.data.memory.load_dataset`.
    Raises:
        ConfigError: where ``load_dataset`` would raise it, except for files with broken content.
    """
    size, folder = check_request(name, resolution, root)
    classes = FINDERS[name](size, folder, train_limit)
    check_limit(classes, train_limit)
    return classes


def check_request(
    name: str, resolution: int | Sequence[int], root: str | Path | None
) -> tuple[tuple[int, int], Path | None]:
    """(height, width) and the folder of the files, after checking the request."""
    if name not in IN_MEMORY:
        raise ConfigError(f"unknown data set {name!r}; {suggest(name, IN_MEMORY)}")
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ConfigError(f"resolution {height}×{width} is out of range; use sides from 1 to {MAX_SIDE} pixels")
    return (height, width), None if root is None else user_path(root)


def check_limit(classes: int, train_limit: int | None) -> None:
    """Raise an error for a ``train_limit`` of less than one image per class."""
    if train_limit is not None and train_limit < classes:
        raise ConfigError(f"train_limit {train_limit} leaves classes without an image; use at least {classes}")


def find_digits(resolution: tuple[int, int], root: Path | None, train_limit: int | None) -> int:
    """The digits need no files."""
    if root is not None:
        raise ConfigError("data set 'digits' is part of scikit-learn and has no root; remove root")
    return 10


def find_fashion_mnist(resolution: tuple[int, int], root: Path | None, train_limit: int | None) -> int:
    """Check that the four files exist."""
    for prefix, (kind, ndim) in itertools.product(FASHION_SPLITS, FASHION_FILES):
        find_idx(root or DEBIAN_FASHION_MNIST, f"{prefix}-{kind}-idx{ndim}-ubyte")
    return 10


def find_idx(folder: Path, name: str) -> Path:
    """The idx file of that name, gzipped or not.

    Raises:
        ConfigError: if neither exists.
    """
    places = (folder, folder / "FashionMNIST" / "raw")  # the second is torchvision's layout
    for path in (place / file for place in places for file in (f"{name}.gz", name)):
        if path.is_file():
            return path
    raise ConfigError(
        f"{name}.gz is not in {folder}; install Debian's package dataset-fashion-mnist, or give as root the "
        "folder with Fashion-MNIST's four idx files"
    )


def find_folder(resolution: tuple[int, int], root: Path | None, train_limit: int | None) -> int:
    """Check that the images exist and fit into memory."""
    return len(find_images(resolution, root, train_limit).class_names)


def find_images(resolution: tuple[int, int], root: Path | None, train_limit: int | None) -> FolderImages:
    """List the images of a folder, after checking that they fit into memory at that resolution and limit."""
    if root is None:
        raise ConfigError("data set 'folder' needs a root: a folder of train/CLASS/* and val/CLASS/* images")
    found = list_images(root)
    used = min(len(found.train), train_limit or len(found.train)) + len(found.val)
    if (size := used * 3 * math.prod(resolution)) > MAX_BYTES:
        raise ConfigError(
            f"{root} at {resolution[0]}×{resolution[1]} would take {size / 2**30:.1f} GiB of memory, more "
            f"than {MAX_BYTES / 2**30:.0f} GiB; use a lower resolution, a train_limit, or fewer images in val"
        )
    return found


FINDERS: dict[str, Callable[[tuple[int, int], Path | None, int | None], int]] = {
    "digits": find_digits,
    "fashion_mnist": find_fashion_mnist,
    "folder": find_folder,
}
"""A function for each data set of ``IN_MEMORY`` that returns its number of classes."""
