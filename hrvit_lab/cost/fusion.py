"""Closed-form costs of the cross-resolution fusions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hrvit_lab.cost.ops import Costs, batch_norm, convolution, elementwise


class Fusion(NamedTuple):
    """One row of the ``FUSION`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(dims_in, dims_out, pixels)`` → one tuple of costs per target branch; ``pixels`` of every target.
        live: the same arguments → most elements of maps alive at once beside its inputs.
    """

    label: str
    source: str
    cost: Callable[[Sequence[int], Sequence[int], Sequence[int]], tuple[Costs, ...]]
    live: Callable[[Sequence[int], Sequence[int], Sequence[int]], int]


def path_cost(steps: int, c_in: int, c_out: int, pixels_in: int, pixels: int) -> Costs:
    """One path to a branch ``steps`` coarser (negative: finer), from ``pixels_in`` to ``pixels`` tokens."""
    part = "fusion"
    if steps == 0:
        return ()
    if steps > 0:
        return (
            convolution(part, c_in, c_in, 2**steps + 1, pixels, pixels_in=pixels_in, groups=c_in, bias=False),
            batch_norm(c_in, pixels, part),
            convolution(part, c_in, c_out, 1, pixels),
            batch_norm(c_out, pixels, part),
        )
    return (
        convolution(part, c_in, c_out, 1, pixels_in),
        batch_norm(c_out, pixels_in, part),
        elementwise(part, "upsample", c_out * pixels),
    )


def path_live(steps: int, c_in: int, c_out: int, pixels_in: int, pixels: int) -> int:
    """Most elements of maps alive at once in one path: two steps at a time."""
    if steps > 0:
        return max(2 * c_in, c_in + c_out, 2 * c_out) * pixels
    return c_out * max(2 * pixels_in, pixels_in + pixels)


def dense_cost(dims_in: Sequence[int], dims_out: Sequence[int], pixels: Sequence[int]) -> tuple[Costs, ...]:
    """Every source branch to every target branch, then GELU: in place, unless a single map comes in."""
    targets = []
    for i, c_out in enumerate(dims_out):
        costs: Costs = ()
        for j, c_in in enumerate(dims_in):
            costs += path_cost(i - j, c_in, c_out, pixels[j], pixels[i])
        targets.append(costs if len(dims_in) > 1 else (*costs, elementwise("fusion", "gelu", c_out * pixels[i])))
    return tuple(targets)


def dense_live(dims_in: Sequence[int], dims_out: Sequence[int], pixels: Sequence[int]) -> int:
    """Targets that are done; of the one at work the sum so far and the path that comes next."""
    peak = done = 0
    for i, c_out in enumerate(dims_out):
        target, total = c_out * pixels[i], 0
        for j, c_in in enumerate(dims_in):
            if i != j:
                peak = max(peak, done + total + path_live(i - j, c_in, c_out, pixels[j], pixels[i]))
                total = target
        done += target
        peak = max(peak, done + (total if len(dims_in) == 1 else 0))
    return peak


FUSION: dict[str, Fusion] = {
    "dense": Fusion("dense (every branch to every branch)", "arXiv 2111.01236, section 3.1", dense_cost, dense_live),
}
