"""Has every trial that has no outcome yet run by an executor; every outcome becomes a record."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hrvit_lab.study.executors import EXECUTORS, Ended, Watcher, Work, WorkerUnable
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial
from hrvit_lab.study.worker import Probe

__all__ = ["Ended", "Watcher", "WorkerUnable", "is_retaken", "run"]


def is_retaken(trial: Trial, record: Mapping[str, Any], retry_failed: bool, again: Collection[str]) -> bool:
    """Whether a trial runs although it has this record: a failure that is retried, or a group measured again."""
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
) -> None:
    """Run every trial that has no outcome yet, here or in another process with the same store.

    Args:
        trials: distinct trials, in the order to begin them.
        probes: function per group; top-level functions, as spawned workers import them by name.
        jobs: trials at a time of those that need not be alone, one thread each, so that their figures don't depend on
            it.
        timeout_s: seconds a trial may take before its worker is killed, without those in which it was stopped or the
            machine suspended.
        environment: kept beside every figure.
        retry_failed: run trials again whose record is a failure from before this call.
        again: groups whose trials are run again whatever their records from before this call say.
        executor: a key of `EXECUTORS`.
    Raises:
        WorkerUnable: if a worker process can't start.
        Ended: if a signal asked this process to end.
    """
    trials = list(trials)
    found = {trial.key: record for trial in trials if (record := store.load(trial.key)) is not None}
    before = {
        trial.key: found[trial.key]
        for trial in trials
        if trial.key in found and is_retaken(trial, found[trial.key], retry_failed, again)
    }

    def settled(trial: Trial) -> dict[str, Any] | None:
        record = store.load(trial.key)
        return None if record == before.get(trial.key) else record

    missing = tuple(trial for trial in trials if settled(trial) is None)
    EXECUTORS[executor](Work(missing, store, probes, watcher, settled, jobs, timeout_s, environment))
