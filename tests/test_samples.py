"""Samples of classification data compared with the pixels of files made by hand; and invalid files."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data import load_dataset
from hrvit_lab.train.data.samples import OPEN, BrokenSample, find_opener, open_samples
from hrvit_lab.train.datasets import DATASETS

COLOURS = {"n01440764": (250, 0, 0), "n01443537": (0, 250, 0), "n02102040": (0, 0, 250)}


def png(colour: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_imagenet(root: Path) -> Path:
    """ImageNet's layout with its names; every image has the colour of its class, and its width tells its number."""
    for split, number in (("train", 3), ("val", 2)):
        for wnid, colour in COLOURS.items():
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for i in range(number):
                (folder / f"{wnid}_{i}.JPEG").write_bytes(png(colour, (6 + i, 4)))
    return root


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return path


def contents(root: Path, split: str, **options: object) -> list[tuple[tuple[int, ...], int, int]]:
    """(colour, width, class) of every sample."""
    samples = open_samples("imagenet", split, root, **options)
    found = []
    for index in range(len(samples)):
        image, target = samples[index]
        assert image.mode == "RGB" and isinstance(target, int)
        colour = image.getpixel((2, 2))
        assert isinstance(colour, tuple)
        found.append((colour, image.width, target))
    return found


def test_the_tables_of_data_sets_agree() -> None:
    assert OPEN.keys() == DATASETS.keys()
    for key in OPEN:
        assert find_opener(key).__doc__


def test_digits_equal_those_of_the_short_training() -> None:
    data = load_dataset("digits", resolution=8)
    for split, images, labels in (
        ("train", data.train_images, data.train_labels), ("val", data.val_images, data.val_labels),
    ):  # fmt: skip
        samples = open_samples("digits", split)
        assert (len(samples), samples.task, samples.class_names) == (len(labels), "classification", data.class_names)
        for index in (0, 5, len(samples) - 1):
            image, target = samples[index]
            assert image.mode == "L" and target == labels[index]
            assert np.array_equal(np.asarray(image), images[index, 0].numpy())
    grey, _ = sklearn_digits(return_X_y=True)
    image, _ = open_samples("digits", "train")[0]
    assert (np.round(np.asarray(image, float) * 16 / 255).flatten() == grey).all(axis=1).any()


def test_imagenet_is_read_from_class_folders(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    expected = [(colour, 6 + i, label) for label, colour in enumerate(COLOURS.values()) for i in range(3)]
    assert contents(root, "train") == expected
    assert len(contents(root, "val")) == 6
    samples = open_samples("imagenet", "train", root)
    assert samples.class_names == tuple(COLOURS)
    assert samples.name(4) == "train/n01443537/n01443537_1.JPEG"
    assert open_samples("folder", "train", str(root)).class_names == tuple(COLOURS)


def test_a_class_list_gives_the_labels(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    order = ["n02102040 English springer, English springer spaniel", "n01440764\ttench", "", "n01443537", "n09999999"]
    (root / "classes.txt").write_text("\n".join(order), encoding="utf-8")
    samples = open_samples("imagenet", "val", root)
    assert samples.class_names == ("n02102040", "n01440764", "n01443537", "n09999999")
    by_colour = {colour: label for colour, _, label in contents(root, "val")}
    assert by_colour == {(0, 0, 250): 0, (250, 0, 0): 1, (0, 250, 0): 2}
    other = tmp_path / "other.txt"
    other.write_text("n01443537\nn01440764\nn02102040\n")
    assert {colour: label for colour, _, label in contents(root, "val", classes=other)}[(0, 250, 0)] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n01440764\nn01443537\n", "class list lacks 'n02102040'"),
        ("n01440764\n", "lists 1 classes"),
        ("n01440764\nn01443537\nn01440764\n", "lists 'n01440764' twice"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_a_wrong_class_list_is_reported_in_one_sentence(tmp_path: Path, text: str | bytes, message: str) -> None:
    root = write_imagenet(tmp_path)
    (root / "classes.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        open_samples("imagenet", "train", root)


@pytest.mark.parametrize("shape", ["single", "by class", "nested"])
def test_tar_files_hold_the_same_samples_as_folders(tmp_path: Path, shape: str) -> None:
    """One archive with class folders, an archive for each class, and ImageNet's own archive of archives."""
    plain, packed = write_imagenet(tmp_path / "plain"), tmp_path / "packed"
    for split in ("train", "val"):
        members = {
            wnid: {path.name: path.read_bytes() for path in sorted((plain / split / wnid).iterdir())}
            for wnid in COLOURS
        }  # fmt: skip
        if shape == "single":
            inside = {f"{wnid}/{name}": body for wnid, files in members.items() for name, body in files.items()}
            write_tar(packed / f"{split}.tar", inside)
        elif shape == "by class":
            for wnid, files in members.items():
                write_tar(packed / split / f"{wnid}.tar", files)
        else:
            inner = {f"{w}.tar": write_tar(tmp_path / "w.tar", files).read_bytes() for w, files in members.items()}
            write_tar(packed / f"{split}.tar", inner)
        assert contents(packed, split) == contents(plain, split)
    samples = open_samples("imagenet", "train", packed)
    assert "n01440764_0.JPEG" in samples.name(0) and ".tar/" in samples.name(0)
    assert samples.class_names == tuple(COLOURS)
    copy = pickle.loads(pickle.dumps(samples))
    assert np.array_equal(np.asarray(copy[8][0]), np.asarray(samples[8][0]))


def test_the_validation_archive_has_the_labels_of_training(tmp_path: Path) -> None:
    files = {f"{wnid}/0.png": png(colour) for wnid, colour in COLOURS.items()}
    write_tar(tmp_path / "train.tar", files)
    write_tar(tmp_path / "val.tar", {name: body for name, body in files.items() if "n01440764" not in name})
    assert [label for _, _, label in contents(tmp_path, "val")] == [1, 2]


def test_broken_archives_are_reported_in_one_sentence(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "shards" / "train.tar", {"000.png": png((1, 2, 3)), "000.cls": b"5", "001.png": png((1, 2, 3))}
    )
    write_tar(tmp_path / "empty" / "train.tar", {"readme.txt": b"nothing"})
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.tar").write_bytes(b"no archive" * 200)
    for name, message in (
        ("shards", "shards of webdataset must be unpacked"),
        ("empty", "no image"),
        ("text", "download it again"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            open_samples("imagenet", "train", tmp_path / name)
        assert "\n" not in str(caught.value) and "train.tar" in str(caught.value)
    path = write_tar(tmp_path / "cut" / "train.tar", {"a/0.png": png((1, 2, 3)), "b/0.png": png((1, 2, 3))[:40]})
    samples = open_samples("imagenet", "train", path.parent)
    with pytest.raises(BrokenSample, match=r"train\.tar/b/0\.png cannot be decoded"):
        samples[1]


def test_a_broken_image_is_named_and_the_others_can_be_read(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    path = root / "train" / "n01443537" / "n01443537_1.JPEG"
    samples = open_samples("imagenet", "train", root)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BrokenSample, match=r"n01443537_1\.JPEG cannot be decoded .*repair or remove it") as caught:
        samples[4]
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(BrokenSample, match=r"n01443537_1\.JPEG cannot be decoded \(No such file"):
        samples[4]
    assert samples[5][1] == 1
    assert pickle.loads(pickle.dumps(samples)).name(5) == samples.name(5)


def test_an_index_out_of_range_is_refused(tmp_path: Path) -> None:
    for samples in (open_samples("imagenet", "val", write_imagenet(tmp_path)), open_samples("digits", "val")):
        for index in (-1, len(samples)):
            with pytest.raises(IndexError):
                samples[index]


@pytest.mark.parametrize(
    ("key", "split", "options", "message"),
    [
        ("imagnet", "train", {}, "unknown data set 'imagnet'; did you mean 'imagenet'"),
        ("digits", "test", {}, "unknown split 'test'; use train or val"),
        ("digits", "val", {"size": 3}, "data set 'digits' has no option 'size'; it has none"),
        ("imagenet", "val", {"clases": "x"}, "has no option 'clases'; did you mean 'classes'"),
        ("imagenet", "val", {}, "data set 'imagenet' needs ROOT/train/CLASS"),
        ("imagenet", "val", {"root": "nowhere"}, "nowhere is not a folder; data set 'imagenet' needs"),
        ("digits", "val", {"root": "."}, "remove root"),
    ],
)
def test_a_wrong_request_is_reported_in_one_sentence(
    key: str, split: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_samples(key, split, **options)


def test_splits_have_the_same_classes(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    (root / "val" / "n02102040").rename(root / "val" / "dog")
    with pytest.raises(ConfigError, match="train and val must have the same classes; only one has dog, n02102040"):
        open_samples("imagenet", "train", root)


def test_options_of_the_wrong_type_and_unknown_ones() -> None:
    for options, message in (
        ({"size": "64"}, "size = '64' is not a whole number"),
        ({"number": 2.5}, "number = 2.5 is not a whole number or null"),
        ({"key": 1}, "has no option 'key'"),
        ({"self": 1}, "has no option 'self'"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_samples("textures", "val", None, **options)
    assert len(open_samples("textures", "val", None, number=3)) == 3
