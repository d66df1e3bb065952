"""Differences in reports, terminal and app, compared with scipy and hand counts."""

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from rich.console import Console

from hrvit_lab.latency.compare import bootstrap_median
from hrvit_lab.study.files import spec_from
from hrvit_lab.study.report.differences import differences
from hrvit_lab.study.report.page import render
from hrvit_lab.study.results import Results, read_results
from hrvit_lab.study.show import differences_table
from hrvit_lab.study.tables import tidy_table

MEASURED = Path(__file__).parents[1] / "studies" / "measured"


def results(deltas: dict[str, float], seeds: int, named: bool = True, **fields: Any) -> Results:
    """A study of fusions whose accuracies have a common part for each seed."""
    draw = np.random.default_rng(1)
    shared = draw.normal(0, 3, seeds)
    rows, curves = [], []
    for place, (name, delta) in enumerate(deltas.items()):
        values = 60 + delta + shared + draw.normal(0, 0.3, seeds)
        rows.append({"variant": name, "config_id": f"{place:012x}", "fusion": name, "macs": 100.0 + 10 * place,
                     "latency_ms": 2.0, "top1": values.mean(), "status": "ok", "pareto": False})  # fmt: skip
        curves += [{"variant": name, "seed": seed, "epoch": 1, "val_top1": value} for seed, value in enumerate(values)]
    variants = {"variants": [{"name": name} for name in deltas]} if named else {"grid": {"fusion": list(deltas)}}
    spec = spec_from(
        {"title": "t", "question": "q", "base": {"preset": "hrvit_nano"}, "metrics": ["macs", "latency_ms", "top1"],
         **variants, **fields}, [],
    )  # fmt: skip
    return Results(Path("study"), spec, {}, {}, {}, tidy_table(pd.DataFrame(rows)), pd.DataFrame(curves))


def by_seed(found: Results, name: str) -> np.ndarray:
    return np.array(found.curves[found.curves["variant"] == name]["val_top1"])


def test_findings_equal_those_of_scipy() -> None:
    found = results({"full": 0, "large": 3, "small": 0.02}, seeds=8, compare_to="full")
    differ = differences(found)
    assert differ is not None and differ.reference == "full"
    assert [row[0] for row in differ.rows] == ["large", "small"]
    tests = {name: scipy.stats.ttest_rel(by_seed(found, name), by_seed(found, "full")) for name in ("large", "small")}
    interval = tests["large"].confidence_interval(0.95)
    change = by_seed(found, "large") - by_seed(found, "full")
    assert differ.rows[0][1] == f"{change.mean():+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
    assert 2 * tests["large"].pvalue < 0.001 and differ.rows[0][2] == "< 0.001"
    assert differ.rows[1][2] == f"{tests['small'].pvalue:.2f}", "the larger of two p-values stays as it is"
    assert differ.rows[0][3:] == (f"{change.mean() / change.std(ddof=1):+.1f}", "× 1.10", "× 1.00")
    first, power, front = differ.sentences
    assert first.startswith(f"large: {differ.rows[0][1]} points of top-1, p < 0.001 after Holm's correction for 2")
    assert "MACs × 1.10" in first
    spreads = [np.std(by_seed(found, name) - by_seed(found, "full"), ddof=1) for name in ("large", "small")]
    half = scipy.stats.t.ppf(0.975, 7) * np.median(spreads) / 8**0.5
    assert power.endswith(f"With 8 seeds, an interval is ± {half:.2f} points.")
    seeds = int(power.split()[0])
    powers = [power_of(number, float(np.median(spreads)), 0.3) for number in (seeds - 1, seeds)]
    assert powers[0] < 0.8 <= powers[1]
    assert front.endswith(": large 100 %, full 100 %.") or front.endswith(": full 100 %, large 100 %.")


def power_of(seeds: int, std: float, effect: float) -> float:
    """Share of simulated studies whose test finds the effect; from scipy's noncentral t."""
    critical = scipy.stats.t.ppf(0.975, seeds - 1)
    shift = effect / std * seeds**0.5
    return float(1 - scipy.stats.nct.cdf(critical, seeds - 1, shift) + scipy.stats.nct.cdf(-critical, seeds - 1, shift))


def timed(found: Results, samples: dict[str, np.ndarray]) -> Results:
    """The study with latencies from samples of runs, as the latency group gives them."""
    table = found.table.copy()
    for row, name in enumerate(table["variant"]):
        interval = bootstrap_median(samples[name].tolist())
        values = {"": interval.value, "_low": interval.low, "_high": interval.high}
        values |= {f"_p{q}": float(np.percentile(samples[name], q)) for q in (10, 90)}
        for end, value in values.items():
            table.loc[row, f"latency_ms{end}"] = value
    return dataclasses.replace(found, table=tidy_table(table))


def test_the_front_depends_on_the_error_of_the_median_and_not_on_the_spread_of_runs() -> None:
    """Two networks with 100 runs each, whose medians differ by two standard errors; the faster one is less accurate."""
    runs, sigma = 100, 0.5
    error = (np.pi / 2) ** 0.5 * sigma / runs**0.5  # of the median of normal samples
    deviations = scipy.stats.norm.ppf((np.arange(runs) + 0.5) / runs) * sigma
    samples = {"accurate": 10 + deviations, "fast": 10 - 2 * 2**0.5 * error + deviations}
    found = results({"accurate": 5, "fast": 0}, seeds=5, tradeoff=["latency_ms", "top1"])
    differ = differences(timed(found, samples))
    assert differ is not None
    ratio = re.fullmatch(r"× 0\.98 \[(\d\.\d\d), (\d\.\d\d)\]", differ.rows[0][-1])
    assert ratio is not None and 0.95 <= float(ratio[1]) < 0.98 < float(ratio[2]) <= 1.01
    said = re.fullmatch(
        r"Probability of being on the Pareto front of latency and top-1, from the spread over seeds and the interval "
        r"of the latency: accurate 100 %, fast (\d+) %\.", differ.sentences[-1],
    )  # fmt: skip
    assert said is not None, differ.sentences[-1]
    assert abs(int(said[1]) - 100 * scipy.stats.norm.cdf(2)) <= 2  # 98 %; by the spread of runs, it would be 57 %


def test_without_an_interval_a_latency_is_taken_as_exact() -> None:
    found = results({"accurate": 5, "fast": 0}, seeds=5, tradeoff=["latency_ms", "top1"])
    table = found.table.assign(latency_ms=[10.0, 9.9], latency_ms_p10=9.0, latency_ms_p90=11.0)
    differ = differences(dataclasses.replace(found, table=tidy_table(table)))
    assert differ is not None
    assert differ.sentences[-1].endswith("latency and top-1, from the spread over seeds: fast 100 %, accurate 100 %.")


def test_without_effects_the_report_says_so() -> None:
    differ = differences(results({"a": 0, "b": 0.01, "c": 0}, seeds=5, compare_to="a"))
    assert differ is not None
    assert differ.sentences[0] == (
        "No change of top-1 differs from zero at the 5 % level after Holm's correction for 2 comparisons."
    )


def test_axes_are_compared_in_pairs_and_names_with_the_first() -> None:
    differ = differences(results({"dense": 0, "sparse": 2, "late": 4}, seeds=5, named=False))
    assert differ is not None and differ.reference is None
    assert sorted(row[0] for row in differ.rows) == [
        "fusion dense → late", "fusion dense → sparse", "fusion sparse → late",
    ]  # fmt: skip
    differ = differences(results({"dense": 0, "sparse": 2, "late": 4}, seeds=5))
    assert differ is not None and differ.reference == "dense" and len(differ.rows) == 2


def test_with_one_seed_nothing_is_compared() -> None:
    found = results({"a": 0, "b": 1}, seeds=1)
    assert differences(found) is None
    assert differences(dataclasses.replace(found, curves=found.curves.iloc[:0])) is None


def test_a_long_list_is_cut_and_a_large_study_has_none() -> None:
    differ = differences(results({f"v{number}": number for number in range(30)}, seeds=3, compare_to="v0"))
    assert differ is not None and len(differ.rows) == 20 and len(differ.sentences) <= 9
    assert differences(results({f"v{number}": number for number in range(101)}, seeds=2)) is None


@pytest.mark.parametrize("width", [80, 120])
def test_numbers_are_not_cut_in_narrow_terminals(width: int) -> None:
    differ = differences(read_results(MEASURED / "branch_sweep"))
    assert differ is not None
    shown = io.StringIO()
    Console(file=shown, width=width).print(differences_table(differ))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for row in differ.rows[:10]:
        assert any(all(text in line for text in row[1:]) for line in lines), row


def test_the_page_has_the_section_and_escapes_names() -> None:
    page = render(results({"full": 0, "<b>": 3, "50% width": -9}, seeds=6, compare_to="full"), {})
    assert "<h2>What differs</h2>" in page and "&lt;b&gt;: +" in page and "<b>" not in page
    assert "seeds are needed to detect a difference of 0.3 points" in page and "50% width: -9" in page
    assert "What differs" not in render(results({"full": 0, "b": 3}, seeds=1, compare_to="full"), {})
