"""Run all trials without an outcome by an executor; every outcome is stored as a record."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from hrvit_lab.study.cluster.options import SlurmOptions
from hrvit_lab.study.executors import EXECUTORS, Ended, Watcher, Work, WorkerUnable
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial
from hrvit_lab.study.worker import Probe

__all__ = ["Ended", "Watcher", "WorkerUnable", "is_retaken", "run"]


def is_retaken(trial: Trial, record: Mapping[str, Any], retry_failed: bool, again: Collection[str]) -> bool:
    """Whether a trial is run again although it has this record: a retried failure, or a group to measure again."""
    return trial.group in again or (retry_failed and record["status"] != "ok")


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
    again: Collection[str] = (),
    executor: str = "local",
    devices: Sequence[str] = (),
    slurm: SlurmOptions | None = None,
) -> None:
    """Run every trial without an outcome; other processes with the same store may run some of them.

    Args:
        trials: distinct trials, in the order to start them.
        probes: function per group; top-level functions, as spawned workers import them by name.
        jobs: number of trials at the same time, except those that must run alone. Each has one thread, so that results
            do not depend on ``jobs``.
        timeout_s: seconds after which a trial's worker is killed; the time in which it was stopped or the machine was
            suspended does not count.
        environment: stored in every record.
        retry_failed: run trials again that failed before this call.
        again: groups whose trials are run again even if they finished before this call.
        executor: a key of `EXECUTORS`.
        devices: GPUs of this machine for the local executor, one worker each.
        slurm: options of jobs for the executor ``slurm``.
    Raises:
        WorkerUnable: if a worker process can't start.
        Ended: if a signal told this process to end.
    """
    trials = list(trials)
    found = {trial.key: record for trial in trials if (record := store.load(trial.key)) is not None}
    before = {
        trial.key: found[trial.key]
        for trial in trials
        if trial.key in found and is_retaken(trial, found[trial.key], retry_failed, again)
    }

    missing = tuple(trial for trial in trials if trial.key in before or trial.key not in found)
    EXECUTORS[executor](
        Work(missing, store, probes, watcher, before, jobs, timeout_s, environment, tuple(devices), slurm)
    )
