"""A worker process, controlled by the parent process."""

import contextlib
import dataclasses
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from types import ModuleType

import psutil

from hrvit_lab.study import worker
from hrvit_lab.study.claims import Claim
from hrvit_lab.study.executors.work import Outcome, WorkerUnable
from hrvit_lab.study.records import INTERRUPTED
from hrvit_lab.study.trials import Trial
from hrvit_lab.study.worker import Probe

STARTUP_TIMEOUT_S = 300.0
EXIT_TIMEOUT_S = 60.0
LONGEST_LOOK_S = 1.0
"""Longest time between two polls that counts as running time; a longer one means that this process was stopped too."""


class KilledAtStart(RuntimeError):
    """A signal killed the worker before it was ready for a trial."""


class Worker:
    """A spawned process and its current trial.

    Attributes:
        device: on which it runs all trials; None: each on its own.
        task: the trial, and the claim on it.
        steps: (done, total) steps of the trial, as last reported.
        beside: maximum number of other trials that ran at the same time.
        awake_s: seconds since the trial started, without the time in which the worker or this process was stopped or
            suspended.
    """

    def __init__(self, probes: Mapping[str, Probe], threads: int, device: str | None = None) -> None:
        self.device = device
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=worker.main, args=(theirs, dict(probes), threads), daemon=True)
        try:
            with _interrupts_ignored(), _without_main():  # the child ignores Ctrl-C until it has its own handler
                self.process.start()
        except OSError as error:
            raise WorkerUnable(f"a worker could not start: {error.strerror}; try fewer --jobs") from None
        finally:
            theirs.close()
        self.ready = False
        self.steps: tuple[int, int] | None = None
        self.task: tuple[Trial, Claim] | None = None
        self._begin()

    def start(self, trial: Trial, claim: Claim) -> None:
        """Start a trial."""
        self.task = trial, claim
        self._begin()
        inputs = trial.inputs if self.device is None else dataclasses.replace(trial.inputs, device=self.device)
        with contextlib.suppress(OSError):  # a dead worker is reported by `poll`
            self.connection.send((trial.group, inputs))

    def poll(self, timeout_s: float) -> Outcome | None:
        """The outcome of its trial: the result, the worker's death, or a timeout; None while it is running.

        Raises:
            WorkerUnable: if it could not start.
            KilledAtStart: if it was killed before it was ready.
        """
        self._count_time()
        try:
            while self.connection.poll():
                what, content = self.connection.recv()
                if what == "outcome":
                    return content
                if what == "steps":
                    self.steps = content
                else:
                    self.ready = True
                    self._begin()
        except (EOFError, OSError):
            return self._death()
        if not self.ready and self.awake_s > STARTUP_TIMEOUT_S:
            raise WorkerUnable(f"a worker was not ready after {STARTUP_TIMEOUT_S:g} s; try fewer --jobs")
        if self.ready and self.awake_s > timeout_s:
            return self._failure("timeout", f"took longer than {timeout_s:g} s")
        return None

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _begin(self) -> None:
        self.steps = None
        self.beside = 0
        self.awake_s = 0.0
        self._started, self._looked = time.time(), time.monotonic()

    def _count_time(self) -> None:
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        with contextlib.suppress(psutil.Error):
            if psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED:
                return
        self.awake_s += min(passed, LONGEST_LOOK_S)

    def _failure(self, status: str, reason: str) -> Outcome:
        return {
            "status": status,
            "reason": reason,
            "values": {},
            "started": self._started,
            "seconds": self.awake_s,
        }

    def _death(self) -> Outcome:
        """The outcome of a dead worker: interrupted if a signal killed it, failed if it exited by itself."""
        self.process.join(EXIT_TIMEOUT_S)
        code = self.process.exitcode
        by_signal = code is not None and code < 0
        if code is not None and code < 0:
            hint = ", possibly because memory ran out" if -code == getattr(signal, "SIGKILL", None) else ""
            cause = f"the worker process was killed by {_signal_name(-code)}{hint}"
        else:
            cause = f"the worker process ended with exit code {code}"
        if self.ready:
            return self._failure(INTERRUPTED if by_signal else "failed", cause)
        if by_signal:
            raise KilledAtStart(cause)
        raise WorkerUnable(f"a worker could not start: {cause}; its error message is above")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C in this block, so that a process started in it never raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start processes without importing the main script again, which may call `run_study` without a guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
