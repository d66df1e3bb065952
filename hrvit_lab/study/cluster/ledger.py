"""The ledger of submissions: which trials were given to which jobs of Slurm. Files, so that a coordinator may die.

A submission is written before Slurm is asked and again with the ids of its jobs. It is removed when each of its trials
has a record, or was given up. Its folder, with the logs of its jobs, stays.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvit_lab.files import MIB, read_bounded, write_atomically
from hrvit_lab.study.claims import Claim, try_claim

MAX_BYTES = 64 * MIB
MAX_NOTE_BYTES = 1 * MIB

_NAME = re.compile(r"[0-9a-f]{32}")
_ID = re.compile(r"[0-9]{1,12}(_[0-9]{1,9})?")


@dataclass(frozen=True)
class Submission:
    """Chunks of trials that were submitted together, one job each.

    Attributes:
        name: 32 hex digits; part of the job's name in Slurm.
        digest: of the source that submitted it, see `source`.
        submitted: in seconds since 1970.
        chunks: keys of the trials of each job, in their order; empty once the job is over and dealt with.
        ids: Slurm's id of each job; empty until Slurm has answered.
    """

    name: str
    digest: str
    submitted: float
    chunks: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...] = ()


class Ledger:
    """The submissions of all studies that share a folder of trials."""

    def __init__(self, trials: Path) -> None:
        self.root = trials / "slurm"

    def create(self) -> None:
        """Create the folder."""
        self.root.mkdir(parents=True, exist_ok=True)

    def lock(self) -> Claim | None:
        """The right to submit and to change the ledger; None while another process has it."""
        return try_claim(self.root / "submit.claim")

    def folder(self, name: str) -> Path:
        """The folder of a submission's logs."""
        return self.root / name

    def write(self, submission: Submission) -> None:
        """Write a submission; remove it if all its jobs are over."""
        path = self.root / f"{submission.name}.json"
        if any(submission.chunks):
            write_atomically(path, json.dumps(vars(submission)))
            return
        self.remove(submission.name)

    def remove(self, name: str) -> None:
        """Remove a submission. Its jobs will run nothing."""
        for path in (self.root / f"{name}.json", self._cancelled(name)):
            path.unlink(missing_ok=True)
        for pattern in ("*.pkl", ".submission_file_*", "parent_job_id_*"):
            for path in self.folder(name).glob(pattern):
                path.unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        """Remove a submission that Slurm refused, with its folder."""
        self.remove(name)
        shutil.rmtree(self.folder(name), ignore_errors=True)

    def read(self, name: str) -> Submission | None:
        """A submission; None if it does not exist or is damaged."""
        try:
            found = json.loads(read_bounded(self.root / f"{name}.json", MAX_BYTES))
            return _checked(name, found)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def read_all(self) -> list[Submission]:
        """All submissions, the oldest first."""
        names = [path.stem for path in self.root.glob("*.json") if _NAME.fullmatch(path.stem)]
        return sorted(filter(None, map(self.read, names)), key=lambda each: each.submitted)

    def cancel(self, name: str) -> None:
        """Note that a user has cancelled a submission, so that a running study does not submit its trials again."""
        self._cancelled(name).touch()

    def is_cancelled(self, name: str) -> bool:
        """Whether a user has cancelled the submission."""
        return self._cancelled(name).exists()

    def note_end(self, name: str, index: int, **note: Any) -> None:
        """Write how a job ended, by the job itself."""
        with contextlib.suppress(OSError):
            write_atomically(self.folder(name) / f"{index}.end", json.dumps(note))

    def forget_end(self, name: str, index: int) -> None:
        """Remove the note of an earlier start of the same job, which Slurm has requeued."""
        (self.folder(name) / f"{index}.end").unlink(missing_ok=True)

    def end(self, name: str, index: int) -> Mapping[str, str]:
        """What a job wrote about its end; empty if it was killed."""
        try:
            found = json.loads(read_bounded(self.folder(name) / f"{index}.end", MAX_NOTE_BYTES))
            return {str(key): str(value)[:500] for key, value in found.items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            return {}

    def log(self, name: str, job: str) -> str:
        """The job's log of errors, from the folder of all results on."""
        return f"{self.root.parent.name}/{self.root.name}/{name}/{job}_0_log.err"

    def _cancelled(self, name: str) -> Path:
        return self.root / f"{name}.cancelled"


def _checked(name: str, found: Mapping[str, Any]) -> Submission:
    chunks = tuple(tuple(map(str, chunk)) for chunk in found["chunks"])
    ids = tuple(map(str, found["ids"]))
    if not _NAME.fullmatch(name) or found["name"] != name or len(ids) not in (0, len(chunks)):
        raise ValueError("it is not consistent")
    if not all(map(_ID.fullmatch, ids)) or not all(_NAME.fullmatch(key) for key in _all(chunks)):
        raise ValueError("it has invalid ids")
    return Submission(name, str(found["digest"]), float(found["submitted"]), chunks, ids)


def _all(chunks: Iterable[Iterable[str]]) -> Iterable[str]:
    return (key for chunk in chunks for key in chunk)
