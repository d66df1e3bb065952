"""A tiny data set in each real layout of segmentation is checked, trained, resumed and evaluated."""

import csv
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forked import Command
from PIL import Image
from safetensors.torch import load_file
from test_recipe_training import TINY, same_weights, wait_for
from test_scenes import write_fashion

from hrvit_lab import create_model, load_checkpoint
from hrvit_lab.data.__main__ import main as data
from hrvit_lab.evaluate.__main__ import main as evaluate
from hrvit_lab.train.__main__ import main
from hrvit_lab.train.data.samples import Samples, open_samples

SIZE = (40, 56)


def scene(index: int, labels: tuple[int, int, int]) -> tuple[Image.Image, Image.Image]:
    """Noise with a bright rectangle, and its mask: ground, rectangle, and a stripe of a third label at the top."""
    draw = np.random.default_rng(index)
    pixels = draw.integers(0, 90, (*SIZE, 3))
    mask = np.full(SIZE, labels[0], dtype=np.uint8)
    top, left = int(draw.integers(5, 20)), int(draw.integers(0, 30))
    pixels[top : top + 16, left : left + 20] += 150
    mask[top : top + 16, left : left + 20] = labels[1]
    mask[:3] = labels[2]
    return Image.fromarray(pixels.astype(np.uint8)), Image.fromarray(mask)


def put(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def make_ade20k(root: Path) -> None:
    for split, number in (("training", 6), ("validation", 3)):
        for index in range(number):
            image, mask = scene(index, (1, 2, 0))  # 0 is "other"
            put(image, root / "images" / split / f"{split}_{index}.jpg")
            put(mask, root / "annotations" / split / f"{split}_{index}.png")


def make_cityscapes(root: Path) -> None:
    for split, number in (("train", 6), ("val", 3)):
        for index in range(number):
            image, mask = scene(index, (7, 8, 3))  # road, sidewalk, and a label that is ignored
            name = f"aachen_{index:06d}_000019"
            put(image, root / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png")
            put(mask, root / "gtFine" / split / "aachen" / f"{name}_gtFine_labelIds.png")


def make_pairs(root: Path) -> None:
    for split, number in (("train", 6), ("val", 3)):
        for index in range(number):
            image, mask = scene(index, (0, 1, 255))
            put(image, root / "images" / split / f"{index}.png")
            put(mask, root / "masks" / split / f"{index}.png")
    (root / "classes.txt").write_text("ground\nbox\nnever\n")


def make_pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    for split, number in (("trainval", 6), ("test", 3)):
        for index in range(number):
            image, mask = scene(index, (1, 2, 3))  # pet, background, border
            put(image, folder / "images" / f"{split}_{index}.jpg")
            put(mask, folder / "annotations" / "trimaps" / f"{split}_{index}.png")
        lines = "".join(f"{split}_{index} 1 1 1\n" for index in range(number))
        (folder / "annotations" / f"{split}.txt").write_text(lines)


LAYOUTS: dict[str, tuple[Callable[[Path], None], str, dict[str, Any]]] = {
    "ade20k": (make_ade20k, "ade20k_segformer", {}),
    "cityscapes": (
        make_cityscapes, "cityscapes_segformer", {"evaluation.crop_px": [32, 32], "evaluation.stride_px": [20, 24]},
    ),
    "mask_folder": (make_pairs, "ade20k_upernet", {"data.name": "mask_folder", "evaluation.base_size_px": "null"}),
    "oxford_pets_masks": (make_pets, "oxford_pets_masks", {}),
}  # fmt: skip


def settings(more: dict[str, Any]) -> str:
    changes = {
        "model.name": "tiny.yaml", "data.resolution_px": [32, 32], "augmentation.base_size_px": [56, 40],
        "data.batch_size_per_process": 2, "data.global_batch_size": 2, "schedule.iterations": 4,
        "schedule.warmup_iterations": 1, "evaluation.every_iterations": 2, "run.workers": 0, "run.threads": 1,
        "evaluation.base_size_px": [56, 40], "precision.sync_batch_norm": "false", "precision.dtype": "float32",
    } | more  # fmt: skip
    return ",".join(f"{key}={value}" for key, value in changes.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_checked_trained_resumed_and_scored(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, recipe, more = LAYOUTS[layout]
    make(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(TINY + "segformer_width: 8\nupernet_width: 8\n")
    monkeypatch.chdir(tmp_path)
    assert data(["check", layout, "--root", "data"]) == 0
    command = [recipe, "--data", "data", "--set", settings(more)]
    assert main([*command, "--out", "whole"]) == 0
    # Resume from the state after step 2, as after a crash.
    half = tmp_path / "whole" / "checkpoints" / "step-00000002.pt"
    assert main([*command, "--out", "half", "--resume", str(half)]) == 0
    assert "Resuming after step 2" in capsys.readouterr().out
    whole, resumed = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert evaluate(["whole", "--data", "data", "--set", "run.workers=0"]) == 0
    said = tmp_path / "whole" / "evaluation"
    scores = json.loads((said / "scores.json").read_text())
    best = json.loads((tmp_path / "whole" / "result.json").read_text())["best"]
    assert scores["miou"] == best["eval_miou"] and scores["n_seen"] == 3
    with open(said / "confusion_matrix.csv", encoding="utf-8") as file:
        [_, *rows] = csv.reader(file)
    matrix = [[int(cell) for cell in row[1:]] for row in rows]
    rows_scored = SIZE[0] if layout == "oxford_pets_masks" else SIZE[0] - 3  # elsewhere the stripe is ignored
    assert sum(map(sum, matrix)) == 3 * rows_scored * SIZE[1]
    assert matrix == of_files(said, open_samples(layout, "val", tmp_path / "data"))
    page = (said / "overlays.html").read_text()
    assert page.count("<img") == 3 * 4 and "mIoU" in page
    if layout == "mask_folder":
        assert scores["miou"] == pytest.approx(by_hand(tmp_path, matrix), abs=1e-9)


def test_composites_are_trained_resumed_and_scored_by_their_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    write_fashion(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(TINY + "segformer_width: 8\nupernet_width: 8\n")
    monkeypatch.chdir(tmp_path)
    changes = {"data.options": "{size: 40, number: 6}", "model.changes": "{segformer_width: 8}"}
    changes |= {"evaluation.base_size_px": "null", "augmentation.base_size_px": "null"}
    command = ["composites", "--data", "data", "--set", settings(changes)]
    assert main([*command, "--out", "whole"]) == 0
    assert main([*command, "--out", "half", "--resume", "whole/checkpoints/step-00000002.pt"]) == 0
    assert same_weights(tmp_path / "whole", tmp_path / "half")
    assert evaluate(["whole", "--data", "data", "--set", "run.workers=0"]) == 0
    scores = json.loads((tmp_path / "whole" / "evaluation" / "scores.json").read_text())
    best = json.loads((tmp_path / "whole" / "result.json").read_text())["best"]
    validation = open_samples("composites", "val", tmp_path / "data", size=40, number=6)
    assert scores["miou"] == best["eval_miou"] and scores["n_seen"] == len(validation)


def test_a_model_of_timm_is_trained_and_scored_as_a_segmenter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pairs(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    changes = {
        "data.name": "mask_folder", "model.name": "timm:resnet18", "model.changes.segformer_width": 8,
        "model.changes.options": "{channels: [4, 8, 8, 8]}", "evaluation.every_iterations": 4,
    }  # fmt: skip
    assert main(["composites", "--data", "data", "--out", "whole", "--set", settings(changes)]) == 0
    assert evaluate(["whole", "--data", "data", "--set", "run.workers=0"]) == 0
    scores = json.loads((tmp_path / "whole" / "evaluation" / "scores.json").read_text())
    best = json.loads((tmp_path / "whole" / "result.json").read_text())["best"]
    assert scores["miou"] == best["eval_miou"] and scores["n_seen"] == 3


def of_files(folder: Path, samples: Samples) -> list[list[int]]:
    """The confusion matrix of the label maps in the files, pixel by pixel."""
    with open(folder / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [samples.name(index) for index in range(len(samples))]
    counts = [[0] * len(samples.class_names) for _ in samples.class_names]
    for index, row in enumerate(rows):
        with Image.open(folder / row["file"]) as image:
            assert image.mode == "L"
            labels = np.array(image)
        for truth, label in zip(np.array(samples[index][1]).flat, labels.flat, strict=True):
            if truth != 255:
                counts[truth][label] += 1
    return counts


def by_hand(folder: Path, matrix: list[list[int]]) -> float:
    """The mIoU of the best weights, computed pixel by pixel."""
    model = create_model(str(folder / "whole" / "config.yaml")).eval()
    load_checkpoint(model, folder / "whole" / "best.safetensors")
    samples = open_samples("mask_folder", "val", folder / "data")
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    counts = [[0] * 3 for _ in range(3)]
    for index in range(len(samples)):
        image, mask = samples[index]
        x_CHW = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        with torch.no_grad():
            logits = model(((x_CHW - mean) / std)[None])
            labels = F.interpolate(logits, SIZE, mode="bilinear")[0].argmax(0)
        truth = np.array(mask)
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                if truth[row, column] != 255:
                    counts[truth[row, column]][int(labels[row, column])] += 1
    assert counts == matrix
    found = []
    for c in range(3):
        union = sum(counts[c]) + sum(row[c] for row in counts) - counts[c][c]
        if union:
            found.append(counts[c][c] / union)
    return 100 * sum(found) / len(found)


# -- kills -------------------------------------------------------------------------------------------------------------


def on_textures(*more: str, workers: int = 0) -> list[str]:
    """A training of 24 steps, with crops, flips, photometric distortion, an average of weights and bfloat16."""
    changes = {
        "data.options": "{size: 40, number: 12}", "evaluation.base_size_px": "null", "evaluation.every_iterations": 8,
        "schedule.iterations": 24, "augmentation.base_size_px": "null", "precision.dtype": "bfloat16",
        "regularisation.ema": "true", "regularisation.ema_decay": 0.9, "model.head": "upernet",
        "run.save_every_s": 0.001, "run.workers": workers,
    }  # fmt: skip
    return ["textures", "--set", settings(changes), "--device", "cpu", *more]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_killed_ten_times_has_equal_results(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY + "segformer_width: 8\nupernet_width: 8\n")
    monkeypatch.chdir(tmp_path)
    assert main(on_textures("--out", "whole")) == 0
    moments = random.Random(workers)
    landed = 0
    for kill in range(10):
        process = Command("hrvit_lab.train", *on_textures("--out", "killed", "--resume", "auto", workers=workers))
        wait_for(tmp_path / "killed" / "checkpoints" / f"step-{2 * kill + 1:08d}.pt", process)
        time.sleep(moments.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=100)
        landed += process.returncode == -signal.SIGKILL
    assert landed >= 5, "most trainings had ended before they were killed"
    assert main(on_textures("--out", "killed", "--resume", "auto")) == 0
    for name in ("last.safetensors", "best.safetensors"):
        assert same_weights(tmp_path / "killed", tmp_path / "whole", name)
    assert (tmp_path / "killed" / "confusion_matrix.csv").read_text() == (
        tmp_path / "whole" / "confusion_matrix.csv"
    ).read_text()
