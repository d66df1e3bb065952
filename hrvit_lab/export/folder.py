"""The folder of an artifact: it appears complete, or not at all."""

import errno
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hrvit_lab.errors import ConfigError


@contextmanager
def unfinished(parent: Path) -> Iterator[Path]:
    """A hidden folder in ``parent``, which is created if it is absent. It is removed at the end, unless `finish` gave
    it its name: after an error or Ctrl-C nothing is left.

    Raises:
        OSError: if it cannot be created, with the name of ``parent``.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f".export-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(parent)) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Check that ``folder`` is absent or empty.

    Raises:
        ConfigError: if it is not.
    """
    if folder.is_dir() and (there := next(folder.iterdir(), None)):
        raise ConfigError(
            f"{folder} already contains {there.name}, which is never overwritten; choose a new folder with --out"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose a new folder with --out")


def finish(folder: Path, place: Path, *, numbered: bool) -> Path:
    """Rename an unfinished folder to ``place`` and return its path. If something is there, ``place-2`` is used, and so
    on.

    Args:
        numbered: False: only an empty folder is replaced, and anything else is an error.
    Raises:
        ConfigError: if ``place`` is not new, and ``numbered`` is False.
    """
    number = 1
    while True:
        target = place if number == 1 else place.with_name(f"{place.name}-{number}")
        try:
            if not (numbered and target.exists()):
                folder.rename(target)
                return target
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            if not numbered:
                check_new(place)
                raise
        number += 1
