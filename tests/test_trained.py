"""Committed results of full trainings: complete, consistent, and equal to what the cards of shipped networks say."""

import json
from pathlib import Path

import pandas as pd
import pytest

from hrvit_lab.config import shipped
from hrvit_lab.train.recipe import recipe_of_run

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "studies" / "trained").glob("*/*/summary.csv"))


def test_there_are_some() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_confusion_matrix_gives_the_last_score(folder: Path) -> None:
    curve = pd.read_csv(folder / "summary.csv")
    matrix = pd.read_csv(folder / "confusion_matrix.csv", index_col=0)
    assert list(matrix.index) == list(matrix.columns)
    counts = matrix.to_numpy()
    recipe = recipe_of_run(folder)
    if recipe.task == "classification":
        score, key = 100 * counts.trace() / counts.sum(), "eval_top1"
        assert (curve["eval_n_seen"] == counts.sum()).all() and len(curve) == recipe.schedule.epochs
    else:
        right = counts.diagonal()
        score, key = 100 * (right / (counts.sum(0) + counts.sum(1) - right)).mean(), "eval_miou"
        assert curve["eval_n_seen"].nunique() == 1 and curve["step"].iloc[-1] == recipe.schedule.iterations
    assert score == pytest.approx(curve[key].iloc[-1], abs=1e-9)
    about = json.loads((folder / "environment.json").read_text())
    assert about["versions"]["torch"] and f"--seed {recipe.run.seed}" in about["command"]
    assert f"{score:.2f} %" in (ROOT / "studies" / "trained" / "README.md").read_text()


def test_a_card_has_the_curve_of_its_training() -> None:
    network = shipped()["hrvit_micro.fashion_mnist"]
    curve = pd.read_csv(ROOT / "studies" / "trained" / "fashion_mnist" / "hrvit_micro-seed0" / "summary.csv")
    assert network.score_percent == curve["eval_top1"].iloc[-1]
    card = " ".join(network.card.read_text(encoding="utf-8").split())
    assert ", ".join(f"{score:.2f}" for score in curve["eval_top1"]) in card


def test_the_stated_attention_on_items_is_that_of_its_files() -> None:
    folder = ROOT / "studies" / "trained" / "composites" / "hrvit_nano-seed0"
    about = json.loads((folder / "attention_on_items.json").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "attention_on_items.csv")
    said = " ".join((ROOT / "docs" / "insight.md").read_text(encoding="utf-8").split())
    assert f"gives {100 * about['trained']:.1f} % of its attention" in said
    assert f"{100 * about['random']:.1f} % with random" in said
    mean, _, low, high, _, scenes = about["over_random"].values()
    assert f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points" in said and scenes > 190
    for name in ("trained", "random", "equal_attention"):  # by block; a scene of small items has no token in all blocks
        assert table[name].mean() == pytest.approx(about[name], abs=0.005)
