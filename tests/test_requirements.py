"""Requirements that this machine does not meet are reported at the start, also with --dry-run; folders are read only if
needed."""

import os
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from hrvit_lab import measure_latency
from hrvit_lab.devices import check_threads, find_device
from hrvit_lab.errors import ConfigError
from hrvit_lab.study import requirements
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.files import list_studies, load_study
from hrvit_lab.study.space import expand
from hrvit_lab.train.data.find import FINDERS, find_classes
from hrvit_lab.train.data.memory import LOADERS, load_dataset
from hrvit_lab.train.datasets import IN_MEMORY

STUDY = """
title: t
question: q
base: {preset: hrvit_nano}
grid: {fusion: [dense]}
metrics: [params, top1]
resolution: 64
"""
TOO_MANY = 4 * (os.cpu_count() or 1) + 1


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "trained.yaml"
    path.write_text(STUDY)
    return path


def write_images(root: Path, classes: int = 3, each: int = 2) -> Path:
    for split in ("train", "val"):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(each):
                Image.new("RGB", (8, 8), (label, number, 0)).save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.name=folder", "data: data set 'folder' needs a root"),
        ("data.name=folder,data.root=nowhere", "is not a folder"),
        ("data.root=.", "digits' is part of scikit-learn and has no root; remove root"),
        ("data.name=fashion_mnist,data.root=.", "is not in ."),
        ("train.train_limit=5", "train_limit 5 leaves classes without an image; use at least 10"),
        ("base.in_chans=1", "variant 'fusion=dense': in_chans = 1, but training images have 3 channels"),
        ("grid.in_chans=[3, 1]", "variant 'fusion=dense, in_chans=1': in_chans = 1"),
        ("base.num_classes=12", "base: num_classes = 12, but data set digits has 10 classes"),
        ("grid.num_classes=[10, 11]", "num_classes: num_classes = 11, but data set digits has 10 classes"),
        (f"train.threads={min(TOO_MANY, 1024)}", f"for this machine's {os.cpu_count()} cores"),
        ("device=cuda:77", "device 'cuda:77' is not present"),
    ],
)
def test_an_impossible_training_is_refused_at_the_start(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    setting: str, said: str, dry: bool,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    arguments = [str(study), "--set", setting, "--out", "out", *(["--dry-run"] if dry else [])]
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == "" and len(errors.splitlines()) == 1 and said in errors, errors
    assert not (tmp_path / "out").exists()


def test_too_many_threads_are_refused(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latency = ["--metrics", "latency_ms", "--set", f"latency.threads={min(TOO_MANY, 1024)}", "--dry-run"]
    assert main([str(study), *latency]) == 2
    assert "latency.threads = " in capsys.readouterr().err
    for number in (0, -1, TOO_MANY, 100_000):
        with pytest.raises(ConfigError, match=f"threads = {number} is out of range for this machine's"):
            check_threads(number)
    before = torch.get_num_threads()
    with pytest.raises(ConfigError, match="threads = 100000 is out of range"):
        measure_latency("hrvit_nano", 32, threads=100_000)
    assert torch.get_num_threads() == before
    check_threads(None)
    check_threads(TOO_MANY - 1)


def test_missing_devices_are_refused() -> None:
    assert find_device("cpu") == torch.device("cpu")
    for name in ("cuda:77", *([] if torch.backends.mps.is_available() else ["mps"])):
        with pytest.raises(ConfigError, match=f"device '{name}' is not present"):
            find_device(name)
    for name in ("gpu", "cuda:", "cuda:x", "cpu:0", ""):
        with pytest.raises(ConfigError, match="is unknown; use cpu, cuda, cuda:N or mps"):
            find_device(name)


def test_a_folder_of_images_is_checked_without_decoding(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "images")
    (root / "train" / "class0" / "0.png").write_bytes(b"no image")
    setting = f"data.name=folder,data.root={root},data.resolution=32"
    assert main([str(study), "--set", setting, "--dry-run", "--out", str(tmp_path / "out")]) == 0
    for more, said in (("base.num_classes=10", "folder has 3 classes"), ("train.train_limit=2", "use at least 3")):
        capsys.readouterr()
        assert main([str(study), "--set", f"{setting},{more}", "--dry-run"]) == 2
        assert said in capsys.readouterr().err


def test_the_classes_found_equal_those_loaded(tmp_path: Path) -> None:
    assert LOADERS.keys() == FINDERS.keys() == IN_MEMORY.keys()
    root = write_images(tmp_path / "images", classes=4)
    for name, where in {"digits": None, "folder": root}.items():
        found = find_classes(name, resolution=(16, 24), root=where)
        assert found == load_dataset(name, resolution=(16, 24), root=where).num_classes
        for limit in (found - 1, found):
            refused = []
            for function in (find_classes, load_dataset):
                try:
                    function(name, resolution=16, root=where, train_limit=limit)
                except ConfigError as error:
                    refused.append(str(error))
            assert len(refused) == (2 if limit < found else 0) and len(set(refused)) <= 1


def test_a_root_is_not_read_when_nothing_trains(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> str:
        raise AssertionError("the root was read")

    monkeypatch.setattr("hrvit_lab.study.engine.files_digest", fail)
    arguments = [str(study), "--metrics", "params", "--set", f"data.name=folder,data.root={tmp_path}", "--dry-run"]
    assert main(arguments) == 0
    with pytest.raises(AssertionError, match="the root was read"):
        main([str(study), "--set", f"data.name=folder,data.root={write_images(tmp_path / 'i')}", "--dry-run"])


@pytest.mark.parametrize("name", list_studies())
def test_every_shipped_study_can_run_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_study(list_studies()[name])
    requirements.check_requirements(spec, expand(spec).variants if requirements.trains(spec) else ())


def test_a_fifo_in_place_of_a_study_file_does_not_hang(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main([str(tmp_path / "pipe.yaml")])), daemon=True)
    thread.start()
    thread.join(60)
    assert codes == [2] and "not a regular file" in capsys.readouterr().err
