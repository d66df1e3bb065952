"""Figures on an image: attention, receptive fields, features, evidence for a class, segments.

Functions take arrays of `hrvit_lab.insight`. ``subject`` names the network and the size of the image; ``note`` has
remarks that the figure must show, such as that the weights are random.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hrvit_lab.charts import SERIES
from hrvit_lab.plots.images import Box, Panel, Pixel, over, pale, panels

RELATIVE = "0", "largest of the panel"
NO_CLASS = 255
"""Class number of pixels without a label."""
MAX_CLASSES = 12
"""Maximum number of classes in a legend."""


def attention_montage(
    image: NDArray[Any],
    maps: Mapping[tuple[int, int], tuple[NDArray[Any], Box]],
    pixel: Pixel,
    subject: str,
    note: str = "",
) -> Figure:
    """Where one pixel attends in every branch and stage, mean over heads.

    Args:
        image: uint8 (H, W, 3).
        maps: by (stage, branch): the map on the image, (H, W), and the token's box in pixels.
        pixel: (row, column).
    """
    return _montage(
        {place: _attention(image, found, pixel) for place, found in maps.items()},
        f"Where a pixel attends – {subject}",
        f"Attention of the token at the cross (row {pixel[0]}, column {pixel[1]}; its outline is the token), mean over "
        "heads, last block of each branch and stage. Grey: no attention.",
        note, "attention weight of a token",
    )  # fmt: skip


def attention_of_blocks(
    image: NDArray[Any], maps: Mapping[str, tuple[NDArray[Any], Box]], pixel: Pixel, subject: str, note: str = ""
) -> Figure:
    """Where one pixel attends in every block of a network without branches, mean over heads, by the block's name."""
    drawn = [_attention(image, found, pixel, name) for name, found in maps.items()]
    return panels(
        _wrapped(drawn, 4), f"Where a pixel attends – {subject}",
        f"Attention of the token at the cross (row {pixel[0]}, column {pixel[1]}; its outline is the token), mean over "
        "heads. What class tokens receive is not drawn.",
        note=note, scale=(*RELATIVE, "attention weight of a token"),
    )  # fmt: skip


def attention_heads(
    image: NDArray[Any], maps: NDArray[Any], box: Box, pixel: Pixel, block: str, subject: str, note: str = ""
) -> Figure:
    """Where one pixel attends in every head of a block.

    Args:
        maps: on the image, (heads, H, W).
        box: of the token, in pixels.
        block: its name in words.
    """
    drawn = [_attention(image, (head, box), pixel, f"head {number}") for number, head in enumerate(maps)]
    drawn.insert(0, _attention(image, (maps.mean(0), box), pixel, "mean of the heads"))
    return panels(
        _wrapped(drawn), f"Heads of {block} – {subject}",
        f"Attention of the token at the cross (row {pixel[0]}, column {pixel[1]}; its outline is the token). Grey: no "
        "attention.",
        note=note, scale=(*RELATIVE, "attention weight of a token"),
    )  # fmt: skip


def rollouts(
    image: NDArray[Any], maps: Mapping[str, tuple[NDArray[Any], Box]], pixel: Pixel, subject: str, note: str = ""
) -> Figure:
    """Where the token of each branch comes from, through all blocks and fusions."""
    drawn = [_attention(image, found, pixel, name) for name, found in maps.items()]
    return panels(
        _wrapped(drawn), f"Attention rollout through the network – {subject}",
        f"Where the last token of each branch at the cross (row {pixel[0]}, column {pixel[1]}) comes from. An "
        "approximation: residual streams count half, and fusions are linear maps with equal paths.",
        note=note, scale=(*RELATIVE, "share of a token of the stem"),
    )  # fmt: skip


def branch_rollouts(
    image: NDArray[Any],
    maps: Mapping[tuple[int, int], tuple[NDArray[Any], Box, int]],
    pixel: Pixel,
    subject: str,
    note: str = "",
) -> Figure:
    """Where a token comes from through the blocks of its branch and stage.

    Args:
        maps: by (stage, branch): the map on the image, (H, W), the token's box in pixels, and the number of blocks.
    """
    drawn = {
        place: _attention(image, (map_HW, box), pixel, f"{blocks} block{'s' if blocks > 1 else ''}")
        for place, (map_HW, box, blocks) in maps.items()
    }
    return _montage(
        drawn, f"Attention rollout through the blocks of a branch – {subject}",
        f"Where the token at the cross (row {pixel[0]}, column {pixel[1]}) of the last block of each branch and stage "
        "attends, carried back to the input of the first one; residual streams between them count half. The rollout "
        "of one block is its attention.",
        note, "share of a token at the first block's input",
    )  # fmt: skip


def receptive_fields(
    image: NDArray[Any],
    fields: Mapping[str, tuple[NDArray[Any], Box, int, int]],
    pixel: Pixel,
    subject: str,
    note: str = "",
) -> Figure:
    """Which pixels change the token of each branch that covers a pixel.

    Args:
        fields: by name: influence (H, W), the token's box in pixels, and the areas of 50 % and 99 % in pixels.
    """
    rows: list[Panel | None] = []
    for name, (influence, box, half, most) in fields.items():
        title = f"{name}\n50 % in {half:,} px\n99 % in {most:,} px"
        rows.append(Panel(title, over(image, np.sqrt(influence)), (pixel,), (box,)))
    return panels(
        _wrapped(rows, 4), f"Effective receptive field – {subject}",
        f"Influence of each pixel on the token at the cross (row {pixel[0]}, column {pixel[1]}; its outline is the "
        "token), by gradients; colours show its square root. 50 % and 99 %: the fewest pixels with that share.",
        note=note, scale=("0", "largest of the panel", "square root of the influence"),
    )  # fmt: skip


def features(
    maps: Mapping[str, tuple[NDArray[Any], NDArray[Any], tuple[int, int]]],
    image: NDArray[Any],
    subject: str,
    note: str = "",
) -> Figure:
    """Features as colours: a grid of branches and stages, or in order for networks without branches.

    Args:
        maps: by name: rgb (H, W, 3), shares of variance (3,), and the size of the map.
    """
    places = {name: re.fullmatch(r"stage (\d+), branch (\d+)", name) for name in maps}
    pictures = {
        name: Panel(f"{size[0]} × {size[1]}\n{100 * explained.sum():.0f} % of variance", rgb)
        for name, (rgb, explained, size) in maps.items()
    }
    title = f"Features as colours – {subject}"
    caption = (
        "Red, green and blue are the first three principal components of the features of a map, each scaled from its "
        "1st to its 99th percentile. Colours of different maps can't be compared."
    )
    original = Panel("the image\n", image / 255)
    if not all(places.values()):
        named = [
            panel._replace(title=f"{name}\n{panel.title.replace(chr(10), ', ')}") for name, panel in pictures.items()
        ]
        return panels(_wrapped([original, *named], 4), title, caption, note=note)
    grid = {(int(place[2]), int(place[1])): pictures[name] for name, place in places.items() if place}
    branches, stages = (sorted({key[axis] for key in grid}) for axis in (0, 1))
    rows: list[list[Panel | None]] = [[grid.get((branch, stage)) for stage in stages] for branch in branches]
    if rows[-1][0] is None:
        rows[-1][0] = original
    return panels(
        rows, title, caption, note=note, row_names=[f"branch {branch}" for branch in branches],
        column_names=[f"stage {stage}" for stage in stages],
    )  # fmt: skip


def evidence(
    image: NDArray[Any],
    gradients: Mapping[str, NDArray[Any]],
    occlusion: NDArray[Any],
    patch_px: int,
    what: str,
    subject: str,
    note: str = "",
) -> Figure:
    """Evidence for a class: Grad-CAM of every branch, and occlusion.

    Args:
        gradients: (H, W) by branch; occlusion: (H, W).
        what: the class in words.
    """
    rows: list[Panel | None] = [
        Panel("the image", image / 255),
        Panel(f"occlusion, largest drop {occlusion.max():.2g}", over(image, occlusion.clip(min=0))),
        *(Panel(f"gradients, {name}", over(image, map_HW)) for name, map_HW in gradients.items()),
    ]
    return panels(
        _wrapped(rows, 3), f"Evidence for {what} – {subject}",
        f"Occlusion: how much the class's score drops when a square of {patch_px} px is set to the mean colour. "
        "Gradients: features of a branch's last map, weighted by the mean gradient of the class's score (Grad-CAM).",
        note=note, scale=(*RELATIVE, "evidence; grey: none"),
    )  # fmt: skip


def segments(
    image: NDArray[Any],
    prediction: NDArray[Any],
    entropy_share: NDArray[Any],
    truth: tuple[NDArray[Any], NDArray[Any]] | None,
    errors: str,
    class_names: Sequence[str],
    subject: str,
    note: str = "",
) -> Figure:
    """A segmenter's prediction, its uncertainty, and its errors.

    Args:
        prediction: class numbers, (H, W).
        entropy_share: entropy divided by its maximum, (H, W).
        truth: true class numbers and wrong pixels, (H, W) each; None if unknown.
        errors: the errors in words.
        class_names: may be empty.
    """
    drawn: list[Panel | None] = [
        Panel("the image", image / 255),
        Panel("prediction", class_colors(prediction)),
        Panel(f"entropy, mean {entropy_share.mean():.2f}", over(image, entropy_share, 1)),
    ]
    seen = prediction
    if truth is not None:
        labels, wrong = truth
        seen = np.concatenate((prediction.ravel(), labels.ravel()))
        red = np.array([0.84, 0.16, 0.22])
        drawn += [
            Panel("truth", class_colors(labels)),
            Panel("errors in red", np.where(wrong[..., None], red, pale(image))),
        ]
    numbers, counts = np.unique(seen, return_counts=True)
    largest = [int(numbers[place]) for place in np.argsort(-counts, kind="stable")[:MAX_CLASSES]]
    names = {number: class_names[number] if number < len(class_names) else f"class {number}" for number in largest}
    names |= {NO_CLASS: "no label"} if NO_CLASS in names else {}
    most = len(numbers) > len(largest)
    listed = f" The legend has the largest {len(largest)} of {len(numbers)} classes." if most else ""
    return panels(
        _wrapped(drawn, 3), f"Segments – {subject}",
        f"Entropy: 0 where one class is certain, 1 where all are equally likely. {errors}{listed}",
        note=note, scale=("0", "1", "entropy / maximum"),
        legend={name: class_colors(np.array(number)) for number, name in names.items()},
    )  # fmt: skip


def class_colors(numbers: NDArray[Any]) -> NDArray[Any]:
    """Colours of class numbers, float (…, 3): those of series, then darker and lighter ones; no class is dark grey."""
    base = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in SERIES]) / 255
    ring = (numbers // len(base)) % 3
    shade = np.array([1.0, 0.6, 1.35])[ring][..., None]
    colors = (base[numbers % len(base)] * shade).clip(0, 1)
    return np.where((numbers == NO_CLASS)[..., None], 0.25, colors)


def _attention(
    image: NDArray[Any], found: tuple[NDArray[Any], Box] | None, pixel: Pixel, name: str = ""
) -> Panel | None:
    if found is None:
        return None
    map_HW, box = found
    most = f"largest {percent(float(map_HW.max()))}"
    return Panel(f"{name}\n{most}" if name else most, over(image, map_HW), (pixel,), (box,))


def _montage(
    drawn: Mapping[tuple[int, int], Panel | None], title: str, caption: str, note: str, meaning: str
) -> Figure:
    """Panels by (stage, branch): a row for each branch, a column for each stage."""
    stages, branches = (sorted({key[axis] for key in drawn}) for axis in (0, 1))
    return panels(
        [[drawn.get((stage, branch)) for stage in stages] for branch in branches], title, caption, note=note,
        row_names=[f"branch {branch}" for branch in branches], column_names=[f"stage {stage}" for stage in stages],
        scale=(*RELATIVE, meaning),
    )  # fmt: skip


def percent(share: float) -> str:
    """A share of 0 to 1 with two digits.

    >>> percent(0.0123), percent(1)
    ('1.2 %', '100 %')
    """
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _wrapped(drawn: Sequence[Panel | None], most: int = 5) -> list[list[Panel | None]]:
    """Rows of panels, as equal in length as possible."""
    rows = -(-len(drawn) // most)
    columns = -(-len(drawn) // rows)
    return [list(drawn[first : first + columns]) for first in range(0, len(drawn), columns)]
