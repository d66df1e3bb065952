"""Predictions of other tools' counts, computed from the ledger: the operators that each tool counts and adds.

The rules below describe released tools (fvcore 0.1.5, ptflops 0.7.5, torch 2.15; older versions of torch's counter do
not support every fused kernel), and how our network computes its products (``Cost.run_as``).
``hrvit_lab.cost.audit`` compares them with the tools.
"""

from collections.abc import Iterable
from typing import NamedTuple

from hrvit_lab.parts.ops import Cost

PATHS = ("fused", "explicit")
"""Attention paths: one fused kernel, or two explicit products."""


class Tool(NamedTuple):
    """The rules of a counter.

    Attributes:
        package, backend: its name.
        sees: values of ``Cost.run_as`` whose products it counts.
        sees_attention: attention paths that it counts.
        adds: operators without multiply-accumulates that it counts, with its count per output element; for pooling,
            per input element.
        counts_additions: whether a bias counts one per output element.
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
        "reads operators from a trace without dead code; adds norms, upsampling and pooling, but no biases",
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
        "hooks modules and wraps functions, but not @; adds biases, norms, GELU, ReLU, SiLU, resizing and pooling",
    ),
    Tool(
        "ptflops",
        "aten",
        frozenset({"module", "bmm"}),
        frozenset({"explicit"}),
        {},
        True,
        "counts dispatched operators; adds biases",
    ),
    Tool(
        "torch",
        "dispatch",
        frozenset({"module", "bmm"}),
        frozenset(PATHS),
        {},
        False,
        "exact; counts FLOPs, two per multiply-accumulate, halved here",
    ),
)


class Prediction(NamedTuple):
    """The predicted count of a tool for one image.

    Attributes:
        tool: the counter.
        attention: the attention path, one of ``PATHS``.
        macs: the prediction: all multiply-accumulates, minus ``unseen``, plus ``extra``.
        unseen: multiply-accumulates that it does not count, by part and operator, e.g. ``"attention products (bmm)"``.
        extra: other operations that it counts, by operator; ``"additions"`` are those of biases.
    """

    tool: Tool
    attention: str
    macs: int
    unseen: dict[str, int]
    extra: dict[str, int]


def predict(costs: Iterable[Cost], tool: Tool, attention: str) -> Prediction:
    """Predict the count of ``tool`` for a network of these costs on the attention path ``attention``, of ``PATHS``.

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
    """Predictions of every tool on both paths, in the order of the rows of an audit."""
    costs = list(costs)
    return [predict(costs, tool, attention) for attention in PATHS for tool in TOOLS]
