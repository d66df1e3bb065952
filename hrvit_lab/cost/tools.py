"""What other counters say about our network, predicted from its ledger: what each sees, and what it adds.

The rules below are facts about released tools (fvcore 0.1.5, ptflops 0.7.5, torch 2.15; older versions of torch's
counter do not know every fused kernel), and about how our network runs its products (``Cost.run_as``).
``hrvit_lab.cost.audit`` holds them against the tools themselves.
"""

from collections.abc import Iterable
from typing import NamedTuple

from hrvit_lab.parts.ops import Cost

PATHS = ("fused", "explicit")
"""How attention runs: one kernel, or both products written out."""


class Tool(NamedTuple):
    """How a counter counts.

    Attributes:
        package, backend: its name.
        sees: ways in which a product can run (``Cost.run_as``) that it counts.
        sees_attention: of the two paths of attention, those that it counts.
        adds: operators without multiply-accumulates that it counts, with its price for an element of their output; of
            pooling's input.
        counts_additions: whether a bias costs one for each element of the output.
        note: the rules in words.
    """

    package: str
    backend: str
    sees: frozenset[str]
    sees_attention: frozenset[str]
    adds: dict[str, int]
    counts_additions: bool
    note: str


TOOLS = (
    Tool(
        "fvcore",
        "jit trace",
        frozenset({"module", "bmm"}),
        frozenset({"explicit"}),
        {"batch_norm": 2, "layer_norm": 5, "upsample": 1, "upsample_bilinear": 4, "average_pool": 1},
        False,
        "reads operators off a trace, which drops what no output needs; adds norms, upsampling, pooling, no biases",
    ),
    Tool(
        "ptflops",
        "pytorch",
        frozenset({"module"}),
        frozenset(),
        {
            "batch_norm": 2,
            "layer_norm": 1,
            "gelu": 1,
            "relu": 1,
            "silu": 1,
            "upsample": 1,
            "upsample_bilinear": 1,
            "average_pool": 1,
            "block_average": 1,
        },
        True,
        "hooks modules, wraps functions but not @; adds biases, norms, GELU, ReLU, SiLU, resizing, pooling",
    ),
    Tool(
        "ptflops",
        "aten",
        frozenset({"module", "bmm"}),
        frozenset({"explicit"}),
        {},
        True,
        "reads operators as they are dispatched; adds biases",
    ),
    Tool(
        "torch",
        "dispatch",
        frozenset({"module", "bmm"}),
        frozenset(PATHS),
        {},
        False,
        "exact; counts two operations per multiply-accumulate, halved here",
    ),
)


class Prediction(NamedTuple):
    """What a tool is expected to say about one image.

    Attributes:
        tool, attention: whom, and on which path of ``PATHS``.
        macs: its figure: all multiply-accumulates, less ``unseen``, plus ``extra``.
        unseen: multiply-accumulates that it cannot see, by part and how that runs, e.g. ``"attention products (bmm)"``.
        extra: what it counts beside them, by operator; ``"additions"`` for biases.
    """

    tool: Tool
    attention: str
    macs: int
    unseen: dict[str, int]
    extra: dict[str, int]


def predict(costs: Iterable[Cost], tool: Tool, attention: str) -> Prediction:
    """What ``tool`` says about a network of these costs whose attention runs as ``attention``, one of ``PATHS``.

    >>> from hrvit_lab.parts.ops import linear
    >>> predict([linear("ffn", 8, 4, 10)], TOOLS[0], "fused").macs
    320
    """
    seen = 0
    unseen: dict[str, int] = {}
    extra: dict[str, int] = {}

    def add(to: dict[str, int], key: str, value: int) -> None:
        if value:
            to[key] = to.get(key, 0) + value

    for cost in costs:
        if cost.run_as == "attention":
            visible, how = attention in tool.sees_attention, {"fused": "fused kernel", "explicit": "bmm"}[attention]
        else:
            visible, how = cost.run_as in tool.sees, cost.run_as
        if not cost.run_as:
            add(extra, cost.operator, (cost.inputs or cost.outputs) * tool.adds.get(cost.operator, 0))
        elif visible:
            seen += cost.macs
            add(extra, "additions", cost.additions * tool.counts_additions)
        else:
            add(unseen, f"{cost.part} ({how})", cost.macs)
    return Prediction(tool, attention, seen + sum(extra.values()), unseen, extra)


def predictions(costs: Iterable[Cost]) -> list[Prediction]:
    """Every tool on either path, in the order of an audit's rows."""
    costs = list(costs)
    return [predict(costs, tool, attention) for attention in PATHS for tool in TOOLS]
