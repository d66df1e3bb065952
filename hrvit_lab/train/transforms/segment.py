"""Transforms for segmentation: images with masks.

Training transforms are those of mmsegmentation: random scale, random crop without a dominating class, flip, photometric
distortion, padding. Values in the docstrings are those of the published recipes.
"""

import random
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from hrvit_lab.train.transforms.classify import IMAGENET_MEAN, IMAGENET_STD
from hrvit_lab.train.transforms.normalise import Normalise

IGNORED = 255

Transform = Callable[[Image.Image, Image.Image], tuple[Tensor, Tensor]]


def train_transform(
    crop: tuple[int, int],
    *,
    base_size: tuple[int, int] | None = None,
    scale: tuple[float, float] = (0.5, 2.0),
    max_class_share: float = 0.75,
    tries: int = 10,
    flip_probability: float = 0.5,
    photometric: bool = True,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Transform:
    """Augmentation of an image and its mask; uses the global random generators of Python and numpy.

    Args:
        crop: (height, width) of the result in pixels.
        base_size: (long, short) side that the image fits into at scale 1; None: its own size.
        scale: range of the factor.
        max_class_share: largest share of one class in a crop.
        tries: maximum number of random crops until one satisfies this; otherwise the last one is used.
        photometric: brightness ± 32, contrast and saturation 0.5 to 1.5, hue ± 18 of 180, each with probability 0.5.
    Returns:
        (image, mask) → float32 (3, H, W), normalised and padded with 0; int64 (H, W), padded with 255.
    """

    return partial(
        _augmented, crop=crop, base_size=base_size, scale=scale, max_class_share=max_class_share, tries=tries,
        flip_probability=flip_probability, photometric=photometric, normalise=Normalise(mean, std),
    )  # fmt: skip


def test_transform(
    base_size: tuple[int, int] | None, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Transform:
    """Resize the image to fit ``base_size``; the mask keeps its size, at which scores are computed.

    Returns:
        (image, mask) → float32 (3, H, W), normalised; int64 (h, w).
    """

    return partial(_fitted_image, base_size=base_size, normalise=Normalise(mean, std))


# Functions of the module, so that a transform can be pickled for workers.


def _augmented(
    image: Image.Image,
    mask: Image.Image,
    *,
    crop: tuple[int, int],
    base_size: tuple[int, int] | None,
    scale: tuple[float, float],
    max_class_share: float,
    tries: int,
    flip_probability: float,
    photometric: bool,
    normalise: Normalise,
) -> tuple[Tensor, Tensor]:
    factor = random.uniform(*scale)
    image, mask = resized(image.convert("RGB"), mask, fitted(image.size, base_size, factor))
    pixels, labels = np.asarray(image), np.asarray(mask)
    top, left = _crop_position(labels, crop, max_class_share, tries)
    rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
    pixels, labels = pixels[rows, columns], labels[rows, columns]
    if random.random() < flip_probability:
        pixels, labels = pixels[:, ::-1], labels[:, ::-1]
    if photometric:
        pixels = distorted(pixels)
    x_CHW = normalise(pixels)
    below, right = crop[0] - labels.shape[0], crop[1] - labels.shape[1]
    x_CHW = torch.nn.functional.pad(x_CHW, (0, right, 0, below))
    return x_CHW, torch.nn.functional.pad(_labels(labels), (0, right, 0, below), value=IGNORED)


def _fitted_image(
    image: Image.Image, mask: Image.Image, *, base_size: tuple[int, int] | None, normalise: Normalise
) -> tuple[Tensor, Tensor]:
    image = image.convert("RGB")
    size = fitted(image.size, base_size, 1.0)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return normalise(image), _labels(np.asarray(mask))


def fitted(size: tuple[int, int], base_size: tuple[int, int] | None, factor: float) -> tuple[int, int]:
    """The (width, height) of an image resized to fit ``factor`` × ``base_size`` with the same aspect ratio.

    >>> fitted((683, 512), (2048, 512), 1.0), fitted((100, 50), None, 0.5)
    ((683, 512), (50, 25))
    """
    width, height = size
    if base_size is None:
        ratio = factor
    else:
        long, short = (side * factor for side in base_size)
        ratio = min(max(long, short) / max(size), min(long, short) / min(size))
    return max(1, int(width * ratio + 0.5)), max(1, int(height * ratio + 0.5))


def resized(image: Image.Image, mask: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Resize the image with bilinear and the mask with nearest-neighbour interpolation."""
    if image.size == size:
        return image, mask
    return image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)


def distorted(pixels: np.ndarray) -> np.ndarray:
    """Photometric distortion of uint8 (H, W, 3): each change with probability 0.5, contrast first or last."""
    x_CHW = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    if random.random() < 0.5:
        x_CHW = _linear(x_CHW, 1.0, random.uniform(-32, 32))
    contrast_first = random.random() < 0.5
    if contrast_first and random.random() < 0.5:
        x_CHW = _linear(x_CHW, random.uniform(0.5, 1.5), 0.0)
    if random.random() < 0.5:
        x_CHW = F.adjust_saturation(x_CHW, random.uniform(0.5, 1.5))
    if random.random() < 0.5:
        x_CHW = F.adjust_hue(x_CHW, random.uniform(-18, 18) / 180)
    if not contrast_first and random.random() < 0.5:
        x_CHW = _linear(x_CHW, random.uniform(0.5, 1.5), 0.0)
    return x_CHW.permute(1, 2, 0).numpy()


def _linear(x_CHW: Tensor, factor: float, offset: float) -> Tensor:
    return (x_CHW.float() * factor + offset).clamp(0, 255).to(torch.uint8)


def _labels(labels: np.ndarray) -> Tensor:
    return torch.from_numpy(labels.copy()).long()


def _crop_position(labels: np.ndarray, crop: tuple[int, int], max_class_share: float, tries: int) -> tuple[int, int]:
    """Top left corner of a crop in which no class exceeds its maximum share, or of the last crop tried."""
    room = [max(0, side - part) for side, part in zip(labels.shape, crop, strict=True)]
    for _ in range(tries):
        top, left = (random.randint(0, space) for space in room)
        counts = np.bincount(labels[top : top + crop[0], left : left + crop[1]].ravel(), minlength=256)[:IGNORED]
        if max_class_share >= 1 or ((counts > 0).sum() > 1 and counts.max() / counts.sum() < max_class_share):
            break
    return top, left
