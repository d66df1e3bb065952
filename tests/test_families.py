"""Distributions of the errors of families of networks, compared with scipy, hand counts and simulations."""

import itertools

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from hrvit_lab.errors import ConfigError
from hrvit_lab.study.families import distribution, equal_complexity, same_at_equal_complexity, same_distribution


def test_a_distribution_equals_that_of_scipy() -> None:
    errors = np.random.default_rng(0).normal(30, 5, 50)
    ours = distribution(errors)
    theirs = scipy.stats.ecdf(errors).cdf
    assert np.allclose(ours[:, 0], theirs.quantiles) and np.allclose(ours[:, 1], theirs.probabilities)


def test_families_with_different_errors_are_distinguished() -> None:
    draw = np.random.default_rng(0)
    one, same, other = draw.normal(30, 3, 80), draw.normal(30, 3, 80), draw.normal(33, 3, 80)
    assert same_distribution(one, same) > 0.05 > 1e-3 > same_distribution(one, other)


def test_weights_equal_those_of_a_loop_over_bins() -> None:
    draw = np.random.default_rng(0)
    families = [draw.lognormal(0, 1, 40), draw.lognormal(1, 1, 60), draw.lognormal(0.5, 0.5, 30)]
    low, high = max(map(min, families)), min(map(max, families))
    edges = np.geomspace(low, high, 6)
    bins = [[[i for i, value in enumerate(of) if a <= value < b or value == b == edges[-1]]
             for a, b in itertools.pairwise(edges)] for of in families]  # fmt: skip
    shared = [place for place in range(5) if all(of[place] for of in bins)]
    for of, weights in zip(bins, equal_complexity(families, bins=5), strict=True):
        expected = np.zeros(len(weights))
        for place in shared:
            expected[of[place]] = 1 / len(of[place]) / len(shared)
        assert weights == pytest.approx(expected) and weights.sum() == pytest.approx(1)


def unlike(seed: int, shift: float) -> tuple[tuple[NDArray[np.float64], ...], tuple[NDArray[np.float64], ...]]:
    """Errors and MACs of a family of mostly small and one of mostly large networks, whose errors fall with MACs."""
    draw = np.random.default_rng(seed)
    macs = 10 ** (9 + draw.beta(1, 3, 120)), 10 ** (9 + draw.beta(3, 1, 120))
    errors = tuple(60 - 30 * np.log10(of / 1e9) + draw.normal(0, 2, 120) for of in macs)
    return (errors[0], errors[1] + shift), macs


def test_errors_that_depend_on_complexity_alone_do_not_differ_at_equal_complexity() -> None:
    errors, macs = unlike(0, shift=0)
    assert same_distribution(*errors) < 1e-6 and np.mean(errors[0]) - np.mean(errors[1]) > 10
    ours, theirs = (np.average(of, weights=w) for of, w in zip(errors, equal_complexity(macs), strict=True))
    assert abs(ours - theirs) < 1
    assert np.mean([same_at_equal_complexity(*unlike(seed, shift=0), draws=200) < 0.05 for seed in range(20)]) <= 0.2
    # Errors of one family that are 3 points larger at equal complexity are found.
    assert same_at_equal_complexity(*unlike(0, shift=3)) < 0.01


def test_without_an_effect_the_p_value_is_uniform() -> None:
    found = []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        macs = draw.lognormal(0, 0.5, 25), draw.lognormal(0, 0.5, 35)
        found.append(
            same_at_equal_complexity((draw.normal(0, 1, 25), draw.normal(0, 1, 35)), macs, bins=3, draws=99, seed=seed)
        )
    assert sum(p <= 0.05 for p in found) <= scipy.stats.binom.ppf(0.999, 200, 0.05)
    assert 0.4 < np.mean(found) < 0.6


def test_equal_errors_are_never_different() -> None:
    assert same_at_equal_complexity(([5.0] * 8, [5.0] * 9), ([1.0] * 8, [1.0] * 9)) == 1.0


def test_families_without_a_common_complexity_are_refused() -> None:
    for families in ([[1.0, 2.0, 3.0], [100.0, 200.0]], [[1.0, 100.0], [10.0]]):
        with pytest.raises(ConfigError, match="no complexity in common"):
            equal_complexity(families)
    for families in ([[1.0, 2.0], []], [[1.0, 2.0], [0.0, 1.0]], [[1.0, 2.0], [float("nan"), 1.0]]):
        with pytest.raises(ConfigError, match="missing or not above 0"):
            equal_complexity(families)
    with pytest.raises(ConfigError, match="draws = 0 is out of range"):
        same_at_equal_complexity(([1], [1]), ([1], [1]), draws=0)
