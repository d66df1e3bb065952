"""What an executor is given, and whom it tells what happens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial
from hrvit_lab.study.worker import Probe

Outcome = dict[str, Any]


class WorkerUnable(RuntimeError):
    """A worker could not even start: no trial's fault, so none is recorded."""


class Ended(KeyboardInterrupt):
    """The run was asked to end by a signal, as by Ctrl-C, a scheduler or a closed terminal.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__()
        self.signal = signal


class Watcher(Protocol):
    """Is told what happens (the progress display, or a list in tests)."""

    def started(self, trial: Trial) -> None:
        """A worker begins it."""

    def stepped(self, trial: Trial, done: int, total: int) -> None:
        """So many of its steps are done."""

    def interrupted(self, trial: Trial, reason: str) -> None:
        """Its worker was ended from outside; it is started again later, without a word."""

    def finished(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """Its record is on disk, by this process or another."""

    def waiting(self, trials: Sequence[Trial]) -> None:
        """Nothing to do until another process is done with these."""


@dataclass(frozen=True)
class Work:
    """Trials to bring into the store, and what is needed for that.

    Attributes:
        trials: distinct trials without an outcome, in the order to begin them.
        store: the only truth about what is done.
        probes: function per group; top-level functions, as worker processes import them by name.
        settled: a trial's outcome, from whichever process; None while it has to be run.
        jobs: trials at a time, of those that need not be alone.
        timeout_s: seconds a trial may take.
        environment: kept beside every figure.
    """

    trials: tuple[Trial, ...]
    store: Store
    probes: Mapping[str, Probe]
    watcher: Watcher
    settled: Callable[[Trial], Outcome | None]
    jobs: int
    timeout_s: float
    environment: Mapping[str, Any]


class Executor(Protocol):
    """A way to run trials: returns when every trial of the work is settled, or has failed once more."""

    def __call__(self, work: Work) -> None:
        """
        Raises:
            WorkerUnable: if nothing can be run.
            Ended: if the run was asked to end.
        """
