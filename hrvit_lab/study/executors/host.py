"""What the studies of one user on one host share: measurements of time must not disturb each other.

Any number of processes may compute at once, or one may measure times; the locks lie in a folder of the user's own
among the host's temporary files, so they are the same for all results folders and never shared between hosts.
"""

import contextlib
import getpass
import os
import stat
import tempfile
import time
import uuid
from pathlib import Path

from hrvit_lab.environment import available_memory, usable_cores
from hrvit_lab.errors import ConfigError
from hrvit_lab.files import Lock, try_lock

WORKER_BYTES = 540 * 2**20
"""Memory of a worker that trains a small network: torch and its libraries, mostly."""

ENTRY_TRIES = 10
ENTRY_WAIT_S = 0.01


def choose_jobs(asked: int | None, device: str) -> tuple[int, str]:
    """How many trials run at a time, and a sentence if that is fewer than asked for.

    Args:
        asked: by the user; None takes as many as fit, one on a GPU.
    """
    cores, memory = usable_cores(), available_memory()
    fit = max(1, memory // WORKER_BYTES)
    most = min(cores, fit)
    if asked is None:
        return (most if device == "cpu" else 1), ""
    if asked <= most:
        return asked, ""
    why = f"{memory / 2**30:.1f} GiB of memory are free" if fit < cores else f"{cores} cores can be used"
    return most, f"--jobs {asked} is too many here: {why}, so {most} run{'s' * (most == 1)} at a time."


def host_folder() -> Path:
    """The user's folder for locks on this host, made if absent.

    Raises:
        ConfigError: if what lies there is a link, or belongs to or can be written by somebody else.
    """
    posix = hasattr(os, "getuid")
    folder = Path(tempfile.gettempdir()) / f"hrvit-lab-{os.getuid() if posix else getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode)
    if posix:
        ours = ours and found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not ours:
        raise ConfigError(
            f"{folder} holds the locks of this user's studies, but is no folder of this user's alone; remove it, or "
            "set TMPDIR to another folder"
        )
    return folder


def timing_lock(*, exclusive: bool) -> Lock | None:
    """Held exclusively while times are measured, and shared while anything else computes; None when it has to wait.

    Who enters holds ``timing.lock`` for a moment, who measures holds it to the end. Who computes holds a file of its
    own, and who wants to measure looks whether one of those is held. All of them end with the process that holds them.

    Raises:
        ConfigError: if the user's folder can't be used, see `host_folder`.
    """
    folder = host_folder()
    gate = _enter(folder / "timing.lock")
    if gate is None:
        return None
    with contextlib.ExitStack() as entered:
        entered.callback(gate.release, unlink=True)
        if not exclusive:
            return try_lock(folder / f"computing-{uuid.uuid4().hex}.lock")
        if not all(_is_free(path) for path in folder.glob("computing-*.lock")):
            return None
        entered.pop_all()
        return gate


def _enter(gate: Path) -> Lock | None:
    """Others that enter are through in a moment; who measures is not."""
    for _ in range(ENTRY_TRIES):
        if (lock := try_lock(gate)) is not None:
            return lock
        time.sleep(ENTRY_WAIT_S)
    return None


def _is_free(path: Path) -> bool:
    """Whether nobody holds it any more; a killed process's file is removed."""
    lock = try_lock(path)
    if lock is not None:
        lock.release(unlink=True)
    return lock is not None
