"""Generated scenes compared with naive loops, white squares of known pixels, and the photographs of scikit-image."""

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data import composites, photographs, textures
from hrvit_lab.train.data.composites import background, outline, uniform
from hrvit_lab.train.data.photographs import read_photograph
from hrvit_lab.train.data.samples import Samples, open_samples
from hrvit_lab.train.data.textures import TEXTURES, levels, nearest, part_of
from hrvit_lab.train.datasets import DATASETS


def write_fashion(root: Path, items: np.ndarray | None = None) -> Path:
    """Fashion-MNIST's files: the classes 0 … 4 in training images, 5 … 9 in test images; white squares by default."""
    items = np.full((10, 28, 28), 255, np.uint8) if items is None else items
    for prefix, first in (("train", 0), ("t10k", 5)):
        labels = np.arange(len(items), dtype=np.uint8) % 5 + first
        for name, values in (("images-idx3", items), ("labels-idx1", labels)):
            header = struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape)
            (root / f"{prefix}-{name}-ubyte").write_bytes(header + values.tobytes())
    return root


def arrays(samples: Samples, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask = samples[index]
    assert isinstance(mask, Image.Image) and mask.mode == "L" and mask.size == image.size
    return np.asarray(image), np.asarray(mask)


def open_made(key: str, tmp_path: Path, split: str, size: int = 64) -> Samples:
    return open_samples(key, split, write_fashion(tmp_path) if key == "composites" else None, size=size)


# -- both sets -------------------------------------------------------------------------------------------------


def test_photographs_equal_those_of_scikit_image() -> None:
    for name in ("astronaut", "coffee", "brick", "moon"):
        theirs = getattr(skimage.data, name)()
        assert np.array_equal(
            np.asarray(read_photograph(name)), theirs if theirs.ndim == 3 else theirs[..., None].repeat(3, 2)
        )
    for name in {*TEXTURES.values(), *composites.BACKGROUNDS["train"], *composites.BACKGROUNDS["val"]}:
        assert min(read_photograph(name).size) >= 170


def test_a_missing_photograph_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"mona_lisa\.png of scikit-image is missing .*install scikit-image>=0\.24"):
        read_photograph("mona_lisa")
    monkeypatch.setattr(photographs, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="install scikit-image"):
        open_samples("textures", "train")


@pytest.mark.parametrize("key", ["composites", "textures"])
def test_a_scene_depends_only_on_split_size_and_index(tmp_path: Path, key: str) -> None:
    samples = open_made(key, tmp_path, "train")
    first = [arrays(samples, index) for index in range(12)]
    copy = pickle.loads(pickle.dumps(samples))
    assert DATASETS[key].num_classes == len(samples.class_names) and DATASETS[key].task == samples.task
    np.random.seed(0)
    for index in reversed(range(12)):  # in another order, from a copy, after other random numbers
        assert all(np.array_equal(*pair) for pair in zip(arrays(copy, index), first[index], strict=True))
    images = {image.tobytes() for image, _ in first}
    images |= {arrays(open_made(key, tmp_path, "val"), index)[0].tobytes() for index in range(12)}
    assert len(images) == 24
    assert arrays(open_made(key, tmp_path, "train", 96), 0)[0].shape[:2] == (96, 96)
    assert samples.name(3).startswith("train") and samples.name(3).endswith(" 3")
    assert (len(samples), len(open_made(key, tmp_path, "val"))) == (20_000, 1_000)
    with pytest.raises(IndexError):
        samples[20_000]


def test_scenes_never_change(tmp_path: Path) -> None:
    """Other scenes would be another data set, and earlier scores would not be comparable."""
    assert uniform("composites", "train", 7, 2).tolist() == [0.8554583113087798, 0.2633206633986388]
    digests = {}
    for key in ("composites", "textures"):
        samples = open_made(key, tmp_path, "val")
        pixels = b"".join(array.tobytes() for index in range(8) for array in arrays(samples, index))
        digests[key] = hashlib.sha256(pixels).hexdigest()[:16]
    assert digests == {"composites": "c09511f3c4737471", "textures": "a588bf5c66bf7066"}


def test_random_numbers_equal_those_of_numpy() -> None:
    key = np.random.SeedSequence([*b"textures", 1, 5])
    theirs = np.random.Generator(np.random.PCG64(key)).random(50)
    assert np.array_equal(uniform("textures", "val", 5, 50), theirs)


@pytest.mark.parametrize("key", ["composites", "textures"])
def test_sizes_and_numbers_out_of_range_are_reported_in_one_sentence(tmp_path: Path, key: str) -> None:
    root = write_fashion(tmp_path) if key == "composites" else None
    for options, message in (({"size": 31}, "size = 31 is out of range; use 32 to 512"), ({"size": 513}, "size = 513"),
                             ({"number": 0}, "number = 0 is out of range")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            open_samples(key, "train", root, **options)
    assert len(open_samples(key, "val", root, number=7)) == 7


# -- composites ------------------------------------------------------------------------------------------------


def test_white_squares_are_on_the_background_with_the_label_of_their_class(tmp_path: Path) -> None:
    """Every pixel is either the background's or that of the last square on it, in one colour."""
    samples = open_made("composites", tmp_path, "train", 128)
    assert isinstance(samples, composites.Composites)
    covered = 0
    for index in range(30):
        image, labels = arrays(samples, index)
        draws = uniform("composites", "train", index, 54)
        scene = background(samples.backgrounds, 128, draws[1:6]).round().astype(np.uint8).tolist()
        expected = np.full((128, 128), 10).tolist()
        for which, scale, x, y, _, red, green, blue in draws[6:].reshape(6, 8)[: 1 + int(draws[0] * 6)].tolist():
            side = round(28 * 0.5 * 8**scale)
            left, top = int(x * (129 - side)), int(y * (129 - side))
            for row in range(top, top + side):
                for column in range(left, left + side):
                    expected[row][column] = int(which * 10) % 5
                    scene[row][column] = [255 * (0.4 + 0.6 * colour) for colour in (red, green, blue)]
        assert labels.tolist() == expected
        assert np.abs(image - np.array(scene)).max() <= 0.51
        covered += int((labels != 10).sum())
    assert 0.1 < covered / (30 * 128 * 128) < 0.5


def test_training_and_validation_share_neither_items_nor_backgrounds(tmp_path: Path) -> None:
    for split, classes in (("train", {0, 1, 2, 3, 4, 10}), ("val", {5, 6, 7, 8, 9, 10})):
        samples = open_made("composites", tmp_path, split)
        assert set(np.concatenate([arrays(samples, index)[1].ravel() for index in range(60)]).tolist()) == classes
    train, val = (composites.BACKGROUNDS[split] for split in ("train", "val"))
    assert not set(train) & set(val)
    stems = [{name.partition("_")[0] for name in names} for names in (train, val)]
    assert not stems[0] & stems[1]  # motorcycle_left and motorcycle_right show one scene
    assert samples.class_names[10] == "background" and len(samples.class_names) == 11


@pytest.mark.parametrize(("size", "largest"), [(128, 112), (64, 56)])
def test_items_are_half_to_four_times_their_size(tmp_path: Path, size: int, largest: int) -> None:
    samples = open_made("composites", tmp_path, "train", size)
    sides = []
    for index in range(800):
        draws = uniform("composites", "train", index, 54)
        if draws[0] < 1 / 6:  # one item alone, which is whole
            _, labels = arrays(samples, index)
            rows, columns = np.nonzero(labels != 10)
            assert np.ptp(rows) == np.ptp(columns)
            sides.append(int(np.ptp(rows)) + 1)
    assert 14 <= min(sides) <= 16 and 0.6 * largest < max(sides) <= largest


def test_an_outline_has_no_holes_but_keeps_its_gaps() -> None:
    random = np.random.default_rng(0)
    for share in (0.1, 0.5):
        item = (random.random((28, 28)) < share).astype(np.uint8) * 200
        expected = np.zeros((28, 28), np.uint8)
        for row in range(28):
            for column in range(28):
                lines = (item[row, : column + 1], item[row, column:], item[: row + 1, column], item[row:, column])
                if item[row, column] > 12 or all((line > 12).any() for line in lines):
                    expected[row, column] = 255
        assert np.array_equal(outline(item), expected)
    trousers = np.zeros((28, 28), np.uint8)
    trousers[4:10, 6:22], trousers[10:, 6:12], trousers[10:, 16:22] = 99, 99, 99
    assert np.array_equal(outline(trousers) > 0, trousers > 0)


def test_a_background_is_a_crop_of_its_photograph() -> None:
    """At the smallest extent and integer offsets, it has the pixels of the photograph, flipped or not."""
    photograph = read_photograph("coffee")  # 600 × 400
    pixels = np.asarray(photograph).astype(float)
    for flip in (0.0, 0.9):
        crop = background((photograph,), 100, np.array([0.0, 0.0, 50 / 500, 30 / 300, flip]))
        expected = pixels[30:130, 50:150]
        assert np.array_equal(crop, expected[:, ::-1] if flip < 0.5 else expected)
    whole = background((photograph,), 100, np.array([0.5, 1.0, 0.0, 0.0, 0.9]))
    assert np.abs(whole - pixels[:400, :400].reshape(100, 4, 100, 4, 3).mean((1, 3))).mean() < 4


# -- textures --------------------------------------------------------------------------------------------------


def test_training_and_validation_textures_differ() -> None:
    columns = Image.fromarray(np.tile(np.arange(201, dtype=np.uint8), (5, 1)))
    train, val = (np.asarray(part_of(columns, split)) for split in ("train", "val"))
    assert (train.min(), train.max(), val.min(), val.max()) == (0, 91, 108, 200)
    assert train.shape[0] == val.shape[0] == 5


def test_cells_contain_the_pixels_nearest_to_their_points() -> None:
    points = np.random.default_rng(0).random((5, 2)) * 17
    found = nearest(points, 17)
    for row in range(17):
        for column in range(17):
            distances = [((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2) for x, y in points]
            assert found[row, column] == distances.index(min(distances))


def test_cells_have_the_texture_of_their_label() -> None:
    """With stripes as textures, the pixels of a cell determine its class."""
    samples = open_samples("textures", "train", size=64)
    assert isinstance(samples, textures.Textures)
    period = (8, 12, 18, 27, 40, 60)  # vertical stripes of another width for each class
    parts = tuple(
        Image.fromarray(np.tile(np.arange(256) // width % 2 * 99, (256, 1)).astype(np.uint8)) for width in period
    )
    striped = textures.Textures(parts, "train", 64, 100)
    seen: dict[int, list[float]] = {label: [] for label in range(6)}
    for index in range(100):
        image, labels = arrays(striped, index)
        for label in np.unique(labels).tolist():
            inside = (labels == label)[:, 1:] & (labels == label)[:, :-1]
            if inside.sum() > 200:
                edges = np.abs(np.diff(image.astype(float), axis=1)) > 12
                seen[label].append(float(edges[inside].mean()))
    means = [float(np.mean(seen[label])) for label in range(6)]
    assert means == sorted(means, reverse=True) and min(map(len, seen.values())) > 20
    counts = np.bincount(np.concatenate([arrays(samples, index)[1].ravel() for index in range(200)]), minlength=6)
    assert len(counts) == 6 and (counts / counts.sum() > 0.1).all()


def test_levels_determine_mean_and_deviation() -> None:
    grey = np.random.default_rng(0).integers(60, 140, 5000)
    table = levels(np.bincount(grey, minlength=256).tolist(), 120.0, 40.0)
    assert table[grey].mean() == pytest.approx(120, abs=0.1) and table[grey].std() == pytest.approx(40, abs=0.2)
    assert levels([0] * 77 + [9] + [0] * 178, 100.0, 30.0)[77] == 100  # one grey has no contrast


def test_textures_have_no_root(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="remove root"):
        open_samples("textures", "val", tmp_path)
