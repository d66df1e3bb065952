"""The ledger: every operator's cost, composed the way the network is, from a config alone."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from hrvit_lab.config import HRViTConfig
from hrvit_lab.parts import FFNS, FUSION, HEAD, PATCH_EMBED, SHORTCUT, STEM
from hrvit_lab.parts.attention import attention_costs, variant_at
from hrvit_lab.parts.ops import Cost, Costs, Totals, layer_norm, sum_costs

Sizes = tuple[tuple[int, int], ...]
"""Height and width in tokens, per branch."""


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
    yield from (_pyramid if config.topology == "pyramid" else _parallel)(config, sizes)
    settings = (config.head_widths, config.head_channels, config.num_classes)
    yield Part("head", None, 1, HEAD[config.head].cost, (config.widths, *settings, pixels))


def _parallel(config: HRViTConfig, sizes: Sizes) -> Iterator[Part]:
    pixels = tuple(h * w for h, w in sizes)
    dims: tuple[int, ...] = (config.stem_width,)
    for s, depths in enumerate(config.depths):
        n = len(depths)
        fused = dims + config.widths[len(dims) : n]  # the previous widths; a new branch takes its own
        yield Part(
            s,
            None,
            1,
            FUSION[config.fusion].cost,
            (dims, fused, config.upsample, pixels[:n], s == len(config.depths) - 1),
        )
        dims = config.widths[:n]
        for b in range(n):
            yield Part(s, b, 1, PATCH_EMBED[config.patch_embed].cost, (fused[b], dims[b], 1, *sizes[b]))
            yield from _blocks(config, s, s, b, sizes[b])


def _pyramid(config: HRViTConfig, sizes: Sizes) -> Iterator[Part]:
    for b, dim in enumerate(config.widths):
        if b:
            yield Part(b, b, 1, PATCH_EMBED[config.patch_embed].cost, (config.widths[b - 1], dim, 2, *sizes[b - 1]))
        yield from _blocks(config, b, 0, b, sizes[b])


def _blocks(config: HRViTConfig, stage: int, row: int, branch: int, size: tuple[int, int]) -> Iterator[Part]:
    """A branch's blocks in one stage (``row`` of the depths), and the LayerNorm after them."""
    first = config.first_block(row, branch)
    variants = Counter(variant_at(config.attention[branch], first + j) for j in range(config.depths[row][branch]))
    for variant, repeats in variants.items():
        arguments = (
            config.widths[branch], config.head_dims[branch], config.window_sizes[branch], config.mlp_ratios[branch],
            variant, config.parallel_conv, config.attn_batch_norm, config.ffn[branch], config.shortcut, *size,
        )  # fmt: skip
        yield Part(stage, branch, repeats, block_costs, arguments)
    if config.branch_norm:
        yield Part(stage, branch, 1, final_norm, (config.widths[branch], *size))


def block_costs(
    dim: int,
    head_dim: int,
    window_size: int,
    mlp_ratio: float,
    attention: str,
    parallel_conv: bool,
    batch_normed: bool,
    ffn: str,
    shortcut: str,
    height: int,
    width: int,
) -> Costs:
    """Costs of one transformer block: attention, shortcut and, where there is one, a feed-forward network, each half
    behind a LayerNorm."""
    norm = layer_norm(dim, height * width)
    fed = FFNS[ffn].cost(dim, mlp_ratio, height, width)
    return (
        norm,
        *attention_costs(attention, dim, head_dim, window_size, parallel_conv, batch_normed, height, width),
        *SHORTCUT[shortcut].cost(dim, height, width),
        *((norm, *fed) if fed else ()),
    )


def final_norm(dim: int, height: int, width: int) -> Costs:
    """The LayerNorm that ends a branch in a stage."""
    return (layer_norm(dim, height * width),)
