"""Closed-form costs of the cross-resolution fusions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hrvit_lab.cost.ops import Costs, convolution, norm


class Fusion(NamedTuple):
    """One row of the ``FUSION`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(dims_in, dims_out, pixels)`` → one tuple of costs per target branch; ``pixels`` of every target.
    """

    label: str
    source: str
    cost: Callable[[Sequence[int], Sequence[int], Sequence[int]], tuple[Costs, ...]]


def path_cost(source: int, target: int, c_in: int, c_out: int, pixels: Sequence[int]) -> Costs:
    """One path from branch ``source`` to branch ``target``, at their token counts ``pixels``."""
    part = "fusion"
    if source == target:
        return ()
    if source < target:
        kernel = 2 ** (target - source) + 1
        return (
            convolution(part, c_in, c_in, kernel, pixels[target], groups=c_in, bias=False),
            norm(c_in, part),
            convolution(part, c_in, c_out, 1, pixels[target]),
            norm(c_out, part),
        )
    return convolution(part, c_in, c_out, 1, pixels[source]), norm(c_out, part)


def dense_cost(dims_in: Sequence[int], dims_out: Sequence[int], pixels: Sequence[int]) -> tuple[Costs, ...]:
    """Every source branch to every target branch."""
    return tuple(
        tuple(cost for j, c_in in enumerate(dims_in) for cost in path_cost(j, i, c_in, c_out, pixels))
        for i, c_out in enumerate(dims_out)
    )


FUSION: dict[str, Fusion] = {
    "dense": Fusion("dense (every branch to every branch)", "arXiv 2111.01236, section 3.1", dense_cost),
}
