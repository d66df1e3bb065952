"""Studies that train by recipes: segmentation as a metric group, and accuracy by the training engine."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from forked import Command

from hrvit_lab.config import preset
from hrvit_lab.study.__main__ import main as study
from hrvit_lab.study.effects import effects, seed_values
from hrvit_lab.study.files import find_study, load_study
from hrvit_lab.study.groups import GROUPS, ProbeInput
from hrvit_lab.study.quantities import budget
from hrvit_lab.study.recipe_choice import RecipeChoice
from hrvit_lab.study.report.summary import summary
from hrvit_lab.study.results import read_results
from hrvit_lab.train.__main__ import main as train

SMALL = "stem_width: 8, widths: [8, 8, 16, 16], head_dims: 4, segformer_width: 8, depths: [[1], [1, 1], [1, 1, 1, 1]]"
STUDY = f"""
title: Segmentation in small
question: Does a study of segmentations end as it should?
base: {{preset: hrvit_nano, head: segformer, {SMALL}}}
compare_to: full
variants:
  - {{name: full, set: {{}}}}
  - {{name: no MixCFN, set: {{ffn: mlp}}}}
metrics: [params, macs, miou, boundary_iou]
seeds: [0, 1]
resolution: 32
recipe:
  name: textures
  data: {{options: {{size: 32, number: 8}}, resolution_px: 32, batch_size_per_process: 4, global_batch_size: 4}}
  schedule: {{iterations: 3, warmup_iterations: 1}}
  evaluation: {{every_iterations: 2}}
"""
TRIALS = 4


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return path


def outcome(out: Path) -> dict[str, str]:
    names = ("table.csv", "curves.csv", "configs.json", "study.yaml", "dropped.json")
    return {name: (out / "small" / name).read_text() for name in names}


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (out / "trials").glob("*.json")]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
@pytest.mark.usefixtures("blank_figures")
def test_a_killed_study_completes_with_the_same_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed, whole = Path("killed"), Path("whole")
    process = Command("hrvit_lab.study", str(file), "--out", str(killed), "--jobs", "1")
    until = time.monotonic() + 250
    while len(list(killed.glob("trials/*.json"))) < 1 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert psutil.wait_procs(family, timeout=100)[1] == [], "workers outlived their study"
    kept = len(records(killed))
    assert 1 <= kept < TRIALS
    for out in (killed, whole):
        assert study([str(file), "--out", str(out), "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert f"{TRIALS} trials: {kept} already finished, {TRIALS - kept} run" in said
    assert "mIoU is a proxy: 3 steps of 4 images on textures at 32×32" in said
    assert outcome(killed) == outcome(whole)
    assert {record["key"] for record in records(killed)} == {record["key"] for record in records(whole)}

    results = read_results(whole / "small")
    assert results.score == "miou" and results.dataset == "textures" and not results.faults
    for row in results.table.to_dict("records"):
        values = [r["values"] for r in records(whole) if r["config"]["name"] == row["variant"]]
        assert row["miou"] == pytest.approx(sum(value["miou"] for value in values) / 2)
        assert row["boundary_iou"] == pytest.approx(sum(value["boundary_iou"] for value in values) / 2)
    last = seed_values(results.curves, "val_miou")
    [effect] = effects(results.table, results.curves, [], "full").to_dict("records")
    differences = [last["no MixCFN"][seed] - last["full"][seed] for seed in (0, 1)]
    assert effect["delta"] == pytest.approx(sum(differences) / 2) and effect["n"] == 2
    assert sorted(set(results.curves["epoch"])) == [1, 2]
    assert budget(results) == "textures, recipe textures, 3 steps of 4 images, all images, 32×32 px"
    assert "mIoU on textures (a proxy)" in summary(results.table, "textures", "full")[0]
    assert (whole / "small" / "report.html").read_text().count("mIoU on textures") > 2
    [first] = [each for each in records(whole) if each["seed"] == 0 and each["config"]["name"] == "full"]
    assert first["values"]["miou"] == by_command(results.configs["full"])["last"]["eval_miou"]


def by_command(config: dict[str, Any]) -> dict[str, Any]:
    """The result of ``hrvit-lab train`` with the same settings."""
    Path("full.yaml").write_text(json.dumps({**config, "name": ""}))
    settings = (
        "data.options={size: 32, number: 8},data.resolution_px=32,data.batch_size_per_process=4,"
        "data.global_batch_size=4,schedule.iterations=3,schedule.warmup_iterations=1,evaluation.every_iterations=2,"
        "run.workers=0,run.threads=1"
    )
    assert train(["textures", "--model", "full.yaml", "--set", settings, "--device", "cpu", "--out", "run"]) == 0
    return dict(json.loads(Path("run/result.json").read_text()))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("base.head=classifier", "variant 'full': head = 'classifier' does not segment images"),
        ("recipe=null", "metric 'miou' needs a recipe for segmentation"),
        ("metrics=[miou, top1]", "metric 'top1' can't be measured with recipe 'textures', which is for segmentation"),
        ("recipe.name=digits", "unknown recipe 'digits'"),
        ("recipe={name: proxy}", "proxy is the short training itself"),
        ("recipe={name: fashion_mnist}", "metric 'miou' can't be measured with recipe 'fashion_mnist'"),
        ("recipe.model={name: hrvit_b1}", "unknown key 'recipe.model'"),
        ("recipe.schedule.iteration=2", "unknown key 'schedule.iteration'; did you mean 'iterations' or"),
        ("recipe.data.train_limit=9", "data.train_limit = 9 but there are 8 training images"),
        ("recipe.data.options.size=8", "size = 8 is out of range; use 32 to 512 pixels"),
        ("recipe.data.name=digits,recipe.data.options={}", "data.name = 'digits' is for classification"),
        ("recipe.regularisation.drop_path=0.1", "set it to 0, and drop_path_rate in base"),
        ("recipe.root=nowhere", "textures"),
        ("recipe.threads=0", "recipe.threads = 0"),
        ("base.num_classes=11", "base: num_classes = 11, but data set textures has 6 classes"),
        ("base={model: timm:resnet18},variants=[{name: full}]", "timm:resnet18 does not segment images"),
        ("recipe.data.resolution_px=16", "32"),
    ],
)
def test_invalid_requests_are_reported_before_any_trial(
    file: Path, settings: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study([str(file), "--out", "out", "--dry-run", "--set", settings]) == 2
    output, errors = capsys.readouterr()
    assert output == "" and len(errors.splitlines()) == 1 and said in errors, errors
    assert not os.path.exists("out")


def test_accuracy_by_a_recipe_equals_that_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = preset("hrvit_nano").replace(depths=((1,), (1, 1), (1, 1, 1, 1)), num_classes=10)
    choice = RecipeChoice(
        name="fashion_mnist", data={"name": "digits", "train_limit": 64, "batch_size_per_process": 16,
        "global_batch_size": 16}, schedule={"epochs": 2},
    )  # fmt: skip
    steps: list[tuple[int, int]] = []
    asked = ProbeInput(
        config, (32, 32), 3, recipe=choice.recipe, on_step=lambda done, total: steps.append((done, total))
    )
    values = GROUPS["accuracy"].probe(asked)
    assert steps == [(step, 8) for step in range(1, 9)]
    Path("small.yaml").write_text(config.to_yaml())
    settings = (
        "data.name=digits,data.train_limit=64,data.batch_size_per_process=16,data.global_batch_size=16,"
        "schedule.epochs=2,run.seed=3,run.workers=0,run.threads=1"
    )
    assert train(["fashion_mnist", "--model", "small.yaml", "--set", settings, "--device", "cpu", "--out", "run"]) == 0
    rows = pd.read_csv("run/summary.csv")
    assert values["top1"] == rows["eval_top1"].iloc[-1] and values["val_loss"] == rows["eval_loss"].iloc[-1]
    assert [row["val_top1"] for row in values["curves"]] == list(rows["eval_top1"])
    assert [row["epoch"] for row in values["curves"]] == [1, 2]


def test_the_shipped_study_is_one_change_at_a_time() -> None:
    spec = load_study(find_study("segmentation_ablation"))
    assert spec.task == "segmentation" and spec.compare_to == "full" and spec.axes_of_tradeoff == ("macs", "miou")
    assert all(len(entry.set or {}) == (entry.name != "full") for entry in spec.variants or ())
