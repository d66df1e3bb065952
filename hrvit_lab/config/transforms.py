"""Pure functions that change the topology, the number of branches, the depths and the widths of a config."""

from typing import Literal

from hrvit_lab.config.schema import MAX_BRANCHES, PER_BRANCH, HRViTConfig, nearest
from hrvit_lab.errors import ConfigError
from hrvit_lab.parts import STEM

MAX_STAGES, MAX_DEPTH, MAX_STEM_WIDTH = 32, 64, 1024


def with_branches(config: HRViTConfig, num_branches: int) -> HRViTConfig:
    """The same network with its coarsest branches dropped, or coarser ones added.

    An added branch starts in the last stage. It has the depth and settings of the coarsest branch and twice its width.

    Raises:
        ConfigError: unless 1 ≤ ``num_branches`` ≤ 5.
    """
    if not 1 <= num_branches <= MAX_BRANCHES:
        raise ConfigError(f"branches = {num_branches} is out of range; use 1 to {MAX_BRANCHES}")
    depths = [stage[:num_branches] for stage in config.depths]
    per_branch = {field: tuple(getattr(config, field))[:num_branches] for field in PER_BRANCH}
    for _ in range(config.num_branches, num_branches):
        depths[-1] += depths[-1][-1:]
        for field, values in per_branch.items():
            doubles = field in ("widths", "head_widths")
            per_branch[field] = (*values, values[-1] * 2 if doubles else values[-1])
    return config.replace(depths=tuple(depths), **per_branch)


def with_stages(config: HRViTConfig, num_stages: int) -> HRViTConfig:
    """The same network with its last stages dropped, or its last stage repeated.

    Branches that only exist in dropped stages are dropped as well.

    Raises:
        ConfigError: unless 1 ≤ ``num_stages`` ≤ 32, or if the network is a pyramid, which has one stage.
    """
    if config.topology == "pyramid" and num_stages != 1:
        raise ConfigError(f"stages = {num_stages}, but a pyramid has one; change its number of branches")
    if not 1 <= num_stages <= MAX_STAGES:
        raise ConfigError(f"stages = {num_stages} is out of range; use 1 to {MAX_STAGES}")
    depths = config.depths[:num_stages]
    depths += (depths[-1],) * (num_stages - len(depths))
    branches = len(depths[-1])
    return config.replace(depths=depths, **{field: getattr(config, field)[:branches] for field in PER_BRANCH})


def with_topology(config: HRViTConfig, topology: Literal["parallel", "pyramid"]) -> HRViTConfig:
    """The network with the same branches in the other layout; unchanged if it has that topology.

    A pyramid has the blocks of each branch in one scale (at most 64), and a stem as wide as the first scale; if that
    width is invalid for the stem, it is the nearest valid one. The parallel layout has as many stages as branches. Each
    branch begins in the stage of its number, and its blocks are distributed over its stages, at least one in each.

    Raises:
        ConfigError: if there is no valid width for the first scale.

    >>> from hrvit_lab.config import preset
    >>> with_topology(preset("hrvit_b1"), "pyramid").depths
    ((6, 5, 20, 4),)
    >>> with_topology(preset("mit_b0"), "parallel").depths
    ((1,), (1, 1), (1, 1, 1), (1, 1, 1, 2))
    """
    if config.topology == topology:
        return config
    branches = range(config.num_branches)
    if topology == "parallel":
        stages = len(branches)
        spread = [_spread(config.depths[0][b], stages - b) for b in branches]
        depths = tuple(tuple(spread[b][s - b] for b in range(s + 1)) for s in range(stages))
        return config.replace(topology=topology, depths=depths)
    sums = (sum(stage[b] for stage in config.depths if len(stage) > b) for b in branches)
    first = config.widths[0]
    stem_accepts = STEM[config.stem].width_rule

    def accepts(width: int) -> bool:
        return width <= MAX_STEM_WIDTH and config.width_accepts(0)(width) and stem_accepts(width) is None

    if not accepts(first):
        near = nearest(min(first, MAX_STEM_WIDTH + 1), accepts)
        if not near:
            raise ConfigError(
                f"widths[0] = {first}: there is no valid width of a stem near it; change this width first"
            )
        first = min(near, key=lambda width: abs(width - first))
    return config.replace(
        topology=topology, depths=(tuple(min(MAX_DEPTH, total) for total in sums),),
        widths=(first, *config.widths[1:]), stem_width=first,
    )  # fmt: skip


def _spread(blocks: int, stages: int) -> list[int]:
    """Blocks of each stage, at least one; the last stages have one more if they do not divide evenly."""
    return [max(1, (blocks + s) // stages) for s in range(stages)]


def scale_depths(config: HRViTConfig, factor: float) -> HRViTConfig:
    """Multiply every depth by ``factor``, rounded to at least one block.

    Raises:
        ConfigError: if a depth is out of range.
    """
    return config.replace(depths=tuple(tuple(max(1, round(d * factor)) for d in stage) for stage in config.depths))


def scale_widths(config: HRViTConfig, factor: float) -> HRViTConfig:
    """Multiply the width of every branch, rounded to the nearest valid width. The stem of a pyramid is scaled as well.

    Raises:
        ConfigError: if there is no valid width near the target.
    """
    widths = []
    for branch, width in enumerate(config.widths):
        target = width * factor
        candidates = valid_widths(config, branch, max(1, int(target / 2)), max(2, int(target * 2)))
        if not candidates:
            raise ConfigError(f"no valid width near widths[{branch}] = {target:.1f}; use another factor")
        widths.append(min(candidates, key=lambda candidate: abs(candidate - target)))
    return with_widths(config, tuple(widths))


def with_widths(config: HRViTConfig, widths: tuple[int, ...]) -> HRViTConfig:
    """The same network with other widths; the stem of a pyramid takes the width of the first scale."""
    stem = {"stem_width": widths[0]} if config.topology == "pyramid" else {}
    return config.replace(widths=widths, **stem)


def valid_widths(config: HRViTConfig, branch: int, low: int, high: int) -> list[int]:
    """Valid widths of this branch from ``low`` to ``high``; for a pyramid's first branch, also valid for the stem."""
    return list(filter(config.width_accepts(branch), range(low, high + 1)))
