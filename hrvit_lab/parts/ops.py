"""Costs of single operators, from which all other costs are summed.

Counted operators are convolutions, linears and the two products of attention; normalisations have parameters
but no multiply-accumulates in this convention (arXiv 2111.01236, and fvcore's default). FLOPs would be twice the MACs.
"""

from collections.abc import Iterable
from typing import NamedTuple

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes per number, by the name of torch's dtype."""


class Cost(NamedTuple):
    """The cost of one operator for one image.

    Attributes:
        part: the part to which it belongs, e.g. ``"ffn"``.
        operator: ``"convolution"``, ``"linear"``, ``"attention"`` (both products); or, without multiply-accumulates,
            ``"layer_norm"``, ``"batch_norm"``, ``"upsample"`` (to the nearest), ``"upsample_bilinear"``,
            ``"average_pool"`` (adaptive), ``"block_average"``, ``"weights"`` (of a weighted sum of maps), ``"gelu"``,
            ``"relu"`` or ``"silu"`` (Hardswish, softmax and sums, which no counter counts, have no entry).
        params: learned parameters.
        buffers: running statistics of a BatchNorm, without its counter of training steps.
        macs: exact multiply-accumulates, without padded tokens.
        macs_padded: the same with windows padded to full size, as the published release runs them.
        activations: elements in the counted operators' outputs; attention counts its scores and its output.
        inputs: elements of the maps that a counted operator or a pooling reads; attention reads query, key and value,
            and a shared key and value once.
        outputs: elements of the map that the operator writes; attention's scores are not a map.
        additions: additions of biases to products, in elements.
        run_as: how our network computes its products, which determines which tools count them: ``"module"`` (of
            ``torch.nn``), ``"bmm"``, ``"attention"`` (a fused kernel, or bmm); empty without products.
    """

    part: str
    operator: str
    params: int = 0
    buffers: int = 0
    macs: int = 0
    macs_padded: int = 0
    activations: int = 0
    inputs: int = 0
    outputs: int = 0
    additions: int = 0
    run_as: str = ""

    def times(self, repeats: int) -> "Cost":
        """The cost of ``repeats`` copies."""
        if repeats == 1:
            return self
        return Cost._make((self.part, self.operator, *(repeats * value for value in self[2:-1]), self.run_as))

    @property
    def macs_paper(self) -> int:
        """MACs by the paper's convention: half of the padded attention products, and all other operators in full."""
        return self.macs_padded // 2 if self.operator == "attention" else self.macs_padded

    @property
    def moved(self) -> int:
        """Elements of maps that the operator reads and writes, if it has multiply-accumulates."""
        return self.inputs + self.outputs if self.macs else 0


Costs = tuple[Cost, ...]


class Totals(NamedTuple):
    """Sums over operators, for one image.

    Attributes:
        params, buffers, macs, macs_padded, macs_paper, activations: as in ``Cost``.
        moved: elements of maps that operators with multiply-accumulates read and write, each map once per operator.
    """

    params: int
    buffers: int
    macs: int
    macs_padded: int
    macs_paper: int
    activations: int
    moved: int

    def weight_bytes(self, dtype: str = "float32") -> int:
        """Bytes of parameters and running statistics.

        Raises:
            ValueError: for an unknown dtype.
        """
        return (self.params + self.buffers) * dtype_bytes(dtype)

    def moved_bytes(self, batch_size: int = 1, dtype: str = "float32") -> int:
        """Minimum memory traffic of a batch in bytes if operators run one after another, for a roofline.

        Convolutions, linears and attention read their input maps and write their output maps once per image; all
        parameters are read once per batch. Attention's scores stay on the chip, as in a fused kernel, and a shared key
        and value is read once. Normalizations, activation functions, additions, upsampling and changes of layout count
        as zero, because they can be fused into adjacent operators. Implementations with less fusion move more; only
        fusing several of the counted operators moves less.

        Raises:
            ValueError: for an unknown dtype.
        """
        return (batch_size * self.moved + self.params) * dtype_bytes(dtype)


def sum_costs(costs: Iterable[Cost]) -> Totals:
    """Totals of some operators.

    >>> sum_costs([linear("ffn", 8, 4, 10), linear("ffn", 4, 8, 10)]).macs
    640
    """
    params = buffers = macs = macs_padded = macs_paper = activations = moved = 0
    for cost in costs:  # a plain loop for speed: a search over configs spends its time here
        params += cost.params
        if cost.macs:
            macs += cost.macs
            macs_padded += cost.macs_padded
            macs_paper += cost.macs_paper
            activations += cost.activations
            moved += cost.moved
        else:
            buffers += cost.buffers
    return Totals(params, buffers, macs, macs_padded, macs_paper, activations, moved)


def dtype_bytes(dtype: str) -> int:
    """Bytes per number of a dtype.

    Raises:
        ValueError: for an unknown dtype.
    """
    if dtype not in DTYPE_BYTES:
        raise ValueError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[dtype]


def convolution(
    part: str,
    c_in: int,
    c_out: int,
    kernel: int,
    pixels: int,
    *,
    pixels_in: int | None = None,
    groups: int = 1,
    bias: bool = True,
) -> Cost:
    """A ``kernel`` × ``kernel`` convolution from ``pixels_in`` (None: ``pixels``) to ``pixels`` positions."""
    weights = c_in // groups * kernel * kernel * c_out
    macs, out = weights * pixels, c_out * pixels
    read = c_in * (pixels if pixels_in is None else pixels_in)
    return Cost(part, "convolution", weights + bias * c_out, 0, macs, macs, out, read, out, bias * out, "module")


def linear(part: str, c_in: int, c_out: int, rows: int) -> Cost:
    """A linear layer with bias applied to ``rows`` vectors."""
    macs, out = c_in * c_out * rows, c_out * rows
    return Cost(part, "linear", c_in * c_out + c_out, 0, macs, macs, out, c_in * rows, out, out, "module")


def linear_onto(part: str, c_in: int, c_out: int, rows: int) -> Cost:
    """A linear layer for further input channels, accumulated into an existing output, so without a new activation."""
    macs = c_in * c_out * rows
    return Cost(part, "linear", c_in * c_out, 0, macs, macs, 0, c_in * rows, 0, 0, "module")


def layer_norm(channels: int, pixels: int, part: str = "norm") -> Cost:
    """A LayerNorm: weight and bias."""
    return Cost(part, "layer_norm", 2 * channels, outputs=channels * pixels)


def batch_norm(channels: int, pixels: int, part: str = "norm") -> Cost:
    """A BatchNorm: weight and bias, running mean and variance."""
    return Cost(part, "batch_norm", 2 * channels, 2 * channels, outputs=channels * pixels)


def elementwise(part: str, operator: str, elements: int) -> Cost:
    """An elementwise operator without parameters, with ``elements`` outputs."""
    return Cost(part, operator, outputs=elements)


def halved(size: int) -> int:
    """Output length of a stride-2 convolution with same-style padding: ``ceil(size / 2)``."""
    return (size + 1) // 2
