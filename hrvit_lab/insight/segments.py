"""What a segmenter sees: its prediction, how sure it is, and its errors at the boundaries of objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.hooks import evaluating
from hrvit_lab.insight.places import check_image

IGNORED = 255
"""Label of pixels without a class."""


@dataclass(frozen=True, eq=False)
class Segments:
    """A segmenter's answer for one image, per pixel.

    Attributes:
        prediction: class numbers, int64 (H, W).
        entropy_nats: entropy of the probabilities, (H, W), from 0 (sure) to ``max_entropy_nats``.
        max_entropy_nats: the logarithm of the number of classes.
    """

    prediction: NDArray[Any]
    entropy_nats: NDArray[Any]
    max_entropy_nats: float


@dataclass(frozen=True, eq=False)
class BoundaryErrors:
    """Errors near and far from the boundaries between true classes.

    Attributes:
        wrong: pixels with a label whose prediction differs, bool (H, W).
        near: pixels within the width of a boundary, bool (H, W).
        error_percent: wrong pixels of all labelled ones.
        near_error_percent, far_error_percent: of those near to a boundary, and of the others; NaN without such pixels.
    """

    wrong: NDArray[Any]
    near: NDArray[Any]
    error_percent: float
    near_error_percent: float
    far_error_percent: float


@torch.no_grad()
def segments(model: nn.Module, image_1CHW: Tensor) -> Segments:
    """Prediction and entropy at the size of the image; logits are interpolated bilinearly, as in evaluation.

    Raises:
        ConfigError: if the network is not a segmenter.
    """
    image = check_image(image_1CHW)
    with evaluating(model):
        logits = model(image_1CHW)
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        raise ConfigError(f"{type(model).__name__} is not a segmenter; use a network with head segformer or upernet")
    large_CHW = F.interpolate(logits.float(), size=image, mode="bilinear", align_corners=False)[0]
    entropy_HW = torch.special.entr(large_CHW.softmax(0)).sum(0)
    return Segments(large_CHW.argmax(0).cpu().numpy(), entropy_HW.cpu().numpy(), float(np.log(len(large_CHW))))


def boundary_errors(prediction: NDArray[Any], truth: NDArray[Any], width_px: int = 3) -> BoundaryErrors:
    """Errors of a prediction, apart for pixels within ``width_px`` rows and columns of a boundary.

    A pixel is at a boundary if one of its four neighbours has another class. Pixels without a label (255) are no class.

    Args:
        prediction, truth: class numbers, (H, W).
        width_px: distance to the boundary, ≥ 1: 1 means the pixels on both sides.
    Raises:
        ConfigError: if the sizes differ.
    """
    if prediction.shape != truth.shape:
        raise ConfigError(f"the truth has size {truth.shape}, but the prediction {prediction.shape}; give equal sizes")
    if width_px < 1:
        raise ConfigError(f"width_px = {width_px} is invalid; use at least 1")
    labelled = truth != IGNORED
    edge = np.zeros(truth.shape, dtype=bool)
    for axis in (0, 1):
        a, b = (np.take(truth, range(start, truth.shape[axis] - 1 + start), axis) for start in (0, 1))
        differs = (a != b) & (a != IGNORED) & (b != IGNORED)
        none = [(0, 0), (0, 0)]
        for side in ((0, 1), (1, 0)):
            none[axis] = side
            edge |= np.pad(differs, none)
    grown = torch.from_numpy(edge[None, None].astype(np.float32))
    near = F.max_pool2d(grown, 2 * width_px - 1, stride=1, padding=width_px - 1)[0, 0].numpy() > 0
    wrong = labelled & (prediction != truth)

    def percent(of: NDArray[Any]) -> float:
        return float(100 * wrong[of].mean()) if of.any() else float("nan")

    return BoundaryErrors(wrong, near, percent(labelled), percent(labelled & near), percent(labelled & ~near))
