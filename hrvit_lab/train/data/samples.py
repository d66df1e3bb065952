"""Samples of a data set, read one at a time: their interface, and the table of functions that open data sets.

To add a data set, write a function ``(split, root, **options) -> Samples`` in a module of this package, and add a line
to ``OPEN`` and one to `hrvit_lab.train.datasets.DATASETS`. The modules are imported on first use.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from hrvit_lab.errors import ConfigError, suggest
from hrvit_lab.files import user_path
from hrvit_lab.train.data.broken import BrokenSample
from hrvit_lab.train.datasets import DATASETS, Task

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IGNORED", "OPEN", "SPLITS", "BrokenSample", "Samples", "Split", "check_index", "need_root", "open_samples"]

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
IGNORED = 255
"""Label of pixels that are ignored in losses and scores."""


class Samples(Protocol):
    """The images of one split with their targets. Instances can be pickled and used in several processes at once.

    Attributes:
        class_names: names of classes 0 … C − 1.
        task: "classification" (a target is a class) or "segmentation" (a target is an image of classes).
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def task(self) -> Task: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> "tuple[Image, int | Image]":
        """One image in mode RGB (L for grey data sets), and its target.

        For segmentation, the target is an image of the same size in mode L: a class for each pixel, or ``IGNORED``.

        Raises:
            BrokenSample: if the files of this sample cannot be used.
            IndexError: if the index is out of range or negative.
        """
        ...

    def name(self, index: int) -> str:
        """The path of the sample's file relative to the root, or another name, for messages."""
        ...


OPEN: dict[str, str] = {
    "digits": "in_memory.open_digits",
    "fashion_mnist": "in_memory.open_fashion_mnist",
    "folder": "imagenet.open_folder",
    "imagenet": "imagenet.open_imagenet",
    "cifar10": "cifar.open_cifar10",
    "cifar100": "cifar.open_cifar100",
    "oxford_pets": "pets.open_pets",
    "oxford_pets_masks": "pets.open_pets_masks",
    "ade20k": "ade20k.open_ade20k",
    "cityscapes": "cityscapes.open_cityscapes",
    "mask_folder": "pairs.open_pairs",
    "composites": "composites.open_composites",
    "textures": "textures.open_textures",
}
"""The function of this package that opens each data set of ``DATASETS``."""


def open_samples(key: str, split: str, /, root: str | Path | None = None, **options: Any) -> Samples:
    """The samples of one split of a data set.

    Args:
        key: a name of ``DATASETS``.
        split: "train" or "val".
        root: folder of the files, for data sets with files. ``~`` is the home folder.
        options: of the data set; see its module.
    Raises:
        ConfigError: for an unknown data set, split or option, a value of another type, or missing files.
    """
    if key not in OPEN:
        raise ConfigError(f"unknown data set {key!r:.80}; {suggest(key, OPEN)}")
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r:.80}; use train or val")
    opener = find_opener(key)
    known = {name: kind for name, kind in opener.__annotations__.items() if name not in ("split", "root", "return")}
    if unknown := sorted(options.keys() - known):
        remedy = suggest(unknown[0], known) if known else "it has none"
        raise ConfigError(f"data set {key!r} has no option {unknown[0]!r:.80}; {remedy}")
    for name, value in options.items():
        try:
            TypeAdapter(known[name]).validate_python(value, strict=True)
        except ValidationError:
            raise ConfigError(f"data set {key!r}: {name} = {value!r:.80} is not {_kind(known[name])}") from None
    samples: Samples = opener(split, None if root is None else user_path(root), **options)
    return samples


def _kind(annotation: Any) -> str:
    """The type of an option, for messages."""
    words = {"int": "a whole number", "str": "a string", "Path": "a path", "None": "null"}
    names = str(getattr(annotation, "__name__", annotation)).split(" | ")
    return " or ".join(words.get(name.rpartition(".")[2], name) for name in names)


def find_opener(key: str) -> Callable[..., Samples]:
    """The function that opens a data set of ``OPEN``."""
    module, _, function = OPEN[key].partition(".")
    opener: Callable[..., Samples] = getattr(import_module(f"hrvit_lab.train.data.{module}"), function)
    return opener


def check_index(index: int, number: int) -> None:
    """Raise an IndexError for an index outside 0 … number − 1."""
    if not 0 <= index < number:
        raise IndexError(f"sample {index} of {number}")


def need_root(key: str, root: Path | None) -> Path:
    """Check that the root is a folder.

    Raises:
        ConfigError: if it is missing or not a folder; names the files that it must contain.
    """
    files = f"data set {key!r} needs {DATASETS[key].files}"
    if root is None:
        raise ConfigError(f"{files}; give the folder ROOT as root")
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder; {files}")
    return root
