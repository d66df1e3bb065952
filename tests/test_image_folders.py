"""Images of a folder: nested, linked, hidden, unreadable; and the report of skipped files."""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from hrvit_lab.config import ConfigError
from hrvit_lab.study.__main__ import main as study_main
from hrvit_lab.train.__main__ import main
from hrvit_lab.train.data import load_dataset
from hrvit_lab.train.data.image_folders import describe_skipped, files_digest, list_images

LEVELS = {"dark": 40, "light": 220}


def save(path: Path, level: int, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 32), level, np.uint8)).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, two splits, two images each."""
    for split in ("train", "val"):
        for name, level in LEVELS.items():
            for i in range(2):
                save(tmp_path / "images" / split / name / f"{i}.png", level)
    return tmp_path / "images"


def levels(root: Path) -> list[tuple[int, int]]:
    """(label, grey level) of the training images."""
    data = load_dataset("folder", resolution=32, root=root)
    return list(zip(data.train_labels.tolist(), data.train_images[:, 0, 0, 0].tolist(), strict=True))


# -- which files are read --------------------------------------------------------------------------


def test_nested_images_belong_to_the_class_of_the_top_folder(root: Path) -> None:
    save(root / "train" / "dark" / "a" / "b" / "deep.png", 50)
    save(root / "train" / "light" / "2020" / "one.png", 210)
    assert levels(root) == [(0, 40), (0, 40), (0, 50), (1, 220), (1, 220), (1, 210)]


def test_files_and_classes_equal_those_of_torchvisions_image_folder(root: Path) -> None:
    """For suffixes that both read."""
    for number, name in enumerate(["x/1.jpg", "x/y/2.JPEG", "3.webp", "z.tif", "x/ppm.ppm", "p.pgm", "b.bmp"]):
        save(root / "train" / "dark" / name, 10 * number)
    (root / "train" / "dark" / "notes.txt").touch()
    (root / "train" / "other").mkdir()
    os.symlink(root / "val" / "light", root / "train" / "light" / "linked")
    os.symlink(root / "val" / "dark", root / "train" / "other" / "linked", target_is_directory=True)
    (root / "val" / "other").mkdir()
    save(root / "val" / "other" / "o.png", 1)
    theirs = ImageFolder(str(root / "train"))
    ours = list_images(root)
    assert ours.class_names == tuple(theirs.classes)
    assert sorted((str(path), label) for path, label in ours.train) == sorted(theirs.samples)


@pytest.mark.parametrize("name", ["z.gif", "z.jfif", "z.avif", "z.jpe", "z.apng", "z.PNG", "z.pbm"])
def test_more_suffixes_are_read(root: Path, name: str) -> None:
    format_ = {".jfif": "JPEG", ".jpe": "JPEG", ".apng": "PNG", ".pbm": "PPM"}.get(Path(name).suffix)
    save(root / "train" / "light" / name, 255, format=format_)
    assert levels(root) == [(0, 40), (0, 40), (1, 220), (1, 220), (1, 255)]


def test_16_bit_images_give_the_same_data_set_as_their_8_bit_versions(root: Path, tmp_path: Path) -> None:
    """The same images in 16 bits give a data set of equal bytes."""
    deep = tmp_path / "deep"
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        picture = np.random.default_rng(number).integers(0, 256, (32, 32)).astype(np.uint8)
        Image.fromarray(picture).save(path)
        twin = deep / path.relative_to(root)
        twin.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint16) * 257).save(twin)
    shallow, twins = (load_dataset("folder", resolution=24, root=folder) for folder in (root, deep))
    assert torch.equal(shallow.train_images, twins.train_images)
    assert torch.equal(shallow.val_images, twins.val_images)
    assert shallow.mean == twins.mean


# -- what is skipped, and said ---------------------------------------------------------------------


def test_skipped_files_are_counted_by_reason(root: Path) -> None:
    dark = root / "train" / "dark"
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", ".hidden.png", "x/c.heic"):
        (dark / name).parent.mkdir(exist_ok=True)
        (dark / name).touch()
    save(root / "val" / "stray.png", 0)
    os.mkfifo(dark / "pipe.png")
    os.symlink(dark / "nowhere", dark / "gone.png")
    os.symlink(dark / "self.png", dark / "self.png")
    data = load_dataset("folder", resolution=32, root=root)
    assert data.skipped == {
        ".heic": 3,
        "broken link or special file": 3,
        ".txt": 1,
        "without suffix": 1,
        "hidden": 1,
        "outside of class folders": 1,
    }
    assert len(data.train_labels) == 4
    assert data.limited(2).skipped == data.skipped


def test_without_skipped_files_nothing_is_reported(root: Path) -> None:
    assert load_dataset("folder", resolution=32, root=root).skipped == {}
    assert load_dataset("digits", resolution=8).skipped == {}
    assert describe_skipped({}) == ""


def test_the_command_reports_skipped_files_once(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.heic", "b.heic", "notes.txt"):
        (root / "train" / "dark" / name).touch()
    command = ["hrvit_nano", "--data", "folder", "--root", str(root), "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count("Image folder: skipped 3: 2 .heic, 1 .txt") == 1
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["data"]["skipped"] == {".heic": 2, ".txt": 1}


@pytest.mark.parametrize("metrics", [["macs", "top1"], ["macs"]])
def test_a_study_reports_skipped_files_once(
    root: Path, tmp_path: Path, metrics: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """If the study trains; also with --dry-run, and without decoding an image."""
    (root / "train" / "dark" / "a.heic").write_bytes(b"?")
    (root / "train" / "dark" / "broken.png").write_bytes(b"?")
    study = {
        "title": "t", "question": "q", "base": {"preset": "hrvit_nano", "num_classes": 2}, "grid": {"branches": [1, 2]},
        "metrics": metrics, "data": {"name": "folder", "root": str(root), "resolution": 32},
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(study))
    assert study_main([str(tmp_path / "s.yaml"), "--dry-run", "--out", str(tmp_path / "out")]) == 0
    said = "Image folder: skipped 1: 1 .heic"
    assert capsys.readouterr().out.count(said) == ("top1" in metrics)


def test_many_reasons_are_shortened() -> None:
    said = describe_skipped({f".{i}": 1 for i in range(1000)})
    assert said.startswith("skipped 1,000: 1 .0, ") and said.endswith(", …") and len(said) < 100


def test_an_error_about_a_class_without_images_lists_its_files(root: Path) -> None:
    for name in ("train", "val"):
        (root / name / "green").mkdir()
        (root / name / "green" / "a.heic").touch()
    with pytest.raises(ConfigError, match=r"green has no image \(skipped 1: 1 \.heic\)"):
        list_images(root)


# -- links -----------------------------------------------------------------------------------------


def test_cyclic_links_are_followed_once(root: Path) -> None:
    dark = root / "train" / "dark"
    os.symlink(dark, dark / "again")
    os.symlink(root, dark / "up")
    found = list_images(root)
    inside = [path for path, label in found.train if label == 0]
    assert [path.name for path in inside if path.parent == dark] == ["0.png", "1.png"]
    assert len(inside) == 8, "by the link to the root all images are below this class, each once"
    assert found.skipped["link to a folder that is read already"] == 2


def test_many_links_to_the_same_folders_do_not_multiply(root: Path, tmp_path: Path) -> None:
    """Each of 40 folders has two links to the next: 2⁴⁰ paths, and 40 folders."""
    chain = [tmp_path / "chain" / str(i) for i in range(40)]
    for folder in chain:
        folder.mkdir(parents=True)
    for here, there in pairwise(chain):
        os.symlink(there, here / "a")
        os.symlink(there, here / "b")
    save(chain[-1] / "end.png", 99)
    os.symlink(chain[0], root / "train" / "dark" / "chain")
    assert levels(root) == [(0, 40), (0, 40), (0, 99), (1, 220), (1, 220)]


# -- folders that cannot be read -------------------------------------------------------------------


def test_an_error_names_an_unreadable_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, as which tests may run, can read everything, so the error is simulated."""
    locked = root / "train" / "dark" / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match=r"locked cannot be read \(Permission denied\); change its permissions"):
        list_images(root)
    with pytest.raises(ConfigError, match=r"locked cannot be read"):
        files_digest(root)


def test_the_home_folder_is_expanded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(load_dataset("folder", resolution=32, root="~/images").train_labels) == 4
    assert files_digest("~/images") == files_digest(root)
    for function in (files_digest, lambda path: load_dataset("folder", resolution=32, root=path)):
        with pytest.raises(ConfigError, match=r"the home folder in '~nobody-here/x' does not exist .* full path"):
            function("~nobody-here/x")


def test_the_digest_follows_links_and_ignores_hidden_files(root: Path, tmp_path: Path) -> None:
    """It changes only with files that are read."""
    far = save(tmp_path / "far" / "0.png", 1)
    os.symlink(far.parent, root / "train" / "dark" / "linked")
    before = files_digest(root)
    (root / "train" / ".DS_Store").touch()
    assert files_digest(root) == before
    os.utime(far, ns=(5, 5))
    assert files_digest(root) != before
