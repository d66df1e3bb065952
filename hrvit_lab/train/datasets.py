"""What is known of the data sets before anything is loaded. Nothing here needs torch."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        label: its name for people.
        num_classes: number of classes; None: the files tell.
        source: where the images come from, for people.
        task: a class for each image, or for each pixel.
        files: which files it needs and where to put them, for people.
        torchvision: class of `torchvision.datasets` that downloads it; None: it cannot be downloaded.
    """

    label: str
    num_classes: int | None
    source: str
    task: Task = "classification"
    files: str = "none"
    torchvision: str | None = None


FASHION_FILES = "Debian's package dataset-fashion-mnist, or its four idx files in ROOT"

IMAGE_FOLDERS = "ROOT/train/CLASS/* and ROOT/val/CLASS/*, or train.tar and val.tar"

DATASETS: dict[str, Dataset] = {
    "digits": Dataset("digits", 10, "scikit-learn's digits, 8x8 grey"),
    "fashion_mnist": Dataset(
        "Fashion-MNIST", 10, "Fashion-MNIST, 28x28 grey, idx files", files=FASHION_FILES, torchvision="FashionMNIST"
    ),
    "folder": Dataset("image folder", None, "image folder with train/ and val/", files=IMAGE_FOLDERS),
    "imagenet": Dataset("ImageNet-1K", None, "ImageNet-1K, ILSVRC 2012", files=IMAGE_FOLDERS),
}
"""Data sets by the name that recipes and commands take; `hrvit_lab.train.data.samples.OPEN` opens them."""

IN_MEMORY: dict[str, Dataset] = {key: DATASETS[key] for key in ("digits", "fashion_mnist", "folder")}
"""Those that studies and the short training take; ``LOADERS`` of `hrvit_lab.train.data.memory` loads them."""
