"""Match the MACs of two networks by scaling widths."""

import bisect
import itertools
import math
from functools import cache

from hrvit_lab.config import HRViTConfig, valid_widths, with_widths
from hrvit_lab.cost.ledger import totals

NEAR_ENOUGH = 0.03
"""Among widths whose MACs are within this ratio of the target, the ones in the best proportion are chosen."""

MAX_SCALE = 8.0
SCALE_STEP = 1.02
MAX_WIDTH = 4096
REACH = 2


def match_macs(config: HRViTConfig, target_macs: int, resolution: tuple[int, int]) -> HRViTConfig:
    """The network with its branches' widths scaled so that its MACs are as close to ``target_macs`` as possible.

    First, all widths are scaled by one factor and rounded to the nearest valid width of their branch. Then every branch
    may move by up to two valid widths. Of the candidates within 3 % of the target, the one with proportions closest to
    the scaled ones is chosen; if there is none, the one closest in MACs.

    Args:
        config: the network to scale.
        target_macs: multiply-accumulates to meet, at ``resolution`` (height, width) in pixels.
    """
    grids = [
        valid_widths(config, branch, max(1, int(width / MAX_SCALE)), min(MAX_WIDTH, int(width * MAX_SCALE)))
        for branch, width in enumerate(config.widths)
    ]

    @cache
    def macs(widths: tuple[int, ...]) -> int:
        return totals(with_widths(config, widths), resolution).macs

    def miss(widths: tuple[int, ...]) -> float:
        return abs(macs(widths) / target_macs - 1)

    reach = math.ceil(math.log(MAX_SCALE, SCALE_STEP))
    scaled = {
        tuple(_nearest(grid, width * factor) for grid, width in zip(grids, config.widths, strict=True)): factor
        for factor in (SCALE_STEP**step for step in range(-reach, reach + 1))
    }
    steps = list(scaled)
    # MACs grow with the factor, except where two widths become equal and a 1×1 convolution is no longer needed.
    above = bisect.bisect_left(steps, target_macs, key=macs)
    start = min(steps[max(0, above - 1) : above + 1], key=miss)

    if miss(start) <= NEAR_ENOUGH:
        return with_widths(config, start)

    def distortion(widths: tuple[int, ...]) -> float:
        ideal = (width * scaled[start] for width in config.widths)
        return sum(math.log(width / wanted) ** 2 for width, wanted in zip(widths, ideal, strict=True))

    around = [
        grid[max(0, grid.index(width) - REACH) : grid.index(width) + REACH + 1]
        for grid, width in zip(grids, start, strict=True)
    ]
    candidates = sorted(itertools.product(*around), key=distortion)
    near = next((widths for widths in candidates if miss(widths) <= NEAR_ENOUGH), None)
    return with_widths(config, near or min(candidates, key=miss))


def _nearest(grid: list[int], target: float) -> int:
    place = bisect.bisect_left(grid, target)
    return min(grid[max(0, place - 1) : place + 1], key=lambda width: abs(width - target))
