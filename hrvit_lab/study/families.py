"""Families of networks, compared by the distributions of their errors: raw, and at equal complexity.

The method is that of arXiv 1905.13214. Networks are taken as random members of their family.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hrvit_lab.config import ConfigError

MAX_DRAWS = 1_000_000


def distribution(errors: ArrayLike, weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """The empirical distribution of a family's errors: share of networks whose error is at most each value.

    Args:
        errors: one for each network.
        weights: one for each network, to compare families at equal complexity (see `equal_complexity`).
    Returns:
        (n, 2): errors ascending, and the share up to each one (arXiv 1905.13214).
    """
    values = np.asarray(errors, dtype=float)
    shares = np.full(len(values), 1 / max(1, len(values))) if weights is None else np.asarray(weights, dtype=float)
    order = np.argsort(values, kind="stable")
    return np.stack([values[order], np.cumsum(shares[order] / shares.sum())], axis=1)


def equal_complexity(families: Sequence[ArrayLike], bins: int = 10) -> list[NDArray[np.float64]]:
    """Weights that give all families the same distribution of complexity (arXiv 1905.13214, section 3.3).

    The logarithm of complexity is made uniform over the bins in which every family has a network. The bins divide the
    range that all families share. Networks outside of these bins have the weight 0.

    Args:
        families: for each family, the complexity of its networks, for example MACs; above 0.
        bins: number of bins.
    Returns:
        For each family, one weight for each network; the sum is 1.
    Raises:
        ConfigError: if no bin has networks of all families.

    >>> [weights.tolist() for weights in equal_complexity([[1, 10, 10, 100], [10, 100, 1000]], bins=2)]
    [[0.0, 0.25, 0.25, 0.5], [0.5, 0.5, 0.0]]
    """
    weights = []
    for place in _shared_bins(families, bins):
        counts = np.bincount(place[place >= 0], minlength=bins)
        weights.append(np.where(place >= 0, 1 / np.maximum(counts, 1)[place] / np.count_nonzero(counts), 0.0))
    return weights


def same_distribution(ours: ArrayLike, theirs: ArrayLike) -> float:
    """P-value of the two-sample Kolmogorov-Smirnov test of equal error distributions of two families."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(ours, theirs).pvalue)


def same_at_equal_complexity(
    errors: tuple[ArrayLike, ArrayLike],
    complexity: tuple[ArrayLike, ArrayLike],
    bins: int = 10,
    draws: int = 1_000,
    seed: int = 0,
) -> float:
    """P-value of the hypothesis that networks of equal complexity have the same errors in two families.

    The statistic is that of Kolmogorov and Smirnov, the largest distance of the two distributions, with the weights of
    `equal_complexity`. Its distribution is found by exchanging networks of both families within each bin.

    Args:
        errors, complexity: of the networks of both families.
        bins: see `equal_complexity`.
        draws: number of permutations. The smallest possible p-value is 1 / (draws + 1).
    Raises:
        ConfigError: if no bin has networks of both families.
    """
    if not 1 <= draws <= MAX_DRAWS:
        raise ConfigError(f"draws = {draws} is out of range; use 1 to {MAX_DRAWS:,}")
    ours, theirs = equal_complexity(complexity, bins)
    values, signed = np.concatenate([np.asarray(of, dtype=float) for of in errors]), np.concatenate([ours, -theirs])
    place = np.concatenate(_shared_bins(complexity, bins))
    order = np.argsort(values, kind="stable")
    order = order[place[order] >= 0]
    values, signed, place = values[order], signed[order], place[order]
    last_of_equals = np.append(np.diff(values) > 0, True)
    members = [np.flatnonzero(place == one) for one in np.unique(place)]

    def distance(weights: NDArray[np.float64]) -> float:
        return float(np.abs(np.cumsum(weights))[last_of_equals].max())

    observed, rng, shuffled, reached = distance(signed), np.random.default_rng(seed), signed.copy(), 0
    for _ in range(draws):
        for where in members:
            shuffled[where] = rng.permutation(signed[where])
        reached += distance(shuffled) >= observed - 1e-9  # sums of the same weights differ by rounding
    return (reached + 1) / (draws + 1)


def _shared_bins(families: Sequence[ArrayLike], bins: int) -> list[NDArray[np.int64]]:
    """For each family, the bin of each network; -1 outside of the bins that all families share."""
    values = [np.asarray(family, dtype=float) for family in families]
    if not all(len(of) and (of > 0).all() and np.isfinite(of).all() for of in values):
        raise ConfigError("a complexity is missing or not above 0; leave out such networks, and families without any")
    logs = [np.log(of) for of in values]
    low, high = max(of.min() for of in logs), min(of.max() for of in logs)
    edges = np.linspace(low, max(low, high), bins + 1)
    places = [np.clip(np.searchsorted(edges, of, side="right") - 1, 0, bins - 1) for of in logs]
    places = [np.where((of >= low) & (of <= high), place, -1) for of, place in zip(logs, places, strict=True)]
    shared = np.all([np.bincount(place[place >= 0], minlength=bins) > 0 for place in places], axis=0)
    if not shared.any():
        raise ConfigError("the families have no complexity in common; compare families that overlap, or use fewer bins")
    return [np.where((place >= 0) & shared[place], place, -1) for place in places]
