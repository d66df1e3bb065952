"""Closed-form costs of the heads."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hrvit_lab.cost.ops import Costs, batch_norm, convolution, linear

EXPANSION = 4
"""Output over inner width of the classification head's bottleneck (as HRNet's)."""


class Head(NamedTuple):
    """One row of the ``HEAD`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(dims, head_widths, head_features, num_classes, pixels)`` → one tuple of costs per branch; what
            belongs to no single branch stands with the coarsest.
        identity: ``(head_widths, head_features, num_classes, drop_rate)`` → the settings that matter.
        live: ``(head_widths, head_features, pixels)`` → most elements of maps alive at once beside its inputs.
    """

    label: str
    source: str
    cost: Callable[[Sequence[int], Sequence[int], int, int, Sequence[int]], tuple[Costs, ...]]
    identity: Callable[[Sequence[int], int, int, float], tuple[object, ...]]
    live: Callable[[Sequence[int], int, Sequence[int]], int]


def bottleneck_cost(c_in: int, inner: int, pixels: int) -> Costs:
    """1×1 → 3×3 → 1×1 with a projection shortcut, every convolution without bias and with BatchNorm."""
    part, out = "head", EXPANSION * inner
    shapes = ((c_in, inner, 1), (inner, inner, 3), (inner, out, 1), (c_in, out, 1))
    return tuple(
        cost
        for a, b, kernel in shapes
        for cost in (convolution(part, a, b, kernel, pixels, bias=False), batch_norm(b, pixels, part))
    )


def conv_norm(c_in: int, c_out: int, kernel: int, pixels_in: int, pixels: int) -> Costs:
    """A convolution with bias, BatchNorm."""
    return convolution("head", c_in, c_out, kernel, pixels, pixels_in=pixels_in), batch_norm(c_out, pixels, "head")


def classifier_cost(
    dims: Sequence[int],
    head_widths: Sequence[int],
    head_features: int,
    num_classes: int,
    pixels: Sequence[int],
) -> tuple[Costs, ...]:
    """Bottlenecks on every branch, summed from fine to coarse, then 1×1, pooling and a linear."""
    rows = [bottleneck_cost(c, h, n) for c, h, n in zip(dims, head_widths, pixels, strict=True)]
    outs = [EXPANSION * h for h in head_widths]
    for i in range(1, len(dims)):
        rows[i] += conv_norm(outs[i - 1], outs[i], 3, pixels[i - 1], pixels[i])
    rows[-1] += conv_norm(outs[-1], head_features, 1, pixels[-1], pixels[-1])
    if num_classes:
        rows[-1] += (linear("head", head_features, num_classes, 1),)
    return tuple(rows)


def classifier_live(head_widths: Sequence[int], head_features: int, pixels: Sequence[int]) -> int:
    """A branch's bottleneck where its shortcut's BatchNorm ends, beside the finer branches' sum, before and after its
    way down; or two steps of the last convolution."""
    peak = finer = 0
    for inner, count in zip(head_widths, pixels, strict=True):
        out = EXPANSION * inner * count
        beside = finer + out if finer else 0
        peak = max(peak, beside + inner * count + 3 * out)
        finer = out
    return max(peak, finer + 2 * head_features * pixels[-1])


HEAD: dict[str, Head] = {
    "classifier": Head(
        "classifier (HRNet's)",
        "arXiv 1908.07919, section 3; arXiv 2111.01236",
        classifier_cost,
        lambda head_widths, head_features, num_classes, drop_rate: (
            tuple(head_widths),
            head_features,
            num_classes,
            drop_rate,
        ),
        classifier_live,
    ),
    "none": Head(
        "none (the branches' maps)",
        "arXiv 2111.01236, section 3.1",
        lambda dims, head_widths, head_features, num_classes, pixels: tuple(() for _ in dims),
        lambda head_widths, head_features, num_classes, drop_rate: (),
        lambda head_widths, head_features, pixels: 0,
    ),
}
