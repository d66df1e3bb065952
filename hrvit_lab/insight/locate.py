"""Tokens and pixels: which token covers a pixel, and maps of tokens drawn at the size of the image.

Token (i, j) of a branch of stride s stands for the pixels [i·s, (i + 1)·s) × [j·s, (j + 1)·s) of the image. The last
token of an axis may extend beyond the image. Sides of maps are those of the image divided by the stride, rounded up.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.heads import Size


def token_at(pixel: tuple[int, int], image: Size, stride: Size) -> tuple[int, int]:
    """The token (row, column) that covers a pixel (row, column).

    >>> token_at((9, 4), (45, 67), (4, 4))
    (2, 1)

    Raises:
        ConfigError: if the pixel is not in the image.
    """
    if not (0 <= pixel[0] < image[0] and 0 <= pixel[1] < image[1]):
        raise ConfigError(
            f"pixel {pixel[0]},{pixel[1]} is outside of the image, which has {image[0]} rows and {image[1]} columns; "
            f"use a row from 0 to {image[0] - 1} and a column from 0 to {image[1] - 1}"
        )
    return pixel[0] // stride[0], pixel[1] // stride[1]


def pixels_of(token: tuple[int, int], image: Size, stride: Size) -> tuple[slice, slice]:
    """The rows and columns of the pixels that a token covers."""
    return (
        slice(token[0] * stride[0], min((token[0] + 1) * stride[0], image[0])),
        slice(token[1] * stride[1], min((token[1] + 1) * stride[1], image[1])),
    )


def check_token(token: tuple[int, int], size: Size) -> None:
    """Check that a map of this size has the token (row, column).

    Raises:
        ConfigError: otherwise.
    """
    if not (0 <= token[0] < size[0] and 0 <= token[1] < size[1]):
        raise ConfigError(
            f"token {token[0]},{token[1]} is outside of the map, which has {size[0]} rows and {size[1]} columns; "
            f"use a row from 0 to {size[0] - 1} and a column from 0 to {size[1] - 1}"
        )


def on_image(values: NDArray[Any], image: Size, stride: Size) -> NDArray[Any]:
    """A map of tokens at the size of the image, without interpolation: (…, H, W, …) over the last two axes.

    Each pixel has the value of the token that covers it: (…, h, w) → (…, H, W).
    """
    tall = np.repeat(values, stride[0], axis=-2)[..., : image[0], :]
    return np.repeat(tall, stride[1], axis=-1)[..., : image[1]]
