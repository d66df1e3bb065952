"""The ledger: every operator's cost, composed the way the network is, from a config alone."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost import ATTENTION, FFNS, FUSION, HEAD, PATCH_EMBED, SHORTCUT, STEM
from hrvit_lab.cost.ops import Cost, Costs, norm


class Row(NamedTuple):
    """One entry: where it stands (``stage`` is a number, ``"stem"`` or ``"head"``), and what it costs for one image."""

    stage: int | str
    branch: int
    cost: Cost


def ledger(config: HRViTConfig, resolution: int | tuple[int, int] = 224) -> tuple[Row, ...]:
    """Costs of every part at an input of ``resolution`` pixels, one image; sums of the rows are the totals.

    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
    """
    height, width = config.check_resolution(resolution)
    sizes = config.map_sizes((height, width))
    pixels = [h * w for h, w in sizes]
    rows = list(_rows("stem", 0, STEM[config.stem].cost(config.in_chans, config.stem_width, height, width)))
    dims: tuple[int, ...] = (config.stem_width,)
    for s, depths in enumerate(config.depths):
        n = len(depths)
        fused = dims + config.widths[len(dims) : n]  # the previous widths; a new branch takes its own
        for branch, costs in enumerate(FUSION[config.fusion].cost(dims, fused, pixels[:n])):
            rows += _rows(s, branch, costs)
        dims = config.widths[:n]
        for branch, depth in enumerate(depths):
            size = sizes[branch]
            embed = PATCH_EMBED[config.patch_embed].cost(fused[branch], dims[branch], *size)
            block = block_costs(
                dims[branch], config.head_dims[branch], config.window_sizes[branch], config.mlp_ratios[branch],
                config.attention[branch], config.ffn[branch], config.shortcut, *size,
            )  # fmt: skip
            rows += _rows(s, branch, embed)
            rows += _rows(s, branch, [cost.times(depth) for cost in block])
            rows += _rows(s, branch, [norm(dims[branch])])
    heads = HEAD[config.head].cost(dims, config.head_widths, config.head_features, config.num_classes, pixels)
    for branch, costs in enumerate(heads):
        rows += _rows("head", branch, costs)
    return tuple(rows)


@lru_cache(maxsize=65536)
def block_costs(
    dim: int,
    head_dim: int,
    window_size: int,
    mlp_ratio: float,
    attention: str,
    ffn: str,
    shortcut: str,
    height: int,
    width: int,
) -> Costs:
    """Costs of one transformer block: two LayerNorms, attention, shortcut, feed-forward network."""
    return (
        norm(dim),
        *ATTENTION[attention].cost(dim, head_dim, window_size, height, width),
        *SHORTCUT[shortcut].cost(dim, height, width),
        norm(dim),
        *FFNS[ffn].cost(dim, mlp_ratio, height, width),
    )


def _rows(stage: int | str, branch: int, costs: Iterable[Cost] | Sequence[Cost]) -> list[Row]:
    return [Row(stage, branch, cost) for cost in costs]
