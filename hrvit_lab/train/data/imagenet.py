"""Folders of images in ImageNet's layout, ``ROOT/train/CLASS/…`` and ``ROOT/val/CLASS/…``, or the same as tar files.

``image_folders`` selects the files in folders, ``tars`` those in archives. The classes are the sorted names of the
folders in both splits, or are given by a class list: a text file with one folder name per line, in the order of the
labels. A display name may follow after a tab, or after a WordNet id (``n01440764 tench``).
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.image_files import open_image
from hrvit_lab.train.data.image_folders import check_same, list_classes
from hrvit_lab.train.data.samples import SPLITS, Samples, check_index, need_root
from hrvit_lab.train.data.tars import find_tars, open_tars
from hrvit_lab.train.data.text_files import read_lines
from hrvit_lab.train.datasets import Task

WORDNET_ID = re.compile(r"(n\d{8})\s")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files with one class each.

    Attributes:
        root: the folder of the data set.
        names: bytes (N,), paths relative to ``root``. An array takes a tenth of the memory of a list of paths, and
            workers share it.
        labels: int64 (N,), indices into ``class_names``.
        skipped: reason → number of entries of this split that are not read, as in `FolderImages`.
    """

    root: Path
    names: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    task: Task = "classification"
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return open_image(self.root / self.name(index)), int(self.labels[index])

    def name(self, index: int) -> str:
        check_index(index, len(self))
        return os.fsdecode(self.names[index])


def open_folder(split: str, root: Path | None, *, classes: str | Path | None = None) -> Samples:
    """A data set in ImageNet's layout.

    Args:
        root: the folder with ``train`` and ``val``, which contain class folders or tar files; or with ``train.tar`` and
            ``val.tar``.
        classes: path of the class list, relative to ``root`` or absolute; default: ``ROOT/classes.txt`` if it exists.
    """
    return _open("folder", split, root, classes)


def open_imagenet(split: str, root: Path | None, *, classes: str | Path | None = None) -> Samples:
    """ImageNet-1K; as `open_folder`."""
    return _open("imagenet", split, root, classes)


def _open(key: str, split: str, root: Path | None, classes: str | Path | None) -> Samples:
    root = need_root(key, root)
    listed = read_class_list(root, classes)
    if tars := find_tars(root, split):
        return open_tars(tars, listed or _classes_of_training(root, split))
    skipped: Counter[str] = Counter()
    found = list_classes(root / split, skipped)
    other = root / (SPLITS[1] if split == SPLITS[0] else SPLITS[0])
    if listed is None and other.is_dir():
        check_same(root, found, [entry.name for entry in os.scandir(other) if _is_class(entry)])
    class_names = tuple(found) if listed is None else listed
    return replace(collect(root, found, class_names), skipped=skipped)


def collect(root: Path, found: Mapping[str, Sequence[Path]], class_names: Sequence[str]) -> ImageFiles:
    """Combine the files of all classes.

    Raises:
        ConfigError: if a folder is not in ``class_names``.
    """
    if unknown := sorted(found.keys() - set(class_names)):
        raise ConfigError(f"{root}: the class list lacks {unknown[0]!r:.80}; add it, or remove the folder")
    label = {name: index for index, name in enumerate(class_names)}
    names = [os.fsencode(path.relative_to(root)) for files in found.values() for path in files]
    labels = [label[name] for name, files in found.items() for _ in files]
    return ImageFiles(root, np.array(names, dtype=bytes), np.array(labels, dtype=np.int64), tuple(class_names))


def read_class_list(root: Path, classes: str | Path | None) -> tuple[str, ...] | None:
    """The names of the class list; None if there is none.

    Raises:
        ConfigError: if the file is missing or empty, or has a name twice.
    """
    path = root / (classes or "classes.txt")  # an absolute path replaces root
    if classes is None and not path.is_file():
        return None
    names = [_folder_name(line) for line in read_lines(path)]
    if len(names) < 2:
        raise ConfigError(f"{path} lists {len(names)} classes; classification needs at least 2")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ConfigError(f"{path} lists {twice[0]!r:.80} twice; list each class once")
    return tuple(names)


def _folder_name(line: str) -> str:
    if "\t" in line:
        return line.partition("\t")[0].strip()
    return found[1] if (found := WORDNET_ID.match(line)) else line


def _classes_of_training(root: Path, split: str) -> tuple[str, ...] | None:
    """The classes of the training archive, which define the labels of the other split; None for the training split."""
    tars = find_tars(root, SPLITS[0]) if split != SPLITS[0] else None
    return open_tars(tars, None).class_names if tars else None


def _is_class(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir() and not entry.name.startswith(".")
