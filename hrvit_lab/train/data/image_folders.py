"""Folders of images, ``ROOT/train/CLASS/…`` and ``ROOT/val/CLASS/…``: which files are images, and which are skipped.

Images in subfolders of a class folder belong to that class, as in torchvision's ``ImageFolder``. Links are followed,
but each folder is read only once per class, so that cyclic links end. Hidden files and folders (``.name``) are skipped.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hrvit_lab.errors import ConfigError
from hrvit_lab.files import user_path
from hrvit_lab.train.data.image_files import SUFFIXES

HIDDEN = "hidden"
NO_FILE = "broken link or special file"
READ_ALREADY = "link to a folder that is read already"
NO_CLASS = "outside of class folders"

SPLITS = ("train", "val")


@dataclass(frozen=True)
class FolderImages:
    """The files of an image folder; nothing is decoded.

    Attributes:
        class_names: names of the class folders, sorted; equal in both splits.
        train, val: (file, index into ``class_names``), by class and then by path.
        skipped: reason (a file name's suffix, or one of the constants above) → number of entries.
    """

    class_names: tuple[str, ...]
    train: list[tuple[Path, int]]
    val: list[tuple[Path, int]]
    skipped: Mapping[str, int]


def list_images(root: str | Path) -> FolderImages:
    """Find the images of both splits.

    Raises:
        ConfigError: if a folder is missing, unreadable or has no image, or the splits have different classes.
    """
    root = user_path(root)
    skipped: Counter[str] = Counter()
    train, val = (_classes(root / split, skipped) for split in SPLITS)
    check_same(root, train, val)
    return FolderImages(tuple(train), _labelled(train), _labelled(val), skipped)


def check_same(root: Path, train: Collection[str], val: Collection[str]) -> None:
    """Check that both splits have the same classes.

    Raises:
        ConfigError: if not; names the classes that only one split has.
    """
    if odd := sorted({*train} ^ {*val}):
        raise ConfigError(f"{root}: train and val must have the same classes; only one has {_some(odd)}")


def list_classes(folder: Path, skipped: Counter[str] | None = None) -> dict[str, list[Path]]:
    """The images of one split by class; both sorted.

    Args:
        skipped: counts the entries that are not read, by reason.
    Raises:
        ConfigError: as `list_images`.
    """
    return _classes(folder, Counter() if skipped is None else skipped)


def list_files(folder: Path) -> list[Path]:
    """All regular files below a folder, sorted by path, without hidden ones.

    Raises:
        ConfigError: if a folder cannot be read.
    """
    return _files(folder, Counter())


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """A text on how many entries were skipped and why, the most frequent first; "" if none.

    >>> describe_skipped({".heic": 12, "hidden": 1})
    'skipped 13: 12 .heic, 1 hidden'
    """
    if not skipped:
        return ""
    parts = [f"{number:,} {reason}" for reason, number in sorted(skipped.items(), key=lambda item: (-item[1], item[0]))]
    return f"skipped {sum(skipped.values()):,}: {_some(parts)}"


def show_skipped(console: Console, splits: Iterable[object]) -> None:
    """Print how many entries of the splits' folders were skipped, and why; nothing if none."""
    total = sum((Counter(getattr(samples, "skipped", {})) for samples in splits), Counter[str]())
    if total:
        console.print(f"Image folder: {describe_skipped(total)}", soft_wrap=True)


def files_digest(root: str | Path | None) -> str:
    """32 hex digits that change when a file below ``root`` is added, removed or written; "" without a root.

    Computed from names, sizes and modification times of the files that a data set reads (hidden ones are not included,
    links are followed). No file is read. A missing folder counts as empty.
    """
    if root is None:
        return ""
    root = user_path(root)
    files = _files(root, Counter()) if root.is_dir() else []
    stats = ((path.relative_to(root).as_posix(), path.stat()) for path in files)
    listing = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:32]


def _classes(split: Path, skipped: Counter[str]) -> dict[str, list[Path]]:
    """The images by class name, sorted."""
    if not split.is_dir():
        raise ConfigError(f"{split} is not a folder; an image folder has train/CLASS/* and val/CLASS/* images")
    folders, files = _entries(split, skipped)
    if len(folders) < 2:
        raise ConfigError(f"{split} has {len(folders)} class folders; classification needs at least 2")
    skipped.update({NO_CLASS: len(files)} if files else {})
    return {folder.name: _images(folder, skipped) for folder in folders}


def _labelled(classes: Mapping[str, list[Path]]) -> list[tuple[Path, int]]:
    return [(path, label) for label, files in enumerate(classes.values()) for path in files]


def _images(folder: Path, skipped: Counter[str]) -> list[Path]:
    here: Counter[str] = Counter()
    files = _files(folder, here)
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    here.update(path.suffix.lower()[:20] or "without suffix" for path in files if path.suffix.lower() not in SUFFIXES)
    if not images:
        seen = describe_skipped(here) or "it is empty"
        raise ConfigError(f"{folder} has no image ({seen}); add some ({', '.join(SUFFIXES)}), or remove the folder")
    skipped.update(here)
    return images


def _files(folder: Path, skipped: Counter[str]) -> list[Path]:
    """All regular files below a folder, sorted by path."""
    found: list[Path] = []
    read: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        stat = here.stat()
        if (stat.st_dev, stat.st_ino) in read:
            skipped[READ_ALREADY] += 1
            continue
        read.add((stat.st_dev, stat.st_ino))
        folders, files = _entries(here, skipped)
        waiting += reversed(folders)
        found += files
    return sorted(found)


def _entries(folder: Path, skipped: Counter[str]) -> tuple[list[Path], list[Path]]:
    """The folders and regular files in a folder, sorted; other entries are counted as skipped.

    Raises:
        ConfigError: if the folder cannot be read.
    """
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = folder / entry.name
                kind = (
                    path if entry.is_symlink() else entry
                )  # for a link to itself, DirEntry raises, and Path returns False
                if entry.name.startswith("."):
                    skipped[HIDDEN] += 1
                elif kind.is_dir():
                    folders.append(path)
                elif kind.is_file():
                    files.append(path)
                else:
                    skipped[NO_FILE] += 1
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be read ({error.strerror or error}); change its permissions, or remove it"
        ) from error
    return folders, files


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
