"""Networks of equal cost: the widths that bring one network's MACs to another's."""

import bisect
import itertools
import math
from functools import cache

from hrvit_lab.config import HRViTConfig, valid_widths, with_widths
from hrvit_lab.cost.ledger import totals

NEAR_ENOUGH = 0.03
"""Within this ratio of the wanted MACs, widths in better proportion go before MACs that are nearer."""

MAX_SCALE = 8.0
SCALE_STEP = 1.02
MAX_WIDTH = 4096
REACH = 2


def match_macs(config: HRViTConfig, target_macs: int, resolution: tuple[int, int]) -> HRViTConfig:
    """The same network with its branches' widths scaled until its MACs come as near to ``target_macs`` as they can.

    First one factor for all widths, each rounded to the nearest that its branch accepts; then every branch may
    move by up to two accepted widths, and of those within 3 % the one whose proportions are nearest to the scaled
    ones is taken; where none is, the one nearest in MACs.

    Args:
        config: at its own cost.
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
    # MACs grow with the factor, but for a 1×1 convolution that is not needed where two widths become equal.
    above = bisect.bisect_left(steps, target_macs, key=macs)
    start = min(steps[max(0, above - 1) : above + 1], key=miss)

    def distortion(widths: tuple[int, ...]) -> float:
        ideal = (width * scaled[start] for width in config.widths)
        return sum(math.log(width / wanted) ** 2 for width, wanted in zip(widths, ideal, strict=True))

    around = [
        grid[max(0, grid.index(width) - REACH) : grid.index(width) + REACH + 1]
        for grid, width in zip(grids, start, strict=True)
    ]
    candidates = sorted(itertools.product(*around), key=distortion)
    near = next((widths for widths in (start, *candidates) if miss(widths) <= NEAR_ENOUGH), None)
    return with_widths(config, near or min(candidates, key=miss))


def _nearest(grid: list[int], target: float) -> int:
    place = bisect.bisect_left(grid, target)
    return min(grid[max(0, place - 1) : place + 1], key=lambda width: abs(width - target))
