"""Effects of a study's changes, compared with scipy, published power tables, simulations and loops."""

import itertools
import random

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from hrvit_lab.errors import ConfigError
from hrvit_lab.latency.compare import bootstrap_median
from hrvit_lab.study.effects import (
    effects,
    half_width,
    pareto_probability,
    seed_values,
    seeds_for_effect,
    seeds_for_width,
)


def study(deltas: dict[tuple[int, str], float], seeds: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A grid of branches and attention whose accuracies have a common part for each seed."""
    draw = np.random.default_rng(0)
    shared = draw.normal(0, 3, seeds)
    rows, curves = [], []
    for (branches, attention), delta in deltas.items():
        name = f"{branches} {attention}"
        rows.append(
            {"variant": name, "branches": branches, "attention": attention, "macs": 100.0 * branches, "latency_ms": 2.0}
        )
        for seed in range(seeds):
            for epoch in (1, 2):
                value = 90 + delta + shared[seed] + draw.normal(0, 0.1) - (2 - epoch) * 10
                curves.append({"variant": name, "seed": seed, "epoch": epoch, "val_top1": value})
    random.Random(0).shuffle(curves)
    return pd.DataFrame(rows), pd.DataFrame(curves)


GRID = {(1, "a"): 0.0, (1, "b"): 0.0, (2, "a"): 2.0, (2, "b"): 2.0}


def test_one_change_at_a_time_is_compared_seed_by_seed() -> None:
    table, curves = study(GRID)
    found = effects(table, curves, ["branches", "attention"])
    assert sorted(zip(found["before"], found["after"], found["change"], strict=True)) == [
        ("1 a", "1 b", "attention"),
        ("1 a", "2 a", "branches"),
        ("1 b", "2 b", "branches"),
        ("2 a", "2 b", "attention"),
    ]
    values = seed_values(curves)
    for row in found.to_dict("records"):
        ours, theirs = ([values[row[side]][seed] for seed in range(6)] for side in ("after", "before"))
        test = scipy.stats.ttest_rel(ours, theirs)
        interval = test.confidence_interval(0.95)
        differences = np.subtract(ours, theirs)
        assert row["p"] == pytest.approx(test.pvalue) and row["n"] == 6
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        assert row["effect_size"] == pytest.approx(differences.mean() / differences.std(ddof=1))
        assert row["macs_ratio"] == (2.0 if row["change"] == "branches" else 1.0)
    by_branches = found[found["change"] == "branches"]
    assert (by_branches["p_holm"] < 0.01).all() and by_branches["delta"].between(1.8, 2.2).all()
    assert (found[found["change"] == "attention"]["p_holm"] > 0.05).all()
    assert (found["p_holm"] >= found["p"]).all()


def test_all_are_compared_with_a_reference() -> None:
    table, curves = study(GRID)
    found = effects(table, curves, [], reference="2 b")
    assert set(found["before"]) == {"2 b"} and sorted(found["after"]) == ["1 a", "1 b", "2 a"]
    with pytest.raises(ConfigError, match="'3 c' is not in the table"):
        effects(table, curves, [], reference="3 c")
    with pytest.raises(ConfigError, match="the curves have no column 'miou'"):
        seed_values(curves, "miou")


def test_without_effects_at_most_one_study_in_twenty_claims_one() -> None:
    claimed = 0
    for trial in range(300):
        draw = np.random.default_rng(trial)
        names = [f"v{index}" for index in range(5)]
        table = pd.DataFrame({"variant": names, "macs": 1.0})
        curves = pd.DataFrame(
            [(name, seed, 1, draw.normal()) for name in names for seed in range(5)],
            columns=["variant", "seed", "epoch", "val_top1"],
        )
        claimed += bool((effects(table, curves, [], reference="v0")["p_holm"] < 0.05).any())
    assert claimed <= scipy.stats.binom.ppf(0.999, 300, 0.05)


# -- costs -----------------------------------------------------------------------------------------------------------


def timed(samples: list[np.ndarray]) -> dict[str, list[float]]:
    """The columns of latencies of two networks."""
    medians = [bootstrap_median(of.tolist()) for of in samples]
    return {
        f"latency_ms{end}": list(of) for end, of in zip(("", "_low", "_high"), zip(*medians, strict=True), strict=True)
    }


def ratio_of(columns: dict[str, list[float]]) -> tuple[float, float, float]:
    table, curves = study({(1, "a"): 0.0, (2, "a"): 1.0}, seeds=2)
    row = effects(table.assign(**columns), curves, ["branches"]).to_dict("records")[0]
    return row["latency_ratio"], row["latency_low"], row["latency_high"]


def test_the_interval_of_a_ratio_of_latencies_equals_that_of_a_bootstrap() -> None:
    draw = np.random.default_rng(0)
    before, after = 10 * draw.lognormal(0, 0.1, 80), 12 * draw.lognormal(0, 0.05, 60)
    ratio, low, high = ratio_of(timed([before, after]))
    picks = [np.median(draw.choice(of, (4000, len(of))), axis=1) for of in (after, before)]
    expected = np.percentile(picks[0] / picks[1], [2.5, 97.5])
    assert ratio == np.median(after) / np.median(before)
    assert (low, high) == pytest.approx(tuple(expected), rel=0.01) and low < ratio < high


def test_the_interval_of_a_ratio_of_latencies_contains_the_true_ratio_19_times_in_20() -> None:
    draw = np.random.default_rng(0)
    found = [ratio_of(timed([10 * draw.lognormal(0, 0.1, 40), 12 * draw.lognormal(0, 0.1, 40)])) for _ in range(200)]
    assert 0.91 < np.mean([low <= 1.2 <= high for _, low, high in found]) <= 1


def test_without_the_intervals_of_both_latencies_a_ratio_has_none() -> None:
    for low in (None, float("nan"), 0.0):
        columns = {} if low is None else {"latency_ms_low": [low, 1.9], "latency_ms_high": [2.1, 2.1]}
        ratio, *interval = ratio_of(columns)
        assert ratio == 1.0 and np.isnan(interval).all()


# -- how many seeds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)])
def test_the_number_of_seeds_equals_that_of_published_power_tables(d: float, seeds: int) -> None:
    """Two-sided paired t-test, 5 % level, power 80 %: the values that G*Power 3.1 gives."""
    assert seeds_for_effect(std=2.0, effect=2.0 * d) == seeds


def test_this_number_of_seeds_detects_the_effect_in_simulations() -> None:
    seeds = seeds_for_effect(std=1.0, effect=0.8)
    draw = np.random.default_rng(0)
    for number, reaches in ((seeds, True), (seeds - 4, False)):
        p = scipy.stats.ttest_1samp(draw.normal(0.8, 1.0, (4000, number)), 0.0, axis=1).pvalue
        assert ((p < 0.05).mean() > 0.78) == reaches


def test_an_interval_is_as_narrow_as_requested() -> None:
    for std, width in itertools.product((0.2, 0.5, 3.0), (0.1, 0.3, 1.0)):
        seeds = seeds_for_width(std, width)
        assert half_width(std, seeds) <= width
        assert seeds == 2 or half_width(std, seeds - 1) > width
    draw = np.random.default_rng(0).normal(size=5)
    interval = scipy.stats.ttest_1samp(draw, 0).confidence_interval(0.95)
    assert half_width(draw.std(ddof=1), 5) == pytest.approx((interval.high - interval.low) / 2)


def test_an_undetectable_effect_is_reported() -> None:
    with pytest.raises(ConfigError, match="needs more than 100,000 seeds"):
        seeds_for_width(1.0, 1e-6)
    for options in ({"effect": 0.0}, {"effect": 1.0, "power": 1.0}, {"effect": 1.0, "std": 0.0}):
        with pytest.raises(ConfigError, match="a std above 0"):
            seeds_for_effect(**{"std": 1.0, **options})
    with pytest.raises(ConfigError, match="at least 2"):
        half_width(1.0, 1)


# -- fronts ----------------------------------------------------------------------------------------------------------


def test_the_probability_of_the_front_depends_on_the_spread_over_seeds() -> None:
    accuracy = {
        "cheap": {0: 80.0, 1: 80.2}, "better": {0: 90.0, 1: 90.2}, "worse and dear": {0: 70.0, 1: 70.1},
        "a coin": {0: 95.0, 1: 85.0},
    }  # fmt: skip
    cost = {"cheap": 1.0, "better": 2.0, "worse and dear": 3.0, "a coin": 2.5}
    found = pareto_probability(accuracy, cost)
    assert found["cheap"] == found["better"] == 1.0 and found["worse and dear"] == 0.0
    # Two draws of two seeds: both 95, one of each (a mean of 90, below 90.1), or both 85.
    assert abs(found["a coin"] - 0.25) < 0.02


def test_the_probability_of_the_front_depends_on_the_spread_of_latencies() -> None:
    accuracy = {"a": {0: 80.0, 1: 80.0}, "b": {0: 79.0, 1: 79.0}}
    cost = {"a": 10.0, "b": 9.0}
    found = pareto_probability(accuracy, cost, {"a": 1.0, "b": 1.0})
    assert found["a"] == 1.0
    assert abs(found["b"] - scipy.stats.norm.cdf(1 / 2**0.5)) < 0.02
    assert pareto_probability(accuracy, cost)["b"] == 1.0


def test_membership_equals_a_loop_without_any_spread() -> None:
    draw = np.random.default_rng(0)
    accuracy = {
        str(index): dict.fromkeys(range(3), float(value)) for index, value in enumerate(draw.integers(0, 9, 30))
    }
    cost = {str(index): float(value) for index, value in enumerate(draw.integers(0, 9, 30))}
    found = pareto_probability(accuracy, cost, draws=3)
    for name in accuracy:
        mine = (accuracy[name][0], -cost[name])
        others = [(accuracy[other][0], -cost[other]) for other in accuracy if other != name]
        beaten = any(a >= mine[0] and c >= mine[1] and (a, c) != mine for a, c in others)
        assert found[name] == (0.0 if beaten else 1.0)
