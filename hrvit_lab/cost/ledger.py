"""The ledger: every operator's cost, composed the way the network is, from a config alone."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost import ATTENTION, FFNS, FUSION, HEAD, PATCH_EMBED, SHORTCUT, STEM
from hrvit_lab.cost.ops import Cost, Costs, Totals, layer_norm, sum_costs


class Row(NamedTuple):
    """One entry: where it stands (``stage`` is a number, ``"stem"`` or ``"head"``), and what it costs for one image."""

    stage: int | str
    branch: int
    cost: Cost


class Part(NamedTuple):
    """A piece of the network, in ``repeats`` equal copies that cost ``cost(*arguments)`` each.

    A part that spans branches has no ``branch``, and its cost function gives one tuple of costs per branch.
    """

    stage: int | str
    branch: int | None
    repeats: int
    cost: Callable[..., Any]
    arguments: tuple[Any, ...]


def ledger(config: HRViTConfig, resolution: int | tuple[int, int] = 224) -> tuple[Row, ...]:
    """Costs of every operator at an input of ``resolution`` pixels, one image; sums of the rows are the totals.

    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
    """
    rows = []
    for stage, branch, repeats, cost, arguments in parts(config, resolution):
        branches = enumerate(cost(*arguments)) if branch is None else [(branch, cost(*arguments))]
        rows += [Row(stage, b, entry.times(repeats)) for b, costs in branches for entry in costs]
    return tuple(rows)


def totals(config: HRViTConfig, resolution: int | tuple[int, int] = 224) -> Totals:
    """The ledger's sums without its rows, for a search among many configs: equal parts are summed once.

    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
    """
    sums = [0] * len(Totals._fields)
    for _, branch, repeats, cost, arguments in parts(config, resolution):
        for i, value in enumerate(part_totals(cost, arguments, branch is None)):
            sums[i] += repeats * value
    return Totals(*sums)


@lru_cache(maxsize=65536)
def part_totals(cost: Callable[..., Any], arguments: tuple[Any, ...], spans_branches: bool) -> Totals:
    """Sums of one copy of a part."""
    costs = cost(*arguments)
    return sum_costs(chain.from_iterable(costs) if spans_branches else costs)


def parts(config: HRViTConfig, resolution: int | tuple[int, int] = 224) -> Iterator[Part]:
    """The network's pieces in the order they run.

    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
    """
    height, width = config.check_resolution(resolution)
    sizes = config.map_sizes((height, width))
    pixels = tuple(h * w for h, w in sizes)
    yield Part("stem", 0, 1, STEM[config.stem].cost, (config.in_chans, config.stem_width, height, width))
    dims: tuple[int, ...] = (config.stem_width,)
    for s, depths in enumerate(config.depths):
        n = len(depths)
        fused = dims + config.widths[len(dims) : n]  # the previous widths; a new branch takes its own
        yield Part(s, None, 1, FUSION[config.fusion].cost, (dims, fused, pixels[:n]))
        dims = config.widths[:n]
        for branch, depth in enumerate(depths):
            dim, size = dims[branch], sizes[branch]
            block = (
                dim, config.head_dims[branch], config.window_sizes[branch], config.mlp_ratios[branch],
                config.attention[branch], config.ffn[branch], config.shortcut,
            )  # fmt: skip
            yield Part(s, branch, 1, PATCH_EMBED[config.patch_embed].cost, (fused[branch], dim, *size))
            yield Part(s, branch, depth, block_costs, (*block, *size))
            yield Part(s, branch, 1, final_norm, (dim, *size))
    settings = (config.head_widths, config.head_features, config.num_classes)
    yield Part("head", None, 1, HEAD[config.head].cost, (dims, *settings, pixels))


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
    norm = layer_norm(dim, height * width)
    return (
        norm,
        *ATTENTION[attention].cost(dim, head_dim, window_size, height, width),
        *SHORTCUT[shortcut].cost(dim, height, width),
        norm,
        *FFNS[ffn].cost(dim, mlp_ratio, height, width),
    )


def final_norm(dim: int, height: int, width: int) -> Costs:
    """The LayerNorm that ends a branch in a stage."""
    return (layer_norm(dim, height * width),)
