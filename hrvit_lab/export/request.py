"""The settings of an export: the format, the shape of the images, and the number format of the arithmetic."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

FREE_AXES = ("batch", "size")
"""Axes that may be free: the number of images, and height and width."""

MAX_BATCH = 65_536
MAX_SIDE = 8_192
"""Upper bounds of free axes. A graph needs some bound."""


@dataclass(frozen=True)
class Request:
    """The settings of an export.

    Attributes:
        format: a key of ``FORMATS``.
        resolution: input height and width in pixels.
        batch_size: images per call.
        free: those of ``FREE_AXES`` that a caller of the file may choose.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"``: number format of weights and arithmetic.
            Images and outputs are float32 in every file.
        channels: of the images.
        side_step: with a free size, height and width are multiples of this number of pixels.
        calibration: for int8, images (N, C, H, W) as the network takes them.
    """

    format: str
    resolution: tuple[int, int] = (224, 224)
    batch_size: int = 1
    free: tuple[str, ...] = ()
    dtype: str = "float32"
    channels: int = 3
    side_step: int = 1
    calibration: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, C, H, W) of the images, at the requested batch size and resolution."""
        return self.batch_size, self.channels, *self.resolution

    @property
    def open_shape(self) -> tuple[int, int, int, int]:
        """The same with −1 for free axes."""
        batch = -1 if "batch" in self.free else self.batch_size
        height, width = (-1, -1) if "size" in self.free else self.resolution
        return batch, self.channels, height, width

    @property
    def max_batch(self) -> int | None:
        """The largest free number of images; None if it is fixed."""
        return MAX_BATCH if "batch" in self.free else None

    @property
    def max_side_px(self) -> int | None:
        """The largest free side in pixels; None if sides are fixed."""
        return self.side_step * max(4, MAX_SIDE // self.side_step) if "size" in self.free else None

    @property
    def other_shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Shapes that differ from `shape` in every free axis; none without free axes."""
        batch, channels, height, width = self.shape
        batches = (1, min(batch + 2, MAX_BATCH)) if "batch" in self.free else (batch,)
        step = self.side_step
        sides = [(2 * step, 3 * step), (3 * step, 2 * step)] if "size" in self.free else [(height, width)]
        shapes = [(b, channels, *side) for b in batches for side in sides]
        return tuple(shape for shape in shapes if shape != self.shape)

    def example(self) -> Tensor:
        """Images to trace with, (B, C, H, W). Free axes are at least two, because a tracer takes one for a constant."""
        batch, channels, height, width = self.shape
        if "batch" in self.free:
            batch = max(2, batch)
        if "size" in self.free:
            height, width = 2 * self.side_step, 3 * self.side_step
        return torch.zeros(batch, channels, height, width)

    def dynamic_shapes(self) -> tuple[dict[int, Any]] | None:
        """Free axes as ``torch.export`` takes them; None without free axes."""
        axes: dict[int, Any] = {}
        if "batch" in self.free:
            axes[0] = torch.export.Dim("batch", min=1, max=MAX_BATCH)
        if self.max_side_px is not None:
            most = self.max_side_px // self.side_step
            axes[2] = self.side_step * torch.export.Dim("rows", min=1, max=most)
            axes[3] = self.side_step * torch.export.Dim("columns", min=1, max=most)
        return (axes,) if axes else None
