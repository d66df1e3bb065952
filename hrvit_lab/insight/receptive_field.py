"""Effective receptive field: which pixels change a token, measured by gradients.

Source: arXiv 1701.04128.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.features import feature_maps, last_maps, map_strides
from hrvit_lab.insight.locate import token_at

SAMPLES = 4


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """The influence of every pixel on one token of a map.

    Attributes:
        token: (row, column).
        influence: root mean square of the token's derivatives by the pixel, relative to the sum over pixels, (H, W).
        extent_px: height and width of the smallest rectangle that contains all pixels with influence.
        size: height and width of the map in tokens.
        stride: pixels of the image for each token, down and right.
    """

    token: tuple[int, int]
    influence: NDArray[Any]
    extent_px: tuple[int, int]
    size: tuple[int, int]
    stride: tuple[int, int]

    def area_px(self, share: float) -> int:
        """The smallest number of pixels that have this share of the influence.

        >>> ReceptiveField((0, 0), np.array([[0.2, 0.6, 0.2]]), (1, 3), (1, 1), (1, 3)).area_px(0.5)
        1
        """
        largest = np.sort(self.influence, axis=None)[::-1].cumsum()
        return int(np.searchsorted(largest, share * largest[-1] * (1 - 1e-9)) + 1)


def receptive_fields(
    model: nn.Module,
    images_BCHW: Tensor,
    pixel: tuple[int, int] | None = None,
    *,
    seed: int = 0,
    samples: int = SAMPLES,
) -> dict[str, ReceptiveField]:
    """The effective receptive field of the token of every branch that covers a pixel, mean over images.

    The derivatives of all channels are combined by random signs: the mean square over samples estimates the sum of
    squares over channels. (The plain sum of the channels would be constant after a LayerNorm.)

    Args:
        model: any network with maps (`feature_maps`).
        images_BCHW: images, as the network reads them.
        pixel: (row, column) of the images; None: their centre.
        seed: of the signs.
        samples: backward passes for each map.
    Returns:
        For the maps of `last_maps`, by name.
    Raises:
        ConfigError: for a network without maps, or a pixel outside of the images.
    """
    image = images_BCHW.shape[2], images_BCHW.shape[3]
    at_pixel = (image[0] // 2, image[1] // 2) if pixel is None else pixel
    token_at(at_pixel, image, (1, 1))  # checks the pixel
    pixels = images_BCHW.detach().clone().requires_grad_(True)
    maps = last_maps(model, feature_maps(model, pixels, gradients=True))
    strides = map_strides(model, maps, image)
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, map_BCHW in maps.items():
        size = map_BCHW.shape[2], map_BCHW.shape[3]
        row, column = token_at(at_pixel, image, strides[name])
        at = min(row, size[0] - 1), min(column, size[1] - 1)  # a map may leave out the last pixels
        unit_BC = map_BCHW[:, :, at[0], at[1]]
        squares_BHW = torch.zeros_like(pixels[:, 0])
        for _ in range(samples):
            signs_BC = torch.randint(0, 2, unit_BC.shape, generator=generator) * 2.0 - 1
            [gradient_BCHW] = torch.autograd.grad(
                unit_BC, pixels, signs_BC.to(unit_BC), retain_graph=True, materialize_grads=True
            )
            squares_BHW += gradient_BCHW.square().sum(1)
        total_HW = (squares_BHW / samples).sqrt().double().mean(0).cpu().numpy()
        if not total_HW.any():
            raise ConfigError(
                f"{name}: no pixel has influence on token {at[0]},{at[1]}; choose a map that depends on the image"
            )
        rows, columns = (np.flatnonzero(total_HW.any(axis)) for axis in (1, 0))
        extent = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
        found[name] = ReceptiveField(at, total_HW / total_HW.sum(), extent, size, strides[name])
    return found
