"""The ledger: the cost of every operator of a network, computed from its config, part by part."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from hrvit_lab.config import TABLES, HRViTConfig
from hrvit_lab.config.plan import Part, Plan, Size, plan
from hrvit_lab.parts.attention import attention_costs
from hrvit_lab.parts.ops import Cost, Costs, Totals, layer_norm, sum_costs


class Row(NamedTuple):
    """The cost of one operator for one image, with its stage (a number, ``"stem"`` or ``"head"``) and branch."""

    stage: int | str
    branch: int
    cost: Cost


class Ledger(tuple[Row, ...]):
    """All rows, in the network's order."""

    def __repr__(self) -> str:
        sums = sum_costs(row.cost for row in self)
        return f"Ledger({len(self)} rows, {sums.params:,} parameters, {sums.macs:,} MACs)"


def ledger(config: HRViTConfig, resolution: int | Size = 224) -> Ledger:
    """Costs of every operator for one image of ``resolution`` pixels. The totals are the sums over the rows.

    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
    """
    rows = []
    for stage, branch, part, repeats in plan(config, resolution).steps():
        branches = [(branch, part_costs(part))] if branch is not None else enumerate(costs_by_branch(part))
        rows += [Row(stage, b, cost.times(repeats)) for b, costs in branches for cost in costs]
    return Ledger(rows)


def totals(config: HRViTConfig, resolution: int | Size = 224) -> Totals:
    """The sums of the ledger without its rows, for a search over many configs. Equal parts are computed once.

    Raises:
        ConfigError: if the input is smaller than the coarsest branch's stride.
    """
    return plan_totals(plan(config, resolution))


def plan_totals(planned: Plan) -> Totals:
    """The sums over a plan made with a resolution."""
    return _sum((repeats, part_totals(part)) for _, _, part, repeats in planned.steps())


@lru_cache(maxsize=65536)
def part_totals(part: Part) -> Totals:
    """Sums over one copy of a part. The parts inside blocks are cached as well."""
    if part.kind == "block":
        return _sum((1, part_totals(inner)) for inner in part.inside)
    return sum_costs(part_costs(part))


def part_costs(part: Part) -> Costs:
    """Costs of one copy of a part for one image. The costs of a block are those of the parts inside it."""
    kind, variant, arguments, sizes = part
    match kind:
        case "block":
            return tuple(chain.from_iterable(map(part_costs, part.inside)))
        case "fusion" | "head":
            return tuple(chain.from_iterable(costs_by_branch(part)))
        case "norm":
            return (layer_norm(arguments[0], area(*sizes)),)
        case "attention":
            return attention_costs(variant, *arguments + sizes[0])
        case _:
            return TABLES[kind][variant].cost(*arguments + sizes[0])


def costs_by_branch(part: Part) -> tuple[Costs, ...]:
    """Costs of a fusion or a head, a tuple for every branch."""
    return TABLES[part.kind][part.variant].cost(*part.arguments, tuple(map(area, part.sizes)))


def area(size: Size) -> int:
    """Number of tokens of a map."""
    return size[0] * size[1]


def _sum(counted: Iterable[tuple[int, Totals]]) -> Totals:
    params = buffers = macs = macs_padded = macs_paper = activations = moved = 0
    for repeats, (p, b, m, padded, paper, a, mo) in counted:  # written out for speed: a search spends its time here
        params += repeats * p
        buffers += repeats * b
        macs += repeats * m
        macs_padded += repeats * padded
        macs_paper += repeats * paper
        activations += repeats * a
        moved += repeats * mo
    return Totals(params, buffers, macs, macs_padded, macs_paper, activations, moved)
