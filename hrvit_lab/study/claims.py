"""Claims: small files that say which process works on something, on any file system that several hosts may share.

No claim uses a file lock, because many network file systems have none. A claim is created by a hard link, which exactly
one process can do. Its owner touches it every ``BEAT_S`` seconds. It is void if its owner has ended: on the owner's own
machine as soon as the process is gone, elsewhere once it was not touched for ``STALE_S`` seconds, by the clock of the
file system.

A void claim is never removed by others, because it could be a new one by then. It gets a successor, whose name contains
its token, so that again exactly one process can create it. The last file of this chain is valid. An owner releases its
claim by a successor with its own token, which keeps others out, and then removes the chain from its first file on.
"""

import contextlib
import errno
import functools
import json
import os
import platform
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

BEAT_S = 15.0
STALE_S = 150.0
"""More than a minute, for which network file systems may show an old time."""

BORN_PRECISION = 2
"""Of the start of a process, in the unit of `Owner.born`."""

MAX_BYTES = 4096
MAX_TIME_S = 2.0**35
"""Of `Owner.since`, a thousand years; later ones are damaged."""

UNLINKABLE = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
"""Errors of file systems without hard links."""

UNLINK_TRIES = 20
UNLINK_WAIT_S = 0.05


@dataclass(frozen=True)
class Owner:
    """Who holds a claim.

    Attributes:
        token: random text, different for every claim.
        host: name of the host.
        machine: what else tells machines and containers apart; process ids are only compared if it is equal.
        pid: process id.
        born: start of the process; process ids are used again.
        since: when the claim was made, in seconds since 1970.
        job: id of the Slurm job; empty outside of Slurm.
    """

    token: str
    host: str
    machine: str
    pid: int
    born: float
    since: float
    job: str = ""

    @property
    def process(self) -> str:
        """The Slurm job or the process: ``job 5_1`` or ``process 4242``."""
        return f"job {self.job}" if self.job else f"process {self.pid}"

    @property
    def who(self) -> str:
        """The process and its host, or ``another process`` if the claim is damaged."""
        return f"{self.process} on {self.host}" if self.host else "another process"


class _Link(NamedTuple):
    """One file of a chain, its owner, and when it was last touched."""

    place: Path
    owner: Owner
    touched: float


class Claim:
    """A claim that this process holds, until `release` or the end of the process."""

    def __init__(self, path: Path, place: Path, owner: Owner) -> None:
        self.path = path
        self.owner = owner
        self._place = place
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def release(self) -> None:
        """Give it back, unless another process has taken it over because this one seemed to have ended."""
        self._over.set()
        if not _create(self.path, _after(self.path, self.owner.token), self.owner):
            return
        links, _ = _walk(self.path)
        ours = [link.owner for link in links[-2:]] == [self.owner, self.owner]
        for link in links if ours else ():
            _unlink(link.place)
        _unlink(_after(self.path, self.owner.token))

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError):  # the file system may be away for a while
                if (link := _read(self._place)) is not None and link.owner == self.owner:
                    os.utime(self._place)


def try_claim(path: Path) -> Claim | None:
    """Claim ``path`` without waiting; None while another process, or this one, holds it.

    Raises:
        OSError: if the folder can't be written.
    """
    links, place = _walk(path)
    if links and is_here(links[-1].owner) and is_alive(links[-1].owner):
        return None
    mine = _me()
    if not _create(path, place, mine, links[-1] if links else None):
        return None
    if links:  # the chain may have been released meanwhile: then this successor belongs to no chain
        found, _ = _walk(path)
        if not found or found[-1].owner != mine:
            _unlink(place)
            return None
    return Claim(path, place, mine)


def read_claim(path: Path) -> Owner | None:
    """The process that holds a claim; None if none does. Another host's is believed to live for ``STALE_S`` seconds by
    the clock of this one."""
    links, _ = _walk(path)
    return links[-1].owner if links and _is_held(links[-1], time.time()) else None


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left: void claims, and files that belong to no claim."""
    for path in folder.glob("*.claim"):
        if claim := try_claim(path):
            claim.release()
    for path in folder.glob("*.claim.*"):
        head = path.with_name(path.name.partition(".claim.")[0] + ".claim")
        with contextlib.suppress(OSError):
            if not head.exists() and time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


def is_here(owner: Owner) -> bool:
    """Whether the owner is a process of this machine."""
    return owner.machine == _machine()


def is_alive(owner: Owner) -> bool:
    """Whether a process of this machine still runs."""
    try:
        same = abs(_born(owner.pid) - owner.born) <= BORN_PRECISION
        return same and psutil.Process(owner.pid).status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError, ValueError, OverflowError):
        return False


def _is_held(link: _Link, now: float) -> bool:
    """Whether the owner lives, as far as can be known; ``now`` by the file system's clock."""
    if is_here(link.owner):
        return is_alive(link.owner)
    return now - link.touched <= STALE_S


def _walk(path: Path) -> tuple[list[_Link], Path]:
    """The chain of a claim, and the name of its next file. The last file repeats a token if its owner was killed in
    a release."""
    links: list[_Link] = []
    place = path
    while (link := _read(place)) is not None:
        repeated = bool(links) and links[-1].owner.token == link.owner.token
        place = place.with_name(f"{place.name}.next") if repeated else _after(path, link.owner.token)
        links.append(link)
    return links, place


def _after(path: Path, token: str) -> Path:
    return path.with_name(f"{path.name}.{token}")


def _read(path: Path) -> _Link | None:
    """One file of a chain; None if it does not exist. The owner of a damaged one is not known."""
    try:
        with open(path, "rb") as file:
            text, touched = file.read(MAX_BYTES), os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, PermissionError) as error:
        if isinstance(error, PermissionError) and path.exists():  # Windows: it is being removed
            return _Link(path, UNKNOWN, time.time())
        return None
    try:
        found = json.loads(text)
        owner = Owner(**{name: kind(found[name]) for name, kind in FIELDS.items()})
        if not owner.token.isalnum() or len(owner.token) > 64 or not 0 <= owner.since < MAX_TIME_S:
            owner = UNKNOWN
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        owner = UNKNOWN
    return _Link(path, owner, touched)


FIELDS: dict[str, Any] = {
    "token": str, "host": str, "machine": str, "pid": int, "born": float, "since": float, "job": str,
}  # fmt: skip
UNKNOWN = Owner("unknown", "", "", 0, 0.0, 0.0)


def _create(path: Path, place: Path, owner: Owner, before: _Link | None = None) -> bool:
    """Create one file of a chain; False if it exists, or if the last one of the chain is still held.

    Raises:
        OSError: if the folder can't be written.
    """
    draft = path.with_name(f"{path.name}.{owner.token}.new")
    try:
        draft.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        if before is not None and _is_held(before, draft.stat().st_mtime):
            return False
        os.link(draft, place)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        try:
            with open(place, "xb") as file:
                file.write(draft.read_bytes())
        except FileExistsError:
            return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _unlink(path: Path) -> None:
    """Remove a file; on Windows others may have it open for a moment."""
    for attempt in range(UNLINK_TRIES):
        try:
            path.unlink(missing_ok=True)
            return
        except PermissionError:
            if attempt == UNLINK_TRIES - 1:
                raise
            time.sleep(UNLINK_WAIT_S)


def _me() -> Owner:
    pid = os.getpid()
    return Owner(uuid.uuid4().hex, host_name(), _machine(), pid, _born(pid), time.time(), job_id())


def host_name() -> str:
    """The first part of this host's name."""
    return socket.gethostname().partition(".")[0]


def job_id() -> str:
    """The Slurm job that this process belongs to, as Slurm's commands name it; empty outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


@functools.cache
def _machine() -> str:
    """What tells this machine, its boot and its container apart from others, where process ids mean other processes."""
    parts = [platform.node(), str(uuid.getnode())]
    with contextlib.suppress(OSError):
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()]
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _born(pid: int) -> float:
    """Start of a process: on Linux in ticks since the boot, which no change of the clock affects; else in seconds.

    Raises:
        OSError, psutil.Error: if there is no such process.
    """
    if platform.system() == "Linux":
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return float(stat.rpartition(")")[2].split()[19])
    return psutil.Process(pid).create_time()
