"""Progress display of a running study: a bar in a terminal, otherwise one line per trial."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.trials import Trial

Record = Mapping[str, Any]

WIDE = 110
"""Minimum width of a terminal, in columns, to show the rate next to the running trial."""


def seconds_left(pending: Iterable[Trial], records: Iterable[Record], jobs: int) -> float | None:
    """Estimate the time of the pending trials.

    The duration of a trial is the first of these that is known: the mean over trials of the same group and network; the
    mean over the group; the time limit of a latency measurement; except for trainings, the mean over all groups. Costs
    take no time; ``jobs`` accuracy trials run at the same time.

    Returns:
        Seconds, or None if no duration is known.
    """
    seconds: dict[tuple[str, ...], list[float]] = {}
    for record in records:
        if record["status"] == "ok" and not GROUPS[record["group"]].quick:
            for kind in ((), (record["group"],), (record["group"], record["config_id"])):
                seconds.setdefault(kind, []).append(record["seconds"])
    total = 0.0
    for trial in pending:
        group = GROUPS[trial.group]
        if group.quick:
            continue
        known = (
            seconds.get((group.key, trial.inputs.config.id))
            or seconds.get((group.key,))
            or _longest(trial)
            or (seconds.get(()) if group.alone else None)
        )
        if not known:
            return None
        total += sum(known) / len(known) / (1 if group.alone else jobs)
    return total


def comparable(records: Iterable[Record], trials: Sequence[Trial]) -> list[Record]:
    """Records with the group and conditions of one of these trials, from which durations can be estimated."""
    wanted = [(trial.group, trial.conditions.get("data"), trial.head()["options"]) for trial in trials]
    kinds = [kind for index, kind in enumerate(wanted) if kind not in wanted[:index]]
    return [record for record in records if (record["group"], record["data"], record["options"]) in kinds]


def _longest(trial: Trial) -> list[float]:
    """Time limit of a latency measurement in seconds, warm-up included; empty for other trials."""
    options = trial.conditions.get("latency", {})
    return [options["max_warmup_seconds"] + options["max_seconds"]] if "max_seconds" in options else []


def describe_plan(
    trials: Sequence[Trial], records: Mapping[str, Record], jobs: int, known: Sequence[Record] | None = None
) -> str:
    """Sentences on the number of trials, their kinds, and the estimated time.

    Args:
        trials: all trials of the study.
        records: the existing records, by key.
        known: records from which to estimate durations; None: ``records``.
    """
    known = list(records.values()) if known is None else known
    missing = [trial for trial in trials if trial.key not in records]
    groups = Counter(trial.group for trial in missing)
    said = [describe_trials(trials, records)]
    if slow := [group for group in groups if not GROUPS[group].quick]:
        left = seconds_left(missing, known, jobs)
        if left is None:
            first = "measurement" if all(GROUPS[group].alone for group in slow) else "training"
            said.append(f"The time left is unknown until the first {first} finishes.")
        elif any(not GROUPS[record["group"]].quick for record in known):
            said.append(f"About {cli.rough_duration(left)} with --jobs {jobs}, estimated from finished trials.")
        else:
            said.append(f"At most about {cli.rough_duration(left)}, the time limit of the latency measurements.")
    return " ".join(said)


def describe_trials(trials: Sequence[Trial], records: Mapping[str, Record]) -> str:
    """Sentences on the number of trials and their kinds."""
    if not trials:
        return "No trials to run: costs are computed in closed form."
    missing = [trial for trial in trials if trial.key not in records]
    said = f"{_trials(len(trials))}: {len(records)} already finished, {len(missing)} to run."
    if not missing:
        return said
    groups = Counter(trial.group for trial in missing)
    kinds = ", ".join(f"{number} × {GROUPS[group].label}" for group, number in groups.items())
    return f"{said} A trial measures one network in one way: {kinds}."


def _trials(number: int) -> str:
    return f"{number} trial{'s' * (number != 1)}"


class Display:
    """A ``Watcher`` that shows finished and total trials, rate, time left and the running trial; a context manager."""

    def __init__(self, pending: Sequence[Trial], records: Iterable[Record], jobs: int, console: Console) -> None:
        self.pending = {trial.key: trial for trial in pending}
        self.records = list(records)
        self.jobs = jobs
        self.console = console
        self.total = len(pending)
        self.measured = 0
        self.running: dict[str, float] = {}
        self.steps: dict[str, tuple[int, int]] = {}
        self.began = time.monotonic()
        self.said_waiting = False
        self.bar: Progress | None = None
        if console.is_terminal:
            what = TextColumn(
                "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
            )
            wide = console.width >= WIDE
            count = TextColumn("{task.fields[done]}/{task.total:g}")
            columns = (SpinnerColumn(), BarColumn(20 if wide else 8), count, _Pace(self), what)
            self.bar = Progress(*columns, console=console, expand=True, transient=True)
            self.bar.add_task("starting", total=self.total, done=0)

    def __enter__(self) -> "Display":
        self._live().__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._live().__exit__(*details)

    def _live(self) -> AbstractContextManager[Any]:
        return self.bar if self.bar is not None else nullcontext()

    def started(self, trial: Trial) -> None:
        self.running[trial.key] = time.monotonic()
        self._refresh()

    def stepped(self, trial: Trial, done: int, total: int) -> None:
        self.steps[trial.key] = done, total
        self._refresh()

    def interrupted(self, trial: Trial, reason: str) -> None:
        self.running[trial.key] = time.monotonic()
        self.steps.pop(trial.key, None)
        self._print(f"{trial.label}: {reason}; the trial is started again")
        self._refresh()

    def finished(self, trial: Trial, record: Record) -> None:
        for of_trials in (self.running, self.steps, self.pending):
            of_trials.pop(trial.key, None)
        self.records.append(record)
        self.measured += not GROUPS[trial.group].quick
        self.said_waiting = False
        self._refresh()
        if record["status"] != "ok" or (self.bar is None and not GROUPS[trial.group].quick):
            self._line(trial, record)

    def waiting(self, trials: Sequence[Trial], why: str) -> None:
        text = f"waiting {why}: {trials[0].label}"
        if len(trials) > 1:
            text += f" and {len(trials) - 1} more"
        if self.bar is None and not self.said_waiting:
            self._print(text)
        self.said_waiting = True
        self._describe(text)

    def rate(self) -> str:
        """Trials per minute, without costs, which take no time."""
        minutes = (time.monotonic() - self.began) / 60
        return f"{self.measured / minutes:.1f} trials/min" if self.measured else ""

    def left(self) -> str:
        """Time left as text, estimated from finished trials or from the steps of running ones; empty if unknown."""
        now = time.monotonic()
        gone = {key: now - since for key, since in self.running.items()}
        whole = {key: gone[key] * total / done for key, (done, total) in self.steps.items() if key in gone and done}
        running = [
            {"status": "ok", "group": trial.group, "config_id": trial.inputs.config.id, "seconds": whole[key]}
            for key, trial in self.pending.items()
            if key in whole
        ]
        known = [*self.records, *running]
        total = 0.0
        for key, trial in self.pending.items():
            seconds = whole.get(key) or seconds_left([trial], known, 1)
            if seconds is None:
                return ""
            seconds = max(0.0, seconds - gone.get(key, 0.0))
            total += seconds / (1 if GROUPS[trial.group].alone else self.jobs)
        return f"about {cli.rough_duration(total)} left"

    def elapsed(self) -> str:
        """Time since the start, as text."""
        return cli.duration(float(int(time.monotonic() - self.began)))

    def _refresh(self) -> None:
        """Update the progress, including parts of trials, and the running trial."""
        if self.bar is None:
            return
        shares = sum(done / total for done, total in self.steps.values() if total)
        done = self.total - len(self.pending)
        self.bar.update(self.bar.task_ids[0], completed=done + shares, done=done)
        if self.running:
            self._describe(", ".join(map(self._running, self.running)))

    def _running(self, key: str) -> str:
        label = self.pending[key].label
        if key not in self.steps:
            return label
        done, total = self.steps[key]
        return f"{label} (step {done} of {total})"

    def _describe(self, text: str) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], description=cli.printable(text))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _line(self, trial: Trial, record: Record) -> None:
        result = cli.duration(record["seconds"])
        if record["status"] != "ok":
            result = f"{record['status'].replace('_', ' ')}: {record['reason']}"
        line = f"[{self.total - len(self.pending)}/{self.total}] {trial.label}: {result}"
        if self.bar is None and self.pending and (left := self.left()):
            line += f" ({left})"
        self._print(line)


class _Pace(ProgressColumn):
    max_refresh = 0.5

    def __init__(self, display: Display) -> None:
        super().__init__(Column(no_wrap=True))
        self.display = display

    def render(self, task: Task) -> Text:
        wide = self.display.console.width >= WIDE
        said = (self.display.elapsed(), self.display.rate() if wide else "", self.display.left())
        return Text(", ".join(filter(None, said)), style="cyan")
