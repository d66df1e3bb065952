"""Studies from Python have the records and files of the command, for every form of a study; and reading their
results."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from test_api import ROOT, fresh

from hrvit_lab import ConfigError, load_results, parts, preset, run_study, with_branches
from hrvit_lab.network import blocks
from hrvit_lab.network.baselines import TimmConfig
from hrvit_lab.plots import Figure
from hrvit_lab.study import executors
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.executors import Work
from hrvit_lab.study.files import load_study, spec_from
from hrvit_lab.study.worker import attempt

COSTS: dict[str, Any] = {
    "title": "What does a branch cost?",
    "question": "How many parameters and MACs does each branch add?",
    "base": "hrvit_nano",
    "grid": {"branches": [1, 2]},
    "metrics": ["params", "macs"],
    "resolution": 64,
}
MEASURED = COSTS | {"grid": {"branches": [1, 2, 3]}, "metrics": ["macs", "peak_memory_mib"]}


def write(path: Path, fields: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(fields))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_study_given_in_any_form_writes_the_files_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "studies" / "costs.yaml", COSTS)
    assert main(["costs", "--out", "command"]) == 0
    expected = files(Path("command/costs"))
    named: dict[str, Any] = {"a name": "costs", "a path": path, "a text": "studies/costs.yaml"}
    held: dict[str, Any] = {"a dict": COSTS, "a spec": load_study(path)}
    for what, study in {**named, **held}.items():
        results = run_study(study, out=what, name="costs" if what in held else None)
        assert results.folder == Path(what) / "costs" and results.name == "costs"
        written = files(results.folder)
        assert written.keys() == expected.keys()
        different = {name for name in written if written[name] != expected[name]}
        assert different <= {"environment.json", "report.html"}, what  # both contain the date
        assert results.table["branches"].tolist() == [1, 2] and results.report == results.folder / "report.html"
        assert {f"figures/{name}.png" for name in results.figures} == {n for n in written if n.endswith(".png")}
        assert all(isinstance(figure, Figure) for figure in results.figures.values())


def test_settings_change_a_study_but_not_the_given_dict(tmp_path: Path) -> None:
    before = json.dumps(COSTS)
    results = run_study(COSTS, settings={"base.num_classes": 7, "metrics": ["params"]}, out=tmp_path)
    assert results.folder == tmp_path / "what-does-a-branch-cost"
    assert results.metrics == ["params"] and {c["num_classes"] for c in results.configs.values()} == {7}
    assert json.dumps(COSTS) == before


def test_a_base_may_be_a_config(tmp_path: Path) -> None:
    """With the results of its preset; settings of its fields apply; and the study's file has its fields."""
    expected = run_study(COSTS, out=tmp_path / "preset")
    found = run_study(COSTS | {"base": preset("hrvit_nano")}, out=tmp_path / "config")
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert load_results(found.folder).spec == found.spec
    changed = run_study(
        COSTS | {"base": preset("hrvit_nano")}, settings={"base.num_classes": 7}, out=tmp_path / "changed"
    )
    assert {config["num_classes"] for config in changed.configs.values()} == {7}
    assert found.spec.base_config == preset("hrvit_nano")
    timm = {"title": "One", "question": "?", "base": TimmConfig("timm:resnet18"), "one_at_a_time": {"in_chans": [1]}}
    assert spec_from(timm).base_config == TimmConfig("timm:resnet18")


def test_without_workers_a_study_knows_what_this_process_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variant that only this process has: trained and counted as the variant that it is a copy of."""
    monkeypatch.setitem(parts.ATTENTION, "mine", parts.ATTENTION["identity"])
    monkeypatch.setitem(blocks.ATTENTION, "mine", blocks.ATTENTION["identity"])
    study = COSTS | {
        "grid": {"attention": ["mine", "identity"]},
        "base": with_branches(preset("hrvit_nano"), 2).replace(num_classes=10),
        "metrics": ["params", "macs", "top1"],
        "resolution": 32,
        "data": {"name": "digits", "resolution": 32},
        "train": {"epochs": 1, "train_limit": 20, "batch_size": 10},
    }
    results = run_study(study, out=tmp_path, jobs=0)
    assert not results.failed and results.table["attention"].tolist() == ["mine", "identity"]
    mine, identity = (results.table[results.metrics].iloc[row] for row in (0, 1))
    pd.testing.assert_series_equal(mine, identity, check_names=False)
    losses = [rows["val_loss"].tolist() for _, rows in results.curves.groupby("variant")]
    assert losses[0] == losses[1] and len(losses[0]) == 1
    with pytest.raises(ConfigError, match="jobs = -1 is out of range; use 0 or more"):
        run_study(study, out=tmp_path, jobs=-1)


def test_an_invalid_study_is_reported_in_one_sentence(tmp_path: Path) -> None:
    problems: list[tuple[Any, dict[str, Any], str]] = [
        (3, {}, "3 is not a study; give a name"),
        ("branch_swep", {}, "did you mean 'branch_sweep'"),
        (COSTS | {"bse": 1}, {}, "unknown key 'bse'"),
        ({}, {}, "'title' is missing"),
        (COSTS, {"name": "../x"}, "is not valid as the name"),
        (COSTS, {"settings": {"sead": 1}}, "unknown key 'sead'"),
        (COSTS, {"again": ["latency"]}, "no trials of group 'latency'"),
    ]
    for study, more, said in problems:
        with pytest.raises(ConfigError) as refused:
            run_study(study, out=tmp_path / "out", **more)
        assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_studies_of_one_name_never_replace_each_other(tmp_path: Path) -> None:
    """From two files, from a file and a dict, and from two dicts."""
    mine = write(tmp_path / "a" / "costs.yaml", COSTS)
    other = write(tmp_path / "b" / "costs.yaml", COSTS | {"grid": {"branches": [3, 4]}})
    out = tmp_path / "results"
    run_study(mine, out=out)
    before = files(out)
    rest = COSTS | {"base": "hrvit_micro"}
    for study in (other, COSTS, rest, load_study(other)):
        with pytest.raises(ConfigError, match="contains the results of another study with the same name"):
            run_study(study, out=out, name="costs")
    assert files(out) == before
    assert main([str(other), "--out", str(out)]) == 2 and files(out) == before
    run_study(COSTS, out=out, name="mine")
    before = files(out)
    for study in (mine, rest):
        with pytest.raises(ConfigError, match="another study with the same name"):
            run_study(study, out=out, name="mine")
    assert files(out) == before
    # The results were extended.
    assert len(run_study(COSTS | {"grid": {"branches": [1, 2, 3]}}, out=out, name="mine").table) == 3


@pytest.mark.slow
def test_a_script_without_a_main_guard_trains_and_the_command_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Worker processes must not run the script again, which would start further workers."""
    monkeypatch.chdir(tmp_path)
    fields = COSTS | {
        "base": {"preset": "hrvit_nano", "num_classes": 10}, "grid": {"branches": [1]}, "metrics": ["top1"],
        "resolution": 32, "train": {"epochs": 1, "train_limit": 16},
    }  # fmt: skip
    write(tmp_path / "short.yaml", fields)
    script = tmp_path / "script.py"
    script.write_text(
        "from hrvit_lab import run_study\nresults = run_study('short.yaml', jobs=1)\n"
        "print(repr(results))\nprint(results.curves.shape)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=250)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("1 trial: 0 already finished, 1 run") == 1
    *_, shown, shape = done.stdout.splitlines()
    assert shown.startswith("Results('short', 1 variants; top1") and shown.endswith("none failed; in results/short)")
    assert shape.startswith("(1, ")
    assert main(["short.yaml"]) == 0
    assert "1 trial: 1 already finished, 0 run" in capsys.readouterr().out


def test_ctrl_c_raises_after_finished_trials_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run: list[str] = []

    def execute(work: Work) -> None:
        """An executor that is interrupted after its first trial."""
        for trial in work.trials:
            run.append(trial.key)
            record = trial.head() | attempt(lambda _: {"peak_memory_mib": 1.0 * len(run)}, trial.inputs)
            work.store.save(record | {"beside": 0, "disturbed": {}, "environment": dict(work.environment)})
            if len(run) == 1:
                raise KeyboardInterrupt

    monkeypatch.setitem(executors.EXECUTORS, "local", execute)
    with pytest.raises(KeyboardInterrupt):
        run_study(MEASURED, out=tmp_path)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"interrupted: 1 of 3 trials are kept in {tmp_path / 'trials'}")
    results = run_study(MEASURED, out=tmp_path)
    assert len(run) == len(set(run)) == 3
    assert results.table["peak_memory_mib"].tolist() == [1, 2, 3] and not results.failed


@pytest.mark.usefixtures("blank_figures")
def test_an_executor_of_the_table_is_chosen_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[int] = []

    def execute(work: Work) -> None:
        run.append(len(work.trials))
        for trial in work.trials:
            record = trial.head() | attempt(lambda _: {"peak_memory_mib": 1.0}, trial.inputs)
            work.store.save(record | {"beside": 0, "disturbed": {}, "environment": dict(work.environment)})

    monkeypatch.setitem(executors.EXECUTORS, "mine", execute)
    path = write(tmp_path / "measured.yaml", MEASURED)
    assert main([str(path), "--out", str(tmp_path / "command"), "--executor", "mine"]) == 0
    assert not run_study(MEASURED, out=tmp_path / "python", executor="mine").failed
    assert run == [3, 3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"executor": "lokal"}, "unknown executor 'lokal'; did you mean 'local'?"),
        ({"executor": "local", "slurm": {}}, "options of Slurm are for the executor 'slurm', not for 'local'"),
        ({"jobs": 0, "slurm": {}}, "jobs = 0 is for the executor 'inline', not for 'slurm'"),
    ],
)
def test_options_of_another_executor_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run_study(MEASURED, out=tmp_path, **options)
    assert str(caught.value).startswith(said)


def test_failures_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(work: Work) -> None:
        for trial in work.trials:
            record = trial.head() | attempt(lambda _: {"peak_memory_mib": 1 / 0}, trial.inputs)
            work.store.save(record | {"beside": 0, "disturbed": {}, "environment": dict(work.environment)})

    monkeypatch.setitem(executors.EXECUTORS, "local", execute)
    results = run_study(MEASURED, out=tmp_path)
    assert capsys.readouterr().out.count("failed: branches=") == 3
    assert list(results.failed) == ["branches=1", "branches=2", "branches=3"]
    assert "ZeroDivisionError" in results.failed["branches=2"]
    assert repr(results) == (
        f"Results('what-does-a-branch-cost', 3 variants; macs; 3 failed; in {tmp_path / 'what-does-a-branch-cost'})"
    )


def test_results_are_loaded_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = run_study(COSTS, name="costs")
    for found in (load_results("costs"), load_results(Path("results/costs")), load_results("costs", out="results")):
        pd.testing.assert_frame_equal(found.table, made.table)
        assert (found.name, found.folder, found.spec) == ("costs", Path("results/costs"), made.spec)
        assert found.figures.keys() == made.figures.keys() and found.report.is_file()
    measured = load_results(ROOT / "studies" / "measured" / "branch_sweep")
    assert "10 variants" in repr(measured) and "top1" in repr(measured) and len(repr(measured)) < 300
    with pytest.raises(ConfigError, match="no results of 'cost' in results; run the study first"):
        load_results("cost")


def test_results_load_no_torch() -> None:
    folder = ROOT / "studies" / "measured" / "branch_sweep"
    code = (
        f"import sys, hrvit_lab; r = hrvit_lab.load_results({str(folder)!r}); r.figures; print('torch' in sys.modules)"
    )
    assert fresh(code) == "False"
