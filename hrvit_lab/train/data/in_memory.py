"""Small sets of grey images, held in memory: scikit-learn's digits and Fashion-MNIST."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hrvit_lab.train.data.find import DEBIAN_FASHION_MNIST, FASHION_SPLITS
from hrvit_lab.train.data.idx import FASHION_CLASSES, read_fashion
from hrvit_lab.train.data.samples import SPLITS, check_index
from hrvit_lab.train.datasets import Task


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images of one size as an array.

    Attributes:
        images: uint8 (N, h, w), or (N, h, w, 3).
        labels: (N,), integers.
        prefix: prefix of the samples' names.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    prefix: str
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        check_index(index, len(self))
        return Image.fromarray(self.images[index]), int(self.labels[index])

    def name(self, index: int) -> str:
        return f"{self.prefix} {index}"


def open_digits(split: str, root: Path | None) -> ArrayImages:
    """The digits of `hrvit_lab.train.data.load_dataset`, with its split: 1,437 and 360 images, 8 × 8."""
    from hrvit_lab.train.data.memory import load_digits

    pixels = load_digits((8, 8), root, None)
    images, labels = (
        (pixels.train_images, pixels.train_labels) if split == "train" else (pixels.val_images, pixels.val_labels)
    )
    return ArrayImages(images[:, 0].numpy(), labels.numpy(), pixels.class_names, f"{split} digit")


def open_fashion_mnist(split: str, root: Path | None) -> ArrayImages:
    """Fashion-MNIST: 60,000 training images, and its 10,000 test images as "val"; 28 × 28.

    Args:
        root: folder of the four idx files, gzipped or not; default: the folder of Debian's package.
    """
    prefix = dict(zip(SPLITS, FASHION_SPLITS, strict=True))[split]  # type: ignore[index]
    images, labels = read_fashion(root or DEBIAN_FASHION_MNIST, prefix)
    return ArrayImages(images, labels, FASHION_CLASSES, f"{prefix} image")
