"""Cityscapes (arXiv 1604.01685): 19 classes, 2,975 images to train on and 500 to validate, 2048 × 1024 pixels.

There are two kinds of masks: ``*_labelTrainIds.png`` with labels 0 … 18, and the downloadable ``*_labelIds.png`` with
34 values. If a mask of train ids is missing, all are converted from the other kind.
"""

from pathlib import Path

import numpy as np

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.masks import MaskFiles, label_table, mask_files, own_labels, paired
from hrvit_lab.train.data.samples import IGNORED, need_root

CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""Classes by their value in ``*_labelIds.png``; labels 0 … 18 are in this order."""
NUMBERS = 34
IMAGE_END, TRAIN_IDS, LABEL_IDS = "_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"


def open_cityscapes(split: str, root: Path | None) -> MaskFiles:
    """Cityscapes with its fine masks.

    Args:
        root: the folder with ``leftImg8bit`` and ``gtFine``.
    """
    root = need_root("cityscapes", root)
    images, masks = root / "leftImg8bit" / split, root / "gtFine" / split
    try:
        pairs, table = paired(root, images, masks, image_end=IMAGE_END, mask_end=TRAIN_IDS), own_labels(len(CLASSES))
    except ConfigError:  # some are missing: convert all from label ids
        pairs, table = paired(root, images, masks, image_end=IMAGE_END, mask_end=LABEL_IDS), from_numbers()
    return mask_files(root, pairs, tuple(CLASSES.values()), table)


def from_numbers() -> np.ndarray:
    """The table from 34 values (and 255) to labels."""
    ignored = dict.fromkeys([*range(NUMBERS), 255], IGNORED)
    return label_table(ignored | {number: label for label, number in enumerate(CLASSES)})
