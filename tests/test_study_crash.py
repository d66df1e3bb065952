"""A study that is killed at any moment, or run by two processes at once, has the results of an uninterrupted one."""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from forked import Command

ROOT = Path(__file__).parents[1]
STUDY = """
title: How does a killed study end?
question: Is its table the same as that of one that was left alone?
base: {preset: hrvit_nano, num_classes: 10}
grid: {branches: [1, 2, 3]}
metrics: [params, macs, top1, val_loss]
seeds: [0, 1, 2]
resolution: 32
data: {name: digits, resolution: 32}
train: {epochs: 1, train_limit: 64, batch_size: 32}
"""
TRIALS = 3 * 3
PROGRAMS = {"light": "light_study", "training": "hrvit_lab.study"}
"""Modules that run a study, by the folder that it is in: with trials that sleep, or that train."""

pytestmark = pytest.mark.timeout(900)  # with trainings a minute or two on two idle cores


def start(study: Path, out: Path, jobs: int = 2, trial_s: float = 0.3) -> Command:
    """A light trial sleeps for ``trial_s`` seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study.parent)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        patch.setenv("LIGHT_TRIAL_S", str(trial_s))
        return Command(PROGRAMS[study.parent.name], str(study), "--out", str(out), "--jobs", str(jobs))


def finish(process: Command) -> str:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, output + errors
    return output


def journal(out: Path) -> Counter[tuple[str, str]]:
    """How often each trial was started and finished."""
    path = out / "trials" / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return Counter((line["event"], line["key"]) for line in lines)


def unfinished(out: Path) -> int:
    """Trials that were started and have not finished yet."""
    return sum(times if event == "started" else -times for (event, _), times in journal(out).items())


def recorded(out: Path) -> set[str]:
    return {path.stem for path in (out / "trials").glob("*.json")}


def outcome(out: Path) -> dict[str, str]:
    """All of the study's results, except times."""
    folder = out / "crash"
    names = ("table.csv", "curves.csv", "configs.json", "study.yaml", "dropped.json")
    return {name: (folder / name).read_text() for name in names}


@pytest.fixture(scope="module", params=["light", pytest.param("training", marks=pytest.mark.slow)])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param, numbered=False) / "crash.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> Iterator[dict[str, str]]:
    out = study.parent / "undisturbed"
    finish(start(study, out, jobs=1))
    assert set(journal(out).values()) == {1}
    assert len(recorded(out)) == TRIALS
    yield outcome(out)


@pytest.mark.parametrize(("kills", "seed"), [(3, 4), pytest.param(10, 0, marks=pytest.mark.slow)])
def test_a_study_killed_at_random_moments_completes_with_equal_results(
    study: Path, undisturbed: dict[str, str], kills: int, seed: int
) -> None:
    assert undisturbed["table.csv"].count("\n") == 4 and ",ok," in undisturbed["table.csv"]
    out = study.parent / f"killed-{kills}"
    moments = random.Random(seed)
    started_before: list[tuple[set[str], Counter[tuple[str, str]]]] = []
    landed = torn = 0
    while landed < kills:
        torn_before = unfinished(out)
        process = start(study, out)
        # Imports take most of a run. Events are counted, so that some kills are during trainings and writes.
        enough = journal(out).total() + moments.randint(0, 3)
        while process.poll() is None and journal(out).total() < enough:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        # If it ended before the kill, its results must be complete, and the next run starts from empty results.
        if process.wait() != -signal.SIGKILL:
            assert outcome(out) == undisturbed
            shutil.rmtree(out)
            started_before.clear()
            continue
        landed += 1
        # A worker that is still importing ends after its imports, any other worker at once.
        _, alive = psutil.wait_procs(family, timeout=250)
        assert alive == [], "workers outlived their study"
        started_before.append((recorded(out), journal(out)))
        torn += unfinished(out) > torn_before
    assert torn, "no kill hit a trial between its start and its record"

    finish(start(study, out, jobs=1))
    assert outcome(out) == undisturbed
    assert len(recorded(out)) == TRIALS
    final = journal(out)
    for done, then in started_before:
        again = {key for key in done if final["started", key] > then["started", key]}
        assert again == set(), "a recorded trial ran again"
    names = {path.name for path in out.rglob("*") if path.is_file()}
    assert [name for name in names if name.endswith((".tmp", ".corrupt"))] == []
    assert [name for name in names if ".claim" in name] == []


def test_two_processes_at_once_complete_one_study(study: Path, undisturbed: dict[str, str]) -> None:
    out = study.parent / "twice"
    both = [start(study, out) for _ in range(2)]
    outputs = [finish(process) for process in both]
    assert outcome(out) == undisturbed
    assert set(journal(out).values()) == {1}, "a trial ran twice"
    assert len(recorded(out)) == TRIALS
    assert all("branches=3" in output for output in outputs)


def test_ctrl_c_keeps_finished_trials_and_says_how_to_resume(study: Path, undisturbed: dict[str, str]) -> None:
    out = study.parent / "interrupted"
    process = start(study, out, trial_s=1)
    until = time.monotonic() + 300
    while not recorded(out) and time.monotonic() < until:
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # like a terminal, which also signals the workers
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 130, errors
    assert len(errors.splitlines()) == 1, errors
    assert f"{len(recorded(out))} of {TRIALS} trials are kept in {out / 'trials'}" in errors
    assert psutil.wait_procs(family, timeout=250)[1] == []
    finish(start(study, out, jobs=1))
    assert outcome(out) == undisturbed
    assert all(number == 1 for (event, _), number in journal(out).items() if event == "finished")
