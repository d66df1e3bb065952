"""How far a study is, from the files in its folder and the shared records: whoever runs it, and wherever."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from hrvit_lab.config import ConfigError
from hrvit_lab.files import read_bounded
from hrvit_lab.study.files import load_study
from hrvit_lab.study.progress import seconds_left
from hrvit_lab.study.reporting import MAX_ENVIRONMENT_BYTES, Failures, plan_under
from hrvit_lab.study.space import expand
from hrvit_lab.study.store import JOURNAL, Store
from hrvit_lab.study.trials import Trial, computed, in_order

if TYPE_CHECKING:
    from hrvit_lab.study.results import Results

JOURNAL_BYTES = 1_000_000
"""Of the journal's end that are read."""

CLOCK_S = 2.0
"""Start times of processes are known with this precision."""


class Running(NamedTuple):
    """A trial that a process of this machine is running: the process id, and the start in seconds since 1970."""

    trial: Trial
    pid: int
    since: float


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
        gone = sum(now - each.since for each in self.running) / max(1, len(self.running))
        return max(0.0, whole - gone)


def read_status(folder: Path) -> Status:
    """The state of the study in a results folder, which may be running.

    Args:
        folder: of the study; the records are in the folder above.
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
    expansion, store = expand(spec), Store(folder.parent)
    planned = plan_under(conditions, spec, expansion)
    trials = in_order(planned)
    records = store.load_all({trial.key for trial in trials})
    by_key = {trial.key: trial for trial in trials}
    running = tuple(
        Running(by_key[key], pid, since)
        for key, (pid, since) in started_trials(store.folder / JOURNAL).items()
        if key in by_key and key not in records
    )
    results = analysis.results(folder, spec, expansion, planned, records | computed(planned), conditions)
    return Status(tuple(trials), records, running, results, analysis.failures(trials, records))


def started_trials(journal: Path) -> dict[str, tuple[int, float]]:
    """Trials that were started by a process of this machine which still runs: {key: (process id, start)}."""
    last = {event["key"]: event for event in _events(journal)}
    started = [event for event in last.values() if event["event"] == "started"]
    counts = Counter(event["pid"] for event in started)
    alive = {pid for pid in counts if _is_older(pid, min(e["time"] for e in started if e["pid"] == pid))}
    return {event["key"]: (event["pid"], event["time"]) for event in started if event["pid"] in alive}


def still_running(running: Running) -> bool:
    """Whether the process of that trial still exists."""
    return _is_older(running.pid, running.since)


def _is_older(pid: int, time: float) -> bool:
    """Whether a process runs that was created before that time; process ids are used again."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= time + CLOCK_S and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False


def _events(journal: Path) -> Iterator[dict[str, Any]]:
    """The valid lines at the end of the journal. A damaged line is left out."""
    try:
        with open(journal, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - JOURNAL_BYTES))
            lines = file.read(JOURNAL_BYTES).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
            yield {"event": str(event["event"]), "key": str(event["key"]), "pid": int(event["pid"]),
                   "time": float(event["time"])}  # fmt: skip
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
