"""The runner with fake probes: every way in which a trial can end is recorded, and other trials continue."""

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hrvit_lab import cli
from hrvit_lab.config import preset
from hrvit_lab.environment import usable_cores
from hrvit_lab.study import runner
from hrvit_lab.study.claims import Claim
from hrvit_lab.study.executors.host import timing_lock
from hrvit_lab.study.groups import ProbeInput
from hrvit_lab.study.progress import seconds_left
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial

NANO = preset("hrvit_nano")


def act(asked: ProbeInput) -> dict[str, Any]:
    """Act as ``data["act"]`` says, and append a line with the times to a file in ``data["root"]``."""
    began = time.time()
    match asked.data["act"]:
        case "raise":
            raise ValueError("no such thing\nas a second line")
        case "memory":
            raise MemoryError
        case "allocator":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        case "hang":
            time.sleep(600)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "nap":
            time.sleep(0.5)
        case "meet":  # wait for another worker in the same state, however late it starts
            (Path(asked.data["root"]) / f"met-{os.getpid()}").touch()
            while len(list(Path(asked.data["root"]).glob("met-*"))) < 2:
                time.sleep(0.05)
            time.sleep(0.5)
        case "long nap":
            (Path(asked.data["root"]) / "napping").touch()
            for _ in range(10):  # at least a second in this process
                time.sleep(0.1)
        case "steps":
            for step in range(1, 9):
                asked.on_step(step, 8)
                time.sleep(0.2)
        case "fails the second time" if runs(Path(asked.data["root"])):
            raise ValueError("once was enough")
    line = json.dumps({"seed": asked.seed, "began": began, "ended": time.time(), "pid": os.getpid()}) + "\n"
    with open(Path(asked.data["root"]) / "runs.jsonl", "a") as file:
        file.write(line)
    return {
        "top1": asked.seed / 7,
        "val_loss": 0.5,
        "train_seconds": 1.0,
        "curves": [{"epoch": 1, "val_loss": float("nan")}],
    }


def count_threads(asked: ProbeInput) -> dict[str, Any]:
    import torch

    return act(asked) | {"threads": torch.get_num_threads()}


def clock(asked: ProbeInput) -> dict[str, Any]:
    return count_threads(asked) | {"latency_ms": 1.0, "throughput_img_s": 1000.0}


light = pytest.mark.usefixtures("light_workers")
PROBES = {"accuracy": count_threads, "latency": clock}


def trial(root: Path, seed: int, act: str = "", group: str = "accuracy") -> Trial:
    asked = ProbeInput(NANO, (64, 64 + seed), seed=seed, data={"act": act, "root": str(root)})
    return Trial(group, asked, f"{act or 'fine'} {seed}", "chip")


@dataclass
class Notes:
    """A watcher that records its calls; ``on_wait`` runs at the first wait."""

    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    waits: list[list[str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    steps: list[tuple[str, int, int]] = field(default_factory=list)
    on_wait: Any = None

    def started(self, trial: Trial) -> None:
        self.begun.append(trial.label)

    def stepped(self, trial: Trial, done: int, total: int) -> None:
        self.steps.append((trial.label, done, total))

    def interrupted(self, trial: Trial, reason: str) -> None:
        self.killed.append(f"{trial.label}: {reason}")

    def finished(self, trial: Trial, record: Mapping[str, Any]) -> None:
        self.ended.append(f"{trial.label}: {record['status']}")

    def waiting(self, trials: Sequence[Trial], why: str) -> None:
        self.waits.append([trial.label for trial in trials])
        self.reasons.append(why)
        if self.on_wait:
            self.on_wait()
            self.on_wait = None


def run(store: Store, trials: Sequence[Trial], jobs: int = 2, timeout_s: float = 60, **options: Any) -> Notes:
    notes = options.pop("notes", Notes())
    store.create()
    runner.run(trials, store, PROBES, notes, jobs=jobs, timeout_s=timeout_s, environment={"cpu": "chip"}, **options)
    return notes


def runs(root: Path) -> list[dict[str, Any]]:
    path = root / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


@light
def test_every_kind_of_end_is_recorded_and_other_trials_continue(store: Store, tmp_path: Path) -> None:
    acts = ["", "raise", "memory", "allocator", "hang", "killed", "exit", ""]
    trials = [trial(tmp_path, seed, act) for seed, act in enumerate(acts)]
    notes = run(store, trials, timeout_s=2)

    records = [store.load(t.key) for t in trials]
    assert [r and r["status"] for r in records] == [
        "ok",
        "failed",
        "out_of_memory",
        "out_of_memory",
        "timeout",
        "failed",
        "failed",
        "ok",
    ]
    reasons = [r["reason"] for r in records if r]
    assert reasons[1] == "ValueError: no such thing"
    assert reasons[2].startswith("MemoryError")
    assert reasons[4] == "took longer than 2 s"
    assert "SIGKILL" in reasons[5] and "memory" in reasons[5]
    assert "exit code 3" in reasons[6]
    last = records[-1]
    assert last is not None
    assert last["values"] == {"top1": 1.0, "val_loss": 0.5, "train_seconds": 1.0, "threads": 1}
    assert last["curves"] == [{"epoch": 1, "val_loss": None}]
    assert last["config_id"] == NANO.id and last["seed"] == 7 and last["environment"] == {"cpu": "chip"}
    assert "no such thing" in (records[1] or {})["traceback"]
    assert sorted(notes.begun) == sorted(t.label for t in trials)
    assert len(notes.ended) == len(trials)
    leftovers = {path.name for path in store.folder.iterdir()} - {f"{t.key}.json" for t in trials}
    assert leftovers == {"journal.jsonl"}


@light
def test_a_rerun_runs_only_missing_trials(store: Store, tmp_path: Path) -> None:
    trials = [trial(tmp_path, 0), trial(tmp_path, 1, "raise")]
    run(store, trials)
    again = run(store, [*trials, trial(tmp_path, 2)])
    assert again.begun == ["fine 2"]
    (store.folder / f"{trials[0].key}.json").write_text('{"key": ')
    assert run(store, trials).begun == ["fine 0"]
    assert run(store, trials, retry_failed=True).begun == ["raise 1"]
    assert [line["seed"] for line in runs(tmp_path)] == [0, 2, 0]


def refuse() -> None:
    raise ImportError("a library is missing")


class Unloadable:
    """A probe that a worker cannot import."""

    def __call__(self, asked: Any) -> dict[str, Any]:
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, ()


def test_a_worker_that_cannot_start_fails_no_trial(store: Store, tmp_path: Path) -> None:
    store.create()
    broken = {"accuracy": Unloadable()}
    with pytest.raises(runner.WorkerUnable, match="exit code 1"):
        runner.run([trial(tmp_path, 0)], store, broken, Notes(), jobs=1, timeout_s=60, environment={})
    assert {path.name for path in store.folder.iterdir()} == {"journal.jsonl"}
    assert run(store, [trial(tmp_path, 0)]).ended == ["fine 0: ok"]


def test_trainings_run_in_parallel_and_latencies_alone(store: Store, tmp_path: Path) -> None:
    trials = [trial(tmp_path, 100 + i, "nap", "latency") for i in range(2)]
    trials += [trial(tmp_path, i, "meet") for i in range(4)]
    run(store, trials, jobs=2)
    done = runs(tmp_path)
    trainings = [line for line in done if line["seed"] < 100]
    clocks = [line for line in done if line["seed"] >= 100]

    def overlaps(line: dict[str, Any]) -> int:
        return sum(o["began"] < line["ended"] and line["began"] < o["ended"] for o in done) - 1

    assert len(trainings) == 4 and len(clocks) == 2
    assert {line["pid"] for line in trainings} & {line["pid"] for line in clocks} == set()
    assert len({line["pid"] for line in trainings}) == 2  # each imported torch once
    assert any(overlaps(line) for line in trainings)
    assert [overlaps(line) for line in clocks] == [0, 0]
    assert min(line["began"] for line in clocks) >= max(line["ended"] for line in trainings)
    threads = {t.group: (store.load(t.key) or {})["values"]["threads"] for t in trials}
    assert threads == {"accuracy": 1, "latency": usable_cores()}


@light
def test_a_trial_of_another_process_is_waited_for_and_shown(store: Store, tmp_path: Path) -> None:
    theirs = trial(tmp_path, 0)
    store.create()
    claim = store.claim(theirs.key)
    assert claim
    notes = Notes(on_wait=lambda: finish(store, theirs, claim))
    run(store, [theirs], notes=notes)
    assert notes.waits[0] == ["fine 0"] and notes.reasons[0] == "for another process"
    assert notes.begun == []
    assert notes.ended == ["fine 0: ok"]
    assert runs(tmp_path) == []


def finish(store: Store, trial: Trial, claim: Claim) -> None:
    values = {"top1": 1.0, "val_loss": 0.5, "train_seconds": 1.0}
    outcome = {"status": "ok", "reason": "", "values": values, "started": time.time(), "seconds": 1.0}
    store.save(trial.head() | outcome)
    store.release(claim)


def test_the_time_left_is_estimated_from_known_durations(tmp_path: Path) -> None:
    def measured(group: str, config_id: str, seconds: float) -> dict[str, Any]:
        return {"status": "ok", "group": group, "config_id": config_id, "seconds": seconds}

    training, clock = trial(tmp_path, 0), trial(tmp_path, 0, group="latency")
    assert seconds_left([training], [], 2) is None
    assert seconds_left([], [], 2) == 0
    assert seconds_left([training, clock], [measured("accuracy", "other", 8)], 2) == 4 + 8
    same = [measured("accuracy", "other", 8), measured("accuracy", NANO.id, 2), measured("latency", "x", 3)]
    assert seconds_left([training, training, clock], same, 2) == 2 + 3
    assert seconds_left([training], [same[0] | {"status": "failed"}], 1) is None
    # Durations of latency trials do not predict trainings.
    assert seconds_left([training], [measured("latency", "other", 3)], 1) is None
    bounded = ProbeInput(NANO, (64, 64), latency={"max_seconds": 1.5, "max_warmup_seconds": 2.0})
    assert seconds_left([Trial("latency", bounded, "", "chip")], [measured("accuracy", "other", 30)], 2) == 3.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s"), (3599.7, "1 h 0 min")],
)
def test_durations_are_formatted_for_people(seconds: float, text: str) -> None:
    assert cli.duration(seconds) == text


def test_without_workers_every_end_is_a_record_too(store: Store, tmp_path: Path) -> None:
    """In this process and in order, latency trials last; torch's number of threads is as before afterwards."""
    import torch

    threads = torch.get_num_threads() + 1
    torch.set_num_threads(threads)
    try:
        trials = [trial(tmp_path, 0, group="latency"), trial(tmp_path, 1, "raise"), trial(tmp_path, 2, "steps")]
        notes = run(store, trials, executor="inline")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads - 1)
    assert [(line["pid"], line["seed"]) for line in runs(tmp_path)] == [(os.getpid(), 2), (os.getpid(), 0)]
    records = [store.load(t.key) or {} for t in trials]
    assert [record["status"] for record in records] == ["ok", "failed", "ok"]
    assert [record["values"].get("threads") for record in records] == [usable_cores(), None, 1]
    assert records[1]["reason"] == "ValueError: no such thing" and records[2]["environment"] == {"cpu": "chip"}
    assert notes.begun == [trials[1].label, trials[2].label, trials[0].label] and len(notes.ended) == 3
    assert notes.steps == [(trials[2].label, step, 8) for step in range(1, 9)]
    run(store, trials, executor="inline")
    assert len(runs(tmp_path)) == 2  # nothing is run again
    assert timing_lock_is_free()


def test_ctrl_c_without_workers_keeps_what_is_finished(store: Store, tmp_path: Path) -> None:
    def probe(asked: ProbeInput) -> dict[str, Any]:
        if asked.seed == 1:
            raise KeyboardInterrupt
        return act(asked)

    trials = [trial(tmp_path, seed) for seed in range(3)]
    store.create()
    arguments: dict[str, Any] = {"jobs": 1, "timeout_s": 60, "environment": {}, "executor": "inline"}
    with pytest.raises(KeyboardInterrupt):
        runner.run(trials, store, {"accuracy": probe}, Notes(), **arguments)
    assert [store.load(t.key) is not None for t in trials] == [True, False, False]
    runner.run(trials, store, {"accuracy": act}, Notes(), **arguments)  # its claim and the lock were released
    assert sorted(line["seed"] for line in runs(tmp_path)) == [0, 1, 2]


def test_without_workers_a_trial_that_another_process_has_claimed_is_left_to_it(store: Store, tmp_path: Path) -> None:
    trials = [trial(tmp_path, 0), trial(tmp_path, 1)]
    store.create()
    claim = store.claim(trials[0].key)
    assert claim is not None
    notes = Notes(on_wait=lambda: store.release(claim))
    run(store, trials, executor="inline", notes=notes)
    assert notes.waits[0] == [trials[0].label] and notes.reasons[0] == "for another process"
    assert [line["seed"] for line in runs(tmp_path)] == [1, 0]


@light
@pytest.mark.parametrize("executor", ["local", "inline"])
def test_a_trial_says_that_it_waits_for_a_measurement(store: Store, tmp_path: Path, executor: str) -> None:
    store.create()
    lock = timing_lock(exclusive=True)
    assert lock is not None
    notes = Notes(on_wait=lambda: lock.release(unlink=True))
    run(store, [trial(tmp_path, 0)], executor=executor, notes=notes)
    assert notes.reasons[0] == "until the latency measurements that run on this machine have ended"
    assert notes.waits[0] == ["fine 0"] == [end.removesuffix(": ok") for end in notes.ended]


def timing_lock_is_free() -> bool:
    lock = timing_lock(exclusive=True)
    if lock is not None:
        lock.release(unlink=True)
    return lock is not None
