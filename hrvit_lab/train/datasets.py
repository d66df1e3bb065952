"""Descriptions of the data sets. This module does not import torch."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        label: name shown to users.
        num_classes: number of classes; None: depends on the files.
        source: origin of the images, as shown to users.
        task: "classification" or "segmentation".
        files: needed files and their location, as shown to users.
        torchvision: class of `torchvision.datasets` that downloads it; None if there is none.
    """

    label: str
    num_classes: int | None
    source: str
    task: Task = "classification"
    files: str = "no files"
    torchvision: str | None = None


FASHION_FILES = "Debian's package dataset-fashion-mnist, or its four idx files in ROOT"

PETS = "ROOT/oxford-iiit-pet/images and annotations, as torchvision puts them"
IMAGE_FOLDERS = "ROOT/train/CLASS/* and ROOT/val/CLASS/*, or train.tar and val.tar"

# fmt: off
DATASETS: dict[str, Dataset] = {
    "digits": Dataset("digits", 10, "scikit-learn's digits, 8x8 grey"),
    "fashion_mnist": Dataset(
        "Fashion-MNIST", 10, "Fashion-MNIST, 28x28 grey, idx files", files=FASHION_FILES, torchvision="FashionMNIST"
    ),
    "folder": Dataset("image folder", None, "image folder with train/ and val/", files=IMAGE_FOLDERS),
    "imagenet": Dataset("ImageNet-1K", None, "ImageNet-1K, ILSVRC 2012", files=IMAGE_FOLDERS),
    "cifar10": Dataset(
        "CIFAR-10", 10, "CIFAR-10, 32x32", files="ROOT/cifar-10-batches-py/*, as torchvision puts them",
        torchvision="CIFAR10",
    ),
    "cifar100": Dataset(
        "CIFAR-100", 100, "CIFAR-100, 32x32", files="ROOT/cifar-100-python/*, as torchvision puts them",
        torchvision="CIFAR100",
    ),
    "oxford_pets": Dataset("Oxford-IIIT Pet", 37, "Oxford-IIIT Pet", files=PETS, torchvision="OxfordIIITPet"),
    "oxford_pets_masks": Dataset(
        "trimaps of Oxford-IIIT Pet", 3, "Oxford-IIIT Pet", "segmentation", PETS, "OxfordIIITPet"
    ),
    "ade20k": Dataset(
        "ADE20K", 150, "ADE20K, MIT scene parsing challenge", "segmentation",
        "ROOT/images/training, ROOT/annotations/training, and validation",
    ),
    "cityscapes": Dataset(
        "Cityscapes", 19, "Cityscapes, fine masks", "segmentation",
        "ROOT/leftImg8bit/train/CITY, ROOT/gtFine/train/CITY, and val",
    ),
    "mask_folder": Dataset(
        "images with masks", None, "folders of images and masks", "segmentation",
        "ROOT/images/train, ROOT/masks/train, and val, ROOT/classes.txt",
    ),
    "composites": Dataset(
        "composites", 11, "Fashion-MNIST items on photographs of scikit-image", "segmentation", FASHION_FILES,
        "FashionMNIST",
    ),
    "textures": Dataset("textures", 6, "mosaics of textures of scikit-image", "segmentation"),
}
# fmt: on
"""Data sets by the name used in recipes and commands; `hrvit_lab.train.data.samples.OPEN` opens them."""

IN_MEMORY: dict[str, Dataset] = {key: DATASETS[key] for key in ("digits", "fashion_mnist", "folder")}
"""Data sets for studies and the short training; ``LOADERS`` of `hrvit_lab.train.data.memory` loads them."""
