"""A self-contained HTML page of images with ground truth, prediction and errors."""

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from hrvit_lab.train.scores import IGNORED

SIDE = 256
"""Longest side of a picture, in pixels."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; background: #fafbfc; margin: 2rem auto; max-width: 72rem;
  padding: 0 1.5rem; }
h1 { font-size: 1.4rem; font-weight: 600; } p { color: #5b6875; }
table { border-collapse: separate; border-spacing: .6rem; width: 100%; table-layout: fixed; }
th { text-align: left; font-weight: 500; color: #5b6875; } td { vertical-align: top; }
img { width: 100%; height: auto; display: block; border-radius: 4px; image-rendering: pixelated; }
small { color: #5b6875; }
ul { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; list-style: none; padding: 0; }
li::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .5em; background: var(--c);
  border-radius: 2px; }
"""


@dataclass(frozen=True)
class Overlay:
    """One row of the page.

    Attributes:
        name: of the image.
        image: uint8 (H, W, 3).
        truth, prediction: integer label maps (H, W).
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def palette(num_classes: int) -> np.ndarray:
    """A colour for each class, uint8 (256, 3), with distinct hues for consecutive classes; ignored pixels are dark
    grey."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for label in range(min(num_classes, 255)):
        hue, ring = (label * 0.61803398875) % 1.0, label // 12 % 3
        colours[label] = [round(255 * value) for value in colorsys.hls_to_rgb(hue, 0.55 - 0.12 * ring, 0.65)]
    colours[IGNORED] = (70, 70, 70)
    return colours


def page(title: str, rows: Sequence[Overlay], class_names: Sequence[str]) -> str:
    """HTML with one row per image: image, ground truth, prediction, and errors in red on the grey image.

    The legend lists the classes that occur on the page.
    """
    colours = palette(len(class_names))
    present = sorted({int(label) for row in rows for part in (row.truth, row.prediction) for label in np.unique(part)})
    body = [
        f"<h1>{escape(title)}</h1>",
        "<p>Pixels without a label are dark grey. In the last column wrong pixels are red.</p>",
        "<ul>",
        *(
            f'<li style="--c: rgb({", ".join(map(str, colours[label]))})">{escape(class_names[label])}</li>'
            for label in present
            if label != IGNORED
        ),
        "</ul><table><tr><th>image</th><th>truth</th><th>prediction</th><th>error</th></tr>",
    ]
    for row in rows:
        wrong = (row.truth != IGNORED) & (row.truth != row.prediction)
        scored = row.truth != IGNORED
        share = 100 * wrong.sum() / max(1, scored.sum())
        faded = (row.image.mean(2, keepdims=True) * 0.4 + 140).clip(0, 255).repeat(3, 2).astype(np.uint8)
        error = np.where(wrong[..., None], np.array([214, 40, 57], dtype=np.uint8), faded)
        cells = (row.image, colours[row.truth], colours[row.prediction], error)
        body.append("<tr>" + "".join(f"<td>{_picture(cell)}</td>" for cell in cells) + "</tr>")
        body.append(f'<tr><td colspan="4"><small>{escape(row.name)}: {share:.1f} % wrong</small></td></tr>')
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</table></body></html>\n"
    )


def _picture(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels.astype(np.uint8))
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
