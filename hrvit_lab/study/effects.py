"""Statistics of a study: paired effects, numbers of seeds for an effect or interval, probabilities of a front.

Everything is computed from a study's table and curves, so it also works on committed results.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import nctdtr, stdtrit  # scipy.stats takes a second to import

from hrvit_lab.config import ConfigError
from hrvit_lab.metrics import score_of
from hrvit_lab.study.results import records_of
from hrvit_lab.study.statistics import LEVEL, holm, paired

POWER = 0.8
"""Customary statistical power: probability of detecting an effect of the given size."""
MAX_SEEDS = 100_000
MAX_DRAWS = 1_000_000


def seed_values(curves: pd.DataFrame, column: str = "val_top1") -> dict[str, dict[int, float]]:
    """The value after the last epoch, by variant and seed.

    Args:
        curves: of a study's results, with the columns variant, seed, epoch and ``column``.
        column: of the value.
    """
    if column not in curves:
        raise ConfigError(f"the curves have no column {column!r}; use one of {', '.join(map(str, curves.columns))}")
    last = curves.sort_values("epoch").groupby(["variant", "seed"], sort=False).tail(1)
    found: dict[str, dict[int, float]] = {}
    for variant, seed, value in zip(last["variant"], last["seed"], last[column], strict=True):
        if np.isfinite(value):
            found.setdefault(str(variant), {})[int(seed)] = float(value)
    return found


def effects(
    table: pd.DataFrame, curves: pd.DataFrame, axes: Sequence[str], reference: str | None = None
) -> pd.DataFrame:
    """Effects of single changes: networks that differ in one axis, or from the reference, compared in pairs by seed.

    Args:
        table: of a study's results, one row per variant.
        curves: of the same results.
        axes: columns of the table in which the variants differ.
        reference: a variant; if given, all others are compared with it, whatever their differences.
    Returns:
        One row per comparison: ``change`` (the axis), ``before`` and ``after`` (variants), ``n`` pairs of seeds,
            ``delta`` (mean difference of the score, points), its 95 % interval ``low`` to ``high``, ``std``
            (standard deviation of the differences), ``effect_size`` (the mean divided by it, Cohen's d of pairs), ``p``
            of the paired t-test, ``p_holm`` corrected for all rows, and ``macs_ratio`` and ``latency_ratio``, if the
            table has both values. MACs are exact. ``latency_low`` to ``latency_high`` is the 95 % interval of the ratio
            of latencies, if the table has the interval of both.
    """
    values = seed_values(curves, f"val_{score_of(table)}")
    rows = {str(row["variant"]): row for row in records_of(table)}
    found: list[dict[str, Any]] = []
    for before, after, change in _pairs(rows, axes, reference):
        if before not in values or after not in values:
            continue
        compared = paired(values[after], values[before])
        latency_low, latency_high = _latency_interval(rows[after], rows[before])
        spread = compared.se * compared.n**0.5
        found.append(
            {
                "change": change,
                "before": before,
                "after": after,
                "n": compared.n,
                "delta": compared.mean,
                "low": compared.low,
                "high": compared.high,
                "std": spread,
                "effect_size": compared.mean / spread if spread > 0 else float("nan"),
                "p": compared.p,
                "macs_ratio": _ratio(rows[after], rows[before], "macs"),
                "latency_ratio": _ratio(rows[after], rows[before], "latency_ms"),
                "latency_low": latency_low,
                "latency_high": latency_high,
            }
        )
    columns = [
        "change",
        "before",
        "after",
        "n",
        "delta",
        "low",
        "high",
        "std",
        "effect_size",
        "p",
        "macs_ratio",
        "latency_ratio",
        "latency_low",
        "latency_high",
    ]
    frame = pd.DataFrame(found, columns=columns)
    frame.insert(columns.index("p") + 1, "p_holm", holm(frame["p"].tolist()))
    return frame


def half_width(std: float, seeds: int) -> float:
    """Half of the 95 % interval of a mean of paired differences.

    Args:
        std: standard deviation of the differences.
        seeds: number of pairs, at least 2.

    >>> round(half_width(1.0, 4), 3)
    1.591
    """
    if seeds < 2:
        raise ConfigError(f"seeds = {seeds} is too few for a standard deviation; use at least 2")
    return float(stdtrit(seeds - 1, 1 - LEVEL / 2)) * std / seeds**0.5


def seeds_for_width(std: float, width: float) -> int:
    """The smallest number of seeds whose 95 % interval is at most ± ``width``.

    >>> seeds_for_width(std=0.4, width=0.3)
    10
    """
    return _smallest(
        lambda seeds: half_width(std, seeds) <= width, f"an interval of ± {width:g} at a standard deviation of {std:g}"
    )


def seeds_for_effect(std: float, effect: float, power: float = POWER) -> int:
    """The smallest number of seeds with which a paired t-test at the 5 % level detects an effect.

    Args:
        std: standard deviation of the paired differences.
        effect: the mean difference to detect, in the same unit.
        power: probability of detecting it.

    >>> seeds_for_effect(std=1.0, effect=0.5), seeds_for_effect(std=1.0, effect=1.0)
    (34, 10)
    """
    if not 0 < power < 1 or effect == 0 or std <= 0:
        raise ConfigError(
            f"effect = {effect:g}, std = {std:g}, power = {power:g} is out of range; use an effect other than 0, "
            "a std above 0 and a power between 0 and 1"
        )

    def found(seeds: int) -> bool:
        critical = float(stdtrit(seeds - 1, 1 - LEVEL / 2))
        shift = abs(effect) / std * seeds**0.5
        missed = nctdtr(seeds - 1, shift, critical) - nctdtr(seeds - 1, shift, -critical)
        return bool(1 - missed >= power)

    return _smallest(found, f"an effect of {effect:g} at a standard deviation of {std:g}")


def pareto_probability(
    accuracy: Mapping[str, Mapping[int, float]],
    cost: Mapping[str, float],
    cost_spread: Mapping[str, float] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, float]:
    """The probability that each network is on the Pareto front of accuracy and cost, by a bootstrap over seeds.

    Seeds are drawn with replacement, the same ones for all networks. Costs are drawn from normal distributions.

    Args:
        accuracy: by network and seed; higher is better. For a seed that a network lacks, one of its own seeds is drawn.
        cost: by network; lower is better.
        cost_spread: standard error of each cost; 0 where it is missing, as for MACs.
    Returns:
        Share of the draws, 0 to 1, in which no other network dominates it (at least as good in both, better in one).
    """
    names = [name for name in accuracy if accuracy[name] and name in cost]
    if not 1 <= draws <= MAX_DRAWS:
        raise ConfigError(f"draws = {draws} is out of range; use 1 to {MAX_DRAWS:,}")
    rng = np.random.default_rng(seed)
    seeds = sorted(set().union(*(accuracy[name] for name in names))) if names else []
    chosen = rng.integers(0, max(1, len(seeds)), (draws, len(seeds)))
    spread = np.array([(cost_spread or {}).get(name, 0.0) for name in names])
    costs = np.array([cost[name] for name in names]) + spread * rng.standard_normal((draws, len(names)))
    means = np.empty((draws, len(names)))
    for place, name in enumerate(names):
        own = accuracy[name]
        values = np.array([own.get(seed, np.nan) for seed in seeds])
        values[np.isnan(values)] = np.mean(list(own.values()))
        means[:, place] = values[chosen].mean(1)
    on_front = np.ones((draws, len(names)), dtype=bool)
    for one, other in itertools.permutations(range(len(names)), 2):
        better = (means[:, other] >= means[:, one]) & (costs[:, other] <= costs[:, one])
        better &= (means[:, other] > means[:, one]) | (costs[:, other] < costs[:, one])
        on_front[:, one] &= ~better
    return dict(zip(names, on_front.mean(0).tolist(), strict=True))


def _pairs(
    rows: Mapping[str, Mapping[str, Any]], axes: Sequence[str], reference: str | None
) -> list[tuple[str, str, str]]:
    """The comparisons, each as (before, after, axis that differs)."""
    if reference is not None:
        if reference not in rows:
            raise ConfigError(f"variant {reference!r} is not in the table; use one of {', '.join(list(rows)[:20])}")
        return [(reference, name, name) for name in rows if name != reference]
    found = []
    for before, after in itertools.combinations(rows, 2):
        different = [axis for axis in axes if not _same(rows[before].get(axis), rows[after].get(axis))]
        if len(different) == 1:
            found.append((before, after, different[0]))
    return found


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (pd.isna(one) and pd.isna(other))


def _ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any], key: str) -> float:
    one, other = ours.get(key, float("nan")), theirs.get(key, float("nan"))
    return float(one) / float(other) if other else float("nan")


def _latency_interval(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[float, float]:
    """95 % interval of the ratio of two latencies from the interval of each: the method of variance estimates recovery
    (Zou and Donner 2008), applied to the logarithms. NaN if an interval is missing."""
    ends = np.array([[row.get(f"latency_ms{end}", np.nan) for end in ("", "_low", "_high")] for row in (ours, theirs)])
    if not (ends.astype(float) > 0).all():
        return float("nan"), float("nan")
    (our, our_low, our_high), (their, their_low, their_high) = np.log(ends.astype(float))
    low = our - their - np.hypot(our - our_low, their_high - their)
    high = our - their + np.hypot(our_high - our, their - their_low)
    return float(np.exp(low)), float(np.exp(high))


def _smallest(enough: Any, what: str) -> int:
    """The smallest number of seeds, at least 2, for which ``enough`` is true."""
    high = 2
    while not enough(high):
        high *= 2
        if high > MAX_SEEDS:
            raise ConfigError(f"{what} needs more than {MAX_SEEDS:,} seeds; use a larger value")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(2, high)
