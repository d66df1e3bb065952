"""What is known of the data sets before anything is loaded. Nothing here needs torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        label: its name for people.
        num_classes: number of classes; None: the files tell.
        source: where the images come from, for people.
    """

    label: str
    num_classes: int | None
    source: str


DATASETS: dict[str, Dataset] = {
    "digits": Dataset("digits", 10, "scikit-learn's digits, 8x8 grey"),
    "fashion_mnist": Dataset("Fashion-MNIST", 10, "Fashion-MNIST, 28x28 grey, idx files"),
    "folder": Dataset("image folder", None, "image folder with train/ and val/"),
}
"""Data sets by the name that ``--data`` and study files take; ``hrvit_lab.train.data.LOADERS`` loads them."""
