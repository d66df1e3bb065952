"""Segmentation inference: class scores of every pixel, for whole images or sliding windows, multi-scale and flipped.

The order of operations is that of mmsegmentation, so that results are comparable with published ones: logits are
resized to the network's input and averaged over windows, the result is resized to the original image, then softmax is
applied and scales and flips are averaged. All resizing is bilinear with ``align_corners=False``.

Shapes: N windows of a batch, C classes, H × W the input, h × w a window.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvit_lab.errors import ConfigError

MAX_SCALE = 16.0


@dataclass(frozen=True)
class InferenceOptions:
    """Options of `predict`.

    Attributes:
        crop: (height, width) of the sliding windows in pixels; None for the whole image in one pass.
        stride: (vertical, horizontal) distance between windows, from 1 to ``crop``; required with ``crop``.
        scales: factors of the input's sides. Windows have the size ``crop`` at all scales.
        flip: also run the horizontally flipped image at every scale.
        batch_size: maximum number of windows in one pass of the network.

    Raises:
        ConfigError: if a value is out of range.

    >>> InferenceOptions(crop=(1024, 1024), stride=(768, 768))  # Cityscapes
    InferenceOptions(crop=(1024, 1024), stride=(768, 768), scales=(1.0,), flip=False, batch_size=1)
    """

    crop: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    batch_size: int = 1

    def __post_init__(self) -> None:
        if (self.crop is None) != (self.stride is None):
            raise ConfigError(f"crop = {self.crop} and stride = {self.stride} belong together; give both or none")
        if self.crop is not None and self.stride is not None:
            _check_windows(self.crop, self.stride)
        if not self.scales or not all(0 < scale <= MAX_SCALE for scale in self.scales):
            raise ConfigError(f"scales = {self.scales} is out of range; use factors above 0, at most {MAX_SCALE:g}")
        _check_batch_size(self.batch_size)


@torch.no_grad()
def predict(
    model: Callable[[Tensor], Tensor],
    image_1CHW: Tensor,
    original_size: tuple[int, int],
    options: InferenceOptions,
) -> Tensor:
    """Class scores at the original size; ``argmax(1)`` is the predicted label map.

    Memory: at most three tensors of (1, C, *original_size) and the logits of one view, for any number of scales.

    Args:
        model: (N, C_in, h, w) → logits (N, C, any size), in evaluation mode.
        image_1CHW: one normalized image on the model's device: (1, C_in, H, W).
        original_size: (height, width) of the image before it was resized, which is the size of its label map.
    Returns:
        (1, C, *original_size), float32 or wider. With one scale and no flip: logits. Otherwise: the mean of the
        probabilities (softmax over classes) of all views.
    Raises:
        ConfigError: if the model is in training mode or does not return maps of logits, or ``image_1CHW`` is not one
            image.
    """
    _check_image(image_1CHW)
    if min(original_size) < 1:
        raise ConfigError(f"original_size = {original_size} is out of range; use sides of at least 1 pixel")
    if getattr(model, "training", False):
        raise ConfigError("the model is in training mode, with dropout and batch statistics; call model.eval() first")
    flips = (False, True) if options.flip else (False,)
    views = [(scale, flip) for scale in options.scales for flip in flips]
    if len(views) == 1:
        return _view(model, image_1CHW, original_size, options, *views[0])
    total_1CHW: Tensor | None = None
    for scale, flip in views:
        probability_1CHW = _view(model, image_1CHW, original_size, options, scale, flip).softmax(1)
        total_1CHW = probability_1CHW if total_1CHW is None else total_1CHW.add_(probability_1CHW)
        del probability_1CHW  # free memory before the next view
    assert total_1CHW is not None  # options have at least one scale
    return total_1CHW.div_(len(views))


@torch.no_grad()
def slide(
    model: Callable[[Tensor], Tensor],
    image_1CHW: Tensor,
    crop: tuple[int, int],
    stride: tuple[int, int],
    batch_size: int = 1,
) -> Tensor:
    """Mean of the logits of all windows that cover a pixel.

    If an image is smaller than ``crop`` on a side, windows have the image's size on that side; there is no padding.

    Args:
        model: as in `predict`.
        image_1CHW: as in `predict`.
        crop, stride, batch_size: as in `InferenceOptions`.
    Returns:
        (1, C, H, W), the size of ``image_1CHW``, float32 or wider.
    Raises:
        ConfigError: if an argument is out of range, or the model does not return maps of logits.
    """
    _check_image(image_1CHW)
    _check_windows(crop, stride)
    _check_batch_size(batch_size)
    height, width = image_1CHW.shape[-2:]
    h, w = min(crop[0], height), min(crop[1], width)
    tops, lefts = window_starts(height, crop[0], stride[0]), window_starts(width, crop[1], stride[1])
    corners = [(top, left) for top in tops for left in lefts]
    total_1CHW: Tensor | None = None
    for first in range(0, len(corners), batch_size):
        batch = corners[first : first + batch_size]
        logits_NChw = whole(model, torch.cat([image_1CHW[:, :, y : y + h, x : x + w] for y, x in batch]))
        if total_1CHW is None:
            total_1CHW = logits_NChw.new_zeros(1, logits_NChw.shape[1], height, width)
        for (y, x), logits_Chw in zip(batch, logits_NChw, strict=True):
            total_1CHW[0, :, y : y + h, x : x + w] += logits_Chw
    assert total_1CHW is not None  # every image has a window
    # Windows form a grid, so a pixel's coverage is the product of those of its row and column.
    rows_H1, columns_W = _coverage(tops, h, total_1CHW, height)[:, None], _coverage(lefts, w, total_1CHW, width)
    return total_1CHW.div_(rows_H1 * columns_W)


@torch.no_grad()
def whole(model: Callable[[Tensor], Tensor], x_NCHW: Tensor) -> Tensor:
    """Logits of one pass at the size of the input: (N, C_in, H, W) → (N, C, H, W), float32 or wider.

    Raises:
        ConfigError: if the model does not return maps of logits.
    """
    logits = model(x_NCHW)
    if not isinstance(logits, Tensor) or logits.ndim != 4 or len(logits) != len(x_NCHW):
        given = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(
            f"head: the model returns {given}, and segmentation needs logits of shape (B, classes, height, width); "
            "build it with head='segformer' or 'upernet'"
        )
    # Sums over windows and the argmax need more than half precision.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return _resize(logits, (x_NCHW.shape[-2], x_NCHW.shape[-1]))


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows on one side; the last window is shifted inward to end at the border.

    >>> window_starts(2048, 1024, 768), window_starts(1024, 1024, 768), window_starts(512, 1024, 768)
    ([0, 768, 1024], [0], [0])
    """
    number = max(size - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride, size - crop), 0) for index in range(number)]


def scale_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Both sides times ``scale``, rounded half up, at least 1 pixel.

    >>> scale_size((512, 683), 1.5)
    (768, 1025)
    """
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in size)
    return height, width


def _view(
    model: Callable[[Tensor], Tensor],
    image_1CHW: Tensor,
    original_size: tuple[int, int],
    options: InferenceOptions,
    scale: float,
    flip: bool,
) -> Tensor:
    """Logits of one scaled, possibly flipped image, flipped back: (1, C, *original_size)."""
    height, width = image_1CHW.shape[-2:]
    x_1CHW = _resize(image_1CHW, scale_size((height, width), scale))
    if flip:
        x_1CHW = x_1CHW.flip(3)
    if options.crop is None or options.stride is None:
        logits_1CHW = whole(model, x_1CHW)
    else:
        logits_1CHW = slide(model, x_1CHW, options.crop, options.stride, options.batch_size)
    logits_1CHW = _resize(logits_1CHW, original_size)
    return logits_1CHW.flip(3) if flip else logits_1CHW


def _resize(x_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    if x_NCHW.shape[-2:] == torch.Size(size):
        return x_NCHW
    return F.interpolate(x_NCHW, size, mode="bilinear", align_corners=False)


def _coverage(starts: list[int], length: int, like: Tensor, size: int) -> Tensor:
    """The number of windows that cover each pixel of a side: (size,), dtype and device of ``like``."""
    counts = like.new_zeros(size)
    for start in starts:
        counts[start : start + length] += 1
    return counts


def _check_image(image_1CHW: Tensor) -> None:
    if image_1CHW.ndim != 4 or len(image_1CHW) != 1:
        raise ConfigError(f"image has shape {tuple(image_1CHW.shape)}; give one image, (1, channels, height, width)")


def _check_windows(crop: tuple[int, int], stride: tuple[int, int]) -> None:
    if not all(1 <= step <= side for side, step in zip(crop, stride, strict=True)):
        raise ConfigError(
            f"crop = {crop} with stride = {stride} is out of range; use strides of at least 1 and at most the crop, "
            "so that windows leave no gaps"
        )


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size} is out of range; use at least 1")
