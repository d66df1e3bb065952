"""Runs that the app starts, as processes of their own. All that is known of them is in files of the results folder.

Each has a folder ``RESULTS/.app/runs/ID``: ``request.json`` (what it is), and what `hrvit_lab.app.keeper` writes. So a
reloaded page, or a restarted server, finds them.
"""

import contextlib
import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from hrvit_lab.config import ConfigError
from hrvit_lab.files import MIB, read_bounded, try_lock, write_atomically

FOLDER = ".app"
"""In the folder of results; no study can have this name."""

MOST_RUNNING = 2
MOST_LISTED = 200
MAX_FILE_BYTES = 2 * MIB
SAME_START_S = 2.0
"""Start times of one process differ by less than this between two readings."""

LOG_BYTES = 16_384
LOCK_WAIT_S = 10.0
LOG_COLUMNS = "110"
INTERRUPTED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of our commands after a signal, and those of commands that do not handle it."""

Kind = Literal["study", "training", "search", "race"]
State = Literal["running", "finished", "stopped", "failed", "lost"]

SAID: dict[State, str] = {
    "running": "running",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "ended with an error",
    "lost": "ended from outside",
}


@dataclass(frozen=True)
class Request:
    """What a process is to do.

    Attributes:
        kind: what is run.
        target: name of the folder of its results. A target has at most one process.
        title: for people.
        module: of this package, run by ``python -m``.
        arguments: of its command line.
        extra: whatever the page needs to show it, or to start it again.
    """

    kind: Kind
    target: str
    title: str
    module: str
    arguments: tuple[str, ...]
    extra: Mapping[str, Any]

    @property
    def command(self) -> str:
        """The command for a terminal."""
        return shlex.join(("python", "-m", self.module, *self.arguments))


@dataclass(frozen=True)
class Process:
    """A process that was started.

    Attributes:
        folder: of its files.
        request: what it does.
        started: seconds since 1970.
        state: how it is.
        code: exit code of its command; None while it runs, or if unknown.
        ended: seconds since 1970; None while it runs, or if unknown.
        pid: process id of its keeper, while it runs.
    """

    folder: Path
    request: Request
    started: float
    state: State
    code: int | None
    ended: float | None
    pid: int | None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state == "running"


def start(results: Path, request: Request) -> Process:
    """Start a process that outlives this one.

    Raises:
        ConfigError: if ``MOST_RUNNING`` processes run already, if the target's runs already, or if nothing can be
            started here.
    """
    if not hasattr(os, "fork"):
        raise ConfigError(f"runs can be started here on Linux and macOS only; run in a terminal: {request.command}")
    runs = results / FOLDER / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(runs):
            _check_room(results, request)
            folder = runs / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"  # in the order of their starts
            folder.mkdir()
            write_atomically(folder / "request.json", json.dumps({"started": time.time(), **vars(request)}))
            _start_keeper(folder, request)
    except OSError as error:
        raise ConfigError(f"{runs} can't be written: {error.strerror}; check its permissions") from None
    found = _read(folder)
    if found is None or found.state == "lost":
        raise ConfigError(f"the process could not be started; run in a terminal: {request.command}")
    return found


def find(results: Path) -> list[Process]:
    """The last process of each target, newest first."""
    folders = sorted((results / FOLDER / "runs").glob("*/request.json"), reverse=True)[:MOST_LISTED]
    found: dict[tuple[str, str], Process] = {}
    for path in folders:
        if (process := _read(path.parent)) is not None:
            found.setdefault((process.request.kind, process.request.target), process)
    return list(found.values())


def find_one(results: Path, kind: Kind, target: str) -> Process | None:
    """The last process of a target."""
    return next((one for one in find(results) if (one.request.kind, one.request.target) == (kind, target)), None)


def stop(process: Process) -> None:
    """Interrupt a process and all that it started, as Ctrl-C does."""
    if process.pid is not None and process.running:
        # A command that is interrupted while its modules load ends with another exit code.
        with contextlib.suppress(OSError):
            write_atomically(process.folder / "stop.json", json.dumps({"asked": time.time()}))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(process.pid), signal.SIGINT)


def log(process: Process) -> str:
    """The last ``LOG_BYTES`` of the output."""
    try:
        with open(process.folder / "log.txt", "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read(LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return text if size <= LOG_BYTES else text.partition("\n")[2]


def _check_room(results: Path, request: Request) -> None:
    running = [process for process in find(results) if process.running]
    if any((one.request.kind, one.request.target) == (request.kind, request.target) for one in running):
        raise ConfigError(f"{request.target} is running already; watch it, or stop it first")
    if len(running) >= MOST_RUNNING:
        names = " and ".join(process.request.title for process in running)
        raise ConfigError(f"{len(running)} runs are the most at a time ({names}); wait for one of them, or stop it")


@contextlib.contextmanager
def _one_at_a_time(runs: Path) -> Any:
    """Keep two sessions from starting runs at the same time, so that both count the same ones."""
    until = time.monotonic() + LOCK_WAIT_S
    while (lock := try_lock(runs / "start.lock")) is None:
        if time.monotonic() > until:
            raise OSError(errno.EBUSY, "another run is being started", str(runs))
        time.sleep(0.05)
    try:
        yield
    finally:
        lock.release(unlink=True)


def _start_keeper(folder: Path, request: Request) -> None:
    command = [sys.executable, "-m", request.module, *request.arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": LOG_COLUMNS}
    subprocess.run(
        [sys.executable, "-m", "hrvit_lab.app.keeper", str(folder), *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        start_new_session=True, check=False,
    )  # fmt: skip


def _read(folder: Path) -> Process | None:
    """The process of a folder; None if its files are damaged."""
    asked = _load(folder / "request.json")
    try:
        request = Request(
            asked["kind"], str(asked["target"]), str(asked["title"]), str(asked["module"]),
            tuple(map(str, asked["arguments"])), dict(asked["extra"]),
        )  # fmt: skip
        started = float(asked["started"])
    except (KeyError, TypeError, ValueError):
        return None
    kept = _load(folder / "process.json")
    pid, created = kept.get("pid"), _number(kept.get("created"))
    alive = isinstance(pid, int) and created is not None and is_alive(pid, created)
    ended = _load(folder / "exit.json")  # after that look: a keeper writes it before it ends
    if isinstance(code := ended.get("code"), int):
        stopped = code in INTERRUPTED or (folder / "stop.json").exists()
        state: State = "finished" if code == 0 else "stopped" if stopped else "failed"
        return Process(folder, request, started, state, code, _number(ended.get("ended")), None)
    return Process(folder, request, started, "running" if alive else "lost", None, None, pid if alive else None)


def is_alive(pid: int, created: float) -> bool:
    """Whether the process with that id is the one that was created then: ids are used again."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < SAME_START_S and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False


def _load(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none."""
    try:
        content = json.loads(read_bounded(path, MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
