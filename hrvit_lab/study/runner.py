"""Runs trials in worker processes: some at a time, then the timed ones alone; every outcome becomes a record.

Only this process claims and writes. A worker that hangs is killed, one that dies is replaced, and the rest goes on.
"""

import contextlib
import functools
import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from hrvit_lab.environment import usable_cores
from hrvit_lab.files import Lock
from hrvit_lab.study import worker
from hrvit_lab.study.executors.host import timing_lock
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial
from hrvit_lab.study.worker import Probe

POLL_S = 0.2
STARTUP_TIMEOUT_S = 300.0
EXIT_TIMEOUT_S = 60.0

Outcome = dict[str, Any]


class WorkerUnable(RuntimeError):
    """A worker could not even start: no trial's fault, so none is recorded."""


class Watcher(Protocol):
    """Is told what happens (the progress display, or a list in tests)."""

    def started(self, trial: Trial) -> None:
        """A worker begins it."""

    def finished(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """Its record is on disk, by this process or another."""

    def waiting(self, trials: Sequence[Trial]) -> None:
        """Nothing to do until another process is done with these."""


def run(
    trials: Iterable[Trial],
    store: Store,
    probes: Mapping[str, Probe],
    watcher: Watcher,
    *,
    jobs: int,
    timeout_s: float,
    environment: Mapping[str, Any],
    retry_failed: bool = False,
) -> None:
    """Run every trial that has no record yet, here or in another process with the same store.

    Args:
        trials: distinct trials, in the order to begin them.
        probes: function per group; top-level functions, as spawned workers import them by name.
        jobs: accuracy trials at a time, one thread each, so that their figures don't depend on it.
        timeout_s: seconds a trial may take before its worker is killed.
        environment: kept beside every figure.
        retry_failed: run trials again whose record is a failure from before this call.
    Raises:
        WorkerUnable: if a worker process can't start.
    """
    began = time.time()

    def settled(trial: Trial) -> Outcome | None:
        record = store.load(trial.key)
        stale = record and retry_failed and record["status"] != "ok" and record["started"] < began
        return None if stale else record

    missing = [trial for trial in trials if settled(trial) is None]
    phase = functools.partial(
        _Phase,
        store=store,
        probes=probes,
        watcher=watcher,
        settled=settled,
        timeout_s=timeout_s,
        environment=environment,
    )
    together = deque(trial for trial in missing if not GROUPS[trial.group].alone)
    alone = deque(trial for trial in missing if GROUPS[trial.group].alone)
    phase(together, workers=jobs, threads=1, exclusive=False).run()
    phase(alone, workers=1, threads=usable_cores(), exclusive=True).run()


class _Worker:
    """A spawned process, and what it is doing."""

    def __init__(self, probes: Mapping[str, Probe], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=worker.main, args=(theirs, dict(probes), threads), daemon=True)
        with _interrupts_ignored():  # the child inherits this until it has its own handler
            self.process.start()
        theirs.close()
        self.ready = False
        self.since = time.monotonic()
        self.task: tuple[Trial, Lock] | None = None

    def give(self, trial: Trial, claim: Lock) -> None:
        """Begin a trial."""
        self.task, self.since = (trial, claim), time.monotonic()
        with contextlib.suppress(OSError):  # if it has died meanwhile, its answer will say so
            self.connection.send((trial.group, trial.inputs))

    def answer(self, timeout_s: float) -> Outcome | None:
        """The outcome of its trial, once there is one: an answer, its death, or running over time."""
        if self.connection.poll():
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                cause = self._cause_of_death()
                if not self.ready:
                    raise WorkerUnable(f"a worker could not start: {cause}; its own words are above") from None
                return self._failure("failed", cause)
            if message != "ready":
                return message
            self.ready, self.since = True, time.monotonic()
        waited_s = time.monotonic() - self.since
        if not self.ready and waited_s > STARTUP_TIMEOUT_S:
            raise WorkerUnable(f"a worker was not ready after {STARTUP_TIMEOUT_S:g} s; try fewer --jobs")
        if self.ready and waited_s > timeout_s:
            return self._failure("timeout", f"took longer than {timeout_s:g} s")
        return None

    def stop(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _failure(self, status: str, reason: str) -> Outcome:
        seconds = time.monotonic() - self.since
        return {
            "status": status,
            "reason": reason,
            "values": {},
            "started": time.time() - seconds,
            "seconds": seconds,
        }

    def _cause_of_death(self) -> str:
        self.process.join(EXIT_TIMEOUT_S)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"the worker process ended with exit code {code}"
        hint = ", as when the system runs out of memory" if -code == signal.SIGKILL else ""
        return f"the worker process was killed by {signal.Signals(-code).name}{hint}"


@dataclass
class _Phase:
    """Trials that run under the same rules: how many at a time, with how many threads, with company or without."""

    queue: deque[Trial]
    workers: int
    threads: int
    exclusive: bool
    store: Store
    probes: Mapping[str, Probe]
    watcher: Watcher
    settled: Callable[[Trial], Outcome | None]
    timeout_s: float
    environment: Mapping[str, Any]
    crew: list[_Worker] = field(default_factory=list)

    def run(self) -> None:
        """To the end of every trial, wherever it runs."""
        if not self.queue:
            return
        while (timing := timing_lock(exclusive=self.exclusive)) is None:
            self._pause()
        try:
            while self.queue or self._busy():
                self._hand_out()
                busy = self._busy()
                if not busy and self.queue:
                    self._pause()
                wait([w.connection for w in busy], timeout=POLL_S)
                for w in busy:
                    if (outcome := w.answer(self.timeout_s)) is not None:
                        self._keep(w, outcome)
        finally:
            for w in self.crew:
                w.stop()
                if w.task:
                    self.store.release(w.task[1])
            timing.release(unlink=True)

    def _busy(self) -> list[_Worker]:
        return [w for w in self.crew if w.task]

    def _pause(self) -> None:
        self.watcher.waiting(list(self.queue))
        time.sleep(POLL_S)

    def _hand_out(self) -> None:
        """Give idle workers (new ones, up to the limit) what no other process has claimed or done."""
        for _ in range(len(self.queue)):
            idle = next((w for w in self.crew if not w.task), None)
            if idle is None and len(self.crew) == self.workers:
                return
            trial = self.queue.popleft()
            claim = self.store.claim(trial.key)
            if claim is None:
                self.queue.append(trial)
            elif record := self.settled(trial):
                self.store.release(claim)
                self.watcher.finished(trial, record)
            else:
                if idle is None:
                    idle = _Worker(self.probes, self.threads)
                    self.crew.append(idle)
                self.store.note("started", trial.key)
                self.watcher.started(trial)
                idle.give(trial, claim)

    def _keep(self, w: _Worker, outcome: Outcome) -> None:
        """Write the record, free the claim, and replace a worker that can't be trusted any more."""
        assert w.task is not None
        trial, claim = w.task
        record = trial.head() | outcome | {"environment": dict(self.environment)}
        self.store.save(record)
        self.store.note("finished", trial.key)
        self.store.release(claim)
        w.task = None
        if outcome["status"] != "ok":
            w.stop()
            self.crew.remove(w)
        self.watcher.finished(trial, record)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C for a moment; a process started within never sees it as Python's KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
