"""Closed-form costs, width rules and identities of the feed-forward variants."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from hrvit_lab.parts.ops import Cost, Costs, batch_norm, convolution, elementwise, linear, linear_onto


class FFN(NamedTuple):
    """One row of the ``FFN`` table.

    Attributes:
        label: text shown to users.
        source: paper and section.
        cost: ``(dim, mlp_ratio, height, width)`` → costs on such a map.
        width_rule: ``(dim, mlp_ratio)`` → the reason why the pair is invalid, or None.
        identity: ``(dim, mlp_ratio)`` → the settings on which the built network depends.
        live: ``(dim, mlp_ratio, height, width)`` → maximum number of live elements without its input.
        present: whether blocks have a feed-forward network.
    """

    label: str
    source: str
    cost: Callable[[int, float, int, int], Costs]
    width_rule: Callable[[int, float], str | None]
    identity: Callable[[int, float], tuple[object, ...]]
    live: Callable[[int, float, int, int], int]
    present: bool = True


def hidden_width(dim: int, mlp_ratio: float) -> int:
    """Hidden channels of a feed-forward network: ``int(dim · mlp_ratio)``."""
    return int(dim * mlp_ratio)


def hidden_identity(dim: int, mlp_ratio: float) -> tuple[object, ...]:
    """The number of hidden channels: ratios with the same number give the same network."""
    return (hidden_width(dim, mlp_ratio),)


def hidden_rule(dim: int, mlp_ratio: float) -> str | None:
    """Width rule: at least one hidden channel."""
    if hidden_width(dim, mlp_ratio) < 1:
        return f"the number of hidden channels, int({dim} × {mlp_ratio:g}), is 0"
    return None


def gelu(channels: int, pixels: int) -> Cost:
    """GELU of a map."""
    return elementwise("ffn", "gelu", channels * pixels)


# -- MixCFN -----------------------------------------------------------------------------------------------------------


def mixcfn_cost(kernels: tuple[int, int], dim: int, mlp_ratio: float, height: int, width: int) -> Costs:
    """Linear, two depthwise kernels on halves of the channels, GELU, linear summed from both halves."""
    pixels, hidden = height * width, hidden_width(dim, mlp_ratio)
    half = hidden // 2
    return (
        linear("ffn", dim, hidden, pixels),
        *(convolution("ffn", half, half, kernel, pixels, groups=half) for kernel in kernels),
        gelu(hidden, pixels),
        linear("ffn", half, dim, pixels),
        linear_onto("ffn", half, dim, pixels),
    )


def mixcfn_live(dim: int, mlp_ratio: float, height: int, width: int) -> int:
    """The output of the first half and two steps of the second half's hidden channels; or both outputs and their
    sum."""
    half = hidden_width(dim, mlp_ratio) // 2
    return (dim + max(2 * half, half + dim, 2 * dim)) * height * width


def mixcfn_width_rule(dim: int, mlp_ratio: float) -> str | None:
    """Width rule: an even number of hidden channels, half for each kernel."""
    hidden = hidden_width(dim, mlp_ratio)
    if hidden % 2:
        return f"MixCFN splits its hidden channels into halves, but int({dim} × {mlp_ratio:g}) = {hidden} is not even"
    return hidden_rule(dim, mlp_ratio)


def _mixcfn(a: int, b: int, source: str) -> FFN:
    cost = partial(mixcfn_cost, (a, b))
    return FFN(f"MixCFN ({a}×{a} + {b}×{b})", source, cost, mixcfn_width_rule, hidden_identity, mixcfn_live)


# -- a linear to the hidden channels, one back ------------------------------------------------------------------------


def mlp_cost(dim: int, mlp_ratio: float, height: int, width: int) -> Costs:
    """Linear, GELU, linear."""
    pixels, hidden = height * width, hidden_width(dim, mlp_ratio)
    return linear("ffn", dim, hidden, pixels), gelu(hidden, pixels), linear("ffn", hidden, dim, pixels)


def mixffn_cost(dim: int, mlp_ratio: float, height: int, width: int) -> Costs:
    """Linear, depthwise 3×3, GELU, linear."""
    hidden = hidden_width(dim, mlp_ratio)
    expand, *rest = mlp_cost(dim, mlp_ratio, height, width)
    return expand, convolution("ffn", hidden, hidden, 3, height * width, groups=hidden), *rest


def mlp_live(dim: int, mlp_ratio: float, height: int, width: int) -> int:
    """Hidden channels before and after a step; or the hidden channels and the output."""
    hidden = hidden_width(dim, mlp_ratio)
    return max(2 * hidden, hidden + dim) * height * width


def swiglu_cost(dim: int, mlp_ratio: float, height: int, width: int) -> Costs:
    """Gate, SiLU, value, their product, linear."""
    pixels, hidden = height * width, hidden_width(dim, mlp_ratio)
    projection, silu = linear("ffn", dim, hidden, pixels), elementwise("ffn", "silu", hidden * pixels)
    return projection, silu, projection, linear("ffn", hidden, dim, pixels)


def swiglu_conv_cost(dim: int, mlp_ratio: float, height: int, width: int) -> Costs:
    """The same with a depthwise 3×3 of the gate."""
    hidden = hidden_width(dim, mlp_ratio)
    gate, *rest = swiglu_cost(dim, mlp_ratio, height, width)
    return gate, convolution("ffn", hidden, hidden, 3, height * width, groups=hidden), *rest


def swiglu_live(dim: int, mlp_ratio: float, height: int, width: int) -> int:
    """The gate after SiLU, the value and their product; or the product and the output."""
    hidden = hidden_width(dim, mlp_ratio)
    return max(3 * hidden, hidden + dim) * height * width


def hrformer_cost(dim: int, mlp_ratio: float, height: int, width: int) -> Costs:
    """1×1, depthwise 3×3, 1×1 without bias, each with BatchNorm and GELU."""
    pixels, hidden = height * width, hidden_width(dim, mlp_ratio)
    return (
        convolution("ffn", dim, hidden, 1, pixels, bias=False),
        batch_norm(hidden, pixels, "ffn"),
        gelu(hidden, pixels),
        convolution("ffn", hidden, hidden, 3, pixels, groups=hidden, bias=False),
        batch_norm(hidden, pixels, "ffn"),
        gelu(hidden, pixels),
        convolution("ffn", hidden, dim, 1, pixels, bias=False),
        batch_norm(dim, pixels, "ffn"),
        gelu(dim, pixels),
    )


def hrformer_live(dim: int, mlp_ratio: float, height: int, width: int) -> int:
    """The input map of a convolution, and the maps of two following steps."""
    hidden = hidden_width(dim, mlp_ratio)
    return max(3 * hidden, hidden + 2 * dim) * height * width


FFNS: dict[str, FFN] = {
    "mixcfn": _mixcfn(3, 5, "arXiv 2111.01236, section 3.2"),
    "mixcfn_3_7": _mixcfn(3, 7, "ours, after arXiv 1907.09595"),
    "mixcfn_5_7": _mixcfn(5, 7, "ours, after arXiv 1907.09595"),
    "mixffn": FFN("MixFFN (3×3)", "arXiv 2105.15203, section 3.1", mixffn_cost, hidden_rule, hidden_identity, mlp_live),
    "mlp": FFN("MLP", "arXiv 1706.03762, section 3.3", mlp_cost, hidden_rule, hidden_identity, mlp_live),
    "swiglu": FFN("SwiGLU (gated)", "arXiv 2002.05202", swiglu_cost, hidden_rule, hidden_identity, swiglu_live),
    "swiglu_conv": FFN(
        "SwiGLU (gated, 3×3)", "arXiv 2311.17132", swiglu_conv_cost, hidden_rule, hidden_identity, swiglu_live
    ),
    "hrformer": FFN(
        "HRFormer's (3×3, BatchNorm)",
        "arXiv 2110.09408, section 3.2",
        hrformer_cost,
        hidden_rule,
        hidden_identity,
        hrformer_live,
    ),
    "none": FFN(
        "none",
        "ours",
        lambda dim, mlp_ratio, height, width: (),
        lambda dim, mlp_ratio: None,
        lambda dim, mlp_ratio: (),
        lambda dim, mlp_ratio, height, width: 0,
        present=False,
    ),
}
