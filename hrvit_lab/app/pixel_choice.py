"""A pixel of an image, chosen by a click or by its row and column, so that it can be reached by keyboard."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from streamlit_image_coordinates import streamlit_image_coordinates

SHOWN_PX = 336
"""Side of the image to click on."""


def choose_pixel(image: NDArray[np.uint8], about: str) -> tuple[int, int]:
    """The pixel that was clicked or typed last, (row, column); the centre at first.

    Args:
        image: (side, side, 3).
        about: tells images apart; each has its own pixel.
    """
    side, click = image.shape[0], f"click on {about}"
    keys = f"row of {about}", f"column of {about}"

    def follow_click() -> None:
        st.session_state[keys[0]], st.session_state[keys[1]] = clicked_pixel(st.session_state.get(click), side)

    picture = st.container()
    with st.container(horizontal=True):
        row, column = (_number(label, key, side) for label, key in zip(("Row", "Column"), keys, strict=True))
    with picture:
        streamlit_image_coordinates(
            marked(image, row, column), width=SHOWN_PX, key=click, on_click=follow_click, cursor="crosshair"
        )
    st.caption(f"Pixel: row {row}, column {column} of {side} × {side}.")
    return row, column


def _number(label: str, key: str, side: int) -> int:
    st.session_state.setdefault(key, side // 2)  # a default of the widget itself would conflict with a click
    return int(st.number_input(label, 0, side - 1, key=key, width=120, help="From 0. A click on the image sets it."))


def clicked_pixel(click: Mapping[str, Any] | None, side: int) -> tuple[int, int]:
    """The pixel under a click, (row, column); the centre without one.

    >>> clicked_pixel({"x": 168, "y": 0, "width": 336, "height": 336}, 32)
    (0, 16)
    """
    if not click or not click.get("width") or not click.get("height"):
        return side // 2, side // 2
    row, column = int(click["y"] * side / click["height"]), int(click["x"] * side / click["width"])
    return min(side - 1, max(0, row)), min(side - 1, max(0, column))


def marked(image: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    """The image at the size that is shown, with a cross at the pixel: (H, W, 3)."""
    scale = max(1, SHOWN_PX // image.shape[0])
    shown = np.kron(image, np.ones((scale, scale, 1), dtype=np.uint8))
    y, x = row * scale + scale // 2, column * scale + scale // 2
    arm = max(4, shown.shape[0] // 40)
    for half, color in ((2, (255, 255, 255)), (1, (0, 158, 230))):
        shown[max(0, y - half) : y + half, max(0, x - arm) : x + arm] = color
        shown[max(0, y - arm) : y + arm, max(0, x - half) : x + half] = color
    return shown
