"""Transforms: timm's for classification, mmsegmentation's rules for images with masks; compared with loops over
pixels."""

import colorsys
import pickle
import random
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torchvision import transforms

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.order import seeded_sample
from hrvit_lab.train.transforms import classify, segment
from hrvit_lab.train.transforms.normalise import Normalise

RELEASE = "rand-m9-mstd0.5-inc1"


def picture(height: int, width: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


# -- classification --------------------------------------------------------------------------------------------------


def test_the_policy_of_the_release_runs_at_every_level() -> None:
    """At the highest level, its posterization keeps 0 bits, which Pillow refuses; the result is black."""
    made: Any = classify.policy("rand-m10-inc1", (32, 32), "bicubic", classify.IMAGENET_MEAN)
    [posterize] = [op for op in made.ops if op.name == "PosterizeIncreasing"]
    posterize.prob = 1.0
    assert np.asarray(posterize(picture(8, 8))).max() == 0
    posterize.magnitude = 0
    image = picture(8, 8)
    assert np.array_equal(np.asarray(posterize(image)), np.asarray(image) & 0b11110000)
    transform = classify.train_transform((32, 32), auto_augment=RELEASE, erasing_probability=0.25, erasing_mode="pixel")
    for index in range(200):
        with seeded_sample(0, 0, index):
            x_CHW = transform(image)
        assert x_CHW.shape == (3, 32, 32) and x_CHW.isfinite().all()


def test_an_unknown_policy_is_reported_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="auto_augment 'random-things' is not a policy of timm"):
        classify.policy("random-things", (32, 32), "bicubic", classify.IMAGENET_MEAN)


def test_training_images_equal_those_of_timm() -> None:
    """Without a policy, because timm calls other functions of Pillow for it."""
    theirs = timm.data.create_transform(
        64, is_training=True, interpolation="bicubic", re_prob=0.5, re_mode="pixel", color_jitter=0.3
    )
    ours = classify.train_transform((64, 64), erasing_probability=0.5, erasing_mode="pixel", color_jitter=0.3)
    for index in range(10):
        with seeded_sample(0, 0, index):
            x_CHW = ours(picture(90, 70))
        with seeded_sample(0, 0, index):
            torch.testing.assert_close(x_CHW, theirs(picture(90, 70)), rtol=0, atol=0)


@pytest.mark.parametrize(("fraction", "side"), [(1.0, 64), (0.9, 224)])
def test_validation_images_equal_those_of_timm(fraction: float, side: int) -> None:
    theirs = timm.data.create_transform(side, crop_pct=fraction, interpolation="bicubic")
    ours = classify.test_transform((side, side), crop_fraction=fraction)
    torch.testing.assert_close(ours(picture(300, 250)), theirs(picture(300, 250)), rtol=0, atol=0)


def test_a_padded_crop_shifts_by_up_to_its_padding() -> None:
    image = picture(16, 16)
    transform = classify.train_transform(
        (16, 16), crop="padded", padding=2, flip_probability=0.0, mean=(0,) * 3, std=(1,) * 3
    )
    padded = np.pad(np.asarray(image), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    shifts = set()
    for index in range(250):
        with seeded_sample(0, 0, index):
            found = (transform(image) * 255).round().byte().permute(1, 2, 0).numpy()
        shifts |= {(y, x) for y in range(5) for x in range(5) if np.array_equal(found, padded[y : y + 16, x : x + 16])}
    assert len(shifts) == 25


@pytest.mark.parametrize("policy", [RELEASE, "augmix-m5-w4-d2", "original-mstd0.5"])
def test_a_transform_can_be_sent_to_a_spawned_worker(policy: str) -> None:
    """Spawning is the start method of macOS and Windows; Linux does not fork from Python 3.14 on either."""
    crops: tuple[Literal["resized", "padded"], ...] = ("resized", "padded")
    for crop in crops:
        made = classify.train_transform((16, 16), crop=crop, auto_augment=policy, erasing_probability=0.5)
        sent = pickle.loads(pickle.dumps(made))
        found = []
        for transform in (made, sent):
            with seeded_sample(0, 0, 3):
                found.append(transform(picture(20, 20)))
        assert torch.equal(*found)


def test_a_transform_of_masks_can_be_sent_to_a_spawned_worker() -> None:
    image, mask = picture(40, 50), picture(40, 50, mode="L")
    for made in (segment.train_transform((32, 32), base_size=(64, 40)), segment.test_transform((64, 40))):
        sent = pickle.loads(pickle.dumps(made))
        found = []
        for transform in (made, sent):
            with seeded_sample(0, 0, 3):
                found.append(transform(image, mask))
        assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize(("height", "width", "padding"), [(16, 16, 2), (5, 9, 4), (3, 2, 7), (1, 4, 2)])
def test_a_padded_crop_equals_numpys_reflection(height: int, width: int, padding: int) -> None:
    image = picture(height, width)
    padded = np.pad(np.asarray(image), ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    for seed in range(30):
        torch.manual_seed(seed)
        found = np.asarray(classify.PaddedCrop(padding)(image))
        torch.manual_seed(seed)
        top, left = (torch.randint(-padding, padding + 1, (2,)) + padding).tolist()
        assert np.array_equal(found, padded[top : top + height, left : left + width])


def test_normalised_pixels_equal_those_of_torchvision() -> None:
    theirs = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(classify.IMAGENET_MEAN, classify.IMAGENET_STD)]
    )
    image = picture(9, 7)
    ours = Normalise(classify.IMAGENET_MEAN, classify.IMAGENET_STD)(image)
    assert torch.equal(ours, theirs(image)) and ours.is_contiguous() and ours.dtype == torch.float32


def test_grey_images_become_three_equal_channels() -> None:
    x_CHW = classify.test_transform((8, 8), mean=(0.3,) * 3, std=(0.5,) * 3)(picture(8, 8, mode="L"))
    assert torch.equal(x_CHW[0], x_CHW[1]) and torch.equal(x_CHW[0], x_CHW[2])


# -- segmentation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "base_size", "factor", "expected"),
    [
        ((683, 512), (2048, 512), 1.0, (683, 512)),
        ((512, 683), (2048, 512), 1.0, (512, 683)),
        ((3000, 500), (2048, 512), 1.0, (2048, 341)),  # the long side is the limit
        ((683, 512), (2048, 512), 0.5, (342, 256)),
        ((2048, 1024), (2048, 1024), 2.0, (4096, 2048)),
        ((100, 60), None, 1.5, (150, 90)),
    ],
)  # fmt: skip
def test_an_image_is_resized_to_fit_its_base_size(size: Any, base_size: Any, factor: float, expected: Any) -> None:
    assert segment.fitted(size, base_size, factor) == expected


def stripes(height: int, width: int) -> Image.Image:
    """A mask: class 0, a thin stripe of class 1, ignored pixels at the left."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, -10:] = 1
    mask[:, :2] = segment.IGNORED
    return Image.fromarray(mask)


def test_a_small_image_is_padded_with_ignored_pixels() -> None:
    transform = segment.train_transform((24, 30), scale=(1.0, 1.0), flip_probability=0.0, photometric=False)
    x_CHW, mask_HW = transform(picture(16, 20), stripes(16, 20))
    assert x_CHW.shape == (3, 24, 30) and mask_HW.shape == (24, 30) and mask_HW.dtype == torch.int64
    assert torch.equal(mask_HW[:16, :20], torch.from_numpy(np.array(stripes(16, 20))).long())
    assert (mask_HW[16:] == 255).all() and (mask_HW[:, 20:] == 255).all()
    assert (x_CHW[:, 16:] == 0).all() and (x_CHW[:, :, 20:] == 0).all()
    mean, std = torch.tensor(segment.IMAGENET_MEAN), torch.tensor(segment.IMAGENET_STD)
    pixels = torch.from_numpy(np.array(picture(16, 20))).float() / 255
    torch.testing.assert_close(x_CHW[:, :16, :20].permute(1, 2, 0), (pixels - mean) / std)


def test_images_and_masks_are_flipped_scaled_and_cropped_alike() -> None:
    """With an image whose pixels show its mask."""
    mask = Image.fromarray(np.kron(np.arange(20).reshape(4, 5), np.ones((16, 16))).astype(np.uint8))
    image = Image.merge("RGB", [mask] * 3)
    transform = segment.train_transform(
        (40, 40), scale=(0.5, 2.0), max_class_share=1.0, photometric=False, mean=(0,) * 3, std=(1,) * 3
    )
    for index in range(20):
        with seeded_sample(0, 0, index):
            x_CHW, mask_HW = transform(image, mask)
        inside = mask_HW != 255
        shown = (x_CHW[0] * 255).round()[inside]
        assert (shown - mask_HW[inside]).abs().median() == 0  # edges between classes are blended in the image


def test_a_crop_is_drawn_again_if_one_class_covers_too_much() -> None:
    def share(limit: float, tries: int) -> float:
        transform = segment.train_transform(
            (16, 16), scale=(1.0, 1.0), max_class_share=limit, tries=tries, photometric=False
        )
        found = []
        for index in range(60):
            with seeded_sample(0, 0, index):
                mask_HW = transform(picture(16, 64), stripes(16, 64))[1]
            counts = mask_HW[mask_HW != 255].bincount()
            found.append(bool(len(counts) > 1 and counts.max() / counts.sum() < 0.75))
        return sum(found) / len(found)

    assert share(1.0, 10) < 0.2 < share(0.75, 3) < share(0.75, 200)
    assert share(0.75, 200) == 1.0


def test_a_validation_mask_keeps_its_size() -> None:
    x_CHW, mask_HW = segment.test_transform((64, 32))(picture(48, 60), stripes(48, 60))
    assert x_CHW.shape == (3, 32, 40) and mask_HW.shape == (48, 60)


def distort_naively(pixel: tuple[int, ...], change: str, amount: float) -> list[float]:
    """One pixel by colorsys, values 0 to 255."""
    r, g, b = (value / 255 for value in pixel)
    if change == "hue":
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        return [255 * value for value in colorsys.hsv_to_rgb((h + amount) % 1.0, s, v)]
    grey = 0.2989 * r + 0.587 * g + 0.114 * b
    return [255 * min(max(amount * value + (1 - amount) * grey, 0), 1) for value in (r, g, b)]


@pytest.mark.parametrize(
    ("drawn", "amounts", "expected"),
    [
        # Every random number below 0.5 switches its change on; brightness, order, contrast, saturation, hue, contrast.
        ([0.1, 0.9, 0.9, 0.9, 0.9], [20.0], lambda p: [min(value + 20, 255) for value in p]),
        ([0.9, 0.1, 0.1, 0.9, 0.9], [1.3], lambda p: [min(int(value * 1.3), 255) for value in p]),
        ([0.9, 0.9, 0.9, 0.9, 0.1], [0.6], lambda p: [int(value * 0.6) for value in p]),
        ([0.9, 0.9, 0.1, 0.9, 0.9], [0.7], lambda p: distort_naively(p, "saturation", 0.7)),
        ([0.9, 0.9, 0.9, 0.1, 0.9], [18.0], lambda p: distort_naively(p, "hue", 0.1)),
        ([0.9, 0.9, 0.9, 0.9, 0.9], [], list),
    ],
    ids=["brightness", "contrast first", "contrast last", "saturation", "hue", "nothing"],
)  # fmt: skip
def test_each_photometric_change_equals_a_loop_over_pixels(
    drawn: list[float], amounts: list[float], expected: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges: list[tuple[float, float]] = []
    draws, sizes = iter(drawn), iter(amounts)

    def uniform(low: float, high: float) -> float:
        ranges.append((low, high))
        return next(sizes)

    monkeypatch.setattr(random, "random", lambda: next(draws))
    monkeypatch.setattr(random, "uniform", uniform)
    pixels = np.array(picture(9, 7))
    found = segment.distorted(pixels).astype(float)
    for row, column in np.ndindex(9, 7):
        assert np.abs(found[row, column] - expected(tuple(map(int, pixels[row, column])))).max() <= 1.5
    assert set(ranges) <= {(-32, 32), (0.5, 1.5), (-18, 18)}
