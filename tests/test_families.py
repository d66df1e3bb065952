"""Distributions of the errors of families of networks, compared with scipy, hand counts and simulations."""

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from numpy.typing import NDArray

from hrvit_lab import plots
from hrvit_lab.errors import ConfigError
from hrvit_lab.study.families import distribution, equal_complexity, same_at_equal_complexity, same_distribution
from hrvit_lab.study.files import spec_from
from hrvit_lab.study.report.families import families_figures, families_of, families_sentences
from hrvit_lab.study.report.page import render
from hrvit_lab.study.results import Results
from hrvit_lab.study.statistics import holm
from hrvit_lab.study.tables import tidy_table


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


Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def unlike(seed: int, shift: float) -> tuple[Pair, Pair]:
    """Errors and MACs of a family of mostly small and one of mostly large networks, whose errors fall with MACs."""
    draw = np.random.default_rng(seed)
    macs = 10 ** (9 + draw.beta(1, 3, 120)), 10 ** (9 + draw.beta(3, 1, 120))
    ours, theirs = (60 - 30 * np.log10(of / 1e9) + draw.normal(0, 2, 120) for of in macs)
    return (ours, theirs + shift), macs


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


# -- in reports ------------------------------------------------------------------------------------------------------

FIELDS = {"title": "t", "question": "q", "base": {"preset": "hrvit_nano"}, "metrics": ["macs", "top1"],
          "grid": {"fusion": ["dense", "sparse"], "branches": [2, 3, 4]}}  # fmt: skip


def results(names: tuple[str, ...] = ("dense", "sparse"), members: int = 31, **fields: object) -> Results:
    """A study in which the second fusion has more MACs, and an accuracy that depends on MACs alone."""
    draw = np.random.default_rng(0)
    macs = [(10 ** (9 + draw.beta(*shape, members))).round() for shape in ((1, 3), (3, 1), (2, 2))]
    rows = [
        {"variant": f"{name} {index}", "config_id": f"{name} {index}", "fusion": name, "branches": 2 + index,
         "macs": value, "top1": 40 + 30 * np.log10(value / 1e9) + draw.normal(0, 2), "status": "ok", "pareto": False}
        for name, of in zip(names, macs, strict=False)
        for index, value in enumerate(of)
    ]  # fmt: skip
    spec = spec_from(FIELDS | fields, [])
    return Results(Path("study"), spec, {}, {}, {}, tidy_table(pd.DataFrame(rows)))


def test_a_report_compares_families_raw_and_at_equal_macs() -> None:
    found = results()
    dense, sparse = (found.table[found.table["fusion"] == name] for name in ("dense", "sparse"))
    errors = 100 - dense["top1"], 100 - sparse["top1"]
    pair, method = families_sentences(found)
    raw = scipy.stats.ks_2samp(*errors).pvalue
    equal = same_at_equal_complexity(errors, (dense["macs"], sparse["macs"]))
    assert 2 * raw < 0.001 < 0.05 < equal, "accuracy depends on MACs alone"
    start = f"fusion dense (31 networks) and sparse (31 networks): median errors {np.median(errors[0]):.1f} and "
    assert pair.startswith(f"{start}{np.median(errors[1]):.1f} %, p < 0.001; at equal MACs ")
    medians = re.search(r"at equal MACs ([\d.]+) and ([\d.]+) %, p = ([\d.]+)\.", pair)
    assert medians is not None and abs(float(medians[1]) - float(medians[2])) < 3
    assert float(medians[3]) == pytest.approx(holm([raw, equal])[1], abs=0.005)
    assert "Holm's correction for 2 tests" in method
    page = render(found, {})
    assert "<h2>Families</h2>" in page and "fusion dense (31 networks)" in page


def test_the_figure_shows_both_distributions() -> None:
    found = results()
    assert list(families_figures(found)) == ["errors_by_fusion"], "no number of branches has 8 networks"
    raw, equal = families_figures(found)["errors_by_fusion"].axes
    [of] = families_of(found)
    for ax, families in ((raw, of.raw), (equal, of.equal)):
        for line, steps in zip(ax.lines, families.values(), strict=True):
            assert np.array_equal(np.asarray(line.get_xydata())[1:], steps)
    assert raw.get_xlabel() == "100 − top-1 on digits (proxy), %"


def test_without_two_families_there_is_no_section() -> None:
    few = results(members=7)
    assert families_sentences(few) == [] and families_figures(few) == {}
    assert "<h2>Families</h2>" not in render(few, {})


def test_with_equal_macs_families_are_compared_as_they_are() -> None:
    found = results(match="equal macs")
    [pair, method] = families_sentences(found)
    assert "at equal MACs" not in pair and "Holm's correction for 1 test;" in method
    assert len(families_figures(found)["errors_by_fusion"].axes) == 1


def test_names_of_families_are_text() -> None:
    hostile = "<script>alert(1)</script> $\\frac{1}{", "&lt; " + "long " * 30, "[red]"
    found = results(hostile)
    drawings = {name: plots.draw(figure).svg for name, figure in families_figures(found).items()}
    page = render(found, drawings)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert len(families_sentences(found)) == 4
