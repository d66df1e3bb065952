"""Records of an older version beside new ones: they are left alone, and no figure of theirs is shown as a new one.

The files in ``data/old_records`` were written by the version before groups had versions of their own.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest

from hrvit_lab.environment import environment
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.files import load_study
from hrvit_lab.study.reporting import plan_under
from hrvit_lab.study.space import expand
from hrvit_lab.study.trials import Trial, in_order

OLD = sorted((Path(__file__).parent / "data" / "old_records").glob("*.json"))
WRONG = 99.75  # top-1 of the old records, which must not appear anywhere

STUDY = """
title: Old
question: What did an older version keep?
base: {preset: hrvit_nano, num_classes: 10}
grid: {branches: [1]}
metrics: [params, macs, top1, val_loss]
seeds: [0]
resolution: 32
data: {name: digits, resolution: 32}
train: {epochs: 1, train_limit: 64, batch_size: 32}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "old.yaml"
    path.write_text(STUDY)
    trials = tmp_path / "out" / "trials"
    trials.mkdir(parents=True)
    for file in OLD:
        record = json.loads(file.read_text())
        record["values"] |= {"top1": WRONG} if record["group"] == "accuracy" else {"macs": 1}
        (trials / file.name).write_text(json.dumps(record))
    return path


def training(study: Path) -> Trial:
    spec = load_study(study)
    [trial] = in_order(plan_under(environment() | {"data_files": ""}, spec, expand(spec)))
    return trial


def row(out: Path) -> dict[str, str]:
    with (out / "old" / "table.csv").open() as file:
        [found] = csv.DictReader(file)
    return found


def test_the_fixture_is_of_the_older_layout(study: Path) -> None:
    assert {json.loads(file.read_text())["group"] for file in OLD} == {"cost", "accuracy"}
    trial = training(study)
    for record in (json.loads(file.read_text()) for file in OLD):
        assert record["protocol"] == 3 and "version" not in record and record["status"] == "ok"
        assert record["config_id"] == trial.inputs.config.id, "the very network that the study is about"
        assert record["key"] != trial.key


@pytest.mark.usefixtures("light_studies")
def test_old_records_are_neither_used_nor_changed(
    study: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = study.parent / "out"
    before = {path.name: path.read_bytes() for path in (out / "trials").glob("*.json")}
    assert main([str(study), "--out", str(out), "--jobs", "1"]) == 0
    assert "1 to run" in capsys.readouterr().out
    assert caplog.messages == []
    found = row(out)
    assert float(found["top1"]) != WRONG and int(found["macs"]) > 1
    after = {path.name: path.read_bytes() for path in (out / "trials").glob("*.json")}
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {f"{training(study).key}.json"}

    # An old record at the path of a new one is refused with a warning, and measured again.
    old = next(file for file in OLD if json.loads(file.read_text())["group"] == "accuracy")
    shutil.copy(old, out / "trials" / f"{training(study).key}.json")
    assert main(["report", "old", "--out", str(out)]) == 2
    assert "has no finished trial of 'old'" in capsys.readouterr().err
    assert [message for message in caplog.messages if "is damaged (version: Field required)" in message]
    assert row(out) == found
    assert main([str(study), "--out", str(out), "--jobs", "1"]) == 0
    assert row(out)["top1"] == found["top1"]


def test_results_of_an_older_version_are_not_replaced_by_incomplete_ones(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report needs records. Those of the older version do not count, and a report with costs only would hide that."""
    folder = study.parent / "out" / "old"
    folder.mkdir()
    (folder / "study.yaml").write_text(STUDY)
    (folder / "environment.json").write_text(json.dumps({"cpu": "chip", "logical_cores": 2, "data_files": ""}))
    (folder / "table.csv").write_text("variant,top1\nbranches=1,50\n")
    assert main(["report", "old", "--out", str(study.parent / "out")]) == 2
    assert "or of an older version do not count" in " ".join(capsys.readouterr().err.split())
    assert (folder / "table.csv").read_text() == "variant,top1\nbranches=1,50\n"
