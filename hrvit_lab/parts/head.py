"""Closed-form costs of the heads."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from hrvit_lab.parts.ops import Cost, Costs, batch_norm, convolution, elementwise, layer_norm, linear

EXPANSION = 4
"""Output width divided by inner width of the classification head's bottleneck (as in HRNet)."""
POOL_SIZES = (1, 2, 3, 6)
"""Bins per side of UperNet's pyramid pooling on the coarsest map."""
AUXILIARY_WIDTH = 256
"""Channels of UperNet's auxiliary head."""


class Head(NamedTuple):
    """One row of the ``HEAD`` table.

    Attributes:
        label: text shown to users.
        source: paper and section.
        cost: ``(dims, head_widths, width, num_classes, pyramid, pixels)`` → one tuple of costs per branch; operators on
            several branches are listed with the branch of their size. ``pyramid``: whether every map is computed from
            the next finer one.
        identity: ``(head_widths, width, num_classes, drop_rate)`` → the settings on which the built network depends.
        live: the arguments of ``cost`` → maximum number of live elements without its inputs.
        width_field: the config's field for this head's ``width``; None if it has none (``width`` is 0).
        whole_image: whether it classifies whole images, not pixels.
        present: whether the network has a head.
    """

    label: str
    source: str
    cost: Callable[[Sequence[int], Sequence[int], int, int, bool, Sequence[int]], tuple[Costs, ...]]
    identity: Callable[[Sequence[int], int, int, float], tuple[object, ...]]
    live: Callable[[Sequence[int], Sequence[int], int, int, bool, Sequence[int]], int]
    width_field: str | None = None
    whole_image: bool = True
    present: bool = True


# -- the published classifier -----------------------------------------------------------------------------------------


def bottleneck_cost(c_in: int, inner: int, pixels: int) -> Costs:
    """1×1 → 3×3 → 1×1 convolutions, each with ReLU. The last ReLU follows the sum with a projection shortcut."""
    out = EXPANSION * inner
    projection = convolution("head", c_in, out, 1, pixels, bias=False), batch_norm(out, pixels, "head")
    return (
        *conv_norm_relu(c_in, inner, 1, pixels),
        *conv_norm_relu(inner, inner, 3, pixels),
        *conv_norm_relu(inner, out, 1, pixels),
        *projection,
    )


def conv_norm_relu(
    c_in: int, c_out: int, kernel: int, pixels: int, *, pixels_in: int | None = None, bias: bool = False
) -> Costs:
    """A convolution, BatchNorm, ReLU."""
    return (
        convolution("head", c_in, c_out, kernel, pixels, pixels_in=pixels_in, bias=bias),
        batch_norm(c_out, pixels, "head"),
        elementwise("head", "relu", c_out * pixels),
    )


def classifier_cost(
    dims: Sequence[int],
    head_widths: Sequence[int],
    width: int,
    num_classes: int,
    pyramid: bool,
    pixels: Sequence[int],
) -> tuple[Costs, ...]:
    """Bottlenecks on all branches, summed from fine to coarse, then 1×1 convolution, pooling and a linear."""
    rows = [bottleneck_cost(c, h, n) for c, h, n in zip(dims, head_widths, pixels, strict=True)]
    outs = [EXPANSION * h for h in head_widths]
    for i in range(1, len(dims)):
        rows[i] += conv_norm_relu(outs[i - 1], outs[i], 3, pixels[i], pixels_in=pixels[i - 1], bias=True)
    rows[-1] += conv_norm_relu(outs[-1], width, 1, pixels[-1], bias=True)
    if num_classes:
        rows[-1] += (linear("head", width, num_classes, 1),)
    return tuple(rows)


def classifier_live(
    dims: Sequence[int], head_widths: Sequence[int], width: int, num_classes: int, pyramid: bool, pixels: Sequence[int]
) -> int:
    """A branch's bottleneck at the end of the shortcut's BatchNorm, with the sum of the finer branches before and after
    downsampling; or two steps of the last convolution."""
    peak = finer = 0
    for inner, count in zip(head_widths, pixels, strict=True):
        out = EXPANSION * inner * count
        beside = finer + out if finer else 0
        peak = max(peak, beside + inner * count + 3 * out)
        finer = out
    return max(peak, finer + 2 * width * pixels[-1])


# -- a linear on the averages ------------------------------------------------------------------------------------------


def averaged(dims: Sequence[int], pyramid: bool) -> range:
    """The branches whose maps are averaged: all; for a pyramid, only the coarsest."""
    return range(len(dims) - 1 if pyramid else 0, len(dims))


def pool_cost(
    dims: Sequence[int],
    head_widths: Sequence[int],
    width: int,
    num_classes: int,
    pyramid: bool,
    pixels: Sequence[int],
    *,
    norm: bool,
) -> tuple[Costs, ...]:
    """Means over the maps, optionally after a LayerNorm, then a linear."""
    read = averaged(dims, pyramid)
    rows: list[Costs] = [
        (layer_norm(dims[i], pixels[i], "head"),) if norm and i in read else () for i in range(len(dims))
    ]
    if num_classes:
        rows[-1] += (linear("head", sum(dims[i] for i in read), num_classes, 1),)
    return tuple(rows)


def pool_live(
    dims: Sequence[int],
    head_widths: Sequence[int],
    width: int,
    num_classes: int,
    pyramid: bool,
    pixels: Sequence[int],
    *,
    norm: bool,
) -> int:
    """A normalized map and the means so far; the means and their concatenation; or the concatenation and the logits."""
    peak = means = 0
    for i in averaged(dims, pyramid):
        means += dims[i]
        peak = max(peak, means + norm * dims[i] * pixels[i])
    return max(peak, means + max(means, num_classes))


# -- dense prediction -------------------------------------------------------------------------------------------------


def pixel_classifier(width: int, num_classes: int, pixels: int) -> Costs:
    """A 1×1 convolution with bias, if there are classes."""
    return (convolution("head", width, num_classes, 1, pixels),) if num_classes else ()


def resized(width: int, pixels: int) -> Cost:
    """Bilinear interpolation to ``pixels`` positions."""
    return elementwise("head", "upsample_bilinear", width * pixels)


def segformer_cost(
    dims: Sequence[int], head_widths: Sequence[int], width: int, num_classes: int, pyramid: bool, pixels: Sequence[int]
) -> tuple[Costs, ...]:
    """All branches projected and resized to the finest map, then a 1×1 convolution and the classifier."""
    rows: list[Costs] = [(convolution("head", c, width, 1, n),) for c, n in zip(dims, pixels, strict=True)]
    for i in range(1, len(dims)):
        rows[i] += (resized(width, pixels[0]),)
    rows[0] += conv_norm_relu(len(dims) * width, width, 1, pixels[0])
    rows[0] += pixel_classifier(width, num_classes, pixels[0])
    return tuple(rows)


def segformer_live(
    dims: Sequence[int], head_widths: Sequence[int], width: int, num_classes: int, pyramid: bool, pixels: Sequence[int]
) -> int:
    """The maximum while maps are resized and concatenated, in the fusing convolution, or in the classifier."""
    n, finest = len(dims), width * pixels[0]
    return max(_side_by_side(n, width, pixels), (n + 2) * finest, finest + num_classes * pixels[0])


def upernet_cost(
    dims: Sequence[int], head_widths: Sequence[int], width: int, num_classes: int, pyramid: bool, pixels: Sequence[int]
) -> tuple[Costs, ...]:
    """Pyramid pooling on the coarsest branch, lateral and output convolutions on the others, fusion at the finest size.

    The auxiliary head runs only in training: it has parameters, but no multiply-accumulates.
    """
    n, top = len(dims), pixels[-1]
    rows: list[Costs] = [
        (
            *conv_norm_relu(dims[i], width, 1, pixels[i]),
            resized(width, pixels[i]),
            *conv_norm_relu(width, width, 3, pixels[i]),
        )
        for i in range(n - 1)
    ]
    rows.append(())
    for bins in POOL_SIZES:
        pooled = Cost("head", "average_pool", inputs=dims[-1] * top, outputs=dims[-1] * bins**2)
        rows[-1] += (pooled, *conv_norm_relu(dims[-1], width, 1, bins**2), resized(width, top))
    rows[-1] += conv_norm_relu(dims[-1] + len(POOL_SIZES) * width, width, 3, top)
    for i in range(1, n):
        rows[i] += (resized(width, pixels[0]),)
    rows[0] += conv_norm_relu(n * width, width, 3, pixels[0]) + pixel_classifier(width, num_classes, pixels[0])
    auxiliary = auxiliary_branch(n)
    rows[auxiliary] += conv_norm_relu(dims[auxiliary], AUXILIARY_WIDTH, 3, 0)
    rows[auxiliary] += pixel_classifier(AUXILIARY_WIDTH, num_classes, 0)
    return tuple(rows)


def upernet_live(
    dims: Sequence[int], head_widths: Sequence[int], width: int, num_classes: int, pyramid: bool, pixels: Sequence[int]
) -> int:
    """The maximum in the pyramid pooling, while levels are resized and concatenated, in the fusing convolution, or in
    the classifier."""
    n, finest, pools = len(dims), width * pixels[0], len(POOL_SIZES) * width
    pooling = pixels[-1] * (pools + dims[-1] + max(pools, 2 * width))
    return max(
        pooling, _side_by_side(n, width, pixels), (n + 2) * finest, finest + num_classes * pixels[0],
    )  # fmt: skip


def auxiliary_branch(branches: int) -> int:
    """The branch that UperNet's auxiliary head reads: the third, or the coarsest if there are fewer."""
    return min(2, branches - 1)


def _side_by_side(branches: int, width: int, pixels: Sequence[int]) -> int:
    """Elements of all maps at their own sizes, of the coarser maps at the finest size, and of the concatenation."""
    return width * (sum(pixels) + (2 * branches - 1) * pixels[0])


HEAD: dict[str, Head] = {
    "classifier": Head(
        "classifier (HRNet's)",
        "arXiv 1908.07919, section 3; arXiv 2111.01236",
        classifier_cost,
        lambda head_widths, width, num_classes, drop_rate: (tuple(head_widths), width, num_classes, drop_rate),
        classifier_live,
        "head_features",
    ),
    "pool": Head(
        "classifier on the maps' means (MiT's)",
        "arXiv 2105.15203, section 3.1",
        partial(pool_cost, norm=False),
        lambda head_widths, width, num_classes, drop_rate: (num_classes, drop_rate),
        partial(pool_live, norm=False),
    ),
    "norm_pool": Head(
        "classifier on the maps' means after a LayerNorm (CSWin's)",
        "arXiv 2107.00652, section 3",
        partial(pool_cost, norm=True),
        lambda head_widths, width, num_classes, drop_rate: (num_classes, drop_rate),
        partial(pool_live, norm=True),
    ),
    "segformer": Head(
        "segmentation (SegFormer's)",
        "arXiv 2105.15203, section 3.2",
        segformer_cost,
        lambda head_widths, width, num_classes, drop_rate: (width, num_classes, drop_rate),
        segformer_live,
        "segformer_width",
        whole_image=False,
    ),
    "upernet": Head(
        "segmentation (UperNet, with its auxiliary head)",
        "arXiv 1807.10221, section 3.1",
        upernet_cost,
        lambda head_widths, width, num_classes, drop_rate: (width, num_classes, drop_rate),
        upernet_live,
        "upernet_width",
        whole_image=False,
    ),
    "none": Head(
        "none (the branches' maps)",
        "arXiv 2111.01236, section 3.1",
        lambda dims, head_widths, width, num_classes, pyramid, pixels: tuple(() for _ in dims),
        lambda head_widths, width, num_classes, drop_rate: (),
        lambda dims, head_widths, width, num_classes, pyramid, pixels: 0,
        whole_image=False,
        present=False,
    ),
}
