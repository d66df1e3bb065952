"""Searches with trainings on the executors of studies: jobs of a fake Slurm, GPUs, and the options of the command."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import slurm_probes
from test_search_trainings import FIELDS, HALVED, Stub, finished, search_in, stub
from test_slurm import cluster, sbatches, trial
from test_study_runner import Notes

from hrvit_lab.search.__main__ import main
from hrvit_lab.search.front import study_of
from hrvit_lab.search.halving import STOPPED, HalvedStore
from hrvit_lab.search.outer import read_outer
from hrvit_lab.search.spec import search_from
from hrvit_lab.study import runner
from hrvit_lab.study.__main__ import main as study_main
from hrvit_lab.study.claims import host_name
from hrvit_lab.study.cluster.options import SlurmOptions
from hrvit_lab.study.executors import EXECUTORS, slurm
from hrvit_lab.study.folder import write_inputs
from hrvit_lab.study.groups import PROBES

__all__ = ["cluster", "stub"]

SHORT = {**FIELDS, "trainings": {**FIELDS["trainings"], "networks": 4, "batch": 4}}


def command(fields: Any, out: Path, *options: str) -> int:
    """Run a search with these fields, in a file in ``out``."""
    out.mkdir(exist_ok=True)
    (out / "trained.yaml").write_text(json.dumps(fields))
    return main([str(out / "trained.yaml"), "--out", str(out), *options])


@pytest.mark.usefixtures("cluster", "blank_figures")
def test_a_search_on_slurm_has_the_outcomes_of_a_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hrvit_lab.search.outer.PROBES", {**PROBES, "accuracy": slurm_probes.accuracy})
    local, there = (search_in(tmp_path / name, SHORT) for name in ("local", "there"))
    expected = finished(local)
    assert sbatches() == {}
    options = ("--executor", "slurm", "--time", "7", "--array-parallelism", "1", "--slurm", "qos=low")
    assert command(SHORT, tmp_path / "there", *options) == 0
    assert "4 networks were proposed: 4 trained" in capsys.readouterr().out
    [submitted] = sbatches().values()
    assert (submitted["time"], submitted["qos"]) == ("7", "low")
    assert read_outer(there) == expected and len(expected.outcomes) == 4
    keys = [{path.name for path in (tmp_path / name / "trials").glob("*.json")} for name in ("local", "there")]
    assert keys[0] == keys[1] and len(keys[0]) == 5, "the base as well"


@pytest.mark.usefixtures("blank_figures")
def test_status_shows_and_cancels_the_jobs_of_a_search(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hrvit_lab.search.outer.PROBES", {**PROBES, "accuracy": slurm_probes.accuracy})
    out, options = tmp_path / "out", ("--executor", "slurm", "--array-parallelism", "1")
    fields = {**FIELDS, "trainings": {**FIELDS["trainings"], "networks": 6, "batch": 3}}
    shown: list[str] = []

    def write(folder: Path, results: Any) -> None:
        """With the second batch the queue stops."""
        if (folder / "study.yaml").exists():
            (cluster / "hold").touch()
        write_inputs(folder, results)

    def look(self: object, seconds: float) -> None:
        if (cluster / "hold").exists() and not shown:
            for more in ([], ["--cancel"], []):
                capsys.readouterr()
                assert study_main(["status", "trained", "--out", str(out), *more]) == 0
                shown.append(capsys.readouterr().out)
        time.sleep(seconds)

    with monkeypatch.context() as patch:
        patch.setattr("hrvit_lab.search.outer.write_inputs", write)
        patch.setattr(slurm.Clock, "sleep", look)
        assert command(fields, out, *options) == 1
    assert "the jobs were cancelled; run the same command again to resume" in capsys.readouterr().err
    running, cancelled, after = shown
    assert running.startswith(f"trained: 7 trials: 4 done, 3 queued.\ndone: 4 on {host_name()}, cpu\njob "), (
        "and the base"
    )
    assert running.count(" pending on node1: 1 trials, submitted 20") == 3
    assert cancelled.startswith("3 jobs of trained are cancelled. Finished trials are kept; run it again to resume.")
    assert after.startswith("trained: 7 trials: 4 done, 3 neither queued nor started.")
    (cluster / "hold").unlink()
    assert command(fields, out, *options) == 0
    assert "6 networks were proposed: 6 trained" in capsys.readouterr().out


def test_the_status_of_a_search_counts_stopped_trainings(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        finished(search_in(tmp_path, HALVED), stop_after=10)
    kept, stopped = (len(list((tmp_path / folder).glob("*.json"))) for folder in ("trials", "trained/search/stopped"))
    assert kept > 0 and stopped > 0 and kept + stopped == len({network for network, _ in stub.trained})
    assert study_main(["status", "trained", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert re.match(rf"trained: \d+ trials: {kept + stopped} done, [12] neither queued nor started.\n", said)


@pytest.mark.usefixtures("cluster")
def test_a_job_keeps_a_stopped_training_in_the_folder_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With relative paths, since a job may have another working folder."""
    monkeypatch.chdir(tmp_path)
    stopped = Path("out/mine/search/stopped")
    store = HalvedStore(Path("out"), stopped)
    store.create()
    notes = Notes()
    runner.run(
        [trial(0), trial(1)], store, {"accuracy": slurm_probes.stopped}, notes, jobs=1, timeout_s=60, environment={},
        executor="slurm", slurm=SlurmOptions(minutes=5, array_parallelism=1),
    )  # fmt: skip
    assert sorted(notes.ended) == ["accuracy 0: ok", "accuracy 1: ok"]
    assert [path.stem for path in stopped.glob("*.json")] == [trial(0).key]
    assert [path.stem for path in Path("out/trials").glob("*.json")] == [trial(1).key]
    record = store.load(trial(0).key)
    assert record is not None and record["values"][STOPPED] == 1


def test_the_device_of_the_file_or_the_command_line_is_that_of_the_trainings(tmp_path: Path) -> None:
    """It is a part of the search, so a search does not go on with another device."""
    on_gpu = {**HALVED, "trainings": {**HALVED["trainings"], "device": "cuda"}}
    assert study_of(search_in(tmp_path, on_gpu), {}).device == "cuda"
    assert study_of(search_in(tmp_path, HALVED), {}).device == "cpu"
    on_cpu = {**HALVED, "trainings": {**HALVED["trainings"], "device": "cpu"}}
    assert search_in(tmp_path, on_cpu).digest == search_in(tmp_path, HALVED).digest
    assert search_in(tmp_path, on_gpu).digest != search_in(tmp_path, HALVED).digest
    assert search_from(on_gpu).trainings == search_from(HALVED).trainings.model_copy(update={"device": "cuda"})  # type: ignore[union-attr]


def test_the_device_of_the_command_line_replaces_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several GPUs have a worker each, as in a study. The executor is any of the table."""
    asked: list[Any] = []

    def choose(spec: Any, variants: Any, out: Path, jobs: int | None, **options: Any) -> None:
        asked.append((spec.device, list(options["devices"]), options["executor"]))

    monkeypatch.setattr("hrvit_lab.search.outer.choose_engine", choose)
    monkeypatch.setitem(EXECUTORS, "mine", EXECUTORS["local"])
    assert command(SHORT, tmp_path, "--device", "cuda:1", "--executor", "mine", "--dry-run") == 0
    assert command(SHORT, tmp_path, "--device", "cuda:0,cuda:1", "--dry-run") == 0
    assert asked == [("cuda:1", [], "mine"), ("cuda", ["cuda:0", "cuda:1"], "local")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--executor slurm --jobs 2", "--jobs is for --executor local; use --array-parallelism with slurm"),
        ("--executor cloud", "cloud"),
        ("--mem 4G", "--mem needs --executor slurm"),
        ("--executor slurm --time soon", "--time 'soon' is not a time limit"),
        ("--device cpu,cuda:0", "several devices must be GPUs with numbers"),
        ("--device tpu", "tpu"),
    ],
)
def test_a_bad_option_is_one_sentence(
    options: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(SHORT, tmp_path, *options.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


@pytest.mark.parametrize("options", ["--executor slurm", "--device cuda"])
def test_a_search_without_trainings_has_no_executor_and_no_device(
    options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != "trainings"}
    assert command({**fields, "objectives": {"macs": "lower", "params": "higher"}}, tmp_path, *options.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{options.split()[0]} is for searches with trainings; remove it" in line
