"""Run trials in worker processes on this machine: first several at a time, then latency trials one at a time.

Only the parent process claims trials and writes records. A worker that exceeds the time limit is killed, and a worker
that died is replaced.
"""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import wait

from hrvit_lab.environment import usable_cores
from hrvit_lab.study.claims import host_name
from hrvit_lab.study.executors.host import timing_lock, until_free
from hrvit_lab.study.executors.process import KilledAtStart, Worker
from hrvit_lab.study.executors.signals import noted_signals
from hrvit_lab.study.executors.work import FOR_ANOTHER, MAX_INTERRUPTIONS, Outcome, Work, WorkerUnable
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.records import INTERRUPTED
from hrvit_lab.study.trials import Trial

POLL_S = 0.2
GRACE_S = 1.0
"""Seconds to wait for a signal after a worker was killed: a signal to the process group may reach workers first."""


def run_here(work: Work) -> None:
    """An `Executor` that uses processes on this machine; with several GPUs one for each, also for latency."""
    together = deque(trial for trial in work.trials if not GROUPS[trial.group].alone)
    alone = deque(trial for trial in work.trials if GROUPS[trial.group].alone)
    with noted_signals() as check_end:
        _Phase(work, together, check_end, workers=len(work.devices) or work.jobs, threads=1, exclusive=False).run()
        workers = len(work.devices) or 1
        threads = max(1, usable_cores() // workers)
        _Phase(work, alone, check_end, workers=workers, threads=threads, exclusive=True).run()


@dataclass
class _Phase:
    """Trials that run with the same number of workers and threads, and the same timing lock.

    A claim is owned by a worker, or by the code that is about to pass it to one, so that it is released on any error.
    """

    work: Work
    queue: deque[Trial]
    check_end: Callable[[], None]
    workers: int
    threads: int
    exclusive: bool
    pool: list[Worker] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    interruptions: Counter[str] = field(default_factory=Counter)
    false_starts: int = 0

    def run(self) -> None:
        """Run until every trial has finished, here or in another process."""
        if not self.queue:
            return
        while (timing := timing_lock(exclusive=self.exclusive)) is None:
            self._pause(until_free(self.exclusive))
        try:
            while self.queue or self._busy():
                self.check_end()
                self._assign()
                busy = self._busy()
                if not busy and self.queue:
                    self._pause(FOR_ANOTHER)
                wait([w.connection for w in busy], timeout=POLL_S)
                for w in busy:
                    w.beside = max(w.beside, len(busy) - 1)
                    self._check_worker(w)
        finally:
            for w in self.pool:
                w.stop()
                if w.task:
                    self.work.store.release(w.task[1])
            timing.release(unlink=True)

    def _busy(self) -> list[Worker]:
        return [w for w in self.pool if w.task]

    def _pause(self, why: str) -> None:
        self.work.watcher.waiting(list(self.queue), why)
        time.sleep(POLL_S)
        self.check_end()

    def _assign(self) -> None:
        """Start trials that no other process has claimed or finished, on idle or new workers."""
        store = self.work.store
        for _ in range(len(self.queue)):
            idle = next((w for w in self.pool if not w.task), None)
            if idle is None and len(self.pool) == self.workers:
                return
            trial = self.queue.popleft()
            claim = store.claim(trial.key)
            if claim is None:
                self.queue.append(trial)
                continue
            with contextlib.ExitStack() as ours:
                ours.callback(store.release, claim)
                record = self.work.settled(trial)
                if record is None:
                    idle = idle or self._start_worker()
                    idle.start(trial, claim)
                    ours.pop_all()  # the worker owns the claim now
            if record is not None:
                self.work.watcher.finished(trial, record)
                continue
            store.note("started", trial.key)
            if trial.key not in self.begun:
                self.begun.add(trial.key)
                self.work.watcher.started(trial)

    def _start_worker(self) -> Worker:
        taken = {w.device for w in self.pool}
        device = next((device for device in self.work.devices if device not in taken), None)
        self.pool.append(Worker(self.work.probes, self.threads, device))
        return self.pool[-1]

    def _check_worker(self, w: Worker) -> None:
        assert w.task is not None
        steps = w.steps
        try:
            outcome = w.poll(self.work.timeout_s)
        except KilledAtStart as error:
            self._restart(w, str(error))
            return
        if w.ready:
            self.false_starts = 0
        if w.steps is not None and w.steps != steps:
            self.work.watcher.stepped(w.task[0], *w.steps)
        if outcome is None:
            return
        if outcome["status"] == INTERRUPTED:
            self._interrupted(w, outcome)
        else:
            self._keep(w, outcome)

    def _keep(self, w: Worker, outcome: Outcome) -> None:
        """Write the record, release the claim, and stop the worker unless its trial succeeded."""
        assert w.task is not None
        trial, claim = w.task
        record = self._record(w, trial, outcome)
        self.work.store.save(record)
        self.work.store.note("finished", trial.key)
        self._free(w, keep=outcome["status"] == "ok")
        self.work.watcher.finished(trial, record)

    def _record(self, w: Worker, trial: Trial, outcome: Outcome) -> Outcome:
        disturbed = {metric: list(reasons) for metric, reasons in outcome.get("disturbed", {}).items()}
        if w.beside and outcome["status"] == "ok":
            reason = f"up to {w.beside} other trial{'s' * (w.beside > 1)} ran at the same time"
            for metric in GROUPS[trial.group].shared_clock:
                disturbed.setdefault(metric, []).append(reason)
        about = {"beside": w.beside, "disturbed": disturbed, "environment": dict(self.work.environment)}
        return trial.head() | outcome | about | {"host": host_name(), "on_device": w.device or trial.inputs.device}

    def _interrupted(self, w: Worker, outcome: Outcome) -> None:
        """Queue the trial again, in this run or the next, up to ``MAX_INTERRUPTIONS`` times."""
        assert w.task is not None
        self._wait_for_signal()
        trial = w.task[0]
        attempts = 1 + max(self.interruptions[trial.key], self.work.store.interruptions(trial.key))
        self.interruptions[trial.key] = attempts
        if attempts >= MAX_INTERRUPTIONS:
            self._keep(w, outcome | {"status": "failed", "reason": f"{outcome['reason']} ({attempts} times)"})
            return
        self.work.store.save(self._record(w, trial, outcome) | {"attempts": attempts})
        self.work.store.note("interrupted", trial.key)
        self._free(w, keep=False)
        self.queue.append(trial)
        self.work.watcher.interrupted(trial, outcome["reason"])

    def _restart(self, w: Worker, cause: str) -> None:
        """Queue a trial again whose worker was killed before it started the trial."""
        assert w.task is not None
        self._wait_for_signal()
        self.false_starts += 1
        if self.false_starts >= MAX_INTERRUPTIONS:
            raise WorkerUnable(f"a worker could not start: {cause} ({self.false_starts} times)")
        self.queue.appendleft(w.task[0])
        self._free(w, keep=False)

    def _wait_for_signal(self) -> None:
        """After a worker was killed, wait, so that a signal to this process raises before anything is written."""
        time.sleep(GRACE_S)
        self.check_end()

    def _free(self, w: Worker, *, keep: bool) -> None:
        """Release the claim on the worker's trial; unless ``keep``, stop the worker too."""
        assert w.task is not None
        self.work.store.release(w.task[1])
        w.task = None
        if not keep:
            self.pool.remove(w)
            w.stop()
