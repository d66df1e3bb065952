"""Claims of a report at the 5 % level: textbook formulas, and simulated studies with and without effects."""

import doctest
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from hrvit_lab.study import analysis, statistics
from hrvit_lab.study.report.summary import summary
from hrvit_lab.study.space import Variant, expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.statistics import against_best, holm, paired
from hrvit_lab.study.trials import Trial, plan

NAN = float("nan")
STUDIES = 200


def by_seed(values: NDArray[np.float64]) -> dict[int, float]:
    return dict(enumerate(values.tolist()))


def test_docstring_examples() -> None:
    assert doctest.testmod(statistics).attempted > 0
    assert doctest.testmod(statistics).failed == 0


@pytest.mark.parametrize("n", [2, 3, 5, 10, 11, 40])
def test_paired_differences_equal_those_of_scipy(n: int) -> None:
    ours, theirs = np.random.default_rng(n).normal(90, 2, (2, n))
    found = paired(by_seed(ours) | {99: 1.0}, by_seed(theirs) | {77: 2.0})
    expected = stats.ttest_rel(ours, theirs)
    low, high = expected.confidence_interval(0.95)
    assert found.n == n
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert found.se == pytest.approx(stats.sem(ours - theirs))
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))


def test_differences_without_spread_are_no_evidence() -> None:
    """Three images of 360 on each of three seeds; due to rounding, the differences are not equal bit by bit."""
    ours = {seed: 100 * (340 + seed) / 360 for seed in range(3)}
    theirs = {seed: 100 * (337 + seed) / 360 for seed in range(3)}
    assert len({ours[seed] - theirs[seed] for seed in ours}) > 1
    found = paired(ours, theirs)
    assert found.mean == pytest.approx(300 / 360) and found.se == 0
    assert np.isnan([found.low, found.high, found.p]).all()
    assert paired(ours, ours)[:5] == (0, 0, 0, 0, 1)
    assert paired({0: 2.0}, {0: 1.0})[0] == 1 and np.isnan(paired({0: 2.0}, {0: 1.0})[1:5]).all()
    assert np.isnan(paired({0: 2.0}, {1: 1.0})[:5]).all()


@pytest.mark.parametrize("seed", range(20))
def test_holm_equals_the_closed_test_of_bonferroni(seed: int) -> None:
    """The adjusted p-value is the largest Bonferroni p-value of any set of hypotheses that contains the hypothesis."""
    p_values = np.random.default_rng(seed).uniform(0, 0.4, 5) ** 2
    every = [subset for size in range(1, 6) for subset in itertools.combinations(range(5), size)]
    expected = [
        max(min(1.0, len(subset) * min(p_values[i] for i in subset)) for subset in every if asked in subset)
        for asked in range(5)
    ]
    assert holm(list(p_values)) == pytest.approx(expected)
    with_gap = holm([*p_values[:2], NAN, *p_values[2:]])
    assert math.isnan(with_gap[2]) and np.delete(with_gap, 2) == pytest.approx(expected)


def test_the_best_is_compared_as_if_with_all_pairs() -> None:
    values = np.random.default_rng(3).normal([[90], [92], [91], [85]], 0.5, (4, 6))
    found = against_best([by_seed(row) for row in values] + [{}])
    for row, compared in zip(values, found, strict=False):
        if row is not values[1]:
            assert compared.mean == pytest.approx((values[1] - row).mean())
            assert compared.p == pytest.approx(min(1, 6 * stats.ttest_rel(values[1], row).pvalue))
    assert (found[1].mean, found[1].p) == (0, 1) and math.isnan(found[4].mean)
    lowest = against_best([by_seed(row) for row in values], higher=False)
    assert lowest[3].mean == 0 and lowest[0].mean == pytest.approx((values[3] - values[0]).mean())


class Simulation:
    """A study of some networks and seeds, whose accuracies are given."""

    def __init__(self, networks: int, seeds: int, compare_to: str | None) -> None:
        entries = [{"name": f"v{i}", "set": {"drop_rate": i / 100}} for i in range(networks)]
        fields: dict[str, Any] = {
            "title": "t",
            "question": "q?",
            "base": "hrvit_nano",
            "variants": entries,
            "metrics": ["top1"],
            "seeds": list(range(seeds)),
            "resolution": 32,
            "compare_to": compare_to,
        }
        self.spec = Spec.model_validate(fields)
        self.variants: list[Variant] = expand(self.spec).variants
        self.planned: dict[str, list[Trial]] = plan(self.spec, self.variants, "chip")

    def said(self, top1: NDArray[np.float64]) -> tuple[str, pd.DataFrame]:
        """The report's sentences on accuracies (networks, seeds), and its table."""
        records = {
            trial.key: {"status": "ok", "values": {"top1": float(value)}}
            for trials, values in zip(self.planned.values(), top1, strict=True)
            for trial, value in zip(trials, values, strict=True)
        }
        table = analysis.table(self.spec, self.variants, self.planned, records)
        return " ".join(summary(table, "digits", self.spec.compare_to)), table


def claims(said: str) -> bool:
    """Whether the sentences claim a difference between any networks."""
    if said.startswith(("No significant change of top-1", "In paired t-tests over seeds against")):
        found = re.search(r"(\d+) of \d+ variants? differs? significantly in top-1", said)
        assert found or said.startswith("No")
        return bool(found and int(found.group(1)))
    assert "(5 % level)" in said or "were not tested" in said
    return "significantly better than" in said and "significantly better than none" not in said


def normal(rng: np.random.Generator, networks: int, seeds: int) -> NDArray[np.float64]:
    return rng.normal(90, 1, (networks, seeds))


def unlike(rng: np.random.Generator, networks: int, seeds: int) -> NDArray[np.float64]:
    """Spreads from 0.1 to 10 points, and effects of seeds that are common to all networks."""
    spreads = np.geomspace(0.1, 10, networks)[:, None]
    return 80 + rng.normal(0, 2, (1, seeds)) + spreads * rng.normal(size=(networks, seeds))


def coarse(rng: np.random.Generator, networks: int, seeds: int) -> NDArray[np.float64]:
    """Integer counts of 360 images, as on digits."""
    return 100 * np.round(3.6 * rng.normal(95, 0.5, (networks, seeds))) / 360


@pytest.mark.parametrize(
    ("draw", "networks", "seeds", "compare_to"),
    [
        (normal, 2, 3, "v0"), (normal, 2, 3, None), (unlike, 6, 4, "v0"), (coarse, 8, 3, None),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (
            (unlike, 6, 4, None), (coarse, 8, 3, "v0"), (normal, 4, 10, "v0"), (normal, 4, 10, None),
            (normal, 10, 3, "v0"), (normal, 10, 3, None),
        )),
    ],
)  # fmt: skip
def test_without_effects_at_most_5_percent_of_studies_claim_one(
    draw: Callable[[np.random.Generator, int, int], NDArray[np.float64]],
    networks: int,
    seeds: int,
    compare_to: str | None,
) -> None:
    """All differences have a common reference, or the best network was selected by the same values; neither may
    increase the error."""
    study, rng = Simulation(networks, seeds, compare_to), np.random.default_rng(networks * seeds)
    found = sum(claims(study.said(draw(rng, networks, seeds))[0]) for _ in range(STUDIES))
    assert found <= stats.binom.ppf(0.9999, STUDIES, 0.05)
    if networks == 2 and draw is normal:
        # A single test is exact: its error is not smaller either.
        assert found >= stats.binom.ppf(0.0001, STUDIES, 0.05)


def test_a_single_interval_excludes_zero_at_most_as_often_as_the_report_says() -> None:
    """Differences with a common reference are dependent, so "up to 35 %" is a bound."""
    study, rng = Simulation(8, 5, "v0"), np.random.default_rng(0)
    passed = 0
    for _ in range(STUDIES):
        said, table = study.said(normal(rng, 8, 5))
        outside = ~((table["top1_delta_low"] <= 0) & (table["top1_delta_high"] >= 0))[1:]
        passed += bool(outside.any())
        if outside.any() and not claims(said):
            assert f"{outside.sum()} of these ha" in said and "up to 35 % of such studies" in said
    assert 0.05 * STUDIES < passed <= 0.35 * STUDIES


@pytest.mark.parametrize("compare_to", ["v0", None])
@pytest.mark.parametrize(
    ("networks", "seeds", "effect"), [(2, 3, 60.0), (6, 5, 15.0), pytest.param(10, 10, 6.0, marks=pytest.mark.slow)]
)
def test_a_large_effect_is_claimed_and_named(networks: int, seeds: int, effect: float, compare_to: str | None) -> None:
    study, rng = Simulation(networks, seeds, compare_to), np.random.default_rng(1)
    found = named = 0
    for _ in range(100):
        top1 = normal(rng, networks, seeds)
        top1[1] -= effect
        said, _ = study.said(top1)
        found += claims(said)
        named += "v1" in said and (compare_to is None or f"v1 (-{effect:.0f}"[:5] in said)
    assert found >= 95 and named >= 95


def test_intervals_contain_the_true_value_in_95_percent() -> None:
    study, rng = Simulation(2, 4, "v0"), np.random.default_rng(2)
    held = 0
    for _ in range(STUDIES):
        top1 = normal(rng, 2, 4)
        top1[1] += 1.5
        row = study.said(top1)[1].iloc[1]
        held += row["top1_delta_low"] <= 1.5 <= row["top1_delta_high"]
    low, high = stats.binom.ppf([0.0001, 0.9999], STUDIES, 0.95)
    assert low <= held <= high


def test_a_network_with_two_rows_is_tested_once() -> None:
    entries = [{"name": "a"}, {"name": "b", "set": {"drop_rate": 0.1}}, {"name": "b again", "set": {"drop_rate": 0.1}}]
    fields = {"title": "t", "question": "q?", "base": "hrvit_nano", "variants": entries, "compare_to": "a"}
    spec = Spec.model_validate(fields | {"metrics": ["top1"], "seeds": [0, 1, 2], "resolution": 32})
    variants = expand(spec).variants
    planned = plan(spec, variants, "chip")
    values = {"a": [90.0, 91.0, 92.0], "b": [95.0, 95.5, 97.5], "b again": [95.0, 95.5, 97.5]}
    records = {
        trial.key: {"status": "ok", "values": {"top1": values[name][trial.inputs.seed]}}
        for name, trials in planned.items()
        for trial in trials
    }
    table = analysis.table(spec, variants, planned, records)
    expected = stats.ttest_rel(values["b"], values["a"]).pvalue
    assert table["top1_delta_p"].tolist()[1:] == pytest.approx([expected, expected])
    assert "1 of 1 variant" in summary(table, "digits", "a")[0]
