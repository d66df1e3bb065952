"""Pure functions that change the number of branches, the depths and the widths of a config."""

from hrvit_lab.config.schema import MAX_BRANCHES, PER_BRANCH, HRViTConfig
from hrvit_lab.errors import ConfigError


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
