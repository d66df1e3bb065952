"""A tiny data set in real layouts of classification is checked, trained, resumed and evaluated."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_recipe_training import TINY, same_weights
from test_samples import png, write_tar
from test_torchvision_files import write_cifar

from hrvit_lab.data.__main__ import main as data
from hrvit_lab.evaluate.__main__ import main as evaluate
from hrvit_lab.train.__main__ import main


def make_tars(root: Path) -> None:
    """An archive for each class."""
    for split, number in (("train", 4), ("val", 2)):
        for wnid, colour in (("n01440764", (200, 10, 10)), ("n01443537", (10, 200, 10))):
            write_tar(root / split / f"{wnid}.tar", {f"{i}.JPEG": png(colour, (20 + i, 24)) for i in range(number)})


def make_pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    lines: dict[str, list[str]] = {"trainval": [], "test": []}
    for split, number in (("trainval", 4), ("test", 2)):
        for breed, name in enumerate(("Abyssinian", "american_bulldog"), start=1):
            for index in range(number):
                draw = np.random.default_rng((breed, index))
                path = folder / "images" / f"{name}_{split}_{index}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(0, 100 * breed, (24, 30, 3), dtype=np.uint8)).save(path)
                lines[split].append(f"{path.stem} {breed} {breed} 1\n")
    (folder / "annotations").mkdir()
    for split, text in lines.items():
        (folder / "annotations" / f"{split}.txt").write_text("".join(text))


LAYOUTS: dict[str, tuple[Callable[[Path], object], str, dict[str, Any], int]] = {
    "tars": (make_tars, "imagenet_hrvit", {"precision.dtype": "float32", "regularisation.ema": "false"}, 4),
    "cifar10": (lambda root: write_cifar(root, 10), "cifar10", {}, 4),
    "oxford_pets": (make_pets, "oxford_pets", {}, 4),
}
"""How files are made, the recipe, changes of it, and the number of validation images."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_checked_trained_resumed_and_scored(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, recipe, more, number = LAYOUTS[layout]
    make(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    assert data(["check", "imagenet" if layout == "tars" else layout, "--root", "data"]) == 0
    assert "0 of" in capsys.readouterr().out
    changes = {
        "model.name": "tiny.yaml", "data.resolution_px": 16, "evaluation.resolution_px": 16, "data.train_limit": 8,
        "data.batch_size_per_process": 4, "data.global_batch_size": 4, "schedule.epochs": 2,
        "schedule.warmup_epochs": 0, "schedule.cooldown_epochs": 0, "run.workers": 0, "run.threads": 1,
    } | more  # fmt: skip
    command = [recipe, "--data", "data", "--set", ",".join(f"{key}={value}" for key, value in changes.items())]
    assert main([*command, "--out", "whole"]) == 0
    half = tmp_path / "whole" / "checkpoints" / "step-00000002.pt"
    assert main([*command, "--out", "half", "--resume", str(half)]) == 0
    assert "Resuming after step 2" in capsys.readouterr().out
    assert same_weights(tmp_path / "whole", tmp_path / "half")
    assert evaluate(["whole", "--data", "data", "--set", "run.workers=0"]) == 0
    said = tmp_path / "whole" / "evaluation"
    scores = json.loads((said / "scores.json").read_text())
    best = json.loads((tmp_path / "whole" / "result.json").read_text())["best"]
    assert scores["top1"] == best["eval_top1"] and scores["n_seen"] == number
    with open(said / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert 100 * sum(row["truth"] == row["prediction"] for row in rows) / number == scores["top1"]
