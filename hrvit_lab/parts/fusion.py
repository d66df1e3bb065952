"""Closed-form costs of the cross-resolution fusions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from hrvit_lab.parts.ops import Cost, Costs, batch_norm, convolution, elementwise

Sources = tuple[tuple[int, ...], ...]
"""The input branches of each output branch."""

UPSAMPLING = {"nearest": "upsample", "bilinear": "upsample_bilinear"}
"""Interpolations, and their names in ``Cost.operator``."""


class Fusion(NamedTuple):
    """One row of the ``FUSION`` table.

    Attributes:
        label: text shown to users.
        source: paper and section.
        cost: ``(dims_in, dims_out, upsample, last, pixels)`` → one tuple of costs per output branch; ``last``: whether
            it is the network's last fusion, ``pixels``: of each output branch.
        live: the same arguments → maximum number of live elements without its inputs.
    """

    label: str
    source: str
    cost: Callable[[Sequence[int], Sequence[int], str, bool, Sequence[int]], tuple[Costs, ...]]
    live: Callable[[Sequence[int], Sequence[int], str, bool, Sequence[int]], int]


def dense_sources(branches_in: int, branches_out: int, last: bool) -> Sources:
    """Every output branch has all input branches as sources."""
    return (tuple(range(branches_in)),) * branches_out


def sparse_sources(branches_in: int, branches_out: int, last: bool) -> Sources:
    """A branch has itself and its neighbours as sources; a new branch has the coarsest input branch."""
    return tuple(
        tuple(j for j in range(branches_in) if abs(i - j) <= 1) or (branches_in - 1,) for i in range(branches_out)
    )


def late_sources(branches_in: int, branches_out: int, last: bool) -> Sources:
    """A branch has itself as source, and a new branch the coarsest input branch. The last fusion is dense."""
    if last:
        return dense_sources(branches_in, branches_out, last)
    return tuple((min(i, branches_in - 1),) for i in range(branches_out))


# -- paths ------------------------------------------------------------------------------------------------------------


def path_cost(steps: int, c_in: int, c_out: int, upsample: str, pixels_in: int, pixels: int) -> Costs:
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
        elementwise(part, UPSAMPLING[upsample], c_out * pixels),
    )


def path_live(steps: int, c_in: int, c_out: int, pixels_in: int, pixels: int) -> int:
    """Maximum number of live elements in one path: the maps of two steps."""
    if steps > 0:
        return max(2 * c_in, c_in + c_out, 2 * c_out) * pixels
    return c_out * max(2 * pixels_in, pixels_in + pixels)


def paths_cost(
    sources: Callable[[int, int, bool], Sources],
    dims_in: Sequence[int],
    dims_out: Sequence[int],
    upsample: str,
    last: bool,
    pixels: Sequence[int],
) -> tuple[Costs, ...]:
    """The paths of ``sources``, summed, then GELU."""
    targets = []
    for i, feeding in enumerate(sources(len(dims_in), len(dims_out), last)):
        costs: Costs = ()
        for j in feeding:
            costs += path_cost(i - j, dims_in[j], dims_out[i], upsample, pixels[j], pixels[i])
        targets.append((*costs, elementwise("fusion", "gelu", dims_out[i] * pixels[i])))
    return tuple(targets)


def paths_live(
    sources: Callable[[int, int, bool], Sources],
    dims_in: Sequence[int],
    dims_out: Sequence[int],
    upsample: str,
    last: bool,
    pixels: Sequence[int],
) -> int:
    """Finished output branches; for the current one, the sum so far and the next path, or both and their sum."""
    peak = done = 0
    for i, feeding in enumerate(sources(len(dims_in), len(dims_out), last)):
        target, total = dims_out[i] * pixels[i], 0
        summed = i in feeding  # with the input map
        for j in feeding:
            if i != j:
                path = path_live(i - j, dims_in[j], dims_out[i], pixels[j], pixels[i])
                peak = max(peak, done + total + path, done + total + 2 * target * summed)
                total, summed = target, True
        peak = max(peak, done + total + target)  # GELU
        done += target
    return peak


def _of_paths(label: str, source: str, sources: Callable[[int, int, bool], Sources]) -> Fusion:
    return Fusion(label, source, partial(paths_cost, sources), partial(paths_live, sources))


# -- a weighted mean --------------------------------------------------------------------------------------------------


def resampled_cost(steps: int, c_in: int, c_out: int, upsample: str, pixels_in: int, pixels: int) -> Costs:
    """Resampling of a map to a branch ``steps`` coarser (negative: finer); the width changes on the smaller map."""
    part = "fusion"
    conv: Costs = (convolution(part, c_in, c_out, 1, min(pixels_in, pixels)),) if c_in != c_out else ()
    if steps > 0:
        pooled = Cost(part, "block_average", inputs=c_in * pixels_in, outputs=c_in * pixels)
        return pooled, *conv
    return (*conv, elementwise(part, UPSAMPLING[upsample], c_out * pixels)) if steps < 0 else conv


def weighted_sum_cost(
    dims_in: Sequence[int], dims_out: Sequence[int], upsample: str, last: bool, pixels: Sequence[int]
) -> tuple[Costs, ...]:
    """All input branches resampled to every output branch, with one weight each; a single input has no weight."""
    targets = []
    for i, c_out in enumerate(dims_out):
        costs: Costs = (Cost("fusion", "weights", params=len(dims_in)),) if len(dims_in) > 1 else ()
        for j, c_in in enumerate(dims_in):
            costs += resampled_cost(i - j, c_in, c_out, upsample, pixels[j], pixels[i])
        targets.append((*costs, elementwise("fusion", "gelu", c_out * pixels[i])))
    return tuple(targets)


def weighted_sum_live(
    dims_in: Sequence[int], dims_out: Sequence[int], upsample: str, last: bool, pixels: Sequence[int]
) -> int:
    """Finished output branches; for the current one, the mean so far, the resampled map, and its previous step or the
    next mean."""
    peak = done = 0
    for i, c_out in enumerate(dims_out):
        target, total = c_out * pixels[i], 0
        for j, c_in in enumerate(dims_in):
            before = 0
            if j < i:
                before = c_in * pixels[i] * (c_in != c_out)
            elif j > i:
                before = c_out * pixels[j] * (c_in != c_out)
            resampled = target if i != j else 0
            peak = max(peak, done + total + resampled + max(before, target))
            total = target
        done += target
    return peak


FUSION: dict[str, Fusion] = {
    "dense": _of_paths("dense (every branch to every branch)", "arXiv 2111.01236, section 3.1", dense_sources),
    "sparse": _of_paths("sparse (neighbours only)", "arXiv 2111.01236, section 4.4", sparse_sources),
    "late": _of_paths("none until the last stage", "ours", late_sources),
    "weighted_sum": Fusion(
        "weighted mean (learned weights)", "arXiv 1911.09070, section 3.3", weighted_sum_cost, weighted_sum_live
    ),
}
