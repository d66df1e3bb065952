"""Data sets compared with scikit-learn, numpy and Pillow; and invalid files."""

import gzip
import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits
from sklearn.dummy import DummyClassifier

from hrvit_lab.config import ConfigError
from hrvit_lab.train.data import find
from hrvit_lab.train.data.find import DEBIAN_FASHION_MNIST
from hrvit_lab.train.data.idx import read_idx
from hrvit_lab.train.data.image_folders import files_digest
from hrvit_lab.train.data.memory import balanced_subset, load_dataset, mean_and_std
from hrvit_lab.train.datasets import IN_MEMORY

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def write_idx(path: Path, values: np.ndarray, magic: int | None = None, extra: bytes = b"") -> Path:
    """An idx file, from the format's description: magic number, big-endian sizes, bytes."""
    header = struct.pack(">I", 0x0800 | values.ndim if magic is None else magic)
    body = header + struct.pack(f">{values.ndim}I", *values.shape) + values.astype(np.uint8).tobytes() + extra
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)
    return path


def write_folder(root: Path, classes: Sequence[str] = ("blue", "red"), train: int = 3, val: int = 2) -> Path:
    """Images of one colour per class, 40 × 30 pixels."""
    for split, number in (("train", train), ("val", val)):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                Image.new("RGB", (40, 30), COLOURS.get(name, (9, 9, 9))).save(folder / f"{i}.png")
    return root


# -- digits ----------------------------------------------------------------------------------------


def test_digits_equal_those_of_scikit_learn_split_into_two_parts() -> None:
    data = load_dataset("digits", resolution=32)
    grey, labels = sklearn_digits(return_X_y=True)
    images = torch.cat([data.train_images, data.val_images]).double().flatten(1) * 16 / 255
    ours = sorted(
        (*map(int, row), label)
        for row, label in zip(
            images.round().tolist(), torch.cat([data.train_labels, data.val_labels]).tolist(), strict=True
        )
    )
    theirs = sorted((*map(int, row), int(label)) for row, label in zip(grey, labels, strict=True))
    assert ours == theirs


def test_digits_split_is_stratified_and_never_changes() -> None:
    data = load_dataset("digits", resolution=32)
    assert (len(data.train_labels), len(data.val_labels)) == (1437, 360)
    share = data.val_labels.bincount() / (data.train_labels.bincount() + data.val_labels.bincount())
    assert (share - 0.2).abs().max() < 0.005
    digest = hashlib.sha256(data.val_images.numpy().tobytes()).hexdigest()
    assert digest[:16] == "a41e771f7168fc37", "another split: figures no longer compare with earlier ones"


def test_majority_equals_scikit_learns_dummy_classifier() -> None:
    data = load_dataset("digits", resolution=8)
    dummy = DummyClassifier(strategy="most_frequent").fit(data.train_labels[:, None], data.train_labels)
    assert data.majority_top1 == pytest.approx(100 * dummy.score(data.val_labels[:, None], data.val_labels))


# -- what the network reads ------------------------------------------------------------------------


def test_training_inputs_have_mean_0_and_std_1_in_three_equal_channels() -> None:
    data = load_dataset("digits", resolution=8)
    x = data.inputs(data.train_images)
    assert x.shape == (1437, 3, 8, 8)
    assert x.dtype == torch.float32
    assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 0], x[:, 2])
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (20, 33), (8, 8), (5, 3)])
def test_inputs_are_resized_as_pillow_does(size: tuple[int, int]) -> None:
    data = load_dataset("digits", resolution=size)
    x = data.inputs(data.val_images[:4])
    mean, std = data.mean[0], data.std[0]
    for image, ours in zip(data.val_images[:4], x, strict=True):
        normalised = (image[0].numpy().astype(np.float32) / 255 - mean) / std
        theirs = Image.fromarray(normalised).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours[0].numpy(), np.asarray(theirs), atol=2e-5)


def test_mean_and_std_equal_those_of_numpy() -> None:
    images = torch.randint(0, 256, (7, 3, 11, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = images.numpy() / 255
    mean, std = mean_and_std(images)
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-12)


def test_constant_images_stay_finite() -> None:
    mean, std = mean_and_std(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8))
    assert mean == pytest.approx((0.2,) * 3)
    assert std == (1.0, 1.0, 1.0)


# -- train_limit -----------------------------------------------------------------------------------


def test_train_limit_keeps_a_balanced_part_of_the_same_images() -> None:
    data = load_dataset("digits", resolution=8)
    part = load_dataset("digits", resolution=8, train_limit=95)
    counts = part.train_labels.bincount()
    assert counts.sum() == 95
    assert set(counts.tolist()) == {9, 10}
    known = {
        (image.tobytes(), int(label)) for image, label in zip(data.train_images.numpy(), data.train_labels, strict=True)
    }
    kept = {
        (image.tobytes(), int(label)) for image, label in zip(part.train_images.numpy(), part.train_labels, strict=True)
    }
    assert len(kept) == 95 and kept <= known
    assert torch.equal(part.val_images, data.val_images)
    assert part.mean[0] == pytest.approx(part.train_images.numpy().mean() / 255)


def test_train_limit_is_the_same_at_loading_and_later() -> None:
    early = load_dataset("digits", resolution=8, train_limit=50)
    late = load_dataset("digits", resolution=8).limited(50)
    assert torch.equal(early.train_images, late.train_images)
    assert early.mean == late.mean
    assert early.limited(50) is early
    assert early.limited(None) is early


def test_a_subset_takes_missing_images_from_larger_classes() -> None:
    labels = torch.tensor([0] * 2 + [1] * 10 + [2] * 10)
    kept = balanced_subset(labels, 12)
    assert labels[kept].bincount().tolist() == [2, 5, 5]
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_train_limit_below_the_number_of_classes() -> None:
    with pytest.raises(ConfigError, match=r"train_limit 9 .*at least 10"):
        load_dataset("digits", resolution=8, train_limit=9)


# -- idx files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_idx_round_trip(tmp_path: Path, name: str) -> None:
    values = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    assert read_idx(write_idx(tmp_path / name, values), ndim=3).tolist() == values.tolist()


def broken_idx(tmp_path: Path) -> dict[str, Path]:
    values = np.zeros((4, 3, 2))
    whole = write_idx(tmp_path / "whole", values).read_bytes()
    paths = {name: tmp_path / name for name in ("short", "header", "empty", "cut.gz", "text.gz", "huge")}
    paths["short"].write_bytes(whole[:-1])
    paths["header"].write_bytes(whole[:9])
    paths["empty"].write_bytes(b"")
    paths["cut.gz"].write_bytes(gzip.compress(whole)[:-9])
    paths["text.gz"].write_bytes(b"not gzipped at all")
    paths["huge"].write_bytes(struct.pack(">4I", 0x0803, 2**31, 2**31, 2**31))
    paths["long"] = write_idx(tmp_path / "long", values, extra=b"!")
    paths["labels"] = write_idx(tmp_path / "labels", np.zeros(4))
    paths["floats"] = write_idx(tmp_path / "floats", values, magic=0x0D03)
    return paths


@pytest.mark.parametrize("name", ["short", "header", "empty", "cut.gz", "text.gz", "huge", "long", "labels", "floats"])
def test_broken_idx_is_reported_in_one_sentence_with_the_file(tmp_path: Path, name: str) -> None:
    path = broken_idx(tmp_path)[name]
    with pytest.raises(ConfigError, match=f"{name}.*") as caught:
        read_idx(path, ndim=3)
    assert "\n" not in str(caught.value)


# -- Fashion-MNIST ---------------------------------------------------------------------------------


def write_fashion(root: Path, labels: Sequence[int] = (0, 1, 2, 3, 9)) -> Path:
    images = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 256
    for prefix in ("train", "t10k"):
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(root / f"{prefix}-labels-idx1-ubyte", np.array(labels))
    return root


def test_fashion_mnist_from_a_folder(tmp_path: Path) -> None:
    data = load_dataset("fashion_mnist", resolution=28, root=write_fashion(tmp_path))
    assert data.train_images.shape == (5, 1, 28, 28)
    assert data.train_images[1, 0, 0, :3].tolist() == [16, 17, 18]  # 784 % 256 = 16
    assert data.val_labels.tolist() == [0, 1, 2, 3, 9]
    assert data.num_classes == 10


@pytest.mark.parametrize(("labels", "message"), [((0, 1), "5 train images, 2 labels"), ((0, 1, 2, 3, 10), "is 10")])
def test_inconsistent_files_of_fashion_mnist_are_an_error(
    tmp_path: Path, labels: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset("fashion_mnist", resolution=28, root=write_fashion(tmp_path, labels))


def test_an_error_about_missing_fashion_mnist_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train-images-idx3-ubyte\.gz is not in .*dataset-fashion-mnist"):
        load_dataset("fashion_mnist", resolution=28, root=tmp_path)


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_read_from_the_debian_package() -> None:
    data = load_dataset("fashion_mnist", resolution=32)
    assert data.train_labels.bincount().tolist() == [6000] * 10
    assert data.val_labels.bincount().tolist() == [1000] * 10
    assert data.mean[0] == pytest.approx(0.2860, abs=1e-4)  # the commonly used values
    assert data.std[0] == pytest.approx(0.3530, abs=1e-4)


# -- image folders ---------------------------------------------------------------------------------


def test_folder_reads_colours_and_classes(tmp_path: Path) -> None:
    data = load_dataset("folder", resolution=(16, 24), root=write_folder(tmp_path))
    assert data.class_names == ("blue", "red")
    assert data.train_images.shape == (6, 3, 16, 24)
    assert data.val_labels.tolist() == [0, 0, 1, 1]
    for image, label in zip(data.train_images, data.train_labels, strict=True):
        assert image[:, 8, 12].tolist() == list(COLOURS[data.class_names[label]])


def test_folder_scales_to_cover_and_keeps_the_centre(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 255  # only the middle square is white
    Image.fromarray(wide).save(root / "val" / "red" / "0.png")
    data = load_dataset("folder", resolution=10, root=root)
    assert (data.val_images[2] == 255).all()


def test_folder_rotates_images_by_their_exif_orientation(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    upright = np.zeros((12, 12, 3), np.uint8)
    upright[:6] = 255  # white above, black below
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    path = root / "val" / "red" / "0.png"
    Image.fromarray(upright[::-1].copy()).save(path, exif=exif)
    image = load_dataset("folder", resolution=12, root=root).val_images[2]
    assert image[:, :5].min() == 255
    assert image[:, 7:].max() == 0


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_folder_converts_every_mode_to_three_channels(tmp_path: Path, mode: str) -> None:
    root = write_folder(tmp_path)
    path = root / "train" / "red" / ("0.png" if mode != "CMYK" else "0.tif")
    Image.new("RGB", (20, 20), (255, 255, 255)).convert(mode).save(path)
    images = load_dataset("folder", resolution=8, root=root).train_images
    assert (images == 255).all(dim=(1, 2, 3)).sum() == 1


def test_folder_decodes_only_images_within_train_limit(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train=6)
    kept = balanced_subset(torch.tensor([0] * 6 + [1] * 6), 4).tolist()
    left_out = next(i for i in range(6) if i not in kept)
    (root / "train" / "blue" / f"{left_out}.png").write_bytes(b"broken")
    assert len(load_dataset("folder", resolution=8, root=root, train_limit=4).train_labels) == 4
    with pytest.raises(ConfigError, match="cannot be decoded"):
        load_dataset("folder", resolution=8, root=root)


def test_folder_names_a_broken_image(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    path = root / "val" / "red" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ConfigError, match=r"1\.png cannot be decoded .*repair or remove it") as caught:
        load_dataset("folder", resolution=8, root=root)
    assert "\n" not in str(caught.value)


def test_folder_refuses_a_format_that_needs_another_program(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    (root / "val" / "red" / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(ConfigError, match=r"1\.png cannot be decoded"):
        load_dataset("folder", resolution=8, root=root)


@pytest.mark.parametrize("limit", [1000, 500])  # 1,200 pixels: above the warning's limit, above the error's (twice it)
def test_folder_refuses_a_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    root = write_folder(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ConfigError, match=r"0\.png cannot be decoded .*exceeds limit"):
        load_dataset("folder", resolution=8, root=root)


def test_a_folder_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path, train=4, val=1)
    monkeypatch.setattr(find, "MAX_BYTES", 6 * 3 * 8 * 8)
    with pytest.raises(ConfigError, match="use a lower resolution, a train_limit"):
        load_dataset("folder", resolution=8, root=root)
    assert len(load_dataset("folder", resolution=8, root=root, train_limit=4).train_labels) == 4  # 4 + 2 images fit


def test_a_folder_with_other_validation_classes_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    (root / "val" / "red").rename(root / "val" / "rot")
    with pytest.raises(ConfigError, match="same classes; only one has red, rot"):
        load_dataset("folder", resolution=8, root=root)


def test_a_folder_with_an_empty_class_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    (root / "train" / "green").mkdir()
    (root / "train" / "green" / "notes.txt").touch()
    with pytest.raises(ConfigError, match="green has no image"):
        load_dataset("folder", resolution=8, root=root)


def test_a_folder_with_fewer_than_two_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        load_dataset("folder", resolution=8, root=write_folder(tmp_path, classes=["red"]))
    with pytest.raises(ConfigError, match="is not a folder"):
        load_dataset("folder", resolution=8, root=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="needs a root"):
        load_dataset("folder", resolution=8)


# -- the table -------------------------------------------------------------------------------------


def test_unknown_name_suggests_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        load_dataset("digit", resolution=8)


@pytest.mark.parametrize("resolution", [0, -3, 100_000, (8, 0)])
def test_resolution_out_of_range(resolution: int | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        load_dataset("digits", resolution=resolution)


def test_digits_have_no_root(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="remove root"):
        load_dataset("digits", resolution=8, root=tmp_path)


@pytest.mark.parametrize("name", IN_MEMORY)
def test_every_data_set_has_the_interface(tmp_path: Path, name: str) -> None:
    roots = {"digits": lambda: None, "fashion_mnist": lambda: write_fashion(tmp_path)}
    root = roots.get(name, lambda: write_folder(tmp_path))()
    data = load_dataset(name, resolution=(12, 16), root=root)
    assert data.name == name
    assert IN_MEMORY[name].num_classes in (None, data.num_classes)
    for images, labels in ((data.train_images, data.train_labels), (data.val_images, data.val_labels)):
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert len(images) == len(labels) > 0
        assert labels.min() >= 0 and labels.max() < data.num_classes
        assert data.inputs(images[:3]).shape == (3, 3, 12, 16)


def test_the_digest_of_a_folder_depends_on_its_files(tmp_path: Path) -> None:
    """Changes of names, sizes and times change the digest; reading, and files outside the folder, do not."""
    root = tmp_path / "images"
    (root / "train").mkdir(parents=True)
    file = root / "train" / "a.png"
    file.write_bytes(b"one")
    digests = [files_digest(root)]
    file.read_bytes()
    (tmp_path / "beside").touch()
    assert files_digest(root) == files_digest(str(root)) == digests[0]
    os.utime(file, ns=(1, 1))
    digests.append(files_digest(root))
    file.write_bytes(b"four")
    os.utime(file, ns=(1, 1))
    digests.append(files_digest(root))
    file.rename(root / "train" / "b.png")
    digests.append(files_digest(root))
    (root / "empty").touch()
    digests.append(files_digest(root))
    assert len(set(digests)) == 5
    assert files_digest(None) == ""
    assert files_digest(tmp_path / "nowhere") == files_digest(tmp_path / "elsewhere")
