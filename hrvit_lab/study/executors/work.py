"""The interface of executors: their input (`Work`) and the callbacks for progress (`Watcher`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hrvit_lab.study.cluster.options import SlurmOptions
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial
from hrvit_lab.study.worker import Probe

Outcome = dict[str, Any]

MAX_INTERRUPTIONS = 3
"""A trial fails after its worker or job was killed this often, because the trial itself may be the cause (memory)."""


class WorkerUnable(RuntimeError):
    """A worker process could not start. No trial is recorded as failed."""


class Ended(KeyboardInterrupt):
    """A signal told the run to end: Ctrl-C, a scheduler or a closed terminal.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__()
        self.signal = signal


FOR_ANOTHER = "for another process"
"""Why trials wait that another process runs."""


class Watcher(Protocol):
    """Callbacks for the progress of trials."""

    def started(self, trial: Trial) -> None:
        """A worker starts the trial."""

    def stepped(self, trial: Trial, done: int, total: int) -> None:
        """A number of the trial's steps are finished."""

    def interrupted(self, trial: Trial, reason: str) -> None:
        """The trial's worker was killed; the trial is started again later."""

    def finished(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """The trial's record is on disk, written by this process or another."""

    def waiting(self, trials: Sequence[Trial], why: str) -> None:
        """Nothing to run until another process finishes these trials, or something else.

        Args:
            why: after "waiting": ``for another process`` or ``until …``.
        """


@dataclass(frozen=True)
class Work:
    """Trials to run, and the settings for running them.

    Attributes:
        trials: distinct trials without an outcome, in the order to start them.
        store: the records; a trial is finished if and only if it has a record there.
        probes: function per group; top-level functions, as worker processes import them by name.
        before: records that do not count as outcomes, because their trials are run again; by key.
        jobs: number of trials at the same time, except those that must run alone.
        timeout_s: seconds a trial may take.
        environment: stored in every record.
        devices: GPUs of this machine, one worker each; empty: the device of the trials.
        slurm: options of jobs; for the executor ``slurm`` only.
    """

    trials: tuple[Trial, ...]
    store: Store
    probes: Mapping[str, Probe]
    watcher: Watcher
    before: Mapping[str, Outcome]
    jobs: int
    timeout_s: float
    environment: Mapping[str, Any]
    devices: tuple[str, ...] = ()
    slurm: SlurmOptions | None = None

    def settled(self, trial: Trial) -> Outcome | None:
        """A trial's outcome, from any process; None if it has to be run."""
        record = self.store.load(trial.key)
        return None if record == self.before.get(trial.key) else record


class Executor(Protocol):
    """Runs trials; returns when every trial has an outcome."""

    def __call__(self, work: Work) -> None:
        """
        Raises:
            WorkerUnable: if no worker can start.
            Ended: if a signal told the run to end.
        """
