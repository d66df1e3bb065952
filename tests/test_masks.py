"""Segmentation data: masks made by hand compared with naive loops over pixels, and broken files."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data import ade20k, cityscapes
from hrvit_lab.train.data.masks import ranges
from hrvit_lab.train.data.samples import BrokenSample, Samples, open_samples
from hrvit_lab.train.datasets import DATASETS

CITYSCAPES = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""Label id → train id, from the data set's description (void and rare classes have none)."""


def write(path: Path, numbers: np.ndarray) -> Path:
    """A mask (H, W) or an image (H, W, 3) as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers).save(path)
    return path


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def labels(samples: Samples, index: int = 0) -> list[list[int]]:
    image, mask = samples[index]
    assert isinstance(mask, Image.Image) and mask.mode == "L" and image.mode == "RGB" and mask.size == image.size
    return np.asarray(mask).tolist()


# -- ADE20K ----------------------------------------------------------------------------------------------------


def write_ade20k(root: Path) -> Path:
    numbers = np.arange(151, dtype=np.uint8)
    for folder in ("training", "validation"):
        for i, mask in enumerate((numbers.reshape(1, 151), numbers[::-1].reshape(151, 1))):
            write(root / "images" / folder / f"ADE_{i}.png", picture(*mask.shape, seed=i))
            write(root / "annotations" / folder / f"ADE_{i}.png", np.ascontiguousarray(mask))
    return root


@pytest.mark.parametrize("inner", ["", "ADEChallengeData2016"])
def test_labels_of_ade20k_are_shifted_and_0_is_ignored(tmp_path: Path, inner: str) -> None:
    write_ade20k(tmp_path / inner)
    for split in ("train", "val"):
        samples = open_samples("ade20k", split, tmp_path)
        expected = [255 if number == 0 else number - 1 for number in range(151)]
        assert labels(samples) == [expected]
        assert labels(samples, 1) == [[label] for label in reversed(expected)]
        assert (len(samples), samples.task, len(set(samples.class_names))) == (2, "segmentation", 150)
    assert samples.name(1) == "images/validation/ADE_1.png"
    assert np.array_equal(np.asarray(samples[1][0]), picture(151, 1, seed=1))
    names = samples.class_names
    assert (names[0], names[12], names[20], names[76], names[149]) == ("wall", "person", "car", "boat", "flag")
    assert all(name == name.strip() and name for name in ade20k.CLASSES)


def test_labels_of_ade20k_above_150_are_refused(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path)
    write(root / "annotations/training/ADE_0.png", np.array([[0, 151] + [1] * 148 + [255]], np.uint8))
    samples = open_samples("ade20k", "train", root)
    with pytest.raises(BrokenSample, match=r"ADE_0\.png has labels out of range: 151, 255; valid are 0 to 150"):
        samples[0]
    labels(samples, 1)


# -- Cityscapes ------------------------------------------------------------------------------------------------


def write_cityscapes(root: Path, train_ids: bool = False) -> Path:
    """Every label in ``*_labelIds``; in ``*_labelTrainIds`` (if written) the labels in reverse order."""
    numbers = np.array([[*range(34), 255]], np.uint8)
    reverse = np.array([[*reversed(range(19)), 255]], np.uint8)
    for split, city in (("train", "aachen"), ("val", "lindau")):
        name = f"{city}_000000_000019"
        mask = reverse if train_ids else numbers
        write(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", picture(*mask.shape))
        folder = root / "gtFine" / split / city
        write(folder / f"{name}_gtFine_labelIds.png", numbers)
        write(folder / f"{name}_gtFine_color.png", picture(*mask.shape))
        write(folder / f"{name}_gtFine_instanceIds.png", numbers.astype(np.uint16) * 1000)
        (folder / f"{name}_gtFine_polygons.json").write_text("{}")
        if train_ids:
            write(folder / f"{name}_gtFine_labelTrainIds.png", reverse)
    return root


def test_cityscapes_train_ids_are_made_from_label_ids(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    for split in ("train", "val"):
        samples = open_samples("cityscapes", split, root)
        assert labels(samples) == [[CITYSCAPES.get(number, 255) for number in [*range(34), 255]]]
    assert len(samples) == 1
    assert samples.name(0) == "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png"
    assert samples.class_names[CITYSCAPES[26]] == "car" and samples.class_names[CITYSCAPES[33]] == "bicycle"
    assert len(samples.class_names) == len(CITYSCAPES) == len(cityscapes.CLASSES) == 19
    assert DATASETS["cityscapes"].num_classes == 19 and DATASETS["ade20k"].num_classes == len(ade20k.CLASSES)


def test_cityscapes_reads_train_ids_if_they_exist(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, train_ids=True)
    assert labels(open_samples("cityscapes", "train", root)) == [[*reversed(range(19)), 255]]


def test_cityscapes_refuses_numbers_above_33(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    write(root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", np.full((1, 35), 34, np.uint8))
    with pytest.raises(BrokenSample, match=r"out of range: 34; valid are 0 to 33, 255"):
        open_samples("cityscapes", "train", root)[0]


# -- any images with masks -------------------------------------------------------------------------------------


def write_pairs(root: Path, mask: np.ndarray | None = None) -> Path:
    for split in ("train", "val"):
        for name in ("a", "deep/b"):
            write(root / "images" / split / f"{name}.jpg", picture(4, 5))
            write(root / "masks" / split / f"{name}.png", np.array([[0, 1, 2, 255, 0]] * 4, np.uint8))
    if mask is not None:
        write(root / "masks/train/a.png", mask)
    (root / "classes.txt").write_text("sky\ntree\n\nwater\n")
    return root


def test_pairs_keep_their_labels(tmp_path: Path) -> None:
    samples = open_samples("mask_folder", "train", write_pairs(tmp_path))
    assert samples.class_names == ("sky", "tree", "water")
    assert [samples.name(i) for i in range(2)] == ["images/train/a.jpg", "images/train/deep/b.jpg"]
    assert labels(samples, 1) == [[0, 1, 2, 255, 0]] * 4
    assert labels(pickle.loads(pickle.dumps(samples)), 1) == labels(samples, 1)
    (tmp_path / "masks").rename(tmp_path / "truth")
    assert len(open_samples("mask_folder", "val", tmp_path, masks="truth/{split}")) == 2


def test_masks_with_a_palette_or_16_bits_are_read_as_numbers(tmp_path: Path) -> None:
    root = write_pairs(tmp_path)
    numbers = [[2, 1, 0, 255, 1]] * 4
    image = Image.fromarray(np.array(numbers, np.uint8))
    image.putpalette([7, 7, 7] * 256)  # the colours carry no information
    assert image.mode == "P"
    image.save(root / "masks/train/a.png")
    assert labels(open_samples("mask_folder", "train", root)) == numbers
    write(root / "masks/train/a.png", np.array(numbers, np.uint16))
    assert labels(open_samples("mask_folder", "train", root)) == numbers


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((5, 4), np.uint8), r"a\.png has 4×5 pixels, but its image a\.jpg has 5×4"),
        (np.full((4, 5), 3, np.uint8), r"a\.png has labels out of range: 3; valid are 0 to 2, 255"),
        (np.full((4, 5), 300, np.uint16), r"a\.png has labels out of range: 300; valid"),
        (np.full((4, 5), 65_535, np.uint16), r"a\.png has labels out of range: 65535; valid"),
        (np.arange(20, dtype=np.uint8).reshape(4, 5), r"out of range: 3, 4, 5, 6, 7, …; valid"),
        (np.zeros((4, 5, 3), np.uint8), r"a\.png has pixels of mode RGB; a mask has one channel"),
        (None, r"a\.png cannot be decoded"),
    ],
)
def test_a_broken_mask_is_named_and_the_others_can_be_read(
    tmp_path: Path, mask: np.ndarray | None, message: str
) -> None:
    root = write_pairs(tmp_path, mask)
    samples = open_samples("mask_folder", "train", root)
    if mask is None:
        path = root / "masks/train/a.png"
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BrokenSample, match=message) as caught:
        samples[0]
    assert "\n" not in str(caught.value)
    labels(samples, 1)


def test_a_mask_as_jpeg_is_refused(tmp_path: Path) -> None:
    root = write_pairs(tmp_path)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(root / "masks/train/a.jpg")
    (root / "masks/train/a.png").unlink()
    with pytest.raises(BrokenSample, match=r"a\.jpg cannot be decoded \(it is none of PNG"):
        open_samples("mask_folder", "train", root)[0]


def test_inconsistent_layouts_are_reported_in_one_sentence(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "one")
    (root / "masks/train/deep/b.png").unlink()
    with pytest.raises(ConfigError, match=r"1 of 2 images have no mask .*deep/b\.jpg; add the masks"):
        open_samples("mask_folder", "train", root)
    root = write_pairs(tmp_path / "two")
    write(root / "images/train/a.png", picture(4, 5))
    with pytest.raises(ConfigError, match=r"a\.jpg and a\.png belong to the same sample"):
        open_samples("mask_folder", "train", root)
    (root / "classes.txt").write_text("sky\n")
    with pytest.raises(ConfigError, match=r"classes\.txt lists 1 classes; segmentation supports 2 to 255"):
        open_samples("mask_folder", "train", root)
    with pytest.raises(ConfigError, match=r"is not inside .*two; give folders inside"):
        (root / "classes.txt").write_text("sky\ntree\nwater\n")
        open_samples("mask_folder", "train", root, masks="../one/masks/{split}")
    for key, message in (("ade20k", "images/training is not a folder"), ("cityscapes", "leftImg8bit/train is not a")):
        with pytest.raises(ConfigError, match=message):
            open_samples(key, "train", root)
    (tmp_path / "ade/images/training").mkdir(parents=True)
    (tmp_path / "ade/annotations/training").mkdir(parents=True)
    with pytest.raises(ConfigError, match="training has no image; add some"):
        open_samples("ade20k", "train", tmp_path / "ade")


def test_labels_have_the_ranges_of_their_data_sets() -> None:
    assert ranges(np.array([0, 1, 2, 255])) == "0 to 2, 255"
    assert ranges(np.array([4])) == "4"
    assert ranges(np.array([1, 3, 5, 6])) == "1, 3, 5 to 6"
