"""TensorBoard and Weights & Biases in addition to a training's own files."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hrvit_lab import ConfigError, plots
from hrvit_lab.train import trackers
from hrvit_lab.train.engine_command import Watch, warn_of_tracker


def never(name: str, error: Exception) -> None:
    raise AssertionError(f"{name} failed") from error


def test_tensorboard_has_every_step_once_after_resuming(tmp_path: Path) -> None:
    for first, steps in ((0, (1, 2, 3, 4)), (2, (3, 4, 5))):
        tracker = trackers.open_trackers(["tensorboard"], tmp_path, {"run.seed": 1}, first, never)["tensorboard"]
        for step in steps:
            tracker.add(step, {"loss": first + step / 8})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (1, 0.125), (2, 0.25), (3, 2.375), (4, 2.5), (5, 2.625),
    ]  # fmt: skip


def test_wandb_receives_one_run_with_the_recipe_and_all_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is not installed here; a fake one records its calls."""
    calls: list[tuple[str, Any]] = []
    run = SimpleNamespace(
        log=lambda figures, step: calls.append(("log", (step, figures))), finish=lambda: calls.append(("finish", None))
    )
    package = ModuleType("wandb")

    def init(**given: Any) -> SimpleNamespace:
        calls.append(("init", given))
        return run

    package.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", package)
    for first in (0, 7):
        tracker = trackers.open_trackers(["wandb"], tmp_path, {"run.seed": 1}, first, never)["wandb"]
        tracker.add(first + 1, {"loss": 0.5})
        tracker.close()
    inits = [given for name, given in calls if name == "init"]
    assert inits[0] == inits[1]  # the same id: the second part continues the run of the first
    assert inits[0]["config"] == {"run.seed": 1} and inits[0]["resume"] == "allow" and len(inits[0]["id"]) == 16
    assert [given for name, given in calls if name == "log"] == [(1, {"loss": 0.5}), (8, {"loss": 0.5})]
    assert calls[-1] == ("finish", None)


def test_unknown_trackers_and_missing_packages_are_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        trackers.check_trackers(["tensorbord"])
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--track wandb: the package wandb is not installed; pip install wandb"):
        trackers.check_trackers(["wandb"])


def test_a_tracker_that_cannot_be_opened_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(**given: Any) -> None:
        raise RuntimeError("api_key not configured (no-tty)\ncall wandb.login")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    opened = trackers.open_trackers(["wandb", "tensorboard"], tmp_path, {"run.seed": 1}, 0, warn_of_tracker)
    assert list(opened) == ["tensorboard"]
    opened["tensorboard"].close()
    [warning] = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: wandb failed (api_key not configured (no-tty)")
    assert warning.endswith("the training continues without it")


def test_a_failing_tracker_is_switched_off_and_the_training_continues(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(step: int, figures: Any) -> None:
        raise OSError(28, "No space left on device")

    seen: list[Any] = []
    watch = object.__new__(Watch)
    watch.trackers = {
        "wandb": trackers.Tracker(fail, lambda: None),
        "tensorboard": trackers.Tracker(lambda step, figures: seen.append((step, figures)), lambda: None),
    }
    for step in (1, 2):
        watch._track(step, {"step": step, "loss": 0.5})
    assert seen == [(1, {"loss": 0.5}), (2, {"loss": 0.5})]
    [warning] = capsys.readouterr().err.splitlines()
    assert warning == "warning: wandb failed ([Errno 28] No space left on device); the training continues without it"


def test_curves_mark_the_best_evaluation_and_accept_missing_values() -> None:
    rows = pd.DataFrame(
        {
            "epoch": [1.0, 2.0, 3.0],
            "train_loss": [2.0, 1.0, 0.5],
            "lr": [0.1, 0.05, 0.0],
            "eval_miou": [10.0, 30.0, 20.0],
        }
    )
    losses, scores, rates = plots.run_curves(rows, "miou", "a run").axes
    assert scores.get_title(loc="left") == "best 30.00 at epoch 2" and scores.get_ylabel() == "mIoU, %"
    assert len(losses.lines) == 1 and len(rates.lines) == 1
    assert scores.lines[1].get_xydata().tolist() == [[2.0, 30.0]]  # type: ignore[union-attr]
    nothing = plots.run_curves(rows.assign(eval_miou=float("nan")), "miou", "a run").axes[1]
    assert len(nothing.lines) == 1 and nothing.get_title(loc="left") == ""
    assert "No values" in plots.run_curves(rows.iloc[:0], "miou", "a run").axes[0].texts[0].get_text()
