"""Quality of predictors: correlations against naive formulas and scipy, the verdict, the command, the shipped study."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from hrvit_lab.config import ConfigError
from hrvit_lab.search.__main__ import main
from hrvit_lab.search.draw import draw, variants
from hrvit_lab.search.genome import Space
from hrvit_lab.search.quality import CONTROLS, az_nas, correlations, partial_tau, quality, tau_matrix, verdict
from hrvit_lab.search.quality_command import between_seeds
from hrvit_lab.search.spec import load_search
from hrvit_lab.study.files import load_study
from hrvit_lab.study.results import read_results
from hrvit_lab.study.space import expand

ROOT = Path(__file__).resolve().parent.parent


def naive_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's τ-b from all pairs."""
    agree = disagree = tied_a = tied_b = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        first, second = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
        agree += first * second > 0
        disagree += first * second < 0
        tied_a += first != 0
        tied_b += second != 0
    return float((agree - disagree) / math.sqrt(tied_a * tied_b))


def naive_partial(x: Sequence[float], y: Sequence[float], given: Sequence[Sequence[float]]) -> float:
    """Kendall's recursion: one given quantity after the other."""
    if not given:
        return naive_tau(x, y)
    *rest, z = given
    xy, xz, yz = naive_partial(x, y, rest), naive_partial(x, z, rest), naive_partial(y, z, rest)
    return (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))


def sample(networks: int = 30, seed: int = 0) -> pd.DataFrame:
    """Networks whose accuracy depends on MACs and on ``good``, and not on ``noise``; some values are equal."""
    rng = np.random.default_rng(seed)
    macs = rng.uniform(1, 10, networks)
    good = rng.normal(size=networks)
    return pd.DataFrame(
        {
            "variant": [f"n{index}" for index in range(networks)],
            "top1": (50 + 2 * macs + 4 * good + rng.normal(0, 0.5, networks)).round(),
            "params": macs * rng.uniform(0.5, 2, networks),
            "macs": macs,
            "good": good,
            "bad": -good,
            "noise": rng.normal(size=networks),
            "sizes": macs * 3 + 1,
        }
    )


BETTER = {"good": "higher", "bad": "lower", "noise": "higher", "sizes": "higher"}


def test_correlations_equal_naive_formulas_and_scipy() -> None:
    table = sample()
    columns = ["top1", "params", "macs", "good", "noise"]
    values = table[columns].to_numpy()
    found = correlations(values)
    for index, name in enumerate(columns[1:]):
        pair = table["top1"].tolist(), table[name].tolist()
        assert found.tau[index] == pytest.approx(naive_tau(*pair)) == pytest.approx(stats.kendalltau(*pair).statistic)
        assert found.rho[index] == pytest.approx(stats.spearmanr(*pair).statistic)
    controls = [table["params"].tolist(), table["macs"].tolist()]
    for index, name in ((2, "good"), (3, "noise")):
        expected = naive_partial(table["top1"].tolist(), table[name].tolist(), controls)
        assert found.partial_tau[index] == pytest.approx(expected)
    best = max(found.tau[0], found.tau[1])
    assert found.gain.tolist() == pytest.approx([tau - best for tau in found.tau])


def test_a_quantity_that_is_given_or_constant_has_no_partial_tau() -> None:
    table = sample()
    values = np.column_stack([table["top1"], table["params"], table["macs"], table["sizes"], np.ones(len(table))])
    found = correlations(values)
    assert np.isnan(found.partial_tau[[0, 1, 2, 3]]).all()  # sizes has the ranks of MACs
    assert np.isnan(found.tau[3]) and np.isnan(found.rho[3])
    assert partial_tau(tau_matrix(table[["top1", "good"]].to_numpy())) == pytest.approx(
        naive_tau(table["top1"].tolist(), table["good"].tolist())
    )


def test_intervals_cover_and_narrow_with_more_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hrvit_lab.search.quality.RESAMPLES", 300)
    few, many = (quality(sample(networks), "top1", BETTER).set_index("predictor") for networks in (12, 60))
    for found in (few, many):
        for field in ("tau", "rho", "gain"):
            inside = (found[f"{field}_low"] <= found[field]) & (found[field] <= found[f"{field}_high"])
            assert inside.all()
    assert (many["tau_high"] - many["tau_low"] < few["tau_high"] - few["tau_low"])[["good", "noise", "macs"]].all()
    assert many["tau"]["good"] == many["tau"]["bad"], "lower is better for one of them"
    pd.testing.assert_frame_equal(many, quality(sample(60), "top1", BETTER).set_index("predictor"))


def test_what_ranks_networks_of_equal_costs_is_found_and_noise_is_not() -> None:
    found = quality(sample(60), "top1", BETTER).set_index("predictor")
    assert found["adds"].to_dict() == {
        "params": False, "macs": False, "good": True, "bad": True, "noise": False, "sizes": False,
    }  # fmt: skip
    assert not found["beats"][["noise", "sizes", "params", "macs"]].any()


def test_infinite_scores_are_ranked(recwarn: pytest.WarningsRecorder) -> None:
    """NASWOT is −∞ for networks that do not distinguish two images: the lowest score, equal for all of them."""
    table = sample(20)
    table.loc[[0, 1, 2], "good"] = -math.inf
    found = quality(table, "top1", {"good": "higher"}).set_index("predictor")
    finite = [max(value, -99.0) for value in table["good"]]
    assert found["tau"]["good"] == pytest.approx(stats.kendalltau(table["top1"], finite).statistic)
    assert found["rho"]["good"] == pytest.approx(stats.spearmanr(table["top1"], finite).statistic)
    assert not recwarn.list


def test_networks_of_equal_costs_have_no_gain(recwarn: pytest.WarningsRecorder) -> None:
    table = sample(12).assign(params=1.0, macs=1.0)
    found = quality(table, "top1", {"good": "higher"}).set_index("predictor")
    assert math.isnan(found["gain"]["good"]) and found["tau"]["good"] > 0
    assert not recwarn.list


def test_noise_claims_nothing_in_most_of_many_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 tables with five noise predictors, at most a few claim anything: the level holds for all together."""
    claims = 0
    monkeypatch.setattr("hrvit_lab.search.quality.RESAMPLES", 300)
    for seed in range(20):
        table, rng = sample(24, seed), np.random.default_rng(100 + seed)
        names = [f"noise {index}" for index in range(5)]
        for name in names:
            table[name] = rng.normal(size=len(table))
        found = quality(table, "top1", dict.fromkeys(names, "higher"))
        claims += bool((found["beats"] | found["adds"]).any())
    assert claims <= 4


def test_the_verdict_says_which_predictors_are_better_than_costs() -> None:
    table = sample(60)
    table["oracle"] = table["top1"]
    found = quality(table, "top1", {**BETTER, "oracle": "higher"})
    text = " ".join(verdict(found, 60, {"oracle": "The oracle"}))
    assert "The oracle ranks the 60 networks better than" in text and "τ 1.00" in text
    nothing = " ".join(verdict(quality(sample(12), "top1", {"noise": "higher"}), 12, {}))
    assert "No predictor ranks the 12 networks better than macs (τ" in nothing
    assert "No predictor ranks networks of equal costs, beyond chance" in nothing
    assert "12 networks are few" in nothing


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match="7 networks have a top1"):
        quality(sample(7), "top1", BETTER)


def test_az_nas_sums_the_logs_of_ranks() -> None:
    table = pd.DataFrame(
        {"expressivity": [1.0, 2, 3], "progressivity": [3.0, 1, 2], "trainability": [0.0, 1, 2], "macs": [5.0, 9, 7]}
    )
    expected = [math.log(1 * 3 * 1 * 1 / 81), math.log(2 * 1 * 2 * 3 / 81), math.log(3 * 2 * 3 * 2 / 81)]
    assert az_nas(table).tolist() == pytest.approx(expected)


def test_the_committed_study_bears_out_the_table_of_the_documentation() -> None:
    """τ again by scipy; partial τ and intervals are those of the committed table."""
    folder = ROOT / "studies" / "measured" / "predictor_quality"
    scores = pd.read_csv(folder / "predictors" / "scores.csv")
    rows = pd.read_csv(folder / "predictors" / "quality.csv").set_index("predictor")
    table = read_results(folder).table.set_index("variant")
    assert len(scores) == 48 and scores["top1"].tolist() == pytest.approx(table["top1"][scores["variant"]].tolist())
    for key in rows.index:
        sign = -1 if key == "loss_after_steps" else 1  # lower is better
        tau = sign * stats.kendalltau(scores["top1"], scores[key]).statistic
        assert rows["tau"][key] == pytest.approx(tau), key
    assert not rows["beats"].any() and not rows["adds"].any()
    text = (ROOT / "docs" / "search.md").read_text(encoding="utf-8").replace("−", "-")
    labels = {
        "macs": "MACs", "params": "parameters", "az_nas": "AZ-NAS, all its parts", "expressivity": "expressivity",
        "naswot": "NASWOT", "early": "accuracy after half of the epochs", "extrapolated": "extrapolated learning curve",
        "supernet": "accuracy inherited from the supernet (below)",
    }  # fmt: skip
    for key, label in labels.items():
        row = rows.loc[key]
        said = f"| {label} | {row['tau']:.2f} [{row['tau_low']:.2f}, {row['tau_high']:.2f}] |"
        if key not in CONTROLS:
            said += f" {row['partial_tau']:.2f} [{row['partial_tau_low']:.2f}, {row['partial_tau_high']:.2f}] |"
        assert said in text, said
    inherited = pd.read_csv(folder / "supernet" / "networks.csv").set_index("variant")["top1"]
    assert scores["supernet"].tolist() == inherited[scores["variant"]].tolist()
    assert f"networks is {inherited.min():.1f} to {inherited.max():.1f} %" in text
    noise = float(text.split("half of the variance between networks (")[1].split(")")[0])
    assert f"would have τ {2 / math.pi * math.asin(math.sqrt(1 - noise)):.2f}" in text


def test_the_committed_branch_sweep_is_scored_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With stub scores: the real ones take a minute."""
    folder = ROOT / "studies" / "measured" / "branch_sweep"
    monkeypatch.setattr(
        "hrvit_lab.search.quality_command.score_config",
        lambda config, keys, *_: {key: float(config.num_branches + len(key)) for key in keys},
    )
    assert main(["quality", str(folder), "--into", str(tmp_path / "q")]) == 0
    output = capsys.readouterr().out
    assert "Rankings by two seeds agree with τ" in output and "networks better than" in output
    rows = pd.read_csv(tmp_path / "q" / "quality.csv").set_index("predictor")
    results = read_results(folder)
    table = results.table
    assert rows["tau"]["macs"] == pytest.approx(stats.kendalltau(table["top1"], table["macs"]).statistic)
    scores = pd.read_csv(tmp_path / "q" / "scores.csv")
    first = results.curves[(results.curves["variant"] == "branches=1") & (results.curves["epoch"] == 1)]
    assert scores["early"][0] == pytest.approx(first["val_top1"].mean())
    last = results.curves[results.curves["epoch"] == 2].pivot_table(index="variant", columns="seed", values="val_top1")
    pairs = [naive_tau(last[a].tolist(), last[b].tolist()) for a, b in itertools.combinations(last, 2)]
    assert between_seeds(results, "top1") == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["quality", "nothing_here"], "no results of 'nothing_here'"),
        (["quality", "baselines", "--batch-size", "0"], "give a whole number from 4"),
        (["quality"], "NAME|DIR"),
    ],
)
def test_a_bad_request_is_one_sentence(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_the_shipped_study_trains_networks_of_three_bands_drawn_from_the_space() -> None:
    path = ROOT / "studies" / "predictor_quality.yaml"
    space = Space(load_search(ROOT / "studies" / "search" / "nano_by_zico.yaml"))
    drawn = variants(space, draw(space, 48))
    assert yaml.safe_load(path.read_text())["variants"] == drawn
    spec = load_study(path)
    expansion = expand(spec)
    assert len(expansion.variants) == 48 >= 40 and not expansion.dropped and len(spec.seeds) == 2
    assert len({variant.config.id for variant in expansion.variants}) == 48
    assert space.config(draw(space, 48)["small 1"]).id == expansion.variants[0].config.id
