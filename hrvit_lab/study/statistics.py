"""Comparisons of networks over seeds: paired differences, their 95 % intervals, and tests corrected for their number.

Networks share seeds (initial weights, order of the images), so they are compared in pairs by seed. Differences to a
common reference are not independent; both corrections used here are valid under any dependence.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats takes half a second to import

LEVEL = 0.05
"""Significance level: the largest share of studies without any effect in which one is claimed."""

EQUAL = 1e-9
"""Differences whose spread is below this share of the values are equal up to rounding."""


class Paired(NamedTuple):
    """The mean of paired differences; NaN for values that need more pairs.

    Attributes:
        mean: the mean difference.
        se: its standard error; needs two pairs.
        low, high: its 95 % interval, by Student's t.
        p: two-sided p-value of the paired t-test.
        n: number of pairs.

    If all differences are equal and not zero, which happens with few seeds and coarse values, the interval and the
    p-value are NaN, because the variance can't be estimated.
    """

    mean: float
    se: float
    low: float
    high: float
    p: float
    n: int


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired:
    """Compare the values of two networks, paired by seed; seeds that only one of them has are ignored.

    >>> paired({0: 3.0, 1: 5.0, 2: 4.0}, {0: 2.0, 1: 2.0, 2: 2.0, 3: 9.0})  # doctest: +ELLIPSIS
    Paired(mean=2.0, se=0.577..., low=-0.484..., high=4.484..., p=0.0741..., n=3)
    """
    seeds = [seed for seed in ours if seed in theirs]
    ours_n, theirs_n = (np.array([values[seed] for seed in seeds], dtype=float) for values in (ours, theirs))
    differences = ours_n - theirs_n
    n, nan = len(seeds), float("nan")
    if n < 2:
        return Paired(float(differences[0]) if n else nan, nan, nan, nan, nan, n)
    mean, std = float(differences.mean()), float(differences.std(ddof=1))
    smallest = EQUAL * max(np.abs(ours_n).max(), np.abs(theirs_n).max())
    if std <= smallest:
        same = abs(mean) <= smallest
        return Paired(mean, 0.0, *((mean, mean, 1.0) if same else (nan, nan, nan)), n)
    se = std / n**0.5
    half_width = float(stdtrit(n - 1, 1 - LEVEL / 2)) * se
    return Paired(mean, se, mean - half_width, mean + half_width, float(2 * stdtr(n - 1, -abs(mean) / se)), n)


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """P-values adjusted by Holm's step-down method, (n,): those below 0.05 hold together at the 5 % level.

    The probability of any false claim is at most the level, under any dependence of the tests. NaN (no test) stays NaN
    and is not counted.

    >>> holm([0.01, 0.04, 0.03, float("nan")]).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN is sorted last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1)
    return adjusted


def against_best(values: Sequence[Mapping[int, float]], higher: bool = True) -> list[Paired]:
    """Differences of each network to the one with the best mean, paired by seed: best − network; 0 for the best itself.

    The best network is selected by the same values that are tested. This is equivalent to comparing all pairs, so
    p-values are multiplied by the number of pairs (Bonferroni).

    Args:
        values: of each network, by seed. Networks without values get NaN.
        higher: whether higher is better.
    """
    known = [index for index, of in enumerate(values) if of]
    means = {index: float(np.mean(list(values[index].values()))) for index in known}
    nan = float("nan")
    nothing = Paired(nan, nan, nan, nan, nan, 0)
    if not known:
        return [nothing] * len(values)
    best = values[(max if higher else min)(known, key=means.__getitem__)]
    pairs = len(known) * (len(known) - 1) // 2
    found = []
    for of in values:
        compared = paired(best, of) if of else nothing
        found.append(compared._replace(p=min(1.0, pairs * compared.p) if compared.p < 1 else compared.p))
    return found
