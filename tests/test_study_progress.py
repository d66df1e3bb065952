"""The progress display of a study: steps, elapsed and remaining time, and the number of trials at the same time."""

import io
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_study_runner import NANO, trial

from hrvit_lab.study.executors import host
from hrvit_lab.study.groups import ProbeInput
from hrvit_lab.study.progress import Display, comparable, describe_plan
from hrvit_lab.study.trials import Trial

GIB = 2**30


class Clock:
    """Monotonic seconds set by a test."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr(time, "monotonic", lambda: self.now)


def record(trial: Trial, seconds: float, status: str = "ok") -> dict[str, Any]:
    return trial.head() | {"status": status, "reason": "" if status == "ok" else "no", "seconds": seconds}


def test_the_first_estimate_is_from_the_steps_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    trials = [trial(tmp_path, seed) for seed in range(4)]
    shown = Display(trials, [], 2, Console(file=io.StringIO()))
    shown.started(trials[0])
    shown.started(trials[1])
    clock.now += 30
    assert shown.left() == "" and shown.elapsed() == "30 s"
    shown.stepped(trials[0], 25, 100)  # 120 s in all, 90 left; the others take as long, two at a time
    assert shown.left() == "about 4 min left"  # (90 + 90 + 120 + 120) / 2
    clock.now += 90
    shown.finished(trials[0], record(trials[0], 120.0))
    assert "[1/4] fine 0: 2 min 0 s" in shown.console.file.getvalue()  # type: ignore[attr-defined]


def test_the_estimate_at_the_start_is_from_durations_on_disk(tmp_path: Path) -> None:
    asked = trial(tmp_path, 0)
    alike = record(Trial("accuracy", ProbeInput(NANO, (64, 64), seed=5, data=asked.inputs.data), "", "chip"), 40.0)
    longer = alike | {"options": {**alike["options"], "train": {"epochs": 90}}, "seconds": 4000.0}
    other = alike | {"group": "latency", "seconds": 1.0}
    assert comparable([longer, alike, other], [asked]) == [alike]
    said = describe_plan([asked], {}, 1, comparable([longer, alike, other], [asked]))
    assert "1 to run" in said and "About 40 s with --jobs 1" in said
    assert "unknown until the first training" in describe_plan([asked], {}, 1)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_steps_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    clock = Clock(monkeypatch)
    file = io.StringIO()
    trials = [trial(tmp_path, seed, "[b]") for seed in range(8)]
    with Display(trials, [], 1, Console(file=file, force_terminal=True, width=width)) as shown:
        shown.started(trials[0])
        clock.now += 95
        shown.stepped(trials[0], 150, 300)
        assert shown.bar is not None
        [task] = shown.bar.tasks
        assert (task.completed, task.fields["done"], task.total) == (0.5, 0, 8)
        shown.bar.refresh()
    text = file.getvalue()
    assert "0/8" in text and "[b] 0 (step 150 of 300)" in text
    assert "1 min 35 s" in text and "about 24 min" in text  # 95 s more, and seven times 190: 23 min 45 s


def test_a_pipe_gets_one_line_per_trial(tmp_path: Path) -> None:
    file = io.StringIO()
    trials = [trial(tmp_path, seed) for seed in range(2)]
    with Display(trials, [], 1, Console(file=file)) as shown:
        for each in trials:
            shown.started(each)
            for step in range(5):
                shown.stepped(each, step, 5)
            shown.finished(each, record(each, 1.0))
    assert [line.partition(":")[0] for line in file.getvalue().splitlines()] == ["[1/2] fine 0", "[2/2] fine 1"]


def test_a_killed_worker_is_reported_in_one_line(tmp_path: Path) -> None:
    file = io.StringIO()
    asked = trial(tmp_path, 0)
    with Display([asked], [], 1, Console(file=file)) as shown:
        shown.started(asked)
        shown.stepped(asked, 3, 5)
        shown.interrupted(asked, "the worker process was killed by SIGKILL")
        shown.finished(asked, record(asked, 1.0))
    first, second = file.getvalue().splitlines()
    assert first == "fine 0: the worker process was killed by SIGKILL; the trial is started again"
    assert second.startswith("[1/1] fine 0: ")


@pytest.mark.parametrize(
    ("asked", "device", "cores", "gib", "jobs", "said"),
    [
        (None, "cpu", 8, 64, 8, ""),
        (None, "cpu", 64, 2, 3, ""),
        (None, "cuda", 8, 64, 1, ""),
        (4, "cpu", 8, 64, 4, ""),
        (1000, "cpu", 8, 64, 8, "--jobs 1000 is reduced to 8: 8 CPU cores are available."),
        (1000, "cpu", 64, 2, 3, "--jobs 1000 is reduced to 3: 2.0 GiB of memory are free."),
        (2, "cpu", 8, 0.1, 1, "--jobs 2 is reduced to 1: 0.1 GiB of memory are free."),
    ],
)
def test_jobs_are_bounded_by_cores_and_memory(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, device: str, cores: int, gib: float, jobs: int, said: str
) -> None:
    monkeypatch.setattr(host, "usable_cores", lambda: cores)
    monkeypatch.setattr(host, "available_memory", lambda: int(gib * GIB))
    assert host.choose_jobs(asked, device) == (jobs, said)


def test_jobs_of_several_processes_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "usable_cores", lambda: 8)
    monkeypatch.setattr(host, "available_memory", lambda: 64 * GIB)
    assert [host.choose_jobs(None, "cpu", processes)[0] for processes in (2, 3, 8, 16)] == [4, 2, 1, 1]
    assert host.choose_jobs(4, "cpu", 4) == (
        2, "--jobs 4 is reduced to 2: 8 CPU cores are available, and each training has 4 processes.",
    )  # fmt: skip
