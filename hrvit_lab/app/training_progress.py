"""How far a training by a recipe is, from the files that it writes. They are bounded, and damaged ones are left out."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hrvit_lab.config import ConfigError, read_text, read_yaml
from hrvit_lab.files import MIB, read_bounded
from hrvit_lab.metrics import SCORES

MAX_BYTES = 16 * MIB
MAX_READ = 20
"""Trainings that are searched for a duration."""


@dataclass(frozen=True)
class TrainingProgress:
    """The state of a training.

    Attributes:
        steps: one row every few seconds: ``step``, ``loss``, ``lr``, ``images_per_s``.
        evaluations: one row per evaluation: ``epoch``, ``step``, ``train_loss``, ``eval_loss``, ``eval_top1``, ….
        total_steps: None until the first evaluation.
        score: of the evaluations: ``top1`` or ``miou``; None if there is none yet.
        status: as the training says; empty until the first evaluation.
    """

    steps: pd.DataFrame
    evaluations: pd.DataFrame
    total_steps: int | None
    score: str | None
    status: str

    @property
    def step(self) -> int:
        """The last step that is known."""
        known = [int(frame["step"].max()) for frame in (self.steps, self.evaluations) if len(frame)]
        return max(known, default=0)


def read_training(folder: Path) -> TrainingProgress:
    """The state of the training in a folder, which may be running."""
    result = _object(folder / "result.json")
    evaluations = _table(folder / "summary.csv")
    total = result.get("total_steps")
    score = next((key for key in SCORES if f"eval_{key}" in evaluations), None)
    status = result.get("status")
    return TrainingProgress(
        _lines(folder / "metrics.jsonl"), evaluations, total if isinstance(total, int) and total > 0 else None, score,
        status if isinstance(status, str) else "",
    )  # fmt: skip


def seconds_of_recipe(runs: Path, title: str, unit: str, length: int) -> float | None:
    """The time of a training of a length, from the newest training by a recipe of that title; None if there is none.

    Args:
        runs: folder of trainings.
        unit: ``epoch`` or ``step``, of ``length``.
    """
    newest = sorted(runs.glob("*/summary.csv"), key=lambda path: -path.stat().st_mtime)[:MAX_READ]
    for path in newest:
        rows = _table(path)
        if (
            "seconds" in rows
            and len(rows)
            and rows[unit].iloc[-1] > 0
            and _title(path.with_name("recipe.yaml")) == title
        ):
            return float(rows["seconds"].sum() / rows[unit].iloc[-1] * length)
    return None


def _title(path: Path) -> str | None:
    try:
        recipe = read_yaml(read_text(path, "the recipe"), "the recipe")
    except ConfigError:
        return None
    return recipe.get("title") if isinstance(recipe, dict) else None


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bounded(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _lines(path: Path) -> pd.DataFrame:
    rows = []
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        try:
            row = json.loads(line)
            rows.append({"step": int(row["step"]), **{key: float(row[key]) for key in ("loss", "lr", "images_per_s")}})
        except (ValueError, KeyError, TypeError, RecursionError):  # the last line may be incomplete
            continue
    return pd.DataFrame(rows, columns=["step", "loss", "lr", "images_per_s"])


def _table(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(io.BytesIO(read_bounded(path, MAX_BYTES)))
        return frame.apply(pd.to_numeric, errors="coerce").dropna(subset=["epoch", "step"])
    except (OSError, ValueError, KeyError):  # ValueError: also of an empty file
        return pd.DataFrame(columns=["epoch", "step"])
