"""Run trials as jobs of Slurm: submit chunks of the missing ones, and wait until all have a record.

The records are the only truth, and this process may end at any moment: the ledger says which trials are in which jobs.
Several processes may coordinate studies of the same folder: only one at a time looks at the jobs and submits.
"""

import dataclasses
import logging
import pickle
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hrvit_lab.source import source_digest
from hrvit_lab.study.cluster.chunks import arrays, by_kind, typical_seconds
from hrvit_lab.study.cluster.commands import GONE, Busy, Cluster, Slurm, State
from hrvit_lab.study.cluster.ledger import Ledger, Submission
from hrvit_lab.study.cluster.node import forget_nodes
from hrvit_lab.study.executors.job import REFUSED, Job, run_job
from hrvit_lab.study.executors.signals import noted_signals
from hrvit_lab.study.executors.work import FOR_ANOTHER, MAX_INTERRUPTIONS, Outcome, Work, WorkerUnable
from hrvit_lab.study.records import INTERRUPTED
from hrvit_lab.study.trials import Trial

log = logging.getLogger(__name__)

SHORTEST_S = 1.0
LONGEST_S = 30.0
"""Seconds between two looks: longer while nothing changes."""

SHARE = 0.01
"""Largest share of its time in which the coordinator works; otherwise it sleeps."""

GRACE_S = 60.0
"""Seconds after a submission in which Slurm may not know its jobs yet."""

SLICE_S = 0.2


def run_on_slurm(work: Work) -> None:
    """An `Executor` for a login node of a cluster."""
    assert work.slurm is not None
    with noted_signals() as check_end:
        Coordinator(work, Slurm(work.slurm, run_job), check_end).run()


class Clock:
    """The time; a simulation has another one."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Coordinator:
    """Submits the trials of one call of the executor.

    Attributes:
        pending: trials without an outcome, by key, in the order to start them.
    """

    def __init__(
        self, work: Work, cluster: Cluster, check_end: Callable[[], None] = lambda: None, clock: Clock | None = None
    ) -> None:
        assert work.slurm is not None
        self.work = work
        self.options = work.slurm
        self.cluster = cluster
        self.check_end = check_end
        self.clock = clock or Clock()
        self.digest = source_digest()
        self.ledger = Ledger(work.store.folder)
        self.trials = {trial.key: trial for trial in work.trials}
        self.pending = dict(self.trials)
        self.begun: set[str] = set()
        self.done: set[str] = set()
        self.records: list[Mapping[str, Any]] = []
        self.interruptions: Counter[str] = Counter()
        self.looks = 0
        self.cancelled_before: set[str] = set()

    def run(self) -> None:
        """Run until every trial has an outcome.

        Raises:
            WorkerUnable: if a job refuses, or a user cancels the jobs.
            ConfigError: if Slurm refuses the jobs.
            Ended: on a signal; submitted jobs go on.
        """
        self.ledger.create()
        pause = SHORTEST_S
        while True:
            began, before = time.process_time(), len(self.pending)
            names = self._collect()
            self._look(names)
            if not self.pending:
                return
            pause = SHORTEST_S if len(self.pending) < before else min(LONGEST_S, 1.5 * pause)
            self._sleep(max(pause, (time.process_time() - began) / SHARE))

    def _sleep(self, seconds: float) -> None:
        until = self.clock.now() + seconds
        while (left := until - self.clock.now()) > 0:
            self.check_end()
            self.clock.sleep(min(SLICE_S, left))
        self.check_end()

    def _collect(self) -> set[str]:
        """Take the new records; the names of all files in the store."""
        names = self.work.store.names()
        for key in [key for key in self.pending if f"{key}.json" in names]:
            if (record := self.work.settled(self.pending[key])) is not None:
                self._finish(key, record)
        for key in self.pending:
            if key not in self.begun and f"{key}.claim" in names:
                self.begun.add(key)
                self.work.watcher.started(self.pending[key])
        return names

    def _finish(self, key: str, record: Mapping[str, Any]) -> None:
        self.records.append(record)
        self.work.watcher.finished(self.pending.pop(key), record)

    def _look(self, names: set[str]) -> None:
        """Deal with the jobs that are over, and submit the trials that are in no job."""
        lock = self.ledger.lock()
        if lock is None:
            if self.pending:
                self.work.watcher.waiting(list(self.pending.values()), "for another process that submits jobs")
            return
        try:
            self._look_alone(names)
        finally:
            lock.release()
        self.looks += 1

    def _look_alone(self, names: set[str]) -> None:
        submissions = [each for each in map(self._identified, self.ledger.read_all()) if each is not None]
        states = self.cluster.states(job for each in submissions for job, _ in _jobs(each))
        taken: set[str] = set()
        for submission in submissions:
            taken |= self._settle(submission, states)
        free = [trial for key, trial in self.pending.items() if key not in taken]
        claimed = [trial for trial in free if f"{trial.key}.claim" in names and self.work.store.owner(trial.key)]
        if claimed:
            self.work.watcher.waiting(claimed, FOR_ANOTHER)
        if states is not None:
            elsewhere = {trial.key for trial in claimed}
            self._submit([trial for trial in free if trial.key not in elsewhere])

    def _identified(self, submission: Submission) -> Submission | None:
        """A submission with its jobs' ids; None if it has no jobs. Its coordinator ended, or Slurm did not answer,
        when it was submitted."""
        if submission.ids:
            return submission
        ids = self.cluster.find(submission.name, len(submission.chunks))
        if ids is None:
            return submission
        if not ids:
            self.ledger.discard(submission.name)
            return None
        submission = dataclasses.replace(submission, ids=tuple(ids))
        self.ledger.write(submission)
        return submission

    def _settle(self, submission: Submission, states: Mapping[str, State] | None) -> set[str]:
        """Deal with the jobs of a submission that are over; the keys of this study's trials that are in other jobs."""
        cancelled = self._is_cancelled(submission)
        chunks = list(submission.chunks)
        taken: set[str] = set()
        refusals = []
        for index, chunk in enumerate(chunks):
            missing = [key for key in chunk if key in self.pending]
            others = [key for key in chunk if key not in self.trials and not self._is_done(key)]
            state = states.get(submission.ids[index]) if states is not None and submission.ids else None
            if missing and (state is None or not self._is_over(submission, state)):
                taken.update(missing)
                continue
            if missing and state is not None and not others:
                end = self.ledger.end(submission.name, index)
                if end.get("status") != REFUSED:
                    self._blame(missing, self._reason(submission, index, state, end), free=cancelled)
                elif submission.digest == self.digest and not cancelled:
                    refusals.append(end.get("reason", ""))
            chunks[index] = tuple(others)  # trials of another study
        if chunks != list(submission.chunks):
            self.ledger.write(dataclasses.replace(submission, chunks=tuple(chunks)))
        if refusals:
            forget_nodes(self.ledger)
            raise WorkerUnable(refusals[0])
        return taken

    def _is_done(self, key: str) -> bool:
        """Whether a trial that was finished before, or of another study, has an outcome."""
        if key not in self.done and self.work.store.load(key) is not None:
            self.done.add(key)
        return key in self.done

    def _is_cancelled(self, submission: Submission) -> bool:
        """Whether a user has cancelled a submission.

        Raises:
            WorkerUnable: if it was cancelled after the start of this process.
        """
        if not self.ledger.is_cancelled(submission.name):
            return False
        if self.looks == 0:
            self.cancelled_before.add(submission.name)
        elif submission.name not in self.cancelled_before and any(
            key in self.pending for chunk in submission.chunks for key in chunk
        ):
            raise WorkerUnable("the jobs were cancelled; run the same command again to resume")
        return True

    def _is_over(self, submission: Submission, state: State) -> bool:
        """Whether a job will run nothing more. Slurm may not know a job that was submitted just now."""
        return state.over and (state.name != GONE or self.clock.now() - submission.submitted > GRACE_S)

    def _reason(self, submission: Submission, index: int, state: State, end: Mapping[str, str]) -> str:
        """Why a job ended, as Slurm and the job itself say, and where its log is."""
        job = submission.ids[index]
        name = "is no longer known to Slurm" if state.name == GONE else f"ended as {state.name}"
        said = f" ({end['reason']})" if end.get("reason") else ""
        return f"Slurm job {job} {name}{said}; its log is {self.ledger.log(submission.name, job)}"

    def _blame(self, keys: Sequence[str], reason: str, *, free: bool) -> None:
        """Count the end of a job against its first trial without an outcome, the one that it ran last. The trial is
        submitted again, or fails after ``MAX_INTERRUPTIONS`` times.

        Args:
            free: whether the end does not count.
        """
        store = self.work.store
        claim = store.claim(keys[0])  # a new file, so that a network file system shows the latest ones of the folder
        if claim is None:  # its process is ending, or it runs elsewhere
            return
        try:
            records = {key: self.work.settled(self.pending[key]) for key in keys}
            if records[keys[0]] is None and not free:
                records[keys[0]] = self._count(self.pending[keys[0]], reason)
        finally:
            store.release(claim)
        for key, record in records.items():
            if record is not None:
                self._finish(key, record)

    def _count(self, trial: Trial, reason: str) -> Outcome | None:
        """Write an interruption, or return the written failure if it was the last one."""
        store = self.work.store
        attempts = 1 + max(self.interruptions[trial.key], store.interruptions(trial.key))
        self.interruptions[trial.key] = attempts
        failed = attempts >= MAX_INTERRUPTIONS
        outcome = {
            "status": "failed" if failed else INTERRUPTED,
            "reason": f"{reason} ({attempts} times)" if failed else reason,
            "values": {},
            "started": self.clock.now(),
            "seconds": 0.0,
            "environment": dict(self.work.environment),
        }
        record = trial.head() | outcome | ({} if failed else {"attempts": attempts})
        store.save(record)
        store.note("finished" if failed else INTERRUPTED, trial.key)
        if failed:
            return record
        self.work.watcher.interrupted(trial, reason)
        return None

    def _submit(self, trials: Sequence[Trial]) -> None:
        """Submit trials; where Slurm does not answer, the next look finds out what became of them."""
        for alone, kind in by_kind(trials):
            known = [*self.records, *(self.work.store.recent() if self.looks == 0 else ())]
            for array in arrays(kind, self.options, typical_seconds(kind, known)):
                self.check_end()
                submission = Submission(
                    uuid.uuid4().hex,
                    self.digest,
                    self.clock.now(),
                    tuple(tuple(t.key for t in chunk) for chunk in array),
                )
                self.ledger.write(submission)
                folder = self.ledger.folder(submission.name)
                folder.mkdir()
                try:
                    ids = self.cluster.submit(submission.name, folder, self._calls(submission, array), alone=alone)
                except Busy as error:
                    log.warning("Slurm does not answer (%s); the jobs are submitted when it does", error)
                    return
                except Exception:
                    self.ledger.discard(submission.name)
                    raise
                self.ledger.write(dataclasses.replace(submission, ids=tuple(ids)))

    def _calls(self, submission: Submission, array: Iterable[Sequence[Trial]]) -> list[Job]:
        out = str(Path(self.work.store.folder.parent).absolute())
        return [
            Job(out, submission.name, index, self.digest, self._pickled(chunk)) for index, chunk in enumerate(array)
        ]

    def _pickled(self, chunk: Sequence[Trial]) -> bytes:
        keys = {trial.key for trial in chunk}
        return pickle.dumps(
            {
                "trials": tuple(chunk),
                "store": self.work.store.absolute(),
                "probes": dict(self.work.probes),
                "before": {key: record for key, record in self.work.before.items() if key in keys},
                "timeout_s": self.work.timeout_s,
                "environment": dict(self.work.environment),
            }
        )


def _jobs(submission: Submission) -> list[tuple[str, tuple[str, ...]]]:
    """The jobs of a submission that are not dealt with: id and keys."""
    ids = submission.ids or ("",) * len(submission.chunks)
    return [(job, chunk) for job, chunk in zip(ids, submission.chunks, strict=True) if job and chunk]
