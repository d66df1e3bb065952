"""Files that several processes share: atomic writes, locks, bounded reads."""

import contextlib
import csv
import errno
import io
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout, UnixFileLock

from hrvit_lab.errors import ConfigError

MIB = 2**20
_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
_SIGNED = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path that a user wrote: ``~`` and ``~NAME`` are replaced by home folders.

    Raises:
        ConfigError: if the home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"the home folder in {os.fspath(path)!r} does not exist on this machine; give the full path"
        ) from None


@dataclass
class Lock:
    """A held file lock; it ends with `release`, or with the process, however that ends.

    The kernel frees it. Only where a file system has no locks at all does `filelock` leave a file with the owner's
    process id in their place, which others on the same host remove once that process is gone.
    """

    path: Path
    held: BaseFileLock

    def release(self, *, unlink: bool = False) -> None:
        """Give it back; ``unlink`` removes the file too."""
        if unlink and isinstance(self.held, UnixFileLock):
            self.path.unlink(missing_ok=True)  # while it is locked: who waits for it sees that it is gone
        self.held.release()  # on other systems this removes the file, as far as they allow it


def try_lock(path: Path) -> Lock | None:
    """Lock ``path`` (made if absent) without waiting; None while another process, or this one, holds it.

    Raises:
        OSError: if the file can't be made or locked, with its name.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    return Lock(path, lock)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace ``path`` at once: a reader, or a crash, sees the old file or the new one, never a part.

    Text is written as UTF-8.
    Only one process may write a path at a time (hold its lock): the temporary file's name is fixed, so that a rerun
    overwrites what a killed run left.

    Raises:
        OSError: with the file's name, as when the disk is full; the old file is then as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, after the end of one that a killed process left unfinished.

    Raises:
        OSError: with the file's name.
    """
    try:
        with path.open("ab+") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            whole = file.read(1) in (b"", b"\n")
            file.write(b"" if whole else b"\n")
            file.write(line.encode() + b"\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Replace ``path`` at once by rows of cells, each `guarded`.

    Raises:
        OSError: as `write_atomically`.
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([guarded(cell) for cell in row] for row in rows)
    write_atomically(path, text.getvalue())


def guarded(cell: Any) -> Any:
    """A cell of a CSV file. Text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe.

    >>> guarded("=1+1"), guarded("-1"), guarded(-1)
    ("'=1+1", '-1', -1)
    """
    formula = isinstance(cell, str) and _FORMULA.match(cell) and not _SIGNED.fullmatch(cell)
    return f"'{cell}" if formula else cell


def unguarded(cell: Any) -> Any:
    """The cell without the apostrophe that `guarded` adds."""
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell) else cell


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file of limited size. Never waits: a FIFO or a device is refused.

    Raises:
        OSError: if it can't be read, is no regular file, or has more than ``max_bytes``.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if found.st_size > max_bytes:
            limit = f"{max_bytes / MIB:g} MiB" if max_bytes >= MIB else f"{max_bytes // 1024} KiB"
            raise OSError(errno.EFBIG, f"it is larger than {limit}", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make a rename outlive a power failure, where folders can be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
