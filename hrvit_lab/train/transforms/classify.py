"""Transforms for classification, built with timm."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.transforms.normalise import Normalise

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Transform = Callable[[Image.Image], Tensor]


def train_transform(
    size: tuple[int, int],
    *,
    crop: Literal["resized", "padded", "none"] = "resized",
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    padding: int = 0,
    flip_probability: float = 0.5,
    auto_augment: str | None = None,
    color_jitter: float | None = None,
    erasing_probability: float = 0.0,
    erasing_mode: Literal["const", "rand", "pixel"] = "const",
    interpolation: str = "bicubic",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Transform:
    """Augmentation of one image; uses the global random generators of Python, numpy and torch.

    Args:
        size: (height, width) of the result in pixels.
        crop: ``resized``: a random part of the image, resized; ``padded``: the image resized to ``size``, padded by
            reflection with ``padding`` pixels, and randomly cropped; ``none``: resized only.
        scale, ratio: area and aspect ratio of the random part.
        auto_augment: a policy in timm's notation, such as ``rand-m9-mstd0.5-inc1``.
        color_jitter: of brightness, contrast and saturation; without a policy only.
        interpolation: ``bilinear``, ``bicubic``, or ``random`` (one of both for each image).
        mean, std: of each channel, of pixels in 0…1.
    Returns:
        image → float32 (3, H, W), normalised.
    Raises:
        ConfigError: for a policy that timm does not have.
    """
    from timm.data.random_erasing import RandomErasing
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision import transforms

    steps: list[Any] = [_to_rgb]
    if crop == "resized":
        steps.append(RandomResizedCropAndInterpolation(size, scale=scale, ratio=ratio, interpolation=interpolation))
    else:
        steps.append(_resize(size, interpolation))
        if crop == "padded":
            steps.append(PaddedCrop(padding))
    if flip_probability:
        steps.append(transforms.RandomHorizontalFlip(flip_probability))
    if auto_augment is not None:
        steps.append(policy(auto_augment, size, interpolation, mean))
    elif color_jitter:
        steps.append(transforms.ColorJitter(color_jitter, color_jitter, color_jitter))
    steps.append(Normalise(mean, std))
    if erasing_probability:
        steps.append(RandomErasing(erasing_probability, mode=erasing_mode, device="cpu"))
    return transforms.Compose(steps)


def test_transform(
    size: tuple[int, int],
    *,
    crop_fraction: float = 1.0,
    interpolation: str = "bicubic",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Transform:
    """Resize the shorter side to ``size / crop_fraction`` and crop the centre, as in timm.

    Returns:
        image → float32 (3, H, W), normalised.
    """
    from timm.data.transforms_factory import transforms_imagenet_eval
    from torchvision import transforms

    return transforms.Compose(
        [
            _to_rgb,
            transforms_imagenet_eval(
                size, crop_pct=crop_fraction, interpolation=interpolation, mean=tuple(mean), std=tuple(std)
            ),
        ]
    )


def policy(text: str, size: tuple[int, int], interpolation: str, mean: Sequence[float]) -> Transform:
    """An augmentation policy in timm's notation.

    timm's increasing posterization keeps 0 bits at its highest level, which is an error in Pillow 12. Here the result
    is black, as in older versions of Pillow.

    Raises:
        ConfigError: for a policy that timm does not have.
    """
    from timm.data.auto_augment import (
        AugmentOp,
        RandAugment,
        augment_and_mix_transform,
        auto_augment_transform,
        posterize,
        rand_augment_transform,
    )
    from timm.data.transforms import str_to_pil_interp

    options: dict[str, Any] = {
        "translate_const": int(min(size) * 0.45),
        "img_mean": tuple(min(255, round(255 * value)) for value in mean),
    }
    if interpolation != "random":
        options["interpolation"] = str_to_pil_interp(interpolation)
    makers = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
    try:
        made = makers.get(text.partition("-")[0], auto_augment_transform)(text, options)
    except (AssertionError, ValueError, KeyError) as error:
        raise ConfigError(
            f"auto_augment {text!r} is not a policy of timm ({error}); use rand-m9-mstd0.5-inc1"
        ) from None

    ops: list[Any] = list(made.ops) if isinstance(made, RandAugment) else _ops(made)
    for op in ops:
        if isinstance(op, AugmentOp) and op.aug_fn is posterize:
            op.aug_fn = _posterized
    return made


def _posterized(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """timm's posterization, and black for 0 bits. (In the module, so that a policy can be pickled for workers.)"""
    from timm.data.auto_augment import posterize

    return posterize(image, bits, **options) if bits else Image.new(image.mode, image.size)


def _ops(made: Any) -> list[Any]:
    """The operations of AutoAugment's sub-policies or of AugMix."""
    found = getattr(made, "policy", None) or getattr(made, "ops", [])
    return [op for entry in found for op in (entry if isinstance(entry, list) else [entry])]


class PaddedCrop:
    """Pad an image by reflection and crop it to its size at a random place, in one step.

    Several times as fast on small images as torchvision's RandomCrop, which pads by numpy's general function.

    Args:
        padding: pixels on each side, any number.
    """

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, image: Image.Image) -> Image.Image:
        pixels_HWC = np.asarray(image)
        places = torch.randint(-self.padding, self.padding + 1, (2,)).tolist()
        rows, columns = (
            _reflected(np.arange(side) + place, side) for side, place in zip(pixels_HWC.shape, places, strict=False)
        )
        return Image.fromarray(pixels_HWC[rows[:, None], columns])


def _reflected(places: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Indices in 0 … side − 1 of places beyond the edges; the pixel at the edge is not repeated."""
    period = max(2 * (side - 1), 1)
    inside = places % period
    return np.minimum(inside, period - inside) if side > 1 else inside


def _resize(size: tuple[int, int], interpolation: str) -> Any:
    from timm.data.transforms import str_to_interp_mode
    from torchvision import transforms

    return transforms.Resize(
        size, interpolation=str_to_interp_mode("bilinear" if interpolation == "random" else interpolation)
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")
