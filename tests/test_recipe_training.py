"""Trainings by recipes as commands: their files, how they end, and that they resume with equal results."""

import csv
import doctest
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from forked import Command
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hrvit_lab import create_model, load_checkpoint
from hrvit_lab.evaluate.__main__ import main as evaluate
from hrvit_lab.train import engine_command
from hrvit_lab.train.__main__ import main
from hrvit_lab.train.data.limited import Limited
from hrvit_lab.train.data.samples import open_samples
from hrvit_lab.train.recipe import recipe_of_run
from hrvit_lab.train.run import last_folder, numbered_folder
from hrvit_lab.train.state import checkpoints
from hrvit_lab.train.training import Progress

ROOT = Path(__file__).resolve().parent.parent
TINY = """
depths: [[1], [1, 1]]
widths: [8, 16]
stem_width: 8
head_dims: 4
window_sizes: 2
mlp_ratios: 2
head_widths: 2
head_features: 8
"""
SETTINGS = {
    "data.name": "digits", "data.resolution_px": 16, "data.train_limit": 352, "model.name": "tiny.yaml",
    "data.batch_size_per_process": 16, "data.global_batch_size": 16, "schedule.epochs": 1, "run.threads": 1,
    "evaluation.resolution_px": 16, "run.workers": 0, "precision.dtype": "bfloat16", "regularisation.ema": "true",
    "regularisation.ema_decay": 0.9, "augmentation.auto_augment": "rand-m9-mstd0.5-inc1",
    "augmentation.mixup_alpha": 0.8, "regularisation.drop_path": 0.2,
}  # fmt: skip
STEPS = 352 // 16


def command(*more: str, **settings: Any) -> list[str]:
    changed = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    return ["fashion_mnist", "--set", ",".join(f"{key}={value}" for key, value in changed.items()), *more]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted training that loads its data in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(command("--out", "whole", "--track", "tensorboard")) == 0
    return folder / "whole"


def same_weights(one: Path, other: Path, name: str = "last.safetensors") -> bool:
    ours, theirs = load_file(one / name), load_file(other / name)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def start(*arguments: str) -> Command:
    return Command("hrvit_lab.train", *arguments)


def in_two_processes(*arguments: str) -> "subprocess.Popen[str]":
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "hrvit_lab.train"]
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip


def wait_for(path: Path, process: "subprocess.Popen[str] | Command") -> None:
    until = time.monotonic() + 250
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)


# -- what is left ----------------------------------------------------------------------------------------------------


def test_a_training_writes_all_documented_files(undisturbed: Path) -> None:
    result = json.loads((undisturbed / "result.json").read_text())
    with open(undisturbed / "summary.csv", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert result["status"] == "complete" and result["step"] == STEPS
    assert float(row["eval_top1"]) == result["last"]["eval_top1"] == result["best"]["eval_top1"]
    assert {"epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "eval_top1_plain", "lr"} <= row.keys()
    assert int(row["eval_n_seen"]) == 360
    with open(undisturbed / "confusion_matrix.csv", encoding="utf-8") as file:
        [head, *rows] = csv.reader(file)
    assert head == ["truth", *"0123456789"]
    matrix = torch.tensor([[int(cell) for cell in cells[1:]] for cells in rows])
    assert matrix.sum() == 360
    assert abs(100 * float(matrix.diagonal().sum()) / 360 - float(row["eval_top1"])) < 1e-9
    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == STEPS and {"loss", "lr", "images_per_s"} <= lines[-1].keys()
    resident = psutil.Process().memory_info().rss / 2**20
    assert all(resident / 4 < line["memory_mib"] < 4 * resident for line in lines)
    drawn = (undisturbed / "curves.svg").read_text()
    assert f"best {result['best']['eval_top1']:.2f} at epoch 1" in drawn and "360 validation images" in drawn
    events = EventAccumulator(str(undisturbed / "tensorboard")).Reload()
    [shown] = events.Scalars("eval_top1")
    assert (shown.step, shown.value) == (STEPS, pytest.approx(result["last"]["eval_top1"]))
    assert [event.step for event in events.Scalars("loss")] == [line["step"] for line in lines]


def test_a_model_of_timm_is_trained_and_its_file_scored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal, with a progress bar
    monkeypatch.setenv("COLUMNS", "80")  # the bar has all figures also in a narrow one
    settings = {"model__name": "timm:test_resnet", "data__train_limit": 32, "regularisation__ema": "false"}
    assert main(command("--out", "resnet", **settings)) == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert re.search(r"2/2 [\d,]+ img/s \S+ left loss [\d.]+, lr [\de.-]+, [\d,]+ MiB", shown), shown
    result = json.loads((folder / "resnet" / "result.json").read_text())
    assert evaluate(["resnet", "--set", "run.workers=0"]) == 0
    scores = json.loads((folder / "resnet" / "evaluation" / "scores.json").read_text())
    assert (scores["n_seen"], scores["top1"]) == (360, result["best"]["eval_top1"])


def test_the_weights_have_the_same_score_by_command_and_in_python(
    undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, and by hand in Python."""
    assert evaluate([str(undisturbed), "--set", "run.workers=0"]) == 0
    scores = json.loads((undisturbed / "evaluation" / "scores.json").read_text())
    result = json.loads((undisturbed / "result.json").read_text())
    assert scores["n_seen"] == 360
    assert scores["top1"] == result["best"]["eval_top1"]
    assert abs(scores["loss"] - result["best"]["eval_loss"]) < 1e-6
    with open(undisturbed / "evaluation" / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["truth"] == row["prediction"] for row in rows)
    assert len(rows) == 360 and 100 * right / 360 == scores["top1"]
    assert f"top1          {scores['top1']:.2f} %" in capsys.readouterr().out

    recipe = recipe_of_run(undisturbed)
    model = create_model(str(undisturbed / "config.yaml")).eval()
    load_checkpoint(model, undisturbed / "best.safetensors")
    samples = open_samples("digits", "val")
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (recipe.data.mean, recipe.data.std))
    images, truths = [], []
    for index in range(len(samples)):
        image, truth = samples[index]
        resized = image.convert("RGB").resize((16, 16), 2)  # bilinear
        images.append((torch.from_numpy(np.array(resized)).float().div(255).permute(2, 0, 1) - mean) / std)
        truths.append(truth)
    with torch.no_grad():
        correct = int((model(torch.stack(images)).argmax(1) == torch.tensor(truths)).sum())
    assert 100 * correct / 360 == scores["top1"]


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
def test_a_training_killed_within_an_epoch_resumes_with_equal_bits(folder: Path, undisturbed: Path) -> None:
    """With augmentation, mixup, an average of weights, stochastic depth and bfloat16; killed with two workers."""
    process = Command(
        "hrvit_lab.train", *command("--out", "killed", run__workers=2, run__save_every_s=0.001, run__keep_last=3)
    )
    wait_for(folder / "killed" / "checkpoints" / "step-00000005.pt", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL
    [*_, last] = checkpoints(folder / "killed" / "checkpoints")
    assert 5 <= int(last.stem.removeprefix("step-")) < STEPS
    assert main(command("--out", "killed", "--resume", "auto")) == 0
    assert same_weights(folder / "killed", undisturbed)
    assert same_weights(folder / "killed", undisturbed, "best.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_killed_ten_times_has_equal_results(folder: Path, undisturbed: Path, workers: int) -> None:
    import random

    moments, landed = random.Random(workers), 0
    for kill in range(10):
        process = Command(
            "hrvit_lab.train",
            *command(
                "--out", "killed", "--resume", "auto",
                run__workers=workers, run__save_every_s=0.001, run__keep_last=99,
            ),
        )  # fmt: skip
        wait_for(folder / "killed" / "checkpoints" / f"step-{2 * kill + 1:08d}.pt", process)
        time.sleep(moments.uniform(0, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=100)
        landed += process.returncode == -signal.SIGKILL
    assert landed >= 5, "most trainings had ended before they were killed"
    assert main(command("--out", "killed", "--resume", "auto")) == 0
    assert same_weights(folder / "killed", undisturbed)


@pytest.mark.slow
def test_two_killed_processes_resume_with_equal_bits(folder: Path) -> None:
    def train(out: str) -> "subprocess.Popen[str]":
        return in_two_processes(
            *command(
                "--out",
                out,
                "--resume",
                "auto",
                run__save_every_s=0.001,
                precision__sync_batch_norm="true",
                data__batch_size_per_process=8,
            )
        )

    whole = train("whole")
    _, errors = whole.communicate(timeout=250)
    assert whole.returncode == 0, errors[-2000:]
    process = train("killed")
    wait_for(folder / "killed" / "checkpoints" / "step-00000007.pt", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=100)
    again = train("killed")
    _, errors = again.communicate(timeout=250)
    assert again.returncode == 0, errors[-2000:]
    assert same_weights(folder / "killed", folder / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_training_told_to_end_saves_and_says_how_to_resume(folder: Path, undisturbed: Path, number: int) -> None:
    process = Command(
        "hrvit_lab.train", *command("--out", "told", run__workers=2, run__save_every_s=0.001, run__keep_last=99)
    )
    wait_for(folder / "told" / "checkpoints" / "step-00000003.pt", process)
    os.killpg(process.pid, number)  # like a terminal or a scheduler, which also signal the workers of the loader
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + number, errors
    assert errors.count("\n") == 1 and "--out told --resume auto" in errors and "Traceback" not in errors
    assert json.loads((folder / "told" / "result.json").read_text())["status"] == "interrupted"
    assert main(command("--out", "told", "--resume", "auto")) == 0
    assert same_weights(folder / "told", undisturbed)


def test_a_finished_training_is_not_trained_again(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(undisturbed.parent)
    before = (undisturbed / "last.safetensors").read_bytes()
    assert main(command("--out", "whole", "--resume", "auto")) == 0
    assert (undisturbed / "last.safetensors").read_bytes() == before


def test_a_resumed_training_names_packages_of_other_versions(
    undisturbed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(undisturbed, folder / "whole")
    now = engine_command.versions()
    monkeypatch.setattr(engine_command, "versions", lambda: {**now, "timm": "99.9", "new": "1.0"})
    assert main(command("--out", "whole", "--resume", "auto")) == 0
    [warning] = capsys.readouterr().err.splitlines()
    assert f"written with timm {now['timm']} (now 99.9), no new (now 1.0); the results can differ" in warning
    assert doctest.testmod(engine_command).attempted > 0 and doctest.testmod(engine_command).failed == 0


def test_a_limited_data_set_is_reproducible() -> None:
    whole = open_samples("digits", "train")
    some, again, more = (Limited(whole, number) for number in (100, 100, 300))
    assert some.indices == again.indices == sorted({*some.indices}) and len(some) == 100
    assert {*some.indices} < {*more.indices}
    assert [some.name(index) for index in range(100)] == [whole.name(index) for index in some.indices]
    assert [some[index][1] for index in range(100)] == [whole[index][1] for index in some.indices]
    assert len({some[index][1] for index in range(100)}) == 10


def test_a_training_without_a_given_folder_is_resumed(folder: Path) -> None:
    """In the newest folder of its name, also if the name has characters that are invalid in folders."""
    assert last_folder(folder / "runs", "../a b:c") == folder / "runs" / "a-b-c"
    made = [numbered_folder(folder / "runs", "../a b:c") for _ in range(11)]
    numbered_folder(folder / "runs", "a-b-c-d")
    assert [path.name for path in made] == ["a-b-c", *(f"a-b-c-{number}" for number in range(2, 12))]
    assert last_folder(folder / "runs", "../a b:c") == made[-1]


def test_the_best_row_is_the_first_with_the_highest_score() -> None:
    rows = [{"eval_top1": value} for value in (1.0, float("nan"), 3.0, 3.0, 2.0)]
    assert Progress(rows).best("top1") is rows[2]
    assert Progress(rows[1:2]).best("top1") is rows[1] and Progress().best("top1") is None


# -- requests that cannot be met -------------------------------------------------------------------------------------


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], *words: str) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "Traceback" not in errors
    for word in words:
        assert word in errors, errors


def test_another_training_is_never_overwritten(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(undisturbed.parent)
    before = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()}
    refused(command("--out", "whole"), capsys, "already contains a training", "--resume auto")
    refused(
        command("--out", "whole", "--resume", "auto", optimiser__learning_rate=0.5), capsys,
        "optimiser.learning_rate = 0.5", "was trained with 0.004",
    )  # fmt: skip
    refused(command("--out", "whole", "--resume", "auto", run__seed=1), capsys, "run.seed = 1")
    assert {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()} == before


def test_unusable_checkpoints_are_reported(folder: Path, capsys: pytest.CaptureFixture[str], undisturbed: Path) -> None:
    torch.save({"model": {}}, folder / "foreign.pt")
    (folder / "text.pt").write_text("not a checkpoint")
    whole = checkpoints(undisturbed / "checkpoints")[-1].read_bytes()
    (folder / "half.pt").write_bytes(whole[: len(whole) // 2])
    for name, reason in (
        ("foreign.pt", "not a training state"), ("text.pt", "cannot be read"), ("half.pt", "cannot be read"),
        ("none.pt", "No such file"), (".", "not a file"),
    ):  # fmt: skip
        refused(command("--out", "new", "--resume", name), capsys, reason)
    assert not (folder / "new" / "result.json").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"augmentation.auto_augment": "rando"}, ("auto_augment 'rando'",)),
        ({"optimiser.name": "adamx"}, ("optimiser 'adamx'",)),
        ({"optimiser.head_rat_multiple": 2}, ("head_rat_multiple", "head_rate_multiple")),
        ({"data.global_batch_size": 63, "data.batch_size_per_process": 63}, ("63", "pairs")),
        ({"run.threads": 100000}, ("threads", "100000")),
        ({"model.initial_weights": "none.pth"}, ("none.pth",)),
        ({"data.name": "digitz"}, ("digitz", "digits")),
        ({"data.name": "textures"}, ("'textures'", "segmentation", "classification")),
        ({"data.train_limit": 1438}, ("train_limit = 1438", "1437")),
    ],
)
def test_an_invalid_request_is_reported_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], words: tuple[str, ...]
) -> None:
    text = ",".join(f"{key}={value}" for key, value in (SETTINGS | settings).items())
    refused(["fashion_mnist", "--set", text, "--out", "new"], capsys, *words)


def test_a_checkpoint_without_a_recipe_is_refused(
    folder: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "alone.safetensors").write_bytes((undisturbed / "best.safetensors").read_bytes())
    for arguments, word in (
        (["alone.safetensors"], "no recipe.yaml next to it"), (["nowhere"], "does not exist"),
        (["."], "contains no best"),
        (["alone.safetensors", "--recipe", "proxy"], "short training"),
    ):  # fmt: skip
        capsys.readouterr()
        assert evaluate(arguments) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1 and word in errors


def test_a_training_that_diverges_ends_with_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {
        "optimiser.learning_rate": 100.0, "optimiser.clip_gradients": "null", "schedule.warmup_epochs": 0,
        "optimiser.name": "sgd", "optimiser.betas": "null", "optimiser.epsilon": "null", "optimiser.momentum": 0.9,
    }  # fmt: skip
    assert main(command("--out", "new", **changes)) == 1
    errors = capsys.readouterr().err
    assert "not finite" in errors and errors.count("\n") == 1
    assert json.loads((folder / "new" / "result.json").read_text())["status"].startswith("diverged")


# -- broken images and full disks ------------------------------------------------------------------------------------


def draw(folder: Path) -> Path:
    """An image folder: two classes, 24 images to train on and 6 to validate."""
    chance = np.random.default_rng(0)
    for split, number in (("train", 12), ("val", 3)):
        for label in ("bright", "dark"):
            (folder / "pictures" / split / label).mkdir(parents=True)
            for index in range(number):
                pixels = chance.integers(0, 128, (16, 16, 3)) + (127 if label == "bright" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "pictures" / split / label / f"{index}.jpg")
    return folder / "pictures"


@pytest.fixture
def pictures(folder: Path) -> Path:
    return draw(folder)


@pytest.fixture(scope="module")
def undisturbed_on_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted training on the same images."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "tiny.yaml").write_text(TINY)
    draw(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(on_pictures("--out", "whole")) == 0
    return folder / "whole"


def on_pictures(*more: str, **settings: Any) -> list[str]:
    changes = {"data__name": "folder", "data__train_limit": "null", "schedule__epochs": 3}
    batch = {"data__batch_size_per_process": 4, "data__global_batch_size": 4}
    return command("--data", "pictures", *more, **(changes | batch | settings))


@pytest.mark.parametrize(
    ("split", "workers"), [pytest.param("train", 0, marks=pytest.mark.slow), ("train", 2), ("val", 0)]
)
def test_an_error_names_a_broken_image_and_results_are_kept(
    pictures: Path, undisturbed_on_pictures: Path, capsys: pytest.CaptureFixture[str], split: str, workers: int
) -> None:
    """It is found in the middle of an epoch or of an evaluation; after it is replaced, the training resumes."""
    path = pictures / split / "dark" / "1.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(on_pictures("--out", "broken", run__workers=workers), capsys, str(path.relative_to(pictures)))
    [*_, last] = checkpoints(pictures.parent / "broken" / "checkpoints")
    path.write_bytes(content)
    assert main(on_pictures("--out", "broken", "--resume", "auto")) == 0
    assert same_weights(pictures.parent / "broken", undisturbed_on_pictures)
    assert f"Resuming after step {int(last.stem[5:])}" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_reported_and_the_training_resumes_later(
    folder: Path, capsys: pytest.CaptureFixture[str], pictures: Path, undisturbed_on_pictures: Path
) -> None:
    full = folder / "full" / "checkpoints" / "step-00000012.pt.tmp"
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    refused(on_pictures("--out", "full"), capsys, "step-00000012.pt", "No space left", "free some space")
    assert [path.name for path in checkpoints(full.parent)] == ["step-00000006.pt"]
    full.unlink(missing_ok=True)
    assert main(on_pictures("--out", "full", "--resume", "auto")) == 0
    assert same_weights(folder / "full", undisturbed_on_pictures)


def test_an_error_about_a_missing_data_set_says_which_files_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(command("--data", "nowhere", data__name="folder"), capsys, "nowhere is not a folder")
    refused(command(data__name="folder"), capsys, "root")
