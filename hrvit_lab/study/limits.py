"""Limits on the values of points, as text: ``macs < 3G, top1 > 80``."""

import operator
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrvit_lab.config import ConfigError, suggest
from hrvit_lab.metrics import SI_PREFIXES
from hrvit_lab.study.quantities import Quantity

COMPARISONS: dict[str, Callable[[pd.Series, float], pd.Series]] = {
    "<=": operator.le, "≤": operator.le, "<": operator.lt, ">=": operator.ge, "≥": operator.ge, ">": operator.gt,
}  # fmt: skip
PREFIXES = {"": 1.0, **{prefix: factor for factor, prefix in SI_PREFIXES}}
MAX_LENGTH = 500


class Limit(NamedTuple):
    """``metric`` (a key of `METRICS` or `SCORES`) compared with ``value``, in the metric's unit."""

    metric: str
    sign: str
    value: float


def parse_limits(text: str, metrics: Iterable[str]) -> list[Limit]:
    """Parse limits separated by commas or ``and``.

    >>> parse_limits("macs < 3G and top1 >= 80", ["macs", "top1"])
    [Limit(metric='macs', sign='<', value=3000000000.0), Limit(metric='top1', sign='>=', value=80.0)]

    Raises:
        ConfigError: for an unknown metric, or text that is not a limit.
    """
    known = list(metrics)
    limits = []
    for part in filter(None, map(str.strip, re.split(r",|\band\b", text[:MAX_LENGTH]))):
        match = re.fullmatch(r"(\w+)\s*(<=|>=|[<>≤≥])\s*(.*)", part)
        value = None if match is None else parse_amount(match[3])
        if match is None or value is None:
            raise ConfigError(f"{part[:40]!r} is not a limit; write a metric, < or >, and a number, as in macs < 3G")
        metric, sign, _ = match.groups()
        if metric not in known:
            raise ConfigError(f"unknown metric {metric!r}; {suggest(metric, known)}")
        limits.append(Limit(metric, sign, value))
    return limits


def parse_amount(text: str) -> float | None:
    """A number with an SI prefix: k, M, G or T; None if the text is none.

    >>> parse_amount("2.78 G"), parse_amount("5M"), parse_amount("many")
    (2780000000.0, 5000000.0, None)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e[+-]?\d{1,2})?)\s*([kMGT]?)\s*", text, re.ASCII)
    return None if match is None else float(match[1]) * PREFIXES[match[2]]


def within(table: pd.DataFrame, quantities: Iterable[Quantity], limits: Iterable[Limit]) -> NDArray[np.bool_]:
    """Points within all limits, (points,).

    A metric can have several quantities, such as MACs at two input sizes. A point is within a limit if it has a value
    of at least one of them, and all its values are within the limit.
    """
    kept = np.ones(len(table), dtype=bool)
    known = list(quantities)
    for limit in limits:
        columns = table[[quantity.key for quantity in known if quantity.metric == limit.metric]]
        inside = columns.apply(lambda column: COMPARISONS[limit.sign](column, limit.value) | column.isna())  # noqa: B023
        kept &= columns.notna().any(axis=1).to_numpy() & inside.all(axis=1).to_numpy()
    return kept
