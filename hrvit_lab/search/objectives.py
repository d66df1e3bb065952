"""The table of quantities that a search can improve or bound. To add one: a function and a line in `OBJECTIVES`."""

from collections.abc import Callable, Mapping

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.count import Counts, count
from hrvit_lab.metrics import METRICS

Quantity = Callable[[Counts], float]
"""A number of a network, from its costs in closed form."""


def _cost(key: str) -> Quantity:
    return lambda counts: float(getattr(counts, key))


OBJECTIVES: Mapping[str, Quantity] = {key: _cost(key) for key, metric in METRICS.items() if metric.group == "cost"}


def evaluate(config: HRViTConfig, resolution: tuple[int, int], keys: tuple[str, ...]) -> tuple[float, ...]:
    """These quantities of a network at an input size in pixels. Nothing is built or run."""
    counts = count(config, resolution)
    return tuple(OBJECTIVES[key](counts) for key in keys)
