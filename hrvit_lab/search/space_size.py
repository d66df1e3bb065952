"""The number of valid networks on a grid of values, counted exactly: ``python -m hrvit_lab.space_size``.

Two networks are different if the ``id`` of their configs differs; unused settings do not count. The numbers of values
of independent fields are multiplied. Fields that occur together in a rule or in the id are enumerated together, one
branch at a time.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

from hrvit_lab import cli
from hrvit_lab.config import MAX_BRANCHES, TABLES
from hrvit_lab.parts import ATTENTION, FFNS, HEAD, SHORTCUT, STEM

SWITCHES = (True, False)
LISTED = 8
"""Longer lists of numbers are printed as ranges."""


@dataclass(frozen=True)
class Grid:
    """The values of each field of a config; for a per-branch field, the values in every branch.

    Attributes:
        branches: numbers of branches.
        stages: maximum number of stages in the parallel topology.
        depth: maximum number of blocks of a branch in a stage.

    The other attributes have the names of the config's fields. By default, names, switches, branches, stages and blocks
    take all valid values. Wide ranges of numbers are sampled: widths in steps of 4, windows up to 16, and so on.
    """

    topology: tuple[str, ...] = ("parallel", "pyramid")
    branches: tuple[int, ...] = tuple(range(1, MAX_BRANCHES + 1))
    stages: int = 32
    depth: int = 64
    widths: tuple[int, ...] = tuple(range(4, 1025, 4))
    head_dims: tuple[int, ...] = (2, 4, 8, 16, 24, 32, 48, 64)
    window_sizes: tuple[int, ...] = tuple(range(1, 17))
    mlp_ratios: tuple[float, ...] = tuple(half / 2 for half in range(1, 17))
    attention: tuple[str, ...] = tuple(ATTENTION)
    ffn: tuple[str, ...] = tuple(FFNS)
    parallel_conv: tuple[bool, ...] = SWITCHES
    attn_activation: tuple[bool, ...] = SWITCHES
    attn_batch_norm: tuple[bool, ...] = SWITCHES
    shortcut: tuple[str, ...] = tuple(SHORTCUT)
    patch_embed: tuple[str, ...] = tuple(TABLES["patch_embed"])
    fusion: tuple[str, ...] = tuple(TABLES["fusion"])
    upsample: tuple[str, ...] = ("nearest", "bilinear")
    branch_norm: tuple[bool, ...] = SWITCHES
    norm_eps: tuple[float, ...] = (1e-5,)
    stem: tuple[str, ...] = tuple(STEM)
    stem_width: tuple[int, ...] = tuple(range(4, 1025, 4))
    in_chans: tuple[int, ...] = (3,)
    head: tuple[str, ...] = tuple(HEAD)
    num_classes: tuple[int, ...] = (1000,)
    head_widths: tuple[int, ...] = (32,)
    head_features: tuple[int, ...] = (2048,)
    segformer_width: tuple[int, ...] = (256,)
    upernet_width: tuple[int, ...] = (512,)
    drop_rate: tuple[float, ...] = (0.0,)
    proj_drop_rate: tuple[float, ...] = (0.0,)
    drop_path_rate: tuple[float, ...] = (0.0,)
    grad_checkpointing: tuple[bool, ...] = (False,)


def count_networks(grid: Grid) -> int:
    """The number of different valid networks with all settings on the grid."""
    of_topology = {"parallel": _count_parallel, "pyramid": _count_pyramid}
    return sum(of_topology[name](grid, branches) for name in grid.topology for branches in grid.branches)


def _count_parallel(grid: Grid, branches: int) -> int:
    """The number of parallel networks with that number of branches."""
    stems = sum(1 for stem, width in product(grid.stem, grid.stem_width) if not STEM[stem].width_rule(width))
    blocks = sum(sum(branch_widths(grid, shortcut).values()) ** branches for shortcut in grid.shortcut)
    fusions = len(grid.fusion) * len(grid.upsample) if branches > 1 else 1
    depths = count_depths(grid.stages, grid.depth, branches)
    # The first block has drop path rate 0, so the rate has no effect if there is one stage with one block per branch.
    with_rates = _count_with_drop_path(grid, depths, unaffected=1)
    return with_rates * blocks * stems * len(grid.patch_embed) * fusions * _count_rest(grid, branches)


def _count_pyramid(grid: Grid, branches: int) -> int:
    """The number of pyramids with that number of branches.

    The stem is as wide as the first branch. A single branch has no patch embedding.
    """
    blocks = 0
    for shortcut in grid.shortcut:
        widths = branch_widths(grid, shortcut)
        first = sum(
            number * sum(1 for stem in grid.stem if not STEM[stem].width_rule(width))
            for width, number in widths.items()
            if width in grid.stem_width
        )
        blocks += first * sum(widths.values()) ** (branches - 1)
    with_rates = _count_with_drop_path(grid, grid.depth**branches, unaffected=branches == 1)
    return with_rates * blocks * (len(grid.patch_embed) if branches > 1 else 1) * _count_rest(grid, branches)


def _count_with_drop_path(grid: Grid, depths: int, unaffected: int) -> int:
    """The number of combinations of depths and drop path rate; in ``unaffected`` depths, the rate has no effect."""
    return (depths - unaffected) * len(grid.drop_path_rate) + unaffected


@lru_cache
def branch_widths(grid: Grid, shortcut: str) -> Counter[int]:
    """For each valid width, the number of different settings of a branch with this shortcut."""
    counted: Counter[int] = Counter()
    for width in filter(lambda width: not SHORTCUT[shortcut].width_rule(width), grid.widths):
        mixers = {
            (name, ATTENTION[name].identity(width, head_dim, window))
            for name, head_dim in product(grid.attention, grid.head_dims)
            if not ATTENTION[name].width_rule(width, head_dim)
            for window in grid.window_sizes
        }
        ffns = {
            (name, FFNS[name].identity(width, ratio))
            for name, ratio in product(grid.ffn, grid.mlp_ratios)
            if not FFNS[name].width_rule(width, ratio)
        }
        counted[width] = len(mixers) * len(ffns)
    return counted


def count_depths(stages: int, depth: int, branches: int) -> int:
    """The number of valid ``depths`` of a parallel network.

    Args:
        stages: maximum number of stages.
        depth: maximum number of blocks of a branch in a stage.
        branches: number of branches of the last stage.

    >>> count_depths(2, 2, 2)  # 4 with one stage; 2 · 4 and 4 · 4 with two
    28
    """
    total = 0
    ending = [depth ** (n + 1) for n in range(branches)]  # index n: the last stage so far has n + 1 branches
    for _ in range(stages):
        total += ending[-1]
        ending = [depth ** (n + 1) * sum(ending[: n + 1]) for n in range(branches)]
    return total


def _count_rest(grid: Grid, branches: int) -> int:
    """The number of choices of the independent fields, times the number of different heads."""
    free = (
        grid.parallel_conv, grid.attn_activation, grid.attn_batch_norm, grid.branch_norm, grid.norm_eps, grid.in_chans,
        grid.proj_drop_rate, grid.grad_checkpointing,
    )  # fmt: skip
    return prod(map(len, free)) * len(set(_heads(grid, branches)))


def _heads(grid: Grid, branches: int) -> Iterator[tuple[object, ...]]:
    """Name and identity of every head on the grid; equal heads can occur several times."""
    for name in grid.head:
        width_field = HEAD[name].width_field
        widths = getattr(grid, width_field) if width_field else (0,)
        inner = product(grid.head_widths, repeat=branches)
        for settings in product(inner, widths, grid.num_classes, grid.drop_rate):
            yield name, HEAD[name].identity(*settings)


def describe(grid: Grid) -> Mapping[str, Any]:
    """The values of the grid by field, with ranges abbreviated."""
    return {field.name: _short(getattr(grid, field.name)) for field in fields(grid)}


def _short(values: Any) -> str:
    """The values as text; a long list of numbers as a range."""
    if not isinstance(values, tuple):
        return f"1 to {values}"
    if len(values) > LISTED and not isinstance(values[0], str):
        return f"{values[0]:g}, {values[1]:g}, … {values[-1]:g}"
    return ", ".join(map(str, values))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the grid and the number of networks, and return the exit code."""

    def work() -> int:
        description = "Count the different valid networks on a grid of values, and print the grid."
        cli.Parser("python -m hrvit_lab.space_size", description).parse_args(arguments)
        grid = Grid()
        width = cli.console().width
        for field, values in describe(grid).items():
            first, *others = cli.wrapped(values, width - 21).splitlines()
            print("\n".join((f"{field:20} {first}", *(f"{'':20} {line}" for line in others))))
        number = count_networks(grid)
        print(f"\n{Decimal(number):.3e} networks; exactly: {number}")
        return 0

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
