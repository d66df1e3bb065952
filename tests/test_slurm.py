"""The executor for Slurm, with commands that run jobs here: every end of a job, and of its coordinator."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_slurm
import psutil
import pytest
import slurm_probes
import test_trial_processes
from test_study_runner import Notes

from hrvit_lab.config import ConfigError, preset
from hrvit_lab.source import PACKAGE, source_digest
from hrvit_lab.study import runner, status_command
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.cluster import commands
from hrvit_lab.study.cluster.chunks import arrays, estimate
from hrvit_lab.study.cluster.commands import State, ask_states, cancel_jobs, find_jobs
from hrvit_lab.study.cluster.ledger import Ledger, Submission
from hrvit_lab.study.cluster.node import on_node
from hrvit_lab.study.cluster.options import SlurmOptions, parse_time, slurm_options
from hrvit_lab.study.executors import slurm
from hrvit_lab.study.groups import PROBES, ProbeInput
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial
from hrvit_lab.train.recipe import changed

NANO = preset("hrvit_nano")
TESTS = Path(__file__).parent
KEY = "0123456789abcdef" * 2


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a fake Slurm, whose commands come first in ``PATH``."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("LIGHT_MARKS", str(folder))
    monkeypatch.setenv("PATH", f"{fake_slurm.install(folder)}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))
    monkeypatch.setattr(fake_slurm, "FOLDER", folder)
    monkeypatch.setattr(slurm, "SHORTEST_S", 0.2)
    monkeypatch.setattr(slurm, "LONGEST_S", 0.5)
    yield folder
    (folder / "down").unlink(missing_ok=True)
    cancel_jobs(job for job, fields in fake_slurm.jobs().items() if fields["state"] in fake_slurm.ACTIVE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "out")
    store.create()
    return store


def trial(seed: int, group: str = "accuracy") -> Trial:
    from hrvit_lab.environment import hardware, torch_version

    return Trial(group, ProbeInput(NANO, (64, 64), seed=seed), f"{group} {seed}", hardware(), torch=torch_version())


def run(store: Store, trials: list[Trial], **options: Any) -> Notes:
    notes = Notes()
    asked = SlurmOptions(minutes=5, array_parallelism=1, more=options.pop("more", {}))
    runner.run(
        trials, store, slurm_probes.PROBES, notes, jobs=1, timeout_s=60, environment={}, executor="slurm", slurm=asked,
        **options,
    )  # fmt: skip
    return notes


def sbatches() -> dict[str, dict[str, str]]:
    """The options of each call of sbatch, by job."""
    return {job.partition("_")[0]: json.loads(fields["sbatch"]) for job, fields in fake_slurm.jobs().items()}


def starts(cluster: Path, seed: int) -> int:
    path = cluster / f"{seed}-{NANO.id}.started"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_trials_run_as_arrays_of_jobs_and_latencies_alone(store: Store, cluster: Path) -> None:
    trials = [trial(0), trial(1), trial(7, "latency")]
    notes = run(store, trials, more={"partition": "cpu", "mem": "2G"})
    records = [store.load(each.key) or {} for each in trials]
    assert [record["status"] for record in records] == ["ok"] * 3
    assert records[0]["values"]["top1"] == slurm_probes.light_worker.figure(trials[0].inputs)
    assert all(record["host"] and record["environment"]["hardware"] for record in records)
    assert sorted(notes.ended) == ["accuracy 0: ok", "accuracy 1: ok", "latency 7: ok"]
    together, alone = (options for _, options in sorted(sbatches().items()))
    assert together["array"].strip("'") == "0-1%1" and "array" not in alone
    assert "exclusive" in alone and "exclusive" not in together
    for options in (together, alone):
        assert (options["partition"], options["mem"], options["time"]) == ("cpu", "2G", "5")
    assert Ledger(store.folder).read_all() == []
    assert [name for name in store.names() if ".claim" in name] == []


def test_a_trial_whose_job_is_killed_three_times_fails_with_reason_and_log(store: Store, cluster: Path) -> None:
    (cluster / "0").write_text("kill")
    notes = run(store, [trial(0)])
    record = store.load(trial(0).key)
    assert record is not None and record["status"] == "failed" and starts(cluster, 0) == 3
    found = re.fullmatch(
        r"Slurm job (\d+) ended as FAILED; its log is (trials/slurm/\w+/\1_0_log.err) \(3 times\)", record["reason"]
    )
    assert found and (store.folder.parent / found[2]).is_file()
    assert len(notes.killed) == 2 and notes.ended == ["accuracy 0: failed"]
    assert Ledger(store.folder).read_all() == []


def test_a_rerun_finds_the_jobs_of_a_coordinator_that_ended(
    store: Store, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster / "hold").touch()

    class Died(BaseException):
        pass

    def die(self: object, seconds: float) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(slurm.Clock, "sleep", die)
        for _ in range(2):  # the second one finds everything submitted
            with pytest.raises(Died):
                run(store, [trial(0)])
            [submission] = Ledger(store.folder).read_all()
    assert ask_states(submission.ids) == {submission.ids[0]: State("PENDING", "node1")}
    (cluster / "hold").unlink()
    assert run(store, [trial(0)]).ended == ["accuracy 0: ok"]
    assert len(sbatches()) == 1 and starts(cluster, 0) == 1


def test_a_job_with_other_code_refuses_in_one_sentence(
    store: Store, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "source_digest", lambda: "0" * 16)
    with pytest.raises(runner.WorkerUnable) as refusal:
        run(store, [trial(0)])
    said = str(refusal.value)
    assert re.fullmatch(
        r"the job on \S+ runs other code \(source \w{16}\) than the study .*; run the study again .*", said
    )
    assert source_digest() in said and "0" * 16 in said
    assert store.load(trial(0).key) is None and starts(cluster, 0) == 0
    assert Ledger(store.folder).read_all() == []


def test_a_latency_planned_for_another_chip_is_refused(store: Store, cluster: Path) -> None:
    elsewhere = Trial("latency", ProbeInput(NANO, (64, 64)), "latency", "another chip", torch=trial(0).torch)
    with pytest.raises(runner.WorkerUnable, match="planned for hardware 'another chip', but the job on"):
        run(store, [elsewhere])
    assert store.load(elsewhere.key) is None


def test_a_node_is_asked_for_its_hardware_once(store: Store, cluster: Path) -> None:
    said: list[str] = []
    for asks in (False, True, True, False):
        found, options = on_node(store.folder, SlurmOptions(), "cpu", said.append, alone=True, ask=asks)
        assert found["hardware"] == trial(0).hardware and bool(options.node) is bool(said)
    assert said == ["Slurm job 100 asks a node for its hardware; the study goes on when it has run."]
    assert len(sbatches()) == 1 and "exclusive" in sbatches()["100"]


def test_a_submission_without_answer_is_found_by_its_name_or_made_again(store: Store, cluster: Path) -> None:
    (cluster / "hold").touch()
    ledger = Ledger(store.folder)
    ledger.create()
    lost = Submission("a" * 32, source_digest(), time.time(), ((trial(0).key,),))
    known = Submission("b" * 32, source_digest(), time.time(), ((trial(1).key,), (trial(2).key,)))
    for submission in (lost, known):
        ledger.write(submission)
        ledger.folder(submission.name).mkdir()
    for job in ("7_0", "7_1"):
        fake_slurm.write(job, state="PENDING", name=f"hrvit-lab-{known.name}", pid="", sbatch="{}")
    assert find_jobs(known.name, 2) == ["7_0", "7_1"] and find_jobs(lost.name, 1) == []
    coordinator = slurm.Coordinator(
        runner.Work((trial(0), trial(1), trial(2)), store, {}, Notes(), {}, 1, 60, {}, slurm=SlurmOptions()),
        commands.Slurm(SlurmOptions(), print),
    )
    coordinator._look(store.names())
    found = {each.name: each for each in ledger.read_all()}
    assert found.pop(known.name).ids == ("7_0", "7_1")
    [again] = found.values()
    assert again.chunks == lost.chunks and again.ids == ("101",) and not ledger.folder(lost.name).exists()
    (cluster / "down").touch()
    assert find_jobs(known.name, 2) is None and ask_states(["7_0"]) is None
    coordinator._look(store.names())  # nothing is known, so nothing is submitted
    assert len(ledger.read_all()) == 2


@pytest.mark.parametrize("accounting", [False, True])
def test_states_are_known_with_accounting_and_without(cluster: Path, accounting: bool) -> None:
    for job, state in {"5_0": "RUNNING", "5_1": "FAILED", "6": "CANCELLED", "8": "TIMEOUT"}.items():
        fake_slurm.write(job, state=state, name="", pid="", sbatch="{}")
    if accounting:
        (cluster / "accounting").touch()
    found = ask_states(["5_0", "5_1", "6", "8", "9"])
    assert found is not None
    assert {job: state.name for job, state in found.items()} == {
        "5_0": "RUNNING", "5_1": "FAILED", "6": "CANCELLED", "8": "TIMEOUT", "9": "GONE",
    }  # fmt: skip
    assert [state.over for state in found.values()] == [False, True, True, True, True]


STUDY = """
title: What is queued?
question: Which trials are in which jobs?
base: {preset: hrvit_nano, num_classes: 10}
grid: {branches: [1]}
metrics: [params, top1]
seeds: [0, 1]
resolution: 32
data: {name: digits, resolution: 32}
train: {epochs: 1, train_limit: 64, batch_size: 32}
"""


def test_status_shows_the_queue_and_cancels_it(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue.yaml").write_text(STUDY)
    (cluster / "hold").touch()

    def interrupt(self: object, seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slurm.Clock, "sleep", interrupt)
        assert main(["queue.yaml", "--executor", "slurm", "--array-parallelism", "1"]) == 130
    told = capsys.readouterr()
    assert "2 jobs of at most 1 trial in 1 array" in told.out and "submitted jobs go on" in told.err
    assert main(["status", "queue"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("queue: 2 trials: 2 queued.")
    assert len(re.findall(r"job 100_\d  pending on node1: 1 trials, submitted 20", said)) == 2
    assert main(["status", "queue", "--cancel"]) == 0
    assert capsys.readouterr().out.startswith("2 jobs of queue are cancelled.")
    assert {fields["state"] for fields in fake_slurm.jobs().values()} == {"CANCELLED"}
    assert main(["status", "queue"]) == 0
    assert capsys.readouterr().out == "queue: 2 trials: 2 neither queued nor started.\n"
    monkeypatch.setattr(status_command.shutil, "which", lambda name: None)
    assert main(["status", "queue"]) == 0  # where there is no Slurm
    assert "unknown: 1 trials" in capsys.readouterr().out
    assert main(["status", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("error: no study 'nothing' in results; run it first")


def test_cancelling_ends_a_running_coordinator(store: Store, cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster / "hold").touch()
    ledger = Ledger(store.folder)

    def cancel(self: object, seconds: float) -> None:
        for submission in ledger.read_all():
            ledger.cancel(submission.name)
            cancel_jobs(submission.ids)

    with monkeypatch.context() as patch:
        patch.setattr(slurm.Clock, "sleep", cancel)
        with pytest.raises(runner.WorkerUnable, match="the jobs were cancelled; run the same command again to resume"):
            run(store, [trial(0)])
    (cluster / "hold").unlink()
    assert run(store, [trial(0)]).ended == ["accuracy 0: ok"]
    assert store.interruptions(trial(0).key) == 0


def test_two_coordinators_submit_every_trial_once(store: Store, cluster: Path) -> None:
    (cluster / "hold").touch()
    trials = tuple(trial(seed) for seed in range(4))
    both = [
        slurm.Coordinator(
            runner.Work(part, store, slurm_probes.PROBES, Notes(), {}, 1, 60, {}, slurm=SlurmOptions()),
            commands.Slurm(SlurmOptions(), print),
        )
        for part in (trials[:3], trials[1:])
    ]
    for coordinator in both:
        coordinator.ledger.create()
    held = both[0].ledger.lock()
    assert held is not None
    both[1]._look(store.names())  # the other one looks at the moment
    assert Ledger(store.folder).read_all() == []
    held.release()
    for coordinator in (*both, *both):
        coordinator._look(store.names())
    submitted = [key for each in Ledger(store.folder).read_all() for chunk in each.chunks for key in chunk]
    assert sorted(submitted) == sorted(each.key for each in trials)


def test_a_trial_that_runs_elsewhere_is_not_submitted(store: Store, cluster: Path) -> None:
    claim = store.claim(trial(0).key)
    assert claim is not None
    notes = Notes()
    coordinator = slurm.Coordinator(
        runner.Work((trial(0),), store, {}, notes, {}, 1, 60, {}, slurm=SlurmOptions()),
        commands.Slurm(SlurmOptions(), print),
    )
    coordinator.ledger.create()
    coordinator._look(store.names())
    assert notes.waits == [["accuracy 0"]] and sbatches() == {}
    claim.release()


# -- plans ----------------------------------------------------------------------------------------------------------


def test_jobs_have_equal_numbers_of_trials_within_the_time_limit() -> None:
    trials = [trial(seed) for seed in range(100)]

    def sizes(seconds: float | None, **options: Any) -> list[list[int]]:
        found = arrays(trials, SlurmOptions(**options), seconds)
        assert [each for array in found for chunk in array for each in chunk] == trials
        return [[len(chunk) for chunk in array] for array in found]

    assert arrays([], SlurmOptions(), None) == []
    assert sizes(None, array_parallelism=100) == [[1] * 100]
    assert sizes(None, array_parallelism=5) == [[5] * 20]
    assert sizes(None, array_parallelism=6) == [[5] * 20]
    assert sizes(600, array_parallelism=1, minutes=60) == [[3] * 33 + [1]]  # half an hour of trials
    assert sizes(1e6, array_parallelism=1) == [[1] * 100]


def test_an_estimate_counts_hours_and_the_end() -> None:
    trials = [trial(seed) for seed in range(8)] + [trial(9, "latency")]
    done = [
        {"status": "ok", "group": "accuracy", "seconds": 340.0},
        {"status": "ok", "group": "latency", "seconds": 40.0},
    ]
    options = SlurmOptions(60, 1, {"cpus-per-task": "4", "gres": "gpu:a100:2"})
    found = estimate(trials, options, done)
    # Four jobs of two trainings, 20 s + 2 × 340 s each, and one of a latency, 20 s + 40 s; one at a time.
    assert (found.jobs, found.arrays, found.largest, found.known) == (5, 2, 2, True)
    assert found.seconds == pytest.approx(4 * 700 + 60)
    assert found.core_hours == pytest.approx(4 * 2860 / 3600) and found.gpu_hours == pytest.approx(2 * 2860 / 3600)
    unknown = estimate(trials, options, done[:1])
    assert not unknown.known and unknown.seconds == pytest.approx(4 * 700 + 3600)


@pytest.mark.parametrize(
    ("more", "gpus"), [({}, 0), ({"gres": "gpu"}, 1), ({"gres": "shard:1,gpu:3"}, 3), ({"gpus": "a100:2"}, 2)]
)
def test_the_gpus_of_a_job(more: dict[str, str], gpus: int) -> None:
    assert SlurmOptions(more=more).gpus == gpus


def test_a_plan_prints_jobs_and_hours_and_runs_nothing(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue.yaml").write_text(STUDY)
    assert main(["plan", "queue.yaml", "--executor", "slurm", "--time", "30", "--slurm", "cpus-per-task=2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 jobs of at most 1 trial in 1 array, 100 at a time in each." in said
    assert "At most 2.0 core-hours and 0.0 GPU-hours, the time limit of 30 min for each job" in said
    assert not (tmp_path / "results").exists() and sbatches() == {}


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_damaged_ledger_entry_is_ignored(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.create()
    whole = Submission("a" * 32, "b" * 16, 1.0, ((KEY,), ()), ("7_0", "7_1"))
    ledger.write(whole)
    assert ledger.read_all() == [whole]
    path = ledger.root / f"{'a' * 32}.json"
    fields = json.loads(path.read_text())
    for text in ("", "[]", json.dumps(fields | {"ids": ["7"]}), json.dumps(fields | {"ids": ["7", "--all"]}),
                 json.dumps(fields | {"chunks": [["../x"], []]}), json.dumps(fields | {"name": "c" * 32})):  # fmt: skip
        path.write_text(text)
        assert ledger.read_all() == []


def test_the_digest_of_the_source_is_that_of_names_and_contents(tmp_path: Path) -> None:
    assert source_digest() == source_digest(PACKAGE) and len(source_digest()) == 16
    package = tmp_path / "p"
    package.mkdir()
    digests = {source_digest(package)}
    for change in (("a.py", "1"), ("a.py", "2"), ("b.py", "2"), ("c.yaml", "x")):
        (package / change[0]).write_text(change[1])
        digests.add(source_digest(package))
    (package / "b.py").rename(package / "d.py")
    digests.add(source_digest(package))
    assert len(digests) == 6
    (package / "weights.bin").write_text("no code")
    assert source_digest(package) in digests


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "minutes"), [("90", 90), ("90:01", 91), ("1:30:00", 90), ("2-0", 2880), ("1-1:30", 1530), ("0:30", 1)]
)
def test_time_limits_are_those_of_slurm(text: str, minutes: int) -> None:
    assert parse_time(text) == minutes


def test_options_become_those_of_sbatch() -> None:
    found = slurm_options(
        partition="gpu", gres="gpu:1", time="2:00:00", mem="8G", slurm=["constraint=a100|h100", "qos=x=y"]
    )
    assert found == SlurmOptions(
        120, 100, {"partition": "gpu", "gres": "gpu:1", "mem": "8G", "constraint": "a100|h100", "qos": "x=y"}
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--executor k8s", "unknown executor 'k8s'"),
        ("--partition cpu", "--partition needs --executor slurm"),
        ("--slurm a=b", "--slurm needs --executor slurm"),
        ("--executor slurm --jobs 2", "use --array-parallelism"),
        ("--executor slurm --time soon", "--time 'soon' is not a time limit"),
        ("--executor slurm --time 0", "--time '0' is not a time limit"),
        ("--executor slurm --time 999-0", "is not a time limit"),
        ("--executor slurm --array-parallelism 0", "give a whole number from 1 to 100000"),
        ("--executor slurm --mem lots", "--mem 'lots' is not an amount of memory"),
        ("--executor slurm --slurm constraint", "is not KEY=VALUE"),
        ("--executor slurm --slurm Up=1", "is not KEY=VALUE"),
        ("--executor slurm --slurm partition=x", "use --partition instead"),
        ("--executor slurm --slurm output=x", "can't be set, because the executor sets it"),
        ("--executor slurm --slurm qos=a --slurm qos=b", "is given twice"),
        ("--executor slurm --slurm qos=", "is not a value of Slurm"),
        ("--executor slurm --account a\nb", "is not a value of Slurm"),
        ("--executor slurm --partition nowhere", "Slurm refuses the jobs: Invalid partition name specified"),
        (
            "--executor slurm --partition laptop",
            "error: Slurm has no configuration on this machine; run this on a login node of the cluster",
        ),
        ("--device cpu,cuda:0", "several devices must be GPUs with numbers"),
        ("--device cuda:0,cuda:1 --jobs 2", "--jobs can't be combined with several devices"),
        ("--device cuda:0,cuda:1 --executor slurm", "several devices are for --executor local"),
        ("--executor", "expected one argument"),
    ],
)
def test_a_bad_option_is_one_sentence(
    tmp_path: Path,
    cluster: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue.yaml").write_text(STUDY)
    assert main(["queue.yaml", *arguments.split(" ")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert sbatches() == {}


@pytest.mark.parametrize(("platform", "said"), [("darwin", "which runs Linux"), ("linux", "Slurm's command sbatch")])
def test_without_slurm_it_says_what_it_needs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    platform: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue.yaml").write_text(STUDY)
    monkeypatch.setattr(commands.sys, "platform", platform)
    monkeypatch.setattr(commands.shutil, "which", lambda name: None)
    assert main(["queue.yaml", "--executor", "slurm"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --executor slurm needs") and said in line and "--executor local" in line


def test_an_unknown_option_of_python_is_an_error(tmp_path: Path) -> None:
    from hrvit_lab import run_study

    with pytest.raises(ConfigError, match="--array-parallelism 0 is out of range"):
        run_study("branch_sweep", out=tmp_path, slurm={"array_parallelism": 0})
    with pytest.raises(ConfigError, match="slurm: unknown option 'partitoin'; did you mean 'partition'"):
        run_study("branch_sweep", out=tmp_path, slurm={"partitoin": "cpu"})


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_torchrun_trains_in_a_job_and_a_killed_process_is_replaced(
    store: Store, cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures are those of ``torchrun -m hrvit_lab.train`` with the same recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(test_trial_processes.TINY)
    asked = test_trial_processes.inputs()
    assert asked.recipe is not None
    training = Trial("accuracy", asked, "training", "chip", torch=trial(0).torch)
    killer = threading.Thread(target=lambda: ranks(cluster)[-1].kill())
    killer.start()
    notes = Notes()
    runner.run(
        [training], store, PROBES, notes, jobs=1, timeout_s=900, environment={}, executor="slurm",
        slurm=SlurmOptions(minutes=30),
    )  # fmt: skip
    killer.join()
    record = store.load(training.key)
    assert record is not None and record["status"] == "ok", record
    events = [json.loads(line)["event"] for line in (store.folder / "journal.jsonl").read_text().splitlines()]
    assert events == ["started", "interrupted", "started", "finished"] and len(sbatches()) == 1
    [log] = (store.folder / "slurm").glob("*/*.out")
    assert "interrupted: training: a process of the training was killed by SIGKILL, possibly" in log.read_text()
    (tmp_path / "mine.yaml").write_text(
        changed(asked.recipe, [("model.name", "tiny.yaml"), ("run.seed", asked.seed)]).to_yaml()
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "hrvit_lab.train"]
    subprocess.run(
        [sys.executable, *torchrun, "mine.yaml", "--device", "cpu", "--out", "out"], check=True, capture_output=True
    )
    last = json.loads((tmp_path / "out" / "result.json").read_text())["last"]
    assert [record["values"][key] for key in ("top1", "val_loss", "train_loss")] == [
        last[key] for key in ("eval_top1", "eval_loss", "train_loss")
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_processes_of_a_training_end_with_their_job(
    store: Store, cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(test_trial_processes.TINY)
    training = Trial("accuracy", test_trial_processes.inputs(), "training", "chip", torch=trial(0).torch)
    begun: list[psutil.Process] = []

    def kill_the_job() -> None:
        begun.extend(ranks(cluster))
        [job] = [fields for fields in fake_slurm.jobs().values() if fields["pid"]]
        os.killpg(int(job["pid"]), signal.SIGKILL)
        (cluster / "hold").touch()

    killer = threading.Thread(target=kill_the_job)
    killer.start()
    notes = Notes()
    notes.interrupted = lambda trial, reason: os.kill(os.getpid(), signal.SIGINT)  # type: ignore[method-assign]
    with pytest.raises(runner.Ended):
        runner.run(
            [training], store, PROBES, notes, jobs=1, timeout_s=900, environment={}, executor="slurm",
            slurm=SlurmOptions(minutes=30),
        )  # fmt: skip
    killer.join()
    assert psutil.wait_procs(begun, 250)[1] == []
    assert store.load(training.key) is None and store.interruptions(training.key) == 1


def ranks(cluster: Path) -> list[psutil.Process]:
    """The two processes of a training in a job of this cluster, once both have started."""
    until = time.monotonic() + 800
    while time.monotonic() < until:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                given = process.cmdline()
                ours = process.environ().get("FAKE_SLURM") == str(cluster) and "RANK" in process.environ()
                if ours and "hrvit_lab.train.trial_processes" in given:
                    found.append(process)
        if len(found) == 2:
            return found
        time.sleep(0.2)
    raise AssertionError("no training has started")


def test_submitit_does_not_close_the_handlers_of_other_packages() -> None:
    """absl's, for example, also closes the stream that it writes to: where NNCF was loaded, standard error."""
    code = """
import logging.config, os, sys
class Mine(logging.Handler):
    closed = False
    def close(self):
        Mine.closed = True
        super().close()
logging.getLogger("mine").addHandler(handler := Mine())
from hrvit_lab.study.cluster.commands import load_submitit
assert "submitit" not in sys.modules and load_submitit() is sys.modules["submitit"]
print(Mine.closed, os.environ.get("SUBMITIT_LOG_LEVEL"))
Mine.closed = None
settings = sys.modules["submitit.core.logger"].CONFIG
settings["loggers"]["submitit"]["level"] = "INFO"
logging.config.dictConfig(settings)
print(Mine.closed)
"""
    environment = {key: value for key, value in os.environ.items() if key != "SUBMITIT_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.split() == ["False", "None", "True"], done.stderr
