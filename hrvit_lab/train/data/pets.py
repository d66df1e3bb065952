"""Oxford-IIIT Pet: 37 breeds, 3,680 training and 3,669 validation images; files in torchvision's layout.

The trimaps' values 1 (pet), 2 (background) and 3 (border) are converted to labels 0, 1 and 2.
"""

import os
from pathlib import Path

import numpy as np

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.imagenet import ImageFiles
from hrvit_lab.train.data.masks import MaskFiles, label_table, mask_files
from hrvit_lab.train.data.samples import need_root
from hrvit_lab.train.data.text_files import read_lines

FOLDER = "oxford-iiit-pet"
LISTS = {"train": "trainval.txt", "val": "test.txt"}
PARTS = ("pet", "background", "border")
MAX_BREEDS = 1000


def open_pets(split: str, root: Path | None) -> ImageFiles:
    """The breed of each image.

    Args:
        root: the folder ``oxford-iiit-pet``, or its parent.
    """
    root, listed = _listed("oxford_pets", split, root)
    breeds = {label: name.rpartition("_")[0].replace("_", " ") for name, label in listed}
    if sorted(breeds) != list(range(len(breeds))):
        raise ConfigError(
            f"{root / 'annotations' / LISTS[split]}: the numbers of the breeds have gaps or do not start at 1; "
            "download it again"
        )
    names = np.array([os.fsencode(f"images/{name}.jpg") for name, _ in listed])
    return ImageFiles(
        root, names, np.array([label for _, label in listed]), tuple(breeds[i] for i in range(len(breeds)))
    )


def open_pets_masks(split: str, root: Path | None) -> MaskFiles:
    """The trimap of each image; ``root`` as for `open_pets`."""
    root, listed = _listed("oxford_pets_masks", split, root)
    pairs = [(root / "images" / f"{n}.jpg", root / "annotations" / "trimaps" / f"{n}.png") for n, _ in listed]
    return mask_files(root, pairs, PARTS, label_table({number + 1: number for number in range(len(PARTS))}))


def _listed(key: str, split: str, root: Path | None) -> tuple[Path, list[tuple[str, int]]]:
    """The folder of the files, and the (name, breed from 0) of a split."""
    root = need_root(key, root)
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    path = root / "annotations" / LISTS[split]
    listed = []
    for line in read_lines(path):
        name, *numbers = line.split()
        if line.startswith("#"):
            continue
        if not numbers or not numbers[0].isdecimal() or not 1 <= int(numbers[0]) <= MAX_BREEDS or "/" in name:
            raise ConfigError(f"{path}: {line!r:.80} is not a name and the number of a breed; download it again")
        listed.append((name, int(numbers[0]) - 1))
    if not listed:
        raise ConfigError(f"{path} lists no image; download it again")
    return root, listed
