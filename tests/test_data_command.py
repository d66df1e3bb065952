"""``hrvit-lab data``: its counts compared with naive loops, its messages about broken files, and its exit code 1."""

import struct
import urllib.error
from collections import Counter
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torchvision
from PIL import Image

from hrvit_lab.data.__main__ import main
from hrvit_lab.data.command import shown
from hrvit_lab.errors import ConfigError
from hrvit_lab.train import __main__ as train
from hrvit_lab.train.data.check import check_samples
from hrvit_lab.train.data.layout import recognise
from hrvit_lab.train.data.samples import open_samples
from hrvit_lab.train.datasets import DATASETS


def write_pairs(root: Path, number: int = 70) -> Path:
    """Images of three sizes with masks of random labels 0 … 2 and 255."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for i in range(number if split == "train" else 3):
            size = (4 + i % 3, 5)
            mask = random.choice(np.array([0, 1, 2, 255], np.uint8), size, p=(0.5, 0.2, 0.2, 0.1))
            Image.fromarray(mask).save(root / "masks" / split / f"{i:03}.png")
            image = Image.fromarray(random.integers(0, 256, (*size, 3)).astype(np.uint8))
            image.save(root / "images" / split / f"{i:03}.png")
    (root / "classes.txt").write_text("sky\ntree\nwater\n")
    return root


def write_idx(root: Path) -> None:
    root.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        for name, shape in (("images-idx3", (10, 28, 28)), ("labels-idx1", (10,))):
            header = struct.pack(f">{1 + len(shape)}I", 0x0800 | len(shape), *shape)
            body = np.arange(10, dtype=np.uint8).repeat(np.prod(shape) // 10)
            (root / f"{prefix}-{name}-ubyte").write_bytes(header + body.tobytes())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    output, errors = capsys.readouterr()
    return code, output, errors


@pytest.mark.parametrize("columns", [80, 120])
def test_list_names_every_data_set_and_the_folder_of_its_files(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, output, errors = run(capsys, "list")
    assert (code, errors) == (0, "") and "…" not in output
    assert max(map(len, output.splitlines())) <= columns
    words = output.split()
    for key, about in DATASETS.items():
        assert key in words
        assert all(word in words for word in f"{about.source} {about.files}".replace(")", "").split())


@pytest.mark.parametrize("workers", [1, 2])
def test_counts_equal_those_of_a_naive_loop(tmp_path: Path, workers: int) -> None:
    """Also with several processes, and with broken samples, which are not counted."""
    root = write_pairs(tmp_path)
    (root / "images/train/040.png").write_bytes(b"broken")
    Image.fromarray(np.full((4, 5), 9, np.uint8)).save(root / "masks/train/033.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "masks/train/064.png")
    seen: list[int] = []
    report = check_samples(open_samples("mask_folder", "train", root), workers=workers, on_progress=seen.append)
    pixels: Counter[int] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    for i in set(range(70)) - {33, 40, 64}:
        mask = Image.open(root / f"masks/train/{i:03}.png")
        pixels.update(np.asarray(mask).ravel().tolist())
        sizes[mask.size] += 1
    assert {label: int(n) for label, n in enumerate(report.counts) if n} == dict(pixels)
    assert report.ignored() == pixels[255] and report.sizes == dict(sizes)
    assert (report.samples, seen) == (70, [32, 64, 70])
    assert [("033.png" in text, "040.png" in text, "064.png" in text) for text in report.broken] == [
        (True, False, False), (False, True, False), (False, False, True),
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [80, 120])
def test_check_of_a_good_folder(
    tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(write_pairs(tmp_path))
    code, output, errors = run(capsys, "check", ".")
    assert (code, errors) == (0, "")
    assert max(map(len, output.splitlines())) <= columns
    lines = [line.split() for line in output.splitlines()]
    assert ["train", "70", "0", "5×4", "5×6", "images/train/000.png"] in lines
    assert ["val", "3", "0", "5×4", "5×6", "images/val/000.png"] in lines
    masks = [np.asarray(Image.open(f"masks/train/{i:03}.png")) for i in range(70)]
    labels = np.concatenate([mask.ravel() for mask in masks])
    share = 100 * (labels == 1).sum() / (labels != 255).sum()
    assert next(line for line in lines if line[1:2] == ["tree"])[2] == f"{share:.2f}"
    assert next(line for line in lines if line[:1] == ["255"])[-2] == f"{100 * (labels == 255).mean():.2f}"
    assert output.endswith("0 of 73 samples are broken\n")


def test_check_names_broken_files_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_pairs(tmp_path)
    for i in range(0, 50, 2):
        (root / f"images/train/{i:03}.png").write_bytes(b"broken")
    code, output, errors = run(capsys, "check", "mask_folder", "--root", str(root))
    assert (code, errors) == (1, "")
    named = [line for line in output.splitlines() if "cannot be decoded" in line]
    assert len(named) == 20 and all(f"{2 * i:03}.png" in line for i, line in enumerate(named))
    assert output.endswith("… and 5 more broken samples\n25 of 73 samples are broken\n")


def test_check_of_classes_by_image(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = run(capsys, "check", "digits")
    rows = [line.split() for line in output.splitlines()]
    counts = np.array([[int(n) for n in row[2:]] for row in rows if len(row) == 4 and row[0] == row[1]])
    assert code == 0 and counts.sum(axis=0).tolist() == [1437, 360] and len(counts) == 10


def test_with_many_classes_only_the_most_and_least_frequent_are_shown() -> None:
    assert shown(np.arange(50)) == list(range(50))
    counts = np.random.default_rng(0).permutation(150)
    assert [counts[label] for label in shown(counts)] == [*range(149, 139, -1), *range(9, -1, -1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere"], "nowhere is neither a folder nor a name in hrvit-lab data list"),
        (["check", "."], "does not have the layout of a known data set"),
        (["check", "ade20k"], "data set 'ade20k' needs ROOT/images/training"),
        (["check", "ade20k", "--download", "--root", "."], "'ade20k' cannot be downloaded; provide ROOT/images"),
        (["check", "cifar10", "--download"], "data set 'cifar10': no folder to download it to"),
        (["check", "digits", "--workers", "0"], "workers: '0' is invalid"),
        (["chck"], "unknown command 'chck'; did you mean 'check'?"),
        (["check"], "the following arguments are required: DATA"),
    ],
)
def test_a_wrong_request_is_reported_in_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, output, errors = run(capsys, *arguments)
    assert (code, output) == (2, "") and message in errors and len(errors.splitlines()) == 1, errors


LAYOUTS = {
    "cityscapes": ("leftImg8bit/train", "gtFine/train"),
    "ade20k": ("images/training", "annotations/training"),
    "mask_folder": ("images/train", "masks/train", "classes.txt"),
    "cifar10": ("cifar-10-batches-py",),
    "cifar100": ("cifar-100-python",),
    "oxford_pets_masks": ("oxford-iiit-pet",),
    "folder": ("train/a", "val/a"),
    "fashion_mnist": ("train-images-idx3-ubyte",),
}


@pytest.mark.parametrize("key", LAYOUTS)
def test_the_data_set_is_recognized_by_its_layout(tmp_path: Path, key: str) -> None:
    for name in LAYOUTS[key]:
        path = tmp_path / name
        if name.endswith(("txt", "ubyte")):
            path.touch()
        else:
            path.mkdir(parents=True)
    assert recognise(tmp_path) == key
    with pytest.raises(ConfigError, match="layout of a known data set"):
        recognise(tmp_path.parent)


# -- download --------------------------------------------------------------------------------------------------


def test_download_fetches_and_then_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchvision puts Fashion-MNIST into ROOT/FashionMNIST/raw; here it writes ten images of ten classes."""

    def fetch(root: Path, *, download: bool) -> None:
        assert download
        write_idx(root / "FashionMNIST" / "raw")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fetch)
    code, output, errors = run(capsys, "check", "fashion_mnist", "--root", str(tmp_path), "--download")
    assert (code, errors) == (0, "") and output.endswith("0 of 20 samples are broken\n")
    assert run(capsys, "check", str(tmp_path))[0] == 0


def test_a_missing_network_connection_is_reported_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(*_: object, **__: object) -> NoReturn:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fetch)
    said = "data set 'cifar10' cannot be downloaded (<urlopen error Name or service not known>); check the network"
    for command in (lambda: main(["check", "cifar10", "--root", str(tmp_path), "--download"]),
                    lambda: train.main(["cifar10", "--data", str(tmp_path), "--download"])):  # fmt: skip
        assert command() == 2
        errors = capsys.readouterr().err
        assert said in errors and "ROOT/cifar-10-batches-py" in errors and len(errors.splitlines()) == 1


def test_skipped_files_are_said_by_the_check_and_at_the_start_of_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
    (tmp_path / "train" / "a" / "1.svg").write_text("<svg/>")
    code, output, _ = run(capsys, "check", "folder", "--root", str(tmp_path))
    assert code == 0 and "Image folder: skipped 1: 1 .svg\n" in output
    settings = (
        "data.name=folder,data.resolution_px=16,evaluation.resolution_px=16,data.global_batch_size=2,"
        "data.batch_size_per_process=2,data.train_limit=2,model.name=timm:test_resnet,run.workers=0,schedule.epochs=1,"
        "schedule.warmup_epochs=0,regularisation.ema=false"
    )
    out = str(tmp_path / "run")
    data = ["--data", str(tmp_path), "--device", "cpu"]
    assert train.main(["imagenet_hrvit", *data, "--set", settings, "--out", out]) == 0
    assert "Image folder: skipped 1: 1 .svg\n" in capsys.readouterr().out
