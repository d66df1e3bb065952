"""Images in tar files: an archive with class folders, a folder of archives, or an archive of archives.

timm scans the archives (`timm.data.readers.reader_image_in_tar`): the class of an image is the name of the innermost
folder or archive that contains it. Images are then read by their offset, so several processes can read at once.
timm's cache of a scan is not used, because it is a pickle file.
"""

import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.broken import BrokenSample
from hrvit_lab.train.data.image_files import decode_image
from hrvit_lab.train.data.samples import check_index
from hrvit_lab.train.datasets import Task


@dataclass(frozen=True, eq=False)
class TarImages:
    """Images in tar files with one class each.

    Attributes:
        folder: the folder of the archives.
        archives: their names; those inside another archive are not listed.
        archive, start, size: int64 (N,): the index of an image's archive, and its offset and length in bytes.
        names: bytes (N,), file names in the archives.
        labels: int64 (N,), indices into ``class_names``.
    """

    folder: Path
    archives: tuple[str, ...]
    archive: np.ndarray
    start: np.ndarray
    size: np.ndarray
    names: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        name = f"{self.folder / self.name(index)}"
        try:
            with (self.folder / self.archives[self.archive[index]]).open("rb") as file:
                file.seek(int(self.start[index]))
                body = file.read(int(self.size[index]))
        except OSError as error:
            raise BrokenSample(
                f"{name} cannot be read ({error.strerror or error}); download the archive again"
            ) from error
        return decode_image(io.BytesIO(body), name), int(self.labels[index])

    def name(self, index: int) -> str:
        check_index(index, len(self))
        return f"{self.archives[self.archive[index]]}/{os.fsdecode(self.names[index])}"


def find_tars(root: Path, split: str) -> Path | None:
    """``ROOT/SPLIT.tar``, or the folder ``ROOT/SPLIT`` if it contains tar files and no folders; else None."""
    if (single := root / f"{split}.tar").is_file():
        return single
    folder = root / split
    if folder.is_dir() and any(folder.glob("*.tar")) and not any(path.is_dir() for path in folder.iterdir()):
        return folder
    return None


def open_tars(place: Path, class_names: Sequence[str] | None) -> TarImages:
    """The images of one archive, or of all archives in a folder; sorted by archive and name.

    Args:
        class_names: the classes in the order of their labels; None: the classes found, sorted.
    Raises:
        ConfigError: for a broken archive, no image, or a class that is not in ``class_names``.
    """
    from timm.data.readers.reader_image_in_tar import extract_tarinfos

    try:
        samples, targets, labels_of, _ = extract_tarinfos(str(place), cache_tarinfo=False)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ConfigError(f"{place}: a tar file cannot be read ({error}); download it again") from error
    except ValueError as error:  # raised by timm for an empty list
        raise ConfigError(f"{place} has no image in its tar files; check the folder") from error
    folder, own = (place.parent, place.name) if place.is_file() else (place, None)
    names_of = {index: name for name, index in labels_of.items()}
    found = [names_of[int(target)] for target in targets]
    class_names = tuple(sorted(set(found)) if class_names is None else class_names)
    if unknown := sorted(set(found) - set(class_names)):
        raise ConfigError(
            f"{place} has images of class {unknown[0]!r:.80}, which is not in the class list; in these archives the "
            "innermost folder or archive names the class (shards of webdataset must be unpacked)"
        )
    if len(class_names) < 2:
        raise ConfigError(
            f"{place} has images of 1 class, {class_names[0]!r:.80}; the innermost folder or archive names the class "
            "(shards of webdataset must be unpacked)"
        )
    label = {name: index for index, name in enumerate(class_names)}
    rows = sorted(
        (archive or own, outer.offset_data + inner.offset_data if outer else inner.offset_data, inner.size,
         f"{outer.name}/{inner.name}" if outer else inner.name, label[name])
        for (inner, archive, outer), name in zip(samples, found, strict=True)
    )  # fmt: skip
    archives, start, size, names, labels = zip(*rows, strict=True)
    known = tuple(dict.fromkeys(archives))
    number = {archive: index for index, archive in enumerate(known)}
    return TarImages(
        folder, known, np.array([number[archive] for archive in archives]), np.array(start), np.array(size),
        np.array([os.fsencode(name) for name in names], dtype=bytes), np.array(labels), class_names,
    )  # fmt: skip
