"""Costs of single operators: the arithmetic everything else is summed from.

Counted operators are convolutions, linears and the two products of attention; normalisations have parameters
but no multiply-accumulates in this convention (arXiv 2111.01236, and fvcore's default). FLOPs would be twice the MACs.
"""

from typing import NamedTuple


class Cost(NamedTuple):
    """What one operator of one part costs for one image.

    Attributes:
        part: block part it belongs to, e.g. ``"ffn"``.
        operator: ``"convolution"``, ``"linear"``, ``"attention"`` (both products) or ``"norm"``.
        params: learned parameters (no buffers).
        macs: exact multiply-accumulates, no padded token counted.
        macs_padded: the same with windows padded to full size, as the published release runs them.
        activations: elements in the operator's outputs; attention counts its scores and its output.
    """

    part: str
    operator: str
    params: int
    macs: int
    macs_padded: int
    activations: int

    def times(self, repeats: int) -> "Cost":
        """The cost of ``repeats`` copies."""
        return Cost(self.part, self.operator, *(repeats * value for value in self[2:]))


Costs = tuple[Cost, ...]


def convolution(
    part: str, c_in: int, c_out: int, kernel: int, out_pixels: int, *, groups: int = 1, bias: bool = True
) -> Cost:
    """A ``kernel`` × ``kernel`` convolution with ``out_pixels`` output positions."""
    weights = c_in // groups * kernel * kernel * c_out
    macs = weights * out_pixels
    return Cost(part, "convolution", weights + bias * c_out, macs, macs, c_out * out_pixels)


def linear(part: str, c_in: int, c_out: int, rows: int, *, bias: bool = True) -> Cost:
    """A linear layer applied to ``rows`` vectors."""
    macs = c_in * c_out * rows
    return Cost(part, "linear", c_in * c_out + bias * c_out, macs, macs, c_out * rows)


def norm(channels: int, part: str = "norm") -> Cost:
    """A LayerNorm or BatchNorm: weight and bias."""
    return Cost(part, "norm", 2 * channels, 0, 0, 0)


def halved(size: int) -> int:
    """Output length of a stride-2 convolution with same-style padding: ``ceil(size / 2)``."""
    return (size + 1) // 2
