"""An interruption from outside is not a failure: after a study or its workers are ended, a rerun completes the
table."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from forked import Command
from test_study_runner import PROBES, Notes, light, run, runs, trial

from hrvit_lab.study import runner
from hrvit_lab.study.executors import local, process
from hrvit_lab.study.groups import ProbeInput
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial

ROOT = Path(__file__).parents[1]
STUDY = """
title: How does an ended study end?
question: Is its table complete when it is run again?
base: {preset: hrvit_nano, num_classes: 10}
grid: {branches: [1, 2]}
metrics: [params, top1]
seeds: [0, 1]
resolution: 32
data: {name: digits, resolution: 32}
train: {epochs: 1, train_limit: 256, batch_size: 8}
"""

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX"),
]


@pytest.fixture(params=["light", pytest.param("training", marks=pytest.mark.slow)])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A study in a folder whose name tells `start` whether trials sleep or train."""
    path = tmp_path / request.param / "ended.yaml"
    path.parent.mkdir()
    path.write_text(STUDY)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def start(study: Path, jobs: int, trial_s: float = 2) -> Command:
    """A light trial sleeps for ``trial_s`` seconds."""
    program = "light_study" if study.parent.name == "light" else "hrvit_lab.study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        patch.setenv("LIGHT_TRIAL_S", str(trial_s))
        patch.setenv("LIGHT_MARKS", str(study.parent))
        return Command(program, str(study), "--out", str(study.parent / "out"), "--jobs", str(jobs))


def events(study: Path) -> list[str]:
    path = study.parent / "out" / "trials" / "journal.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


def statuses(out: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in (out / "trials").glob("*.json")]


def computing(process: Command, study: Path) -> list[psutil.Process]:
    """Its workers that have finished their imports: those with a trial that reports steps."""
    children = psutil.Process(process.pid).children()
    if study.parent.name == "light":
        return [child for child in children if (study.parent / str(child.pid)).exists()]
    return [child for child in children if child.memory_info().rss > 150 * 2**20]


def wait_for_trainings(process: Command, study: Path) -> list[psutil.Process]:
    until = time.monotonic() + 250
    while time.monotonic() < until and process.poll() is None:
        if events(study).count("started") >= 1 and (workers := computing(process, study)):
            return workers
        time.sleep(0.1)
    pytest.fail(f"no training began: {process.communicate()}")


def test_a_study_whose_process_group_was_ended_is_completed_by_the_next_run(study: Path) -> None:
    """SIGTERM of a scheduler or SIGHUP of a closed terminal, sent to all processes of the group at once."""
    out = study.parent / "out"
    for number in (signal.SIGTERM, signal.SIGHUP):
        process = start(study, jobs=2, trial_s=30)
        wait_for_trainings(process, study)
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 128 + number, errors
        assert "run the same command again to resume" in errors and "Traceback" not in errors
        assert psutil.wait_procs(family, timeout=250)[1] == [], "workers outlived their study"
        assert set(statuses(out)) <= {"ok"}, "an ended trial was recorded"
        assert list((out / "trials").glob("*.claim")) == []
    done = start(study, jobs=1, trial_s=0.1)
    output, errors = done.communicate(timeout=400)
    assert done.returncode == 0, output + errors
    assert statuses(out) == ["ok"] * 4


def test_a_worker_that_is_killed_is_replaced_and_the_table_complete(study: Path) -> None:
    process = start(study, jobs=1, trial_s=1)
    wait_for_trainings(process, study)[0].send_signal(signal.SIGKILL)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, output + errors
    assert statuses(study.parent / "out") == ["ok"] * 4
    assert "failed" not in output


def kill_once(asked: ProbeInput) -> dict[str, Any]:
    """Be killed once by the signal in ``data["act"]``; succeed the next time."""
    mark = Path(asked.data["root"]) / f"killed-{asked.seed}"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), getattr(signal, asked.data["act"]))
        time.sleep(60)
    return PROBES["accuracy"](asked)


def run_with(probe: Any, store: Store, trials: Sequence[Trial], **options: Any) -> Notes:
    notes = Notes()
    store.create()
    runner.run(trials, store, {"accuracy": probe}, notes, jobs=2, environment={}, **{"timeout_s": 100, **options})
    return notes


@light
def test_a_trial_is_repeated_after_any_signal_ends_its_worker(store: Store, tmp_path: Path) -> None:
    names = ("SIGKILL", "SIGTERM", "SIGHUP")
    trials = [trial(tmp_path, seed, name) for seed, name in enumerate(names)]
    notes = run_with(kill_once, store, trials)
    assert sorted(notes.ended) == sorted(f"{t.label}: ok" for t in trials)
    assert sorted(notes.begun) == sorted(t.label for t in trials)
    assert len(notes.killed) == 3 and all(name in " ".join(notes.killed) for name in names)
    assert sorted(line["seed"] for line in runs(tmp_path)) == [0, 1, 2]


@light
def test_interruptions_are_kept_and_bounded_over_runs(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that ends after each death of its worker (for example, because memory is full) must stop at some time."""
    killed = trial(tmp_path, 0, "killed")

    class Ending(Notes):
        def interrupted(self, trial: Trial, reason: str) -> None:
            raise KeyboardInterrupt

    for attempt in (1, 2):
        store.create()
        with pytest.raises(KeyboardInterrupt):
            runner.run([killed], store, PROBES, Ending(), jobs=1, timeout_s=100, environment={})
        assert store.load(killed.key) is None and store.interruptions(killed.key) == attempt
    notes = run(store, [killed])
    assert notes.ended == ["killed 0: failed"]
    assert (
        "SIGKILL" in (store.load(killed.key) or {})["reason"]
        and "(3 times)" in (store.load(killed.key) or {})["reason"]
    )
    assert run(store, [killed]).begun == []


def test_time_in_which_a_study_is_stopped_does_not_count(tmp_path: Path) -> None:
    """Suspended machines and Ctrl-Z."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path\n"
        "from test_study_runner import Notes, PROBES, trial\n"
        "from hrvit_lab.study import runner\n"
        "from hrvit_lab.study.store import Store\n"
        "if __name__ == '__main__':\n"
        "    root = Path(sys.argv[3]); store = Store(root / 'out'); store.create()\n"
        "    long = trial(root, 0, 'long nap')\n"
        "    notes = Notes()\n"
        "    runner.run([long], store, PROBES, notes, jobs=1, timeout_s=5, environment={})\n"
        "    print(notes.ended)\n"
    )
    script = tmp_path / "study.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(ROOT), str(ROOT / "tests"), str(tmp_path)]
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    until = time.monotonic() + 200
    while not (tmp_path / "napping").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(8)
    os.killpg(process.pid, signal.SIGCONT)
    output, errors = process.communicate(timeout=200)
    assert output == "['long nap 0: ok']\n", output + errors


def test_time_in_which_a_worker_is_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is stopped while the study runs; only a small part of a long gap between two polls counts."""
    with subprocess.Popen(["sleep", "100"]) as child:
        w = process.Worker.__new__(process.Worker)
        w.process = child  # type: ignore[assignment]
        w.awake_s = 0.0
        now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        w._looked = now
        for _ in range(10):
            now += 0.2
            w._count_time()
        assert w.awake_s == pytest.approx(2.0)
        child.send_signal(signal.SIGSTOP)
        while psutil.Process(child.pid).status() != psutil.STATUS_STOPPED:
            pass
        now += 0.5
        w._count_time()
        assert w.awake_s == pytest.approx(2.0)
        child.send_signal(signal.SIGCONT)
        while psutil.Process(child.pid).status() == psutil.STATUS_STOPPED:
            pass
        now += 3600  # a suspended machine
        w._count_time()
        assert w.awake_s == pytest.approx(2.0 + process.LONGEST_LOOK_S)
        child.kill()


@light
def test_a_hanging_trial_reaches_its_time_limit_and_fails(store: Store, tmp_path: Path) -> None:
    notes = run(store, [trial(tmp_path, 0, "hang")], timeout_s=2)
    assert notes.ended == ["hang 0: timeout"] and notes.killed == []


@light
def test_workers_killed_at_start_fail_no_trial(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.0)
    store.create()
    with pytest.raises(runner.WorkerUnable, match=r"killed by SIGKILL.*\(3 times\)"):
        runner.run([trial(tmp_path, 0)], store, {"accuracy": Lethal()}, Notes(), jobs=1, timeout_s=60, environment={})
    assert {path.name for path in store.folder.iterdir()} == {"journal.jsonl"}
    assert run(store, [trial(tmp_path, 0)]).ended == ["fine 0: ok"]


def end_here() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Lethal:
    """A probe that kills the worker that unpickles it."""

    def __call__(self, asked: Any) -> dict[str, Any]:
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        return end_here, ()


@light
def test_retries_do_not_depend_on_the_clock(store: Store, tmp_path: Path) -> None:
    """After the clock was set back, a failure seems to be in the future."""
    failing = trial(tmp_path, 0, "raise")
    run(store, [failing])
    record = store.load(failing.key) or {}
    store.save(record | {"started": time.time() + 1e6})
    assert run(store, [failing]).begun == []
    assert run(store, [failing], retry_failed=True).begun == ["raise 0"]
    assert (store.load(failing.key) or {})["started"] < time.time() + 1


@light
def test_a_group_is_measured_again(store: Store, tmp_path: Path) -> None:
    trials = [trial(tmp_path, 0, "", "latency"), trial(tmp_path, 1)]
    run(store, trials)
    before = {t.key: store.load(t.key) for t in trials}
    assert run(store, trials, again=["latency"]).begun == ["fine 0"]
    after = {t.key: store.load(t.key) for t in trials}
    assert [before[t.key] == after[t.key] for t in trials] == [False, True]


@light
def test_a_failed_repetition_keeps_the_earlier_values(store: Store, tmp_path: Path) -> None:
    good = trial(tmp_path, 0, "fails the second time", "latency")
    run(store, [good])
    before = store.load(good.key)
    notes = run(store, [good], again=["latency"])
    assert notes.ended == ["fails the second time 0: failed"]
    assert store.load(good.key) == before and (before or {})["status"] == "ok"


@light
def test_a_record_says_how_many_trials_ran_at_the_same_time(store: Store, tmp_path: Path) -> None:
    trials = [trial(tmp_path, seed, "nap") for seed in (0, 1)]
    run(store, trials, jobs=1)
    for t in trials:
        record = store.load(t.key) or {}
        assert record["beside"] == 0 and record["disturbed"] == {}
        assert 0 <= record["cpu_seconds"] < record["seconds"], "it slept"
    trials = [trial(tmp_path, seed, "meet") for seed in (2, 3, 4, 5)]
    run(store, trials, jobs=2)
    records = [store.load(t.key) or {} for t in trials]
    assert any(record["beside"] == 1 for record in records)
    for record in records:
        expected = {"train_seconds": ["up to 1 other trial ran at the same time"]} if record["beside"] else {}
        assert record["disturbed"] == expected


@light
def test_steps_are_reported(store: Store, tmp_path: Path) -> None:
    notes = run(store, [trial(tmp_path, 0, "steps")])
    assert notes.steps and all(label == "steps 0" and total == 8 for label, _, total in notes.steps)
    assert [done for _, done, _ in notes.steps] == sorted(done for _, done, _ in notes.steps)


def no_claim_is_left(store: Store, key: str) -> bool:
    """Check that neither a file of a claim nor a claim of this process is left."""
    left = list(store.folder.glob("*.claim*"))
    claim = store.claim(key)
    if claim:
        claim.release()
    return left == [] and claim is not None


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)


@light
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("moment", ["claimed", "looked up", "hired", "given", "noted", "told"])
def test_a_run_ended_at_any_moment_leaves_no_claim(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moment: str
) -> None:
    """The signal arrives directly after each step from the claim on."""
    number = getattr(signal, name)
    handler = signal.getsignal(number)
    hanging = trial(tmp_path, 0, "hang")
    steps = {
        "claimed": (Store, "claim"), "looked up": (Store, "load"), "hired": (local._Phase, "_start_worker"),
        "given": (process.Worker, "start"), "noted": (Store, "note"), "told": (Notes, "started"),
    }  # fmt: skip
    owner, method = steps[moment]
    do = getattr(owner, method)
    sent: list[int] = []

    def do_and_send(self: Any, *arguments: Any) -> Any:
        done = do(self, *arguments)
        if not sent and (moment != "looked up" or list(self.folder.glob("*.claim"))):
            sent.append(number)
            end_by(number)
        return done

    monkeypatch.setattr(owner, method, do_and_send)
    store.create()
    with pytest.raises(runner.Ended) as ending:
        runner.run([hanging], store, PROBES, Notes(), jobs=1, timeout_s=100, environment={})
    assert ending.value.signal == number and sent == [number]
    assert signal.getsignal(number) == handler
    assert no_claim_is_left(store, hanging.key) and store.load(hanging.key) is None


@light
@pytest.mark.parametrize(
    ("owner", "method"), [(Store, "load"), (Store, "note"), (process.Worker, "__init__"), (Notes, "started")]
)
def test_a_failing_run_leaves_no_claim(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str
) -> None:
    """An unreadable record, a full disk, no more processes, a closed output."""
    hanging = trial(tmp_path, 0, "hang")
    do = getattr(owner, method)

    def fail(self: Any, *arguments: Any) -> Any:
        if list(store.folder.glob("*.claim")):
            raise OSError(5, "no luck")
        return do(self, *arguments)

    store.create()
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, fail)
        with pytest.raises(OSError, match="no luck"):
            runner.run([hanging], store, PROBES, Notes(), jobs=1, timeout_s=100, environment={})
    assert no_claim_is_left(store, hanging.key)


@light
def test_existing_signal_handlers_are_kept(store: Store, tmp_path: Path) -> None:
    seen: list[int] = []

    class Signalling(Notes):
        def started(self, trial: Trial) -> None:
            end_by(signal.SIGHUP)
            end_by(signal.SIGTERM)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, lambda n, _: seen.append(n))
    try:
        assert run(store, [trial(tmp_path, 0)], notes=Signalling()).ended == ["fine 0: ok"]
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert seen == [signal.SIGTERM]
