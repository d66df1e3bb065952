"""Studies on a real Slurm on this host: equal to local ones, and complete whatever happens to jobs and daemons."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import real_slurm
from real_slurm import RealSlurm
from test_trial_processes import SETTINGS

TESTS = Path(__file__).parent
STUDY = """
title: Is a cluster like a laptop?
question: Is the table the same?
base: {preset: hrvit_nano, num_classes: 10}
grid: {branches: [BRANCHES]}
metrics: [params, macs, top1, val_loss]
seeds: [SEEDS]
resolution: 32
data: {name: digits, resolution: 32}
train: {epochs: 1, train_limit: 64, batch_size: 32}
"""
TRIALS = 12

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(real_slurm.missing()), reason=f"a real Slurm needs {real_slurm.missing()}"),
]


@pytest.fixture(params=[False, True], ids=["without accounting", "with accounting"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    folder = tmp_path_factory.mktemp("slurm")
    with real_slurm.real_slurm(folder, accounting=request.param) as cluster:
        yield cluster


def start(cluster: RealSlurm, folder: Path, module: str, *arguments: str) -> "subprocess.Popen[str]":
    variables = cluster.variables | {
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "LIGHT_MARKS": str(folder),
        "LIGHT_TRIAL_S": "1",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=folder, env=os.environ | variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_until(what: str, holds: Callable[[], object], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"not in {seconds} s: {what}"
        time.sleep(0.2)


@pytest.mark.parametrize("cluster", [False], indirect=True)
def test_a_study_of_twelve_trials_equals_the_local_one(cluster: RealSlurm, tmp_path: Path) -> None:
    (tmp_path / "same.yaml").write_text(STUDY.replace("BRANCHES", "1, 2").replace("SEEDS", "0, 1, 2, 3, 4, 5"))
    for out, options in {
        "local": ["--jobs", "1"],
        "cluster": ["--executor", "slurm", "--array-parallelism", "2"],
    }.items():
        process = start(cluster, tmp_path, "hrvit_lab.study", "same.yaml", "--out", out, *options)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
    for name in ("table.csv", "curves.csv", "configs.json"):
        local, there = ((tmp_path / out / "same" / name).read_text() for out in ("local", "cluster"))
        assert local == there
    assert (tmp_path / "local/same/table.csv").read_text().count(",ok,") == 2
    assert len(list((tmp_path / "cluster/trials").glob("*.json"))) == TRIALS
    assert list((tmp_path / "cluster/trials/slurm").glob("*.json")) == []


@pytest.mark.parametrize("cluster", [False], indirect=True)
def test_a_training_by_two_processes_equals_the_local_one(cluster: RealSlurm, tmp_path: Path) -> None:
    study = STUDY.partition("data:")[0].replace("BRANCHES", "1").replace("SEEDS", "0")
    (tmp_path / "two.yaml").write_text(study + f"recipe: {json.dumps(SETTINGS)}\n")
    for out, options in {"local": [], "cluster": ["--executor", "slurm", "--slurm", "cpus-per-task=2"]}.items():
        process = start(cluster, tmp_path, "hrvit_lab.study", "two.yaml", "--out", out, *options)
        output, _ = process.communicate(timeout=550)
        assert process.returncode == 0, output
    for name in ("table.csv", "curves.csv"):
        local, there = ((tmp_path / out / "two" / name).read_text() for out in ("local", "cluster"))
        assert local == there and (name != "table.csv" or ",ok," in local)
    [path] = (tmp_path / "cluster" / "trials").glob("*.json")
    assert json.loads(path.read_text())["options"]["recipe"]["processes"] == 2


def test_everything_ends_whatever_happens(cluster: RealSlurm, tmp_path: Path) -> None:
    """Seed 0 always kills its job with kill -9, seed 1 once. The first jobs of seeds 2, 3 and 4 would not end: one is
    warned of its time limit, one is cancelled, and one is not warned. slurmctld is restarted, and the coordinator is
    killed twice. The end of each job is the reason in its trial's record until the next outcome."""
    (tmp_path / "chaos.yaml").write_text(
        STUDY.replace("BRANCHES", "1").replace("SEEDS", ", ".join(map(str, range(TRIALS))))
    )
    for seed, act in {0: "kill", 1: "once", 2: "hang", 3: "hang", 4: "hang"}.items():
        (tmp_path / str(seed)).write_text(act)
    (tmp_path / "unwarned-4").touch()
    out = tmp_path / "out"
    command = ("slurm_probes", "chaos.yaml", "--out", "out", "--executor", "slurm", "--time", "1",
               "--array-parallelism", "3", "--partition", "test")  # fmt: skip
    reasons: dict[int, set[str]] = {seed: set() for seed in range(TRIALS)}

    def records() -> list[dict[str, Any]]:
        """All records, which may be of interruptions; their reasons are kept."""
        found = [json.loads(path.read_text()) for path in (out / "trials").glob("*.json")]
        for record in found:
            reasons[record["seed"]] |= {record["reason"]} - {""}
        return found

    def jobs_of(seed: int) -> list[str]:
        return [job for path in tmp_path.glob(f"{seed}-*.started") for job in path.read_text().splitlines()]

    coordinator = start(cluster, tmp_path, *command)
    wait_until("jobs are submitted", lambda: cluster.output("squeue", "--noheader"))
    coordinator.send_signal(signal.SIGKILL)
    coordinator.communicate()
    coordinator = start(cluster, tmp_path, *command)
    wait_until("seed 3 has started", lambda: records() and jobs_of(3))
    subprocess.run(["scancel", *jobs_of(3)], env=os.environ | cluster.variables, check=True)
    wait_until("the coordinator knows it", lambda: records() and reasons[3])
    cluster.stop("slurmctld")
    time.sleep(3)
    cluster.start_controller()
    wait_until("some trials are done", lambda: sum(record["status"] == "ok" for record in records()) >= 3)
    coordinator.send_signal(signal.SIGKILL)
    coordinator.communicate()
    coordinator = start(cluster, tmp_path, *command)
    wait_until("the study has ended", lambda: records() and coordinator.poll() is not None, 900)
    output, _ = coordinator.communicate()
    assert coordinator.returncode == 1, output

    found = records()
    assert {record["seed"]: record["status"] for record in found} == {
        seed: "failed" if seed == 0 else "ok" for seed in range(TRIALS)
    }, output
    jobs = [jobs_of(seed) for seed in range(TRIALS)]
    assert list(map(len, jobs)) == [3, 2, 2, 2, 2, *[1] * (TRIALS - 5)]
    [reason] = [record["reason"] for record in found if record["status"] == "failed"]
    assert reason in reasons[0] and reason.endswith(" (3 times)")
    told = r"(?: \(it was told to end\))?"  # if it had the time to write that
    ends = ("FAILED", "FAILED", r"FAILED \(its time limit was near\)", f"CANCELLED{told}", f"TIMEOUT{told}")
    for seed, end in enumerate(ends):
        ended = jobs[seed] if seed == 0 else jobs[seed][:1]
        pattern = rf"Slurm job (\w+) ended as {end}; its log is (\S+)(?: \(3 times\))?"
        matches = {each: re.fullmatch(pattern, each) for each in reasons[seed]}
        assert sorted(match[1] for match in matches.values() if match) == sorted(ended), reasons
        assert all(match and (out / match[2]).is_file() for match in matches.values()), reasons
    assert not any(reasons[seed] for seed in range(len(ends), TRIALS)), reasons
    events = [json.loads(line) for line in (out / "trials" / "journal.jsonl").read_text().splitlines()]
    finished = Counter(event["key"] for event in events if event["event"] == "finished")
    assert finished == Counter({record["key"]: 1 for record in found})
    assert cluster.output("squeue", "--noheader") == ""
    left = [path.name for path in (out / "trials").rglob("*") if ".claim" in path.name or path.suffix == ".tmp"]
    assert left == [] and list((out / "trials" / "slurm").glob("*.json")) == []
    status = start(cluster, tmp_path, "hrvit_lab.study", "status", "chaos", "--out", "out")
    shown, _ = status.communicate(timeout=100)
    assert status.returncode == 1 and shown.startswith("chaos: 12 trials: 11 done, 1 failed.\n") and reason in shown
