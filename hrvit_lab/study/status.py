"""How far a study is, from the files in its folder and the shared records: whoever runs it, and wherever."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hrvit_lab.config import ConfigError
from hrvit_lab.files import read_bounded
from hrvit_lab.study.claims import Owner, is_here
from hrvit_lab.study.files import load_study
from hrvit_lab.study.progress import seconds_left
from hrvit_lab.study.reporting import MAX_ENVIRONMENT_BYTES, Failures, plan_under
from hrvit_lab.study.space import expand
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial, computed, in_order

if TYPE_CHECKING:
    from hrvit_lab.study.results import Results


class Running(NamedTuple):
    """A trial that runs now, and the process that runs it."""

    trial: Trial
    owner: Owner

    @property
    def where(self) -> str:
        """The process or the Slurm job, and the host unless it is this one."""
        return self.owner.process if is_here(self.owner) else self.owner.who


@dataclass(frozen=True)
class Status:
    """The state of a study.

    Attributes:
        trials: all distinct ones.
        records: the outcomes so far, by trial key.
        running: trials that run now.
        results: table and curves so far.
        failures: failed trials with the reasons.
    """

    trials: tuple[Trial, ...]
    records: Mapping[str, Mapping[str, Any]]
    running: tuple[Running, ...]
    results: "Results"
    failures: Failures

    @property
    def finished(self) -> int:
        """Number of trials with an outcome."""
        return len(self.records)

    @property
    def complete(self) -> bool:
        """Whether no trial is missing."""
        return self.finished == len(self.trials)

    def left_s(self, now: float) -> float | None:
        """Estimated seconds until the last trial finishes, if as many run at a time as now; None if unknown."""
        missing = [trial for trial in self.trials if trial.key not in self.records]
        whole = seconds_left(missing, self.records.values(), max(1, len(self.running)))
        if whole is None:
            return None
        gone = sum(now - each.owner.since for each in self.running) / max(1, len(self.running))
        return max(0.0, whole - gone)


def read_status(folder: Path, store: Store | None = None) -> Status:
    """The state of the study in a results folder, which may be running.

    Args:
        folder: of the study; the records are in the folder above.
        store: of the records; None: that of studies.
    Raises:
        ConfigError: if the folder has no valid study.
    """
    from hrvit_lab.study import analysis

    spec = load_study(folder / "study.yaml")
    try:
        conditions = json.loads(read_bounded(folder / "environment.json", MAX_ENVIRONMENT_BYTES))
    except (OSError, ValueError, RecursionError):
        conditions = None
    if not isinstance(conditions, dict):
        raise ConfigError(f"{folder / 'environment.json'} can't be read; run the study again")
    expansion, store = expand(spec), store or Store(folder.parent)
    planned = plan_under(conditions, spec, expansion)
    trials = in_order(planned)
    records = store.load_all({trial.key for trial in trials})
    names = store.names()
    running = tuple(
        Running(trial, owner)
        for trial in trials
        if f"{trial.key}.claim" in names and trial.key not in records and (owner := store.owner(trial.key)) is not None
    )
    results = analysis.results(folder, spec, expansion, planned, records | computed(planned), conditions)
    return Status(tuple(trials), records, running, results, analysis.failures(trials, records))


def still_running(folder: Path, running: Running) -> bool:
    """Whether that process still runs the trial of the study in ``folder``."""
    return Store(folder.parent).owner(running.trial.key) == running.owner
