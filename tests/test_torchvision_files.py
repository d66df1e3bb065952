"""CIFAR and Oxford-IIIT Pet: tiny files in the real layouts, compared with torchvision's data sets."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, OxfordIIITPet

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.samples import BrokenSample, open_samples

PETS = (("Abyssinian_1", 1, 1), ("american_bulldog_7", 2, 2), ("Abyssinian_2", 1, 1), ("saint_bernard_3", 3, 2))


def write_cifar(root: Path, classes: int) -> Path:
    """The files of CIFAR-10 or CIFAR-100 with four random images in each."""
    folder = root / ("cifar-10-batches-py" if classes == 10 else "cifar-100-python")
    folder.mkdir(parents=True)
    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"] if classes == 10 else ["train", "test"]
    for seed, file in enumerate(files):
        random = np.random.default_rng(seed)
        targets = random.integers(0, classes, 4).tolist()
        content: dict[str, object] = {"data": random.integers(0, 256, (4, 3072)).astype(np.uint8)}
        content |= {"labels" if classes == 10 else "fine_labels": targets, "coarse_labels": [0] * 4}
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
    names = {"label_names" if classes == 10 else "fine_label_names": [f"class {i}" for i in range(classes)]}
    (folder / ("batches.meta" if classes == 10 else "meta")).write_bytes(pickle.dumps(names, protocol=2))
    return root


@pytest.mark.parametrize(("key", "classes", "theirs"), [("cifar10", 10, CIFAR10), ("cifar100", 100, CIFAR100)])
def test_cifar_is_read_as_torchvision_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, classes: int, theirs: type[CIFAR10]
) -> None:
    root = write_cifar(tmp_path, classes)
    monkeypatch.setattr(theirs, "_check_integrity", lambda _: True)
    meta = root / theirs.base_folder / theirs.meta["filename"]
    monkeypatch.setitem(theirs.meta, "md5", hashlib.md5(meta.read_bytes()).hexdigest())
    for split in ("train", "val"):
        samples, expected = open_samples(key, split, root), theirs(root, train=split == "train")
        assert len(samples) == len(expected) > 0
        assert list(samples.class_names) == expected.classes and len(expected.classes) == classes
        for i in range(len(samples)):
            (image, label), (their_image, their_label) = samples[i], expected[i]
            assert label == their_label and isinstance(label, int)
            assert np.array_equal(np.asarray(image), np.asarray(their_image))
    assert len(open_samples(key, "val", root / theirs.base_folder)) == 4


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm",)


def test_a_pickle_of_cifar_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cifar(tmp_path, 10)
    monkeypatch.chdir(tmp_path)
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps({"data": Harmful()}))
    with pytest.raises(ConfigError, match=r"test_batch is not a file of CIFAR \(it holds posix\.mkdir\)"):
        open_samples("cifar10", "val", root)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no pickle", "test_batch is not a file of CIFAR"),
        (pickle.dumps({"labels": [0]}), "test_batch is not a file of CIFAR"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}), r"label of test_batch is not in 0 … 9"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}), "does not contain 32×32 colour images"),
        (pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}), "does not contain 32×32 colour images"),
        (None, "test_batch cannot be read"),
    ],
)
def test_broken_files_of_cifar_are_reported_in_one_sentence(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = write_cifar(tmp_path, 10) / "cifar-10-batches-py" / "test_batch"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        open_samples("cifar10", "val", tmp_path)
    assert "\n" not in str(caught.value)


def write_pets(root: Path) -> Path:
    folder = root / "oxford-iiit-pet"
    for inner in ("images", "annotations/trimaps"):
        (folder / inner).mkdir(parents=True)
    for i, (name, _, _) in enumerate(PETS):
        Image.new("RGB", (5, 3), (i, 0, 0)).save(folder / "images" / f"{name}.jpg")
        numbers = np.array([[1, 2, 3, 3, 2]] * 3, np.uint8) if i else np.array([[3, 2, 1, 1, 1]] * 3, np.uint8)
        Image.fromarray(numbers).save(folder / "annotations" / "trimaps" / f"{name}.png")
    lines = "".join(f"{name} {breed} {species} 1\n" for name, breed, species in PETS)
    for file in ("trainval.txt", "test.txt"):
        (folder / "annotations" / file).write_text(lines)
    return root


def test_pets_are_read_as_torchvision_reads_them(tmp_path: Path) -> None:
    root = write_pets(tmp_path)
    for split, theirs in (("train", "trainval"), ("val", "test")):
        breeds, expected = open_samples("oxford_pets", split, root), OxfordIIITPet(root, theirs)
        masks, trimaps = open_samples("oxford_pets_masks", split, root), OxfordIIITPet(root, theirs, "segmentation")
        assert len(breeds) == len(masks) == len(expected) == 4
        assert [name.lower() for name in breeds.class_names] == [name.lower() for name in expected.classes]
        assert masks.class_names == ("pet", "background", "border")
        for i in range(4):
            assert breeds[i][1] == expected[i][1]
            assert np.array_equal(np.asarray(breeds[i][0]), np.asarray(expected[i][0]))
            assert np.array_equal(np.asarray(masks[i][1]) + 1, np.asarray(trimaps[i][1]))
    assert masks.name(1) == "images/american_bulldog_7.jpg"


def test_broken_pets_are_reported_in_one_sentence(tmp_path: Path) -> None:
    root = write_pets(tmp_path)
    folder = root / "oxford-iiit-pet"
    (folder / "images" / "Abyssinian_1.jpg").write_bytes(b"broken")
    with pytest.raises(BrokenSample, match=r"Abyssinian_1\.jpg cannot be decoded"):
        open_samples("oxford_pets", "train", root)[0]
    for text, message in (
        ("Abyssinian_1 one 1 1\n", "is not a name and the number"), ("#\n", "lists no image"),
        ("../../x 1 1 1\n", "is not a name"), ("a_1 2 1 1\n", "have gaps or do not start at 1"),
    ):  # fmt: skip
        (folder / "annotations" / "trainval.txt").write_text(text)
        with pytest.raises(ConfigError, match=message):
            open_samples("oxford_pets", "train", root)
    with pytest.raises(ConfigError, match=r"trainval\.txt cannot be read"):
        open_samples("oxford_pets", "train", tmp_path / "oxford-iiit-pet" / "images")
