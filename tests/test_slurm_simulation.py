"""A discrete simulation: 10,000 trials on 200 workers, with every kind of failure. Nothing is lost or done twice."""

import heapq
import itertools
import math
import pickle
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hrvit_lab import files
from hrvit_lab.config import preset
from hrvit_lab.study.cluster.chunks import ROUNDS
from hrvit_lab.study.cluster.commands import Busy, State
from hrvit_lab.study.cluster.options import SlurmOptions
from hrvit_lab.study.executors import slurm
from hrvit_lab.study.executors.job import Job
from hrvit_lab.study.executors.slurm import Clock, Coordinator
from hrvit_lab.study.executors.work import Work
from hrvit_lab.study.groups import ProbeInput
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial

NANO = preset("hrvit_nano")
WORKERS = 200
POISON = 7
"""Trials whose job always dies."""


class CoordinatorDied(BaseException):
    """Not caught by anything."""


class Quiet:
    """A watcher that counts."""

    def __init__(self) -> None:
        self.finishes: Counter[str] = Counter()
        self.interruptions: Counter[str] = Counter()

    def started(self, trial: Trial) -> None: ...

    def stepped(self, trial: Trial, done: int, total: int) -> None: ...

    def waiting(self, trials: Sequence[Trial], why: str) -> None: ...

    def interrupted(self, trial: Trial, reason: str) -> None:
        self.interruptions[trial.key] += 1

    def finished(self, trial: Trial, record: Mapping[str, Any]) -> None:
        self.finishes[trial.key] += 1


class SimulatedCluster(Clock):
    """A cluster and its time. Jobs run one trial after another on ``WORKERS`` workers, first come, first served."""

    def __init__(self, store: Store, trials: Sequence[Trial], seed: int) -> None:
        self.store = store
        self.chance = random.Random(seed)
        self.poison = {trial.key for trial in self.chance.sample(list(trials), min(POISON, len(trials)))}
        self.time = 1e9
        self.events: list[tuple[float, int, str]] = []
        self.order = itertools.count()
        self.queue: list[str] = []
        self.jobs: dict[str, list[Trial]] = {}
        self.names: dict[str, list[str]] = {}
        self.state: dict[str, str] = {}
        self.running: Counter[str] = Counter()
        self.starts: Counter[str] = Counter()
        self.completions: Counter[str] = Counter()
        self.fates: Counter[str] = Counter()
        self.lost: set[str] = set()
        self.questions = 0
        self.outside_s = 0.0
        self.deaths = 0
        self.dies_at = [self.time + 10.0 * number**2 for number in range(1, 9)]

    # -- what the coordinator sees

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        began = time.process_time()
        until = self.time + seconds
        while self.events and self.events[0][0] <= until:
            self.time, _, job = heapq.heappop(self.events)
            self._step(job)
        self.time = until
        self.outside_s += time.process_time() - began
        if self.dies_at and self.time >= self.dies_at[0]:
            self.dies_at.pop(0)
            raise CoordinatorDied

    def submit(self, name: str, folder: Path, calls: Sequence[Job], *, alone: bool) -> list[str]:
        began = time.process_time()
        fate = self.chance.random()
        if fate < 0.05:
            raise Busy("Unable to contact slurm controller")
        number = next(self.order) + 1
        ids = [f"{number}_{index}" for index in range(len(calls))] if len(calls) > 1 else [str(number)]
        for job, call in zip(ids, calls, strict=True):
            assert call.submission == name and folder.is_dir() and not alone
            self.jobs[job] = list(pickle.loads(call.work)["trials"])
            self.state[job] = "PENDING"
            self.queue.append(job)
        self.names[name] = ids
        self._fill()
        self.outside_s += time.process_time() - began
        if fate < 0.10:
            raise Busy("Socket timed out")  # the jobs were submitted
        if fate < 0.15:
            raise CoordinatorDied
        return ids

    def find(self, name: str, number: int) -> list[str] | None:
        return None if self.chance.random() < 0.1 else self.names.get(name, [])

    def states(self, ids: Iterable[str]) -> dict[str, State] | None:
        self.questions += 1
        return None if self.chance.random() < 0.05 else {job: State(self.state[job]) for job in ids}

    def cancel(self, ids: Iterable[str]) -> None: ...

    # -- what happens on it

    def _fill(self) -> None:
        while self.queue and sum(self.running.values()) < WORKERS:
            job = self.queue.pop(0)
            self.state[job] = "RUNNING"
            self.running[job] = 1
            self._start_next(job)

    def _start_next(self, job: str) -> None:
        trials = self.jobs[job]
        while trials and self.store.load(trials[0].key) is not None:
            trials.pop(0)
        if not trials:
            self._end(job, "COMPLETED")
            return
        self.starts[trials[0].key] += 1
        heapq.heappush(self.events, (self.time + self.chance.uniform(20, 120), next(self.order), job))

    def _step(self, job: str) -> None:
        """The first trial of a job ends, or the job does."""
        trial = self.jobs[job][0]
        fate = self.chance.random()
        ends = ("FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "CANCELLED", "OUT_OF_MEMORY", "GONE")
        if trial.key in self.poison or fate < 0.02:
            self.lost.add(trial.key)
            self._end(job, self.chance.choice(ends))
            return
        values = {"top1": 50.0, "train_loss": 0.5, "val_loss": 0.5, "train_seconds": 1.0}
        outcome = {"status": "ok", "reason": "", "values": values, "started": self.time, "seconds": 70.0}
        self.store.save(trial.head() | outcome)
        self.completions[trial.key] += 1
        self.lost.discard(trial.key)
        self._start_next(job)

    def _end(self, job: str, state: str) -> None:
        self.state[job] = state
        self.fates[state] += 1
        self.running.pop(job, None)
        self._fill()


class CountedStore(Store):
    """A coordinator's store. It counts looks, each with one listing of the folder, and the records that are read.

    Attributes:
        lost: number of trials without an outcome whose job was lost, summed over the looks.
    """

    def __init__(self, out: Path, cluster: SimulatedCluster) -> None:
        super().__init__(out)
        self.cluster = cluster
        self.looks = self.reads = self.lost = 0

    def absolute(self) -> Store:  # type: ignore[override]  # jobs have the cluster's store
        return self.cluster.store

    def names(self) -> set[str]:
        self.looks += 1
        self.lost += len(self.cluster.lost)
        return super().names()

    def _read(self, key: str) -> dict[str, Any] | None:
        self.reads += 1
        return super()._read(key)


@pytest.fixture
def without_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand records need not outlive a power failure."""
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: None)


@pytest.mark.usefixtures("without_syncs")
@pytest.mark.parametrize("number", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nothing_is_lost_or_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(slurm, "GRACE_S", 0.0)  # jobs that Slurm has forgotten, however young
    store, watcher = Store(tmp_path), Quiet()
    store.create()
    trials = [
        Trial("accuracy", ProbeInput(NANO, (64, 64), seed=seed), f"trial {seed}", "chip") for seed in range(number)
    ]
    cluster = SimulatedCluster(store, trials, seed=number)
    counted, finished_before = CountedStore(tmp_path, cluster), 0
    began, began_s, deaths = cluster.now(), time.process_time(), 0
    options = SlurmOptions(minutes=60, array_parallelism=WORKERS)
    while True:
        missing = tuple(trial for trial in trials if store.load(trial.key) is None)
        finished_before += number - len(missing)
        work = Work(missing, counted, {}, watcher, {}, 1, 3600.0, {}, slurm=options)
        try:
            Coordinator(work, cluster, clock=cluster).run()
            break
        except CoordinatorDied:
            deaths += 1
    worked_s = time.process_time() - began_s - cluster.outside_s
    lasted_s = cluster.now() - began

    records = store.load_all({trial.key for trial in trials})
    assert len(records) == number
    failed = {key for key, record in records.items() if record["status"] != "ok"}
    assert cluster.poison <= failed
    assert all(cluster.completions[trial.key] == (trial.key not in failed) for trial in trials)
    # A trial is started once, and once more after each death of its job; those of failed trials are counted to three.
    assert all(cluster.starts[key] == 3 for key in failed)
    assert all(
        "3 times" in records[key]["reason"] and "its log is trials/slurm/" in records[key]["reason"] for key in failed
    )
    died = sum(count for state, count in cluster.fates.items() if state != "COMPLETED")
    assert sum(cluster.starts.values()) == number - len(failed) + died
    assert sum(watcher.finishes.values()) <= number and set(watcher.finishes.values()) == {1}
    assert deaths >= 3 and died > POISON * 3 - 1
    assert sorted(path.suffix for path in (tmp_path / "trials" / "slurm").iterdir() if path.is_file()) == []
    # A look reads the new outcomes and the records of interrupted trials; for each lost job those of its trials, and
    # twice more the first of them; and a new coordinator what was finished before. A look asks for states at most once.
    of_a_job = math.ceil(number / (ROUNDS * WORKERS))
    most = number + counted.lost + died * (of_a_job + 2) + finished_before
    assert counted.reads <= most
    assert cluster.questions <= counted.looks
    if number >= 10_000:
        assert worked_s < 0.02 * lasted_s, (worked_s, lasted_s)
    print(f"{counted.looks} looks read {counted.reads} records, at most {most}.")
    print(f"{number} trials, {died} deaths of jobs, {deaths} of coordinators: {worked_s:.1f} s of {lasted_s:.0f} s")
