"""The command line of studies: input, output, and messages about invalid requests."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_api import ROOT

from hrvit_lab.config import preset, with_branches
from hrvit_lab.cost.count import count
from hrvit_lab.environment import environment
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.study import listing
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.files import list_studies, load_study, study_file
from hrvit_lab.study.requirements import trains
from hrvit_lab.study.space import expand
from hrvit_lab.study.sweep import begin, prepare

COSTS = """
title: What does a branch cost?
question: How many parameters and MACs does each branch add?
base: hrvit_nano
grid: {branches: [1, 2, 3]}
metrics: [params, macs, activations]
resolution: 64
"""


pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "costs.yaml"
    path.write_text(COSTS)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on standard error of an invalid request."""
    assert main([str(argument) for argument in arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    return lines[0]


@pytest.mark.usefixtures("light_studies")
def test_a_study_from_end_to_end(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    asked = [str(study), "--out", str(out), "--jobs", "1", "--metrics", "params,macs,activations,peak_memory_mib"]
    assert main(asked) == 0
    folder = out / "costs"
    shown = capsys.readouterr().out
    for name in ("report.html", "table.csv", "curves.csv", "study.yaml", "configs.json", "environment.json"):
        assert (folder / name).is_file()
        assert str(folder / name) in shown
    pictures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert pictures and pictures == {path.stem for path in (folder / "figures").glob("*.svg")}
    assert all(picture in shown for picture in pictures)
    assert json.loads((folder / "dropped.json").read_text()) == {}

    table = rows(folder / "table.csv")
    assert [row["variant"] for row in table] == ["branches=1", "branches=2", "branches=3"]
    configs = json.loads((folder / "configs.json").read_text())
    for row, branches in zip(table, (1, 2, 3), strict=True):
        config = with_branches(preset("hrvit_nano"), branches)
        expected = count(config, 64)
        assert (row["params"], row["macs"], row["activations"]) == (
            str(expected.params),
            str(expected.macs),
            str(expected.activations),
        )
        assert (row["config_id"], row["branches"], row["status"]) == (config.id, str(branches), "ok")
        assert configs[row["variant"]]["widths"] == list(config.widths)
        line = next(line for line in shown.splitlines() if line.startswith(f" {row['variant']}"))
        keys = ("params", "macs", "activations", "peak_memory_mib")
        figures = [format_value(METRICS[key], float(row[key])) for key in keys]
        assert re.split(r"  +", line.strip()) == [row["variant"], *figures]

    # A second run repeats only the trial whose record was truncated here.
    trials = out / "trials"
    times = {path.name: path.stat().st_mtime_ns for path in trials.glob("*.json")}
    first = (folder / "table.csv").read_bytes()
    assert main(asked) == 0
    assert "3 already finished, 0 run" in capsys.readouterr().out
    damaged = sorted(trials.glob("*.json"))[0]
    damaged.write_text(damaged.read_text()[:100])
    assert main(asked) == 0
    assert "2 already finished, 1 run" in capsys.readouterr().out
    changed = {path.name for path in trials.glob("*.json") if path.stat().st_mtime_ns != times[path.name]}
    assert changed == {damaged.name}
    assert damaged.with_suffix(".corrupt").is_file()
    assert (folder / "table.csv").read_bytes() == first

    # Only from the records.
    (folder / "table.csv").unlink()
    (folder / "report.html").unlink()
    assert main(["report", "costs", "--out", str(out)]) == 0
    assert (folder / "table.csv").read_bytes() == first
    assert (folder / "report.html").is_file()


def test_any_two_metrics_can_be_the_trade_off(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", "tradeoff=[macs, activations]", "--out", str(tmp_path), "--jobs", "1"]
    assert main([str(study), *options]) == 0
    shown = capsys.readouterr().out
    assert "branches=1 ★" in shown and "branches=2 ★" not in shown and "★: on the Pareto front of MACs" in shown
    assert [row["pareto"] for row in rows(tmp_path / "costs" / "table.csv")] == ["True", "False", "False"]
    assert (tmp_path / "costs" / "figures" / "activations_against_macs.png").is_file()


def test_a_head_that_cannot_be_trained_is_refused_before_anything_runs(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dry in ([], ["--dry-run"]):
        asked = ["--metrics", "macs,top1", "--set", "base.head=segformer", "--out", tmp_path / "out", *dry]
        line = refused(capsys, study, *asked)
        assert "'branches=1'" in line and "'segformer'" in line and "norm_pool" in line
    assert not (tmp_path / "out").exists()


def test_integers_stay_integers_if_some_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A baseline lacks this field, and a row that is not built has no values; such columns still contain integers."""
    study = tmp_path / "mixed.yaml"
    study.write_text("""
title: t
question: q?
base: hrvit_nano
variants:
  - {name: ours, set: {head_features: 256}}
  - {name: larger, set: {preset: hrvit_b3}, resolution: 512}
  - {name: baseline, set: {model: "timm:resnet18"}}
  - {name: listed, set: null, published: hrvit_b1 imagenet-1k hrnet}
compare_to: ours
metrics: [params, macs]
resolution: 64
""")
    assert main([str(study), "--out", str(tmp_path), "--jobs", "1"]) == 0
    ours, larger, baseline, listed = rows(tmp_path / "mixed" / "table.csv")
    assert (ours["head_features"], baseline["head_features"]) == ("256", "")
    assert (ours["params"], listed["params"], listed["params_published"]) == (
        str(count(preset("hrvit_nano").replace(head_features=256), 64).params),
        "",
        "19700000",
    )
    page = (tmp_path / "mixed" / "report.html").read_text()
    assert not re.search(r">\d+\.0<", page)
    factor = int(larger["macs"]) / int(ours["macs"])
    assert f"×{factor:.0f}" in page and f"×{factor:.0f}" in capsys.readouterr().out


def test_results_that_a_run_does_not_include_are_kept(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "results", tmp_path / "results" / "costs"
    arguments = [str(study), "--out", str(out)]
    assert main(arguments) == 0
    assert "costs-2" not in capsys.readouterr().out
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for dry in (["--dry-run"], []):
        assert main([*arguments, "--metrics", "params", *dry]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"{folder} is kept, because" in shown and f"The results of this run are in {folder}-2." in shown
    assert kept == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "macs" not in rows(out / "costs-2" / "table.csv")[0]
    assert {path.name for path in out.iterdir()} == {"costs", "costs-2", "trials"}
    assert main(["report", "costs-2", "--out", str(out)]) == 0


def folder_of(study: Path, out: Path, **settings: Any) -> Path:
    """Where a run of the study would write."""
    changes = [(key.replace("__", "."), value) for key, value in settings.items()]
    return prepare("costs", load_study(study, changes), study_file(study), out).folder


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "costs"),
        ({"seeds": [0, 1, 2]}, "costs"),
        ({"metrics": ["macs", "top1", "params", "latency_ms"]}, "costs"),
        ({"grid__branches": [1, 2, 3, 4]}, "costs"),
        ({"title": "How much?", "trial_timeout_s": 60, "latency__threads": 1}, "costs"),
        ({"seeds": [0]}, "costs-2"),
        ({"metrics": ["params", "top1"]}, "costs-2"),
        ({"grid__branches": [1, 2]}, "costs-2"),
        ({"resolution": 96}, "costs-2"),
        ({"base__window_sizes": 2}, "costs-2"),
        ({"train__epochs": 9}, "costs-2"),
        ({"data__resolution": 64}, "costs-2"),
    ],
    ids=str,
)
def test_a_run_extends_results_or_does_not_change_them(
    study: Path, tmp_path: Path, settings: dict[str, Any], name: str
) -> None:
    first: dict[str, Any] = {"metrics": ["params", "macs", "top1"], "seeds": [0, 1]}
    changes = [*first.items()]
    begin(prepare("costs", load_study(study, changes), study_file(study), tmp_path))
    assert folder_of(study, tmp_path, **first | settings) == tmp_path / name
    begin(prepare("costs", load_study(study, [("resolution", 32)]), study_file(study), tmp_path))
    assert (tmp_path / "costs-2" / "study.yaml").exists()
    expected = name if name == "costs" else "costs-3"
    assert folder_of(study, tmp_path, **first | settings) == tmp_path / expected
    assert folder_of(study, tmp_path, resolution=32) == tmp_path / "costs-2"


def test_results_of_other_or_unknown_environments_are_not_changed(study: Path, tmp_path: Path) -> None:
    """Their values cannot be measured again on this machine."""
    settings = {"metrics": ["macs", "latency_ms"]}
    here, beside = tmp_path / "costs", tmp_path / "costs-2"
    here.mkdir()
    (here / "table.csv").write_text("variant\n")
    assert folder_of(study, tmp_path, **settings) == beside
    (here / "study.yaml").write_text(load_study(study, [*settings.items()]).to_yaml())
    assert folder_of(study, tmp_path, **settings) == beside  # the environment of the measurements is unknown
    about: dict[str, Any] = dict(environment("cpu"))
    for versions, hardware, expected in (
        (about["versions"], about["hardware"], here),
        (about["versions"] | {"torch": "0.1"}, about["hardware"], beside),
        (about["versions"], "another chip", beside),
        ([1], about["hardware"], beside),
    ):
        (here / "environment.json").write_text(json.dumps(about | {"versions": versions, "hardware": hardware}))
        assert folder_of(study, tmp_path, **settings) == expected
    (here / "environment.json").write_text("[]")
    assert folder_of(study, tmp_path, **settings) == beside


def test_a_failed_trial_is_a_row_with_its_reason(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken image is found when it is decoded: every training fails, and the costs remain."""
    arguments = [str(study), "--out", str(tmp_path / "results"), "--jobs", "1", "--metrics", "params,top1"]
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "images" / place).mkdir(parents=True)
        (tmp_path / "images" / place / "broken.png").write_bytes(b"no image")
    data = f"data.name=folder,data.root={tmp_path / 'images'}"
    arguments += ["--set", f"grid.branches=[1],train.epochs=1,{data}"]
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    [row] = rows(tmp_path / "results" / "costs" / "table.csv")
    assert row["top1"] == "" and int(row["params"]) > 0
    assert re.match(r"failed: accuracy \(seed 0\): \w+: .*broken\.png cannot be decoded", row["status"])
    assert shown.count("failed: branches=") == 1
    assert main(arguments) == 1
    assert "1 trial: 1 already finished, 0 run" in capsys.readouterr().out


def test_dry_run_computes_and_writes_nothing(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    assert main([str(study), "--out", str(out), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert not out.exists()
    assert "No trials to run: costs are computed in closed form." in shown
    assert "branches=3" in shown
    assert shown.startswith("How many parameters and MACs does each branch add?\n")
    memory = ["--metrics", "macs,peak_memory_mib", "--out", str(out)]
    assert main([str(study), *memory, "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 trials: 0 already finished, 3 to run. A trial measures one network in one way: 3 × peak memory." in shown
    assert not out.exists()


@pytest.mark.usefixtures("light_studies")
def test_the_duration_is_reported_only_if_known(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(*options: str) -> str:
        assert main([str(study), "--out", str(tmp_path), "--jobs", "1", *options]) == 0
        return " ".join(capsys.readouterr().out.split())

    training = ["--metrics", "macs,top1", "--set", "grid.branches=[1, 2],train.epochs=1,train.train_limit=64"]
    dry = asked(*training, "--seeds", "0,1", "--dry-run")
    assert "4 trials" in dry and ": 4 × training with one seed." in dry
    assert "unknown until the first training finishes" in dry and "About" not in dry

    first = asked(*training, "--seeds", "0")
    assert first.startswith("2 trials: 0 already finished, 2 to run.") and re.search(
        r"1 epoch on digits.*, 1 seed\.", first
    )
    later = asked(*training, "--seeds", "0,1", "--dry-run")
    assert "2 to run" in later and re.search(r"About [\d.]+ s with --jobs 1, estimated from finished trials", later)
    # If only some trials have finished, only their seeds are counted.
    (out := tmp_path / "costs" / "study.yaml").write_text(out.read_text().replace("seeds: [0]", "seeds: [0, 1, 2]"))
    assert main(["report", "costs", "--out", str(tmp_path)]) == 0
    assert re.search(r"1 epoch on digits.*, 1 seed\.", " ".join(capsys.readouterr().out.split()))


def test_dropped_variants_are_named(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", "constraints.params.max=200000", "--dry-run", "--out", str(tmp_path / "results")]
    assert main([str(study), *options]) == 0
    assert "dropped: branches=3: params = " in capsys.readouterr().out


@pytest.mark.parametrize(("columns", "cut"), [(80, True), (120, False)])
def test_the_list_has_one_line_per_study_and_cuts_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, cut: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--list", "--out", str(ROOT / "studies" / "measured")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines[:-2])) <= columns
    shown = {cells[0]: cells[1:] for line in lines if len(cells := re.split(r"  +", line.strip())) == 5}
    assert shown.pop("study") == ["title", "variants", "seeds", "results"]
    assert shown.keys() == list_studies().keys() >= {"branch_sweep", "depth_sweep", "width_sweep", "presets"}
    for name, (title, _, _, results) in shown.items():
        whole = yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text())["title"]
        assert title == whole or (cut and (whole + " ").startswith(title.removesuffix("…") + " "))
        assert (results == "yes") == (ROOT / "studies" / "measured" / name / "table.csv").exists()
    assert any(title.endswith("…") for title, *_ in shown.values()) == cut
    assert (shown["branch_sweep"][1:3], shown["presets"][1:3]) == (["10", "3"], ["5", "–"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("title: x\n", "'question' is missing"),
        ("title: [\n", "line 2"),
        ("title: x\nquestion: y\nbase: timm:resnet19\ngrid: {num_classes: [10]}\n", "timm has no such model"),
    ],
)
def test_the_list_reports_the_error_of_a_study(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str,
    fault: str,
) -> None:  # fmt: skip
    (tmp_path / "broken.yaml").write_text(text)
    monkeypatch.setattr(listing, "list_studies", lambda: {"broken": tmp_path / "broken.yaml", "costs": study})
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert "broken  (invalid, see below)" in shown
    assert re.search(rf"^broken: .*broken\.yaml.*{fault}", shown, re.M)
    assert "What does a branch cost?" in shown


def test_the_list_counts_the_variants_and_seeds_of_the_expanded_studies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = {line.split()[0]: line.split()[-3:-1] for line in capsys.readouterr().out.splitlines() if line.split()}
    for name, path in list_studies().items():
        spec = load_study(path)
        variants, dropped = expand(spec)
        seeds = str(len(spec.seeds)) if trains(spec) else "–"
        assert lines[name] == [str(len(variants) + len(dropped) + len(spec.unbuilt)), seeds], name


def test_an_unknown_study_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "branch_swep")
    assert "'branch_swep'" in line and "'branch_sweep'" in line
    assert "nowhere.yaml" in refused(capsys, "nowhere.yaml")
    assert "--list" in refused(capsys)


@pytest.mark.usefixtures("light_studies")
def test_missing_results_are_an_error(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "branch_sweep" in refused(capsys, "report", "branch_sweep", "--out", tmp_path)
    assert main([str(study), "--out", str(tmp_path), "--jobs", "1", "--metrics", "peak_memory_mib"]) == 0
    capsys.readouterr()
    for record in (tmp_path / "trials").glob("*.json"):
        record.unlink()
    (tmp_path / "costs" / "table.csv").unlink()
    assert "has no finished trial of 'costs'" in refused(capsys, "report", "costs", "--out", tmp_path)


def test_an_unknown_setting_is_an_error(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, study, "--set", "train.epoch=2")
    assert "'train.epoch'" in line and "'epochs'" in line


def test_an_unknown_metric_is_an_error(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, study, "--metrics", "params,latency")
    assert "'latency'" in line and "'latency_ms'" in line


def test_seeds_are_a_list(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(study), "--metrics", "top1", "--seeds", "5,7", "--set", "data.resolution=64", "--dry-run"]) == 0
    assert "6 trials" in capsys.readouterr().out
    assert "seeds" in refused(capsys, study, "--seeds", "one")


@pytest.mark.parametrize("command", ["status", "report"])
def test_an_empty_name_is_refused_as_such(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "."]) == 2
    said = "error: the name of the study is empty; give one, such as branch_sweep, or rename the file\n"
    assert capsys.readouterr().err == said


def test_broken_yaml_names_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("title: x\nquestion: [y\nbase: hrvit_nano\n")
    line = refused(capsys, path)
    assert "broken.yaml" in line and "line 3" in line


def test_an_unwritable_out_is_an_error(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    line = refused(capsys, study, "--out", tmp_path / "file")
    assert "--out" in line and "file" in line
    assert "/proc" in refused(capsys, study, "--out", "/proc/nothing")


def test_a_missing_device_is_an_error(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, study, "--device", "cuda:63")
    assert "cuda:63" in line


def test_the_command_prints_no_traceback(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "hrvit_lab.study", "no_such_study"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=250)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "no_such_study" in done.stderr


def test_again_accepts_only_measured_groups(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [study, "--metrics", "macs,latency_ms", "--out", tmp_path / "out", "--again"]
    line = refused(capsys, *asked, "latncy")
    assert "--again latncy" in line and "'latency'" in line
    assert "'memory'" in refused(capsys, *asked, "memory")
    assert not (tmp_path / "out").exists()
