"""Names from users are data in all commands: no markup, no terminal control, no formula in a table, no path outside the
results folder.
"""

import csv
import os
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from hrvit_lab.cli import printable
from hrvit_lab.cost.__main__ import main as cost
from hrvit_lab.evaluate.__main__ import main as evaluate
from hrvit_lab.files import unguarded
from hrvit_lab.latency.__main__ import main as latency
from hrvit_lab.study.__main__ import main as study
from hrvit_lab.train.__main__ import main as train

NAMES = [
    "a[/red]b", "[bold]", "[/]", "[link=http://x]y", "\\[x", ":smile:", "../../x", "..", "/", "a/b", "a\\b", "%s {0}",
    "\x1b[31mred", "\x1b]0;title\x07", "\x9b2J", "a\u202eb\u2066c", "a\rb", "null", "yes", "010", "~", "-x", "日本",
]  # fmt: skip


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def show(capsys: pytest.CaptureFixture[str]) -> str:
    """The printed text, after a check that it contains no control characters."""
    output, errors = capsys.readouterr()
    assert "Traceback" not in errors
    for text in (output, errors):
        assert printable(text) == text
    return output + errors


def shown_as(name: str) -> str:
    """Rich removes the bell and cursor movements; other control characters are escaped."""
    return printable(re.sub("[\a\b\v\f\r]", "", name))


def write_study(path: Path, name: str) -> Path:
    text = {
        "title": name, "question": f"{name}?", "base": "hrvit_nano", "resolution": 64, "metrics": ["params", "macs"],
        "variants": [{"name": name, "note": name}, {"name": "other", "set": {"fusion": "sparse"}}], "compare_to": name,
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.dump(text))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_cost_shows_a_config_of_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.dump({"preset": "hrvit_nano", "name": name}))
    for more in ([], ["--csv"]):
        assert cost(["mine.yaml", "--resolution", "64", *more]) == 0
        shown = show(capsys)
        assert more or shown_as(name) in shown
    assert tree(tmp_path) == {"mine.yaml"}


@pytest.mark.parametrize("name", NAMES)
def test_a_study_with_any_title_and_variant_is_listed_and_planned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "studies" / "hostile.yaml", name)
    refused = printable(name) != name
    for command in (["--list"], ["hostile", "--dry-run"]):
        assert study(command) == (2 if refused and command != ["--list"] else 0)
        shown = show(capsys)
        assert name in shown or (refused and "contains a control character; remove it" in " ".join(shown.split()))
    assert tree(tmp_path) == {"studies", "studies/hostile.yaml"}


@pytest.mark.parametrize("name", ["a[/red]b", "../../x"])
def test_a_study_runs_and_reports_with_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    write_study(Path("named [x].yaml"), name)
    for command in (["named [x].yaml", "--jobs", "1"], ["report", "named [x]"]):
        assert study([*command, "--out", "o[/red]1"]) == 0
        assert "o[/red]1/named [x]/report.html" in show(capsys)
    outside = {path for path in tree(tmp_path) if not path.startswith("deep/er/o[")}
    assert outside == {"deep", "deep/er", "deep/er/named [x].yaml"}


@pytest.mark.parametrize(
    "file", ["...yaml", "....yaml", ".yaml", "..yaml", ".yml", " .yaml", "a .yaml", "report.yaml", "trials.yml",
             "a\nb.yaml", "\x1b[31m.yaml", "a\u202eb.yaml", "c:d.yaml", "a\\b.yaml", "x" * 120 + ".yaml"],
)  # fmt: skip
def test_a_study_file_whose_name_cannot_be_a_folder_is_refused(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "studies" / file, "t")
    for where in (f"studies/{file}", str(tmp_path / "studies" / file)):
        assert study([where, "--out", "out"]) == 2
        shown = show(capsys)
        assert "rename the file" in shown and len(shown.splitlines()) == 1
    assert study(["--list"]) in (0, 2)
    show(capsys)
    assert tree(tmp_path) == {"studies", f"studies/{file}"}


@pytest.mark.parametrize("name", ["..", "../x/..", ".", "", "/", "../../etc", "a\nb", "trials"])
def test_a_report_for_an_invalid_name_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert study(["report", name, "--out", "out"]) == 2
    assert len(show(capsys).splitlines()) == 1
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("name", NAMES)
def test_an_error_about_an_unknown_name_is_one_line_without_control_characters(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (cost, latency, study):
        for given in (
            [name],
            ["--", name],
            ["hrvit_nano", "--device", name],
            ["hrvit_nano", "--out", f"{name}/x", name],
        ):
            if command is latency and given[0] == "hrvit_nano" and "--out" not in given:
                continue
            assert command(given) == 2, given
            assert len(show(capsys).splitlines()) == 1
    assert tree(tmp_path) == set()


@pytest.mark.slow
def test_a_race_of_hostile_files_is_written_only_to_the_given_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    file = "a[bold]\x1b[31m.yaml"
    Path(file).write_text("preset: hrvit_nano\nname: ../../x[/b]\n")
    short = ["--resolution", "32", "--max-seconds", "0.1", "--threads", "1", "--out", "o[/b]"]
    assert latency([file, f"{file}:deploy", *short]) == 0
    shown = show(capsys)
    assert r"a[bold]\x1b[31m.yaml" in shown and "in o[/b]" in shown
    assert {path.partition("/")[2].partition("/")[0] for path in tree(tmp_path)} == {"", file, "o["}


def test_a_key_called_self_is_an_unknown_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, file = tmp_path / "c.yaml", tmp_path / "s.yaml"
    config.write_text("preset: hrvit_nano\nself: 1\n")
    assert cost([str(config)]) == 2
    config.write_text("self: 1\n")
    assert cost([str(config)]) == 2
    assert show(capsys).count("unknown field 'self'") == 2
    places = {
        "base: {preset: hrvit_nano, self: 1}\ngrid: {branches: [1]}": "self",
        "base: {model: 'timm:resnet18', self: 1}\ngrid: {num_classes: [1]}": "self",
        "base: hrvit_nano\ngrid: {self: [1]}": "unknown axis 'self'",
        "base: hrvit_nano\ngrid: {branches: [1]}\nself: 1": "unknown key 'self'",
        "base: hrvit_nano\ngrid: {branches: [1]}\ntrain: {self: 1}": "unknown key 'train.self'",
        "base: hrvit_nano\ngrid: {branches: [1]}\ndata: {self: 1}": "unknown key 'data.self'",
        "base: hrvit_nano\nvariants: [{name: a, self: 1}]": "self",
        "base: hrvit_nano\nvariants: [{name: a, set: {self: 1}}]": "unknown axis 'self'",
    }
    for text, said in places.items():
        file.write_text(f"title: t\nquestion: q\n{text}\n")
        assert study([str(file), "--dry-run"]) == 2, text
        shown = show(capsys)
        assert said in shown and len(shown.splitlines()) == 1
    assert study([str(file), "--set", "self=1"]) == 2
    assert os.listdir(tmp_path)


def cells(path: Path) -> set[str]:
    """The cells of a table, after a check that none is a formula; numbers are numbers."""
    with open(path, encoding="utf-8", newline="") as file:
        found = {cell for row in csv.reader(file) for cell in row}
    for cell in found:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or re.fullmatch(r"-[0-9.e+-]+", cell), (path, cell)
    return found


def test_no_cell_of_a_training_or_an_evaluation_is_a_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train/=1+1/@x", "train/-a+b/@x", "val/=1+1/@x", "val/-a+b/+y"):
        path = Path("pictures") / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16), (200, 10, 10)).save(path)
    settings = {
        "data.name": "folder", "data.resolution_px": 16, "evaluation.resolution_px": 16, "data.global_batch_size": 2,
        "data.batch_size_per_process": 2,
        "model.name": "timm:test_resnet", "run.workers": 0, "schedule.epochs": 1, "schedule.warmup_epochs": 0,
        "regularisation.ema": "false",
    }  # fmt: skip
    changes = ",".join(f"{key}={value}" for key, value in settings.items())
    data = ["--data", "pictures", "--device", "cpu"]
    assert train(["imagenet_hrvit", *data, "--set", changes, "--out", "run"]) == 0
    assert evaluate(["run", *data, "--out", "scores"]) == 0
    tables = {path.name: cells(path) for path in Path().rglob("*.csv")}
    names = {"=1+1", "-a+b"}
    assert names <= set(map(unguarded, tables["per_class.csv"])) and "'=1+1" in tables["confusion_matrix.csv"]
    assert {"'=1+1", "'-a+b"} <= cells(Path("run/confusion_matrix.csv"))
    assert names | {"val/=1+1/@x.png"} <= set(map(unguarded, tables["predictions.csv"]))


def test_no_cell_of_a_latency_table_is_a_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("=1+1", "@x"):
        Path(f"{name}.yaml").write_text("preset: hrvit_nano\n")
    bounds = ["--resolution", "32", "--threads", "1", "--max-seconds", "0.01", "--precision", "50", "--parts"]
    assert latency(["=1+1.yaml", "@x.yaml", *bounds, "--out", "out"]) == 0
    assert {"'=1+1.yaml", "'@x.yaml", "32"} <= cells(Path("out/latency.csv"))
    frame = pd.read_csv("out/latency.csv")
    assert (frame["latency_ms"] > 0).all() and list(map(unguarded, frame["model"])) == ["=1+1.yaml", "@x.yaml"]
    assert {cell for cell in cells(Path("out/parts.csv")) if cell.startswith("'")}
