"""The parts of a network whose latencies add up to its own: those that ``measure_parts`` times, from the plan alone."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from hrvit_lab.config import HRViTConfig
from hrvit_lab.config.plan import Part, Size, plan
from hrvit_lab.cost.ledger import area, part_costs, part_totals

RESIDUAL = "residual"
"""Kind of the operations of a block outside its parts."""

LABELS = {"block": RESIDUAL, "patch_embed": "patch embedding"}
"""Labels of parts in tables and figures, where they differ from their kind."""


class Family(NamedTuple):
    """Parts that differ in tokens and widths only: kind, variant, and the arguments that are not about channels."""

    kind: str
    variant: str
    settings: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.variant!r}" if self.variant else self.kind


class Point(NamedTuple):
    """What the latency of a part depends on.

    Attributes:
        place: base-2 logarithms of tokens, of the width, and of MACs divided by tokens and by the width squared: equal
            for parts of equal shape, with 1 for every doubling. Of attention, also of scores for each token (heads
            times keys) and of MACs for each score (about twice the head dim).
        work: 1, and MACs, moved elements, weights, number of operators, and scores of attention: a latency is nearly a
            weighted sum of them. Scores have a term of their own, because their exponentials take longer than products.
    """

    place: tuple[float, float, float, float, float]
    work: tuple[float, float, float, float, float, float]


def inside(part: Part) -> tuple[Part, ...]:
    """The timed parts of a part: a block's parts and its residual sums; any other part itself."""
    if part.kind != "block":
        return (part,)
    return (*part.inside, Part(RESIDUAL, "", part.arguments[:1], part.sizes))


def parts_of(config: HRViTConfig, resolution: int | Size) -> Iterator[tuple[Part, int]]:
    """The timed parts of a network with the number of their calls."""
    for step in plan(config, resolution).steps():
        for part in inside(step.part):
            yield part, step.repeats


@lru_cache(maxsize=65_536)
def family_of(part: Part) -> Family:
    """The family of a part."""
    kind, variant, arguments, _ = part
    match kind:
        case "attention":
            return Family(kind, variant, arguments[3:])
        case "fusion":
            dims_in, dims_out, upsample, _ = arguments
            return Family(kind, variant, (len(dims_in), len(dims_out), upsample))
        case "patch_embed":
            return Family(kind, variant, arguments[2:])
    return Family(kind, variant, ())


@lru_cache(maxsize=65_536)
def point_of(part: Part) -> Point:
    """Where a part is within its family."""
    tokens = float(sum(map(area, part.sizes)))
    width = float(_width(part))
    attended = scores = 0.0
    if part.kind == RESIDUAL:
        macs, moved, weights, operators = 0.0, 4 * tokens * width, 0.0, 2.0
    else:
        totals, costs = part_totals(part), part_costs(part)
        outputs = sum(cost.outputs for cost in costs)
        macs, moved, weights = float(totals.macs), float(totals.moved + outputs), float(totals.params)
        operators = float(len(costs))
        attended = float(sum(cost.macs for cost in costs if cost.operator == "attention"))
        scores = float(sum(cost.activations - cost.outputs for cost in costs if cost.operator == "attention"))
    shape = math.log2(max(macs, 1.0) / (tokens * width**2)) if macs else 0.0
    keys, depth = (math.log2(scores / tokens), math.log2(max(attended, 1.0) / scores)) if scores else (0.0, 0.0)
    return Point(
        (math.log2(tokens), math.log2(width), shape, keys, depth), (1.0, macs, moved, weights, operators, scores)
    )


def _width(part: Part) -> int:
    match part.kind:
        case "stem" | "patch_embed":
            return int(part.arguments[1])
        case "fusion":
            return int(sum(part.arguments[1]))
        case "head":
            return int(sum(part.arguments[0]))
    return int(part.arguments[0])
