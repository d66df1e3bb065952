"""What runs in a job of Slurm: a chunk of trials, one after another, each with a record of its own.

It is the local executor with one worker, so that a trial in a job ends in the same ways as one on a laptop. The job
itself may end at any moment. Its note says why, if it could be written; the coordinator asks Slurm otherwise.
"""

import contextlib
import dataclasses
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hrvit_lab.environment import environment, hardware, torch_version
from hrvit_lab.source import source_digest
from hrvit_lab.study.claims import host_name
from hrvit_lab.study.cluster.ledger import Ledger
from hrvit_lab.study.executors.local import run_here
from hrvit_lab.study.executors.work import Ended, Work, WorkerUnable
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.trials import Trial

REFUSED = "refused"


@dataclass(frozen=True)
class Job:
    """A chunk of a submission.

    Attributes:
        out: folder of all results.
        submission: its name in the ledger.
        index: of the chunk.
        digest: of the coordinator's source.
        work: the pickled fields of the `Work` for its trials. It is only read by the same source.
    """

    out: str
    submission: str
    index: int
    digest: str
    work: bytes


class _Log:
    """A `Watcher` that prints a line for each start and end, into the job's log."""

    def started(self, trial: Trial) -> None:
        print(f"started: {trial.label}", flush=True)

    def stepped(self, trial: Trial, done: int, total: int) -> None:
        """Nothing: a log of steps would be long."""

    def interrupted(self, trial: Trial, reason: str) -> None:
        print(f"interrupted: {trial.label}: {reason}", flush=True)

    def finished(self, trial: Trial, record: Mapping[str, Any]) -> None:
        print(f"{record['status']}: {trial.label} {record['reason']}".rstrip(), flush=True)

    def waiting(self, trials: Sequence[Trial], why: str) -> None:
        """Nothing: the coordinator shows it."""


def run_job(job: Job) -> None:
    """Run the trials of a job that have no outcome yet.

    Raises:
        SystemExit: if it refuses, or is told to end.
    """
    ledger = Ledger(Path(job.out) / "trials")
    if ledger.read(job.submission) is None:
        print("The submission was withdrawn, so nothing is run.", flush=True)
        return
    ledger.forget_end(job.submission, job.index)
    if (here := source_digest()) != job.digest:
        _refuse(
            ledger,
            job,
            f"the job on {host_name()} runs other code (source {here}) than the study that submitted it "
            f"({job.digest}); run the study again with the code of the job",
        )
    work = _work(job)
    for trial in work.trials:
        if difference := _difference(trial):
            _refuse(ledger, job, difference)
    with _signals() as received:
        try:
            run_here(work)
        except Ended:
            _end(ledger, job, "stopped", received[0] if received else "it was told to end")
        except WorkerUnable as error:
            _end(ledger, job, "failed", str(error))


def _work(job: Job) -> Work:
    fields = pickle.loads(job.work)
    work = Work(watcher=_Log(), jobs=1, **fields)
    missing = tuple(trial for trial in work.trials if work.settled(trial) is None)
    device = work.trials[0].inputs.device
    if device != "cpu":
        import torch  # noqa: F401  # the names of GPUs are asked of it

    here = environment(device) | {"data_files": work.environment.get("data_files", "")}
    return dataclasses.replace(work, trials=missing, environment=here)


def _difference(trial: Trial) -> str:
    """Why a trial's values would be those of another trial here; empty if they would not."""
    depends_on = GROUPS[trial.group].depends_on
    for name, planned, found in (
        ("torch", trial.torch, torch_version()),
        ("hardware", trial.hardware, hardware(trial.inputs.device) if "hardware" in depends_on else ""),
    ):
        if name in depends_on and planned != found:
            return (
                f"{trial.label}: the study was planned for {name} {planned!r}, but the job on {host_name()} has "
                f"{found!r}; choose nodes of one kind (--partition, --slurm constraint=…), and run the study again"
            )
    return ""


def _refuse(ledger: Ledger, job: Job, reason: str) -> None:
    _end(ledger, job, REFUSED, reason)


def _end(ledger: Ledger, job: Job, status: str, reason: str) -> None:
    ledger.note_end(job.submission, job.index, status=status, reason=reason)
    print(f"{status}: {reason}", file=sys.stderr, flush=True)
    raise SystemExit(1)


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """Slurm's signals end the run between two looks at its worker, with the reason in the list.

    SIGUSR2 comes some time before the time limit, SIGTERM with ``scancel`` and before a preemption.
    """
    received: list[str] = []

    def near_limit(number: int, frame: FrameType | None) -> None:
        received.append("its time limit was near")
        os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the executor has a handler of its own
    signal.signal(signal.SIGUSR2, near_limit)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
