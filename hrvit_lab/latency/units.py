"""The parts of a network whose latencies add up to its own: those that ``measure_parts`` times, from the plan alone."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from hrvit_lab.config import HRViTConfig
from hrvit_lab.config.plan import Part, Size, plan
from hrvit_lab.cost.ledger import area, part_costs, part_totals
from hrvit_lab.parts.ops import Cost

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
            times keys), of MACs for each score (about twice the head dim), and of the share of lanes that its head dim
            fills.
        work: 1, and MACs, moved elements, weights and number of operators without the products of attention, then
            `AttentionWork`: a latency is nearly a weighted sum of them.
    """

    place: tuple[float, float, float, float, float, float]
    work: tuple[float, ...]


class AttentionWork(NamedTuple):
    """What the time of attention's products depends on; 0 for parts without them.

    Attributes:
        macs: of both products.
        queries: tokens times heads, each of which begins a row of scores.
        scores: their exponentials take longer than products.
        whole_keys, whole_depths: scores, and MACs of one product, if keys or channels of a head are rounded up to whole
            vectors of float32 (AVX-512): lanes that stay empty take as long.
        rest: 1 if windows leave a rest at the border, which is attended separately.
        rest_outputs: then also the elements of the output, which are copied together.
    """

    macs: float = 0.0
    queries: float = 0.0
    scores: float = 0.0
    whole_keys: float = 0.0
    whole_depths: float = 0.0
    rest: float = 0.0
    rest_outputs: float = 0.0


LANES = 16
"""Numbers of float32 in a vector of AVX-512."""


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
    attention = AttentionWork()
    if part.kind == RESIDUAL:
        macs, moved, weights, operators = 0.0, 4 * tokens * width, 0.0, 2.0
    else:
        totals, costs = part_totals(part), part_costs(part)
        outputs = sum(cost.outputs for cost in costs)
        macs, moved, weights = float(totals.macs), float(totals.moved + outputs), float(totals.params)
        operators = float(len(costs))
        attention = _attention_work([cost for cost in costs if cost.operator == "attention"])
    shape = math.log2(max(macs, 1.0) / (tokens * width**2)) if macs else 0.0
    keys = depth = filled = 0.0
    if attention.scores:
        keys, depth = math.log2(attention.scores / tokens), math.log2(attention.macs / attention.scores)
        filled = math.log2(attention.macs / (2 * attention.whole_depths))
    return Point(
        (math.log2(tokens), math.log2(width), shape, keys, depth, filled),
        (1.0, macs - attention.macs, moved, weights, operators, *attention),
    )


def _attention_work(costs: Sequence[Cost]) -> AttentionWork:
    outputs = float(sum(cost.outputs for cost in costs))
    scores = float(sum(cost.activations for cost in costs)) - outputs
    if not scores:
        return AttentionWork()
    macs = float(sum(cost.macs for cost in costs))
    depth = macs / (2 * scores)
    queries = outputs / depth
    rest = float(any(cost.macs != cost.macs_padded for cost in costs))
    return AttentionWork(
        macs, queries, scores, queries * _whole(scores / queries), scores * _whole(depth), rest, rest * outputs
    )


def _whole(length: float) -> int:
    """The length of a row in whole vectors."""
    return math.ceil(length / LANES - 1e-9) * LANES


def _width(part: Part) -> int:
    match part.kind:
        case "stem" | "patch_embed":
            return int(part.arguments[1])
        case "fusion":
            return int(sum(part.arguments[1]))
        case "head":
            return int(sum(part.arguments[0]))
    return int(part.arguments[0])
