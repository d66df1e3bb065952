"""The folder of an artifact: it appears complete, or not at all."""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hrvit_lab.errors import ConfigError
from hrvit_lab.files import try_lock

PREFIX = ".export-"


@contextmanager
def unfinished(parent: Path) -> Iterator[Path]:
    """A hidden folder in ``parent``, which is created if it is absent. It is removed at the end, unless `finish` gave
    it its name: after an error or Ctrl-C nothing is left, and of ``parent`` only what was there. A process that is
    killed leaves its folder, and the next one removes it.

    Raises:
        OSError: if it or a file in it cannot be written, with the name of ``parent``.
    """
    with _made(parent):
        _remove_abandoned(parent)
        with _locked_folder(parent) as folder:
            yield folder


@contextmanager
def _made(parent: Path) -> Iterator[None]:
    """Create a folder and those above it. At the end, created ones that are empty are removed."""
    created = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            for folder in created:
                folder.rmdir()


@contextmanager
def _locked_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, locked by this process and removed at the end."""
    folder = parent / f"{PREFIX}{uuid.uuid4().hex}"
    try:
        lock = try_lock(_lock_file(folder))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(parent)) from None
    assert lock is not None, "the name is new"
    try:
        try:
            folder.mkdir()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(parent)) from None
        try:
            yield folder
        except OSError as error:
            name = error.filename if isinstance(error.filename, str | bytes) else ""
            if Path(os.fsdecode(name)).is_relative_to(folder):  # it is hidden, and it will be gone
                raise OSError(error.errno, error.strerror, str(parent)) from None
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release(unlink=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove unfinished folders whose processes have ended."""
    for folder in parent.glob(f"{PREFIX}*"):
        if re.fullmatch(f"{re.escape(PREFIX)}[0-9a-f]{{32}}", folder.name) is None:
            continue
        with contextlib.suppress(OSError):  # another user's, for example
            if (lock := try_lock(_lock_file(folder))) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                lock.release(unlink=True)


def _lock_file(folder: Path) -> Path:
    """The file that is locked while a process writes the folder."""
    return folder.with_name(f"{folder.name}.lock")


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


def finish(folder: Path, place: Path) -> Path:
    """Rename an unfinished folder to ``place`` and return its path. If something is there, ``place-2`` is used, and so
    on: another process may have written ``place`` meanwhile, and neither artifact may be lost."""
    number = 1
    while True:
        target = place if number == 1 else place.with_name(f"{place.name}-{number}")
        try:
            return folder.rename(target)  # replaces an empty folder
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        number += 1
