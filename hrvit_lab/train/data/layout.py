"""Recognize the data set in a folder by its layout."""

from pathlib import Path

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.find import find_idx

MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cityscapes", ("leftImg8bit", "gtFine")),
    ("ade20k", ("images/training", "annotations/training")),
    ("ade20k", ("ADEChallengeData2016",)),
    ("mask_folder", ("images/train", "masks/train", "classes.txt")),
    ("cifar10", ("cifar-10-batches-py",)),
    ("cifar10", ("data_batch_1",)),
    ("cifar100", ("cifar-100-python",)),
    ("oxford_pets_masks", ("oxford-iiit-pet",)),
    ("oxford_pets_masks", ("annotations/trimaps",)),
    ("folder", ("train", "val")),
    ("folder", ("train.tar", "val.tar")),
)
"""Files by which data sets are recognized, the most specific first. Trimaps are checked with their images."""


def recognise(root: Path) -> str:
    """The name of the data set in a folder.

    Raises:
        ConfigError: if it is not a folder, or its layout is unknown.
    """
    if not root.is_dir():
        raise ConfigError(f"{root} is neither a folder nor a name in hrvit-lab data list; check the path")
    for key, marks in MARKS:
        if all((root / mark).exists() for mark in marks):
            return key
    try:
        find_idx(root, "train-images-idx3-ubyte")
    except ConfigError:
        raise ConfigError(
            f"{root} does not have the layout of a known data set; see hrvit-lab data list, and give a name and --root"
        ) from None
    return "fashion_mnist"
