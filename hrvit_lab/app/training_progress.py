"""How far a training is, from the files that it writes. They are bounded, and damaged ones are left out.

A training by a recipe writes ``metrics.jsonl`` and ``summary.csv``, and a short one ``curves.csv``.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from hrvit_lab.app.folders import is_by_recipe
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
        steps: one row every few seconds: ``step``, ``loss``, ``lr``, ``images_per_s``; empty for a short training.
        evaluations: one row per evaluation: ``epoch``, ``step``, ``train_loss``, ``eval_loss``, ``eval_top1``, …; short
            trainings have no ``step``.
        unit: what is counted: steps, or epochs of a short training.
        total: number of them; None until it is known.
        score: of the evaluations: ``top1`` or ``miou``; None if there is none yet.
        status: as the training says; empty until the first evaluation.
        conditions: data, input size, batch size and hardware, as far as they are known.
    """

    steps: pd.DataFrame
    evaluations: pd.DataFrame
    unit: Literal["step", "epoch"]
    total: int | None
    score: str | None
    status: str
    conditions: str

    @property
    def done(self) -> int:
        """The number of finished steps or epochs, as far as it is known."""
        frames = (self.steps, self.evaluations)
        return max((int(frame[self.unit].max()) for frame in frames if len(frame)), default=0)

    @property
    def ended(self) -> str:
        """Why the training ended early, as it says; empty if it did not."""
        return "" if self.status in ("running", "complete") else self.status


STEPS = ("step", "loss", "lr", "images_per_s")
SHORT_COLUMNS = {"val_loss": "eval_loss", "val_top1": "eval_top1"}
"""Columns of ``curves.csv``, and their names in ``summary.csv``."""


def read_training(folder: Path) -> TrainingProgress:
    """The state of the training in a folder, which may be running."""
    result = _object(folder / "result.json")
    status = result.get("status")
    said, where = status if isinstance(status, str) else "", conditions(folder)
    if not is_by_recipe(folder):
        evaluations = _table(folder / "curves.csv", ["epoch"]).rename(columns=SHORT_COLUMNS)
        options = result.get("train")
        total = options.get("epochs") if isinstance(options, dict) else None
        steps = pd.DataFrame(columns=STEPS)
        return TrainingProgress(steps, evaluations, "epoch", _positive(total), _score(evaluations), said, where)
    evaluations = _table(folder / "summary.csv", ["epoch", "step"])
    steps, total = _lines(folder / "metrics.jsonl"), result.get("total_steps")
    return TrainingProgress(steps, evaluations, "step", _positive(total), _score(evaluations), said, where)


def _score(evaluations: pd.DataFrame) -> str | None:
    return next((key for key in SCORES if f"eval_{key}" in evaluations), None)


def _positive(number: Any) -> int | None:
    return number if isinstance(number, int) and number > 0 else None


def conditions(folder: Path) -> str:
    """Data, input size, batch size, number format and hardware of a training, as far as its files tell."""
    if is_by_recipe(folder):
        settings, place = _recipe(folder / "recipe.yaml"), _object(folder / "environment.json")
        size, batch = _get(settings, "data", "resolution_px"), _get(settings, "data", "global_batch_size")
    else:
        settings = _object(folder / "result.json")
        size, batch, place = _get(settings, "data", "resolution"), _get(settings, "train", "batch_size"), settings
    hardware = _get(place, "hardware") or _get(place, "environment", "hardware")
    said = [
        _get(settings, "data", "name"),
        " × ".join(map(str, size)) + " px" if isinstance(size, list) else None,
        f"batch {batch}" if isinstance(batch, int) else None,
        _get(settings, "precision", "dtype"),
        hardware.partition(" (")[0] if isinstance(hardware, str) else None,
    ]
    return ", ".join(one for one in said if isinstance(one, str) and one) or "conditions unknown"


def _get(settings: dict[str, Any], *keys: str) -> Any:
    """The value under nested keys; None if there is none."""
    found: Any = settings
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def seconds_of_recipe(runs: Path, title: str, unit: str, length: int) -> float | None:
    """The time of a training of a length, from the newest training by a recipe of that title; None if there is none.

    Args:
        runs: folder of trainings.
        unit: ``epoch`` or ``step``, of ``length``.
    """
    newest = sorted(runs.glob("*/summary.csv"), key=lambda path: -path.stat().st_mtime)[:MAX_READ]
    for path in newest:
        rows = _table(path, ["epoch", "step"])
        if (
            "seconds" in rows
            and len(rows)
            and rows[unit].iloc[-1] > 0
            and _recipe(path.with_name("recipe.yaml")).get("title") == title
        ):
            return float(rows["seconds"].sum() / rows[unit].iloc[-1] * length)
    return None


def _recipe(path: Path) -> dict[str, Any]:
    try:
        recipe = read_yaml(read_text(path, "the recipe"), "the recipe")
    except ConfigError:
        return {}
    return recipe if isinstance(recipe, dict) else {}


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
    return pd.DataFrame(rows, columns=STEPS)


def _table(path: Path, required: list[str]) -> pd.DataFrame:
    """A table of numbers; rows without the required ones are left out."""
    try:
        frame = pd.read_csv(io.BytesIO(read_bounded(path, MAX_BYTES)))
        return frame.apply(pd.to_numeric, errors="coerce").dropna(subset=required)
    except (OSError, ValueError, KeyError):  # ValueError: also of an empty file
        return pd.DataFrame(columns=required)
