"""Scale a network's widths until a cost is at, or just below, a limit."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import product

from hrvit_lab.config import ConfigError, HRViTConfig, as_size, valid_widths, with_widths
from hrvit_lab.config.transforms import MAX_STEM_WIDTH
from hrvit_lab.cost.count import Counts
from hrvit_lab.metrics import METRICS, format_value

MAX_SCALE = 8
"""Largest ratio of a scaled width to the width before, and the reverse."""

MAX_WIDTH = 4096

Grids = Sequence[Sequence[int]]
"""Valid widths of every branch, ascending."""


def scale_to_budget(config: HRViTConfig, metric: str, limit: float, resolution: int | tuple[int, int]) -> HRViTConfig:
    """The network with its widths scaled to the highest cost within a limit that the valid widths allow.

    All widths are multiplied by one factor. Each is then rounded down or up to a valid width of its branch, whichever
    combination has the highest cost within the limit. The factor is at most 8, and at least 1/8. (With the patch
    embedding "none", a first branch as wide as the stem saves a convolution; the result can then miss the best
    combination by the cost of that convolution.)

    Args:
        metric: a key of `METRICS` of the group "cost".
        limit: in the metric's unit.
        resolution: of the input in pixels, a side or (height, width).
    Raises:
        ConfigError: if the cost is above the limit even at the smallest widths.
    """
    size = as_size(resolution)
    grids = [_grid(config, branch) for branch in range(config.num_branches)]

    @cache
    def cost(widths: tuple[int, ...]) -> float:
        return float(getattr(Counts.of_config(with_widths(config, widths), size), metric))

    factors = sorted({width / now for grid, now in zip(grids, config.widths, strict=True) for width in grid})
    if not all(grids):
        raise ConfigError("widths: a branch has no valid width near its own; change its head dim or FFN ratio first")
    around = [_around(grids, config.widths, factor) for factor in [0.0, *factors]]

    def least(pairs: Sequence[tuple[int, int]]) -> float:
        return cost(tuple(low for low, _ in pairs))

    def most(pairs: Sequence[tuple[int, int]]) -> float:
        return cost(tuple(high for _, high in pairs))

    # Costs grow with every width: only factors whose bounds include the limit can come nearest.
    first = max(0, bisect_right(around, limit, key=most) - 1)
    last = bisect_right(around, limit, key=least)
    within = {
        widths: cost(widths) for pairs in around[first:last] for widths in product(*pairs) if cost(widths) <= limit
    }
    if not within:
        shown, smallest = METRICS[metric], around[0]
        raise ConfigError(
            f"{shown.label}: {format_value(shown, least(smallest))} at the smallest widths of these proportions is "
            f"above the limit of {format_value(shown, limit)}; use fewer blocks or branches, a smaller head or input, "
            "or a higher limit"
        )
    return with_widths(config, max(within, key=lambda widths: within[widths]))


def _grid(config: HRViTConfig, branch: int) -> list[int]:
    width = config.widths[branch]
    most = MAX_STEM_WIDTH if config.topology == "pyramid" and branch == 0 else MAX_WIDTH
    return valid_widths(config, branch, max(1, -(-width // MAX_SCALE)), min(most, width * MAX_SCALE))


def _around(grids: Grids, widths: Sequence[int], factor: float) -> list[tuple[int, int]]:
    """For every branch, the valid widths below and above its own times a factor slightly larger than this one."""
    pairs = []
    for grid, width in zip(grids, widths, strict=True):
        above = bisect_left(grid, True, key=lambda valid: valid / width > factor)
        pairs.append((grid[max(0, above - 1)], grid[min(above, len(grid) - 1)]))
    return pairs
