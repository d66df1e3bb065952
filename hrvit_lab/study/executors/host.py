"""Limits and locks that all studies of a user share on one host, so that latency measurements run alone.

Either any number of processes compute, or one process measures latency. The locks are in a per-user folder that is the
same for all processes of this host, whatever their ``TMPDIR`` is, and for no other host.
"""

import contextlib
import getpass
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from hrvit_lab.environment import available_memory, usable_cores
from hrvit_lab.errors import ConfigError
from hrvit_lab.files import Lock, try_lock

WORKER_BYTES = 540 * 2**20
"""Memory of a worker that trains a small network, mostly torch and its libraries."""

LOCKS = "HRVIT_LAB_LOCKS"
"""Variable with another folder for the locks, on a host where the usual ones can't be used."""

TEMPORARY = ("/tmp", "/var/tmp")
"""Folders for temporary files that every process of a host sees."""

ENTRY_TRIES = 10
ENTRY_WAIT_S = 0.01
POLL_S = 0.2


def choose_jobs(requested: int | None, device: str, processes: int = 1) -> tuple[int, str]:
    """The number of trials to run at the same time, and a sentence if it is less than requested.

    Args:
        requested: number of trials; None: as many as fit, or one on a GPU.
        processes: of a trial.
    """
    cores, memory = usable_cores(), available_memory()
    fit = max(1, memory // WORKER_BYTES)
    most = max(1, min(cores, fit) // processes)
    if requested is None:
        return (most if device == "cpu" else 1), ""
    if requested <= most:
        return requested, ""
    why = f"{memory / 2**30:.1f} GiB of memory are free" if fit < cores else f"{cores} CPU cores are available"
    each = f", and each training has {processes} processes" if processes > 1 else ""
    return most, f"--jobs {requested} is reduced to {most}: {why}{each}."


def host_folder() -> Path:
    """The user's folder for locks on this host; created if absent.

    Raises:
        ConfigError: if it can't be created, is a link or a file, belongs to another user, or others can write to it.
    """
    posix = hasattr(os, "getuid")
    folder = _temporary() / f"hrvit-lab-{os.getuid() if posix else getpass.getuser()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(
            f"{folder} holds the locks of studies, but can't be created ({error.strerror}); set {LOCKS} to a folder of "
            "this host that you can write to"
        ) from None
    ours = stat.S_ISDIR(found.st_mode)
    if posix:
        ours = ours and found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not ours:
        raise ConfigError(
            f"{folder} holds the locks of studies, so it must be a folder that only this user can write to; "
            f"remove it, or set {LOCKS} to another folder of this host"
        )
    return folder


def _temporary() -> Path:
    """The parent of the user's folder. ``TMPDIR`` may differ between jobs, so it counts only if there is no other."""
    if given := os.environ.get(LOCKS):
        return Path(given)
    usual = TEMPORARY if os.name == "posix" else ()
    return Path(next((path for path in usual if os.access(path, os.W_OK | os.X_OK)), tempfile.gettempdir()))


def timing_lock(*, exclusive: bool) -> Lock | None:
    """Acquire the lock: exclusive to measure latency, shared for all other trials; None if it is not available.

    A process that measures holds ``timing.lock`` throughout. Other processes hold it only while they lock a file of
    their own, ``computing-*.lock``. A process may measure only if none of these files is locked. The operating system
    releases all locks of a process that ends.

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


def until_free(exclusive: bool) -> str:
    """What a process waits for that does not get the lock of `timing_lock`, after "waiting"."""
    others = "trials, searches and measurements" if exclusive else "latency measurements"
    return f"until the {others} that run on this machine have ended"


@contextlib.contextmanager
def holding_timing_lock(*, exclusive: bool, waiting: Callable[[], None]) -> Iterator[None]:
    """Context: this process holds the lock of `timing_lock`.

    Args:
        waiting: called again and again until the lock is available.
    Raises:
        ConfigError: as `timing_lock`.
    """
    while (lock := timing_lock(exclusive=exclusive)) is None:
        waiting()
        time.sleep(POLL_S)
    try:
        yield
    finally:
        lock.release(unlink=True)


@contextlib.contextmanager
def in_turn(*, exclusive: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Context: as `holding_timing_lock`.

    Args:
        say: called once with a sentence if this process has to wait.
    """

    @cache
    def say_once() -> None:
        say(f"Waiting {until_free(exclusive)}.")

    with holding_timing_lock(exclusive=exclusive, waiting=say_once):
        yield


def _enter(gate: Path) -> Lock | None:
    """Lock ``timing.lock``, with retries: other processes hold it briefly, except while they measure."""
    for _ in range(ENTRY_TRIES):
        if (lock := try_lock(gate)) is not None:
            return lock
        time.sleep(ENTRY_WAIT_S)
    return None


def _is_free(path: Path) -> bool:
    """Whether no process holds the lock; the file of a killed process is removed."""
    lock = try_lock(path)
    if lock is not None:
        lock.release(unlink=True)
    return lock is not None
