"""Broken inputs of trainings and evaluations: each is reported in one sentence with its place, and earlier results are
kept."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_recipe_training import TINY, draw, on_pictures
from test_segmentation_training import make_pairs, settings

from hrvit_lab.evaluate.__main__ import main as evaluate
from hrvit_lab.train import assemble
from hrvit_lab.train.__main__ import main as train

Arguments = list[str]
DARK = Path("pictures/train/dark")
PAIRS = Path("pairs")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, image-mask pairs, a network, and the folder of a finished training, ``done``."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "tiny.yaml").write_text(TINY + "segformer_width: 8\n")
    draw(folder)
    make_pairs(folder / "pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train(on_pictures("--out", "done", schedule__epochs=1)) == 0
    return folder


def cut(path: Path) -> None:
    """Keep the first half of a file, as after a broken transfer."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def checkpoint() -> Path:
    return max(Path("done/checkpoints").glob("step-*.pt"))


def recipe(text: str) -> Path:
    Path("mine.yaml").write_text(text)
    return Path("mine.yaml")


VALID = "title: mine\ntask: classification\ndata: {name: digits, resolution_px: 32}\nmodel: {name: hrvit_nano}\n"
OPTIMISER = "optimiser: {learning_rate: 0.001}\n"
SCHEDULE = "schedule: {epochs: 1}\n"


def by_file(text: str) -> Arguments:
    return [str(recipe(text)), "--out", "new"]


def classify(break_it: Callable[[], Any], *more: str, **changes: Any) -> Arguments:
    break_it()
    return on_pictures(*(more or ("--out", "new")), **({"schedule__epochs": 1} | changes))


def segment(break_it: Callable[[], Any]) -> Arguments:
    break_it()
    changes = {"data.name": "mask_folder", "model.head": "segformer", "evaluation.base_size_px": "null"}
    return ["ade20k_segformer", "--data", "pairs", "--out", "new", "--set", settings(changes), "--device", "cpu"]


def masks(split: str = "train") -> list[Path]:
    return sorted((PAIRS / "masks" / split).rglob("*.png"))


def relabel() -> None:
    mask = np.array(Image.open(masks()[0]))
    mask[0, 0] = 77
    Image.fromarray(mask).save(masks()[0])


def file_for_folder() -> None:
    shutil.rmtree("pictures")
    Path("pictures").touch()


def full_disk() -> None:
    place = Path("new/checkpoints/step-00000006.pt.tmp")
    place.parent.mkdir(parents=True)
    place.symlink_to("/dev/full")


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harmed"),))


BROKEN: dict[str, tuple[Callable[[], Arguments], str]] = {
    # data
    "no folder": (lambda: classify(lambda: shutil.rmtree("pictures")), "pictures is not a folder"),
    "a file in place of the folder": (lambda: classify(file_for_folder), "pictures is not a folder"),
    "no validation images": (lambda: classify(lambda: shutil.rmtree("pictures/val")), "val"),
    "a class without validation images": (lambda: classify(lambda: shutil.rmtree("pictures/val/dark")), "dark"),
    "a truncated JPEG in an epoch": (lambda: classify(lambda: cut(DARK / "1.jpg")), "train/dark/1.jpg"),
    "an empty JPEG in an epoch": (lambda: classify(lambda: (DARK / "2.jpg").write_bytes(b"")), "train/dark/2.jpg"),
    "text in place of a JPEG": (lambda: classify(lambda: (DARK / "3.jpg").write_text("no")), "train/dark/3.jpg"),
    "a truncated JPEG in an evaluation": (lambda: classify(lambda: cut(Path("pictures/val/dark/1.jpg"))), "dark/1.jpg"),
    "a mask of another size": (
        lambda: segment(lambda: Image.open(masks()[0]).resize((9, 9), 0).save(masks()[0])), "9",
    ),
    "a class id out of range": (lambda: segment(relabel), "77"),
    "a truncated mask": (lambda: segment(lambda: cut(masks()[1])), "masks/train"),
    "a missing mask": (lambda: segment(lambda: masks()[0].unlink()), "no mask"),
    "no list of classes": (lambda: segment(lambda: (PAIRS / "classes.txt").unlink()), "classes.txt"),
    "a data set of another task": (lambda: ["cifar10", "--set", "data.name=textures", "--out", "new"], "segmentation"),
    # recipes and settings
    "a recipe with an unknown key": (lambda: by_file(VALID + OPTIMISER + SCHEDULE + "modle: {}\n"), "'modle'"),
    "a recipe without a section": (lambda: by_file(VALID + SCHEDULE), "'optimiser' is missing"),
    "a recipe with a number in words": (
        lambda: by_file(VALID + OPTIMISER + "schedule: {epochs: many}\n"), "schedule.epochs = 'many'",
    ),
    "a recipe with a key twice": (lambda: by_file(VALID + OPTIMISER + SCHEDULE + SCHEDULE), "duplicate key"),
    "a recipe that is no YAML": (lambda: by_file("title: [\n" + OPTIMISER), "error: "),
    "a missing recipe": (lambda: ["none.yaml", "--out", "new"], "none.yaml"),
    "an unknown setting": (lambda: classify(lambda: None, optimiser__learning_rat=1), "learning_rate"),
    "a batch that cannot be divided": (lambda: classify(lambda: None, data__batch_size_per_process=3), "multiple"),
    "passes of one image": (
        lambda: classify(lambda: None, data__batch_size_per_process=1, data__resolution_px=8),
        "single value per channel at 8×8",
    ),
    "an invalid network": (
        lambda: classify(lambda: Path("tiny.yaml").write_text(TINY.replace("[8, 16]", "[8, 15]"))), "15",
    ),
    "an unknown network": (lambda: classify(lambda: None, model__name="hrvit_nono"), "'hrvit_nano'"),
    # checkpoints
    "a truncated state": (lambda: classify(lambda: cut(checkpoint()), "--out", "new", "--resume", "STATE"), "STATE"),
    "a state of another program": (
        lambda: classify(lambda: torch.save({"epoch": 3}, checkpoint()), "--out", "new", "--resume", "STATE"),
        "not a training state of hrvit_lab; to start from its weights, use --set model.initial_weights=FILE",
    ),
    "a state that runs code": (
        lambda: classify(lambda: torch.save(Attack(), checkpoint()), "--out", "new", "--resume", "STATE"), "STATE",
    ),
    "a state of other settings": (
        lambda: classify(lambda: None, "--out", "done", "--resume", "auto", optimiser__learning_rate=0.5),
        "was trained with 0.004",
    ),
    "a folder that holds a training": (lambda: classify(lambda: None, "--out", "done"), "already contains a training"),
    "a state of another folder for a folder that holds a training": (
        lambda: classify(lambda: shutil.copytree("done", "other/done"), "--out", "done", "--resume", "other/STATE"),
        "done already contains a training",
    ),
    "a state outside of a folder of a training": (
        lambda: classify(lambda: shutil.copy(checkpoint(), "copied.pt"), "--resume", "copied.pt"), "--out",
    ),
    "truncated initial weights": (
        lambda: classify(lambda: cut(Path("done/last.safetensors")), model__initial_weights="done/last.safetensors"),
        "done/last.safetensors",
    ),
    "initial weights of another network": (
        lambda: classify(lambda: save_file({"fc": torch.ones(2)}, "fc.safetensors"),
                         model__initial_weights="fc.safetensors"),
        "fc.safetensors",
    ),
    "a full disk": (lambda: classify(full_disk), "No space left"),
    "a file in place of the results": (lambda: classify(lambda: Path("new").touch()), "new"),
    # evaluations
    "truncated weights": (lambda: score(lambda: cut(Path("done/best.safetensors")), "done"), "best.safetensors"),
    "a folder without weights": (lambda: score(lambda: None, "pictures"), "pictures contains no best.safetensors"),
    "a file in place of the scores": (
        lambda: score(lambda: Path("new").touch(), "done", "--out", "new"), "new: File exists; choose another folder",
    ),
    "weights of other classes": (lambda: score(three_classes, "done"), "num_classes"),
}  # fmt: skip


def score(break_it: Callable[[], Any], *arguments: str) -> Arguments:
    break_it()
    return ["evaluate", *arguments, "--data", "pictures", "--set", "run.workers=0"]


def three_classes() -> None:
    for split in ("train", "val"):
        shutil.copytree(f"pictures/{split}/dark", f"pictures/{split}/grey")


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_input_is_reported_in_one_sentence_and_nothing_is_lost(
    what: str, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "full disk" in what and not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    here = tmp_path / "here"
    shutil.copytree(origin, here)
    monkeypatch.chdir(here)
    prepare, said = BROKEN[what]
    arguments = prepare()
    state = str(checkpoint())
    arguments = [argument.replace("STATE", state) for argument in arguments]
    before = digests(Path("done"))
    capsys.readouterr()
    code = evaluate(arguments[1:]) if arguments[0] == "evaluate" else train(arguments)
    errors = capsys.readouterr().err
    assert code == 2, errors
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "Traceback" not in errors, errors
    assert said.replace("STATE", state) in errors, errors
    assert digests(Path("done")) == before
    assert not Path("harmed").exists()
    if "in an epoch" in what or "in an evaluation" in what:
        assert list(Path("new/checkpoints").glob("step-*.pt")), "the steps before it are kept"


def test_scores_are_printed_before_they_are_written(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(origin)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "scores.json.tmp").symlink_to("/dev/full" if Path("/dev/full").exists() else tmp_path)
    assert evaluate(score(lambda: None, "done", "--out", str(tmp_path / "new"))[1:]) == 2
    assert "top1 " in capsys.readouterr().out


def test_a_folder_for_scores_that_cannot_be_made_is_reported_before_the_evaluation(
    origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(origin)
    monkeypatch.setattr(assemble, "score", lambda *_: pytest.fail("evaluated"))
    (origin / "taken").touch()
    assert evaluate(score(lambda: None, "done", "--out", "taken")[1:]) == 2


def test_there_are_many_broken_inputs() -> None:
    assert len(BROKEN) >= 25
