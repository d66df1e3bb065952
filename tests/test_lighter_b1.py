"""What docs/search.md says about the search `lighter_b1`: its figures follow from the committed files."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.search.spec import load_search
from hrvit_lab.study.results import read_results

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "studies" / "searched" / "lighter_b1"


@pytest.fixture(scope="module")
def said() -> str:
    text = (ROOT / "docs" / "search.md").read_text(encoding="utf-8").replace("−", "-")
    return text.split("## What `lighter_b1` found")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def front() -> Any:
    return pd.read_csv(FOLDER / "pareto.csv").set_index("variant")


def cells(text: str, start: str) -> list[str]:
    return [cell.strip() for cell in text.split(f"\n| {start} |")[1].split("\n")[0].strip("|").split("|")]


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", cell)]


@pytest.mark.parametrize(("method", "name"), [("nsga2", "NSGA-II"), ("random", "random search")])
def test_hypervolumes(said: str, method: str, name: str) -> None:
    table = pd.read_csv(FOLDER / "hypervolume.csv")
    of_method = table[table.method == method].groupby("evaluations").hypervolume
    row = cells(said, name)
    for cell, evaluations in zip(row, (100, 200, 300, 400, 500), strict=True):
        values = sorted(map(float, of_method.get_group(evaluations)))
        assert len(values) == 5
        assert numbers(cell)[0] == pytest.approx(values[2], abs=5e-4)
    assert numbers(row[-1])[1:] == pytest.approx([values[1], values[3]], abs=5e-4)  # quartiles of five values


def test_the_ends_of_the_smaller_search() -> None:
    """`cpu_nano`: all runs of NSGA-II end at one hypervolume, those of random search near 99 % of it."""
    folder = FOLDER.parent / "cpu_nano"
    ends = pd.read_csv(folder / "hypervolume.csv").groupby(["method", "seed"]).hypervolume.last().unstack()
    truth = ends.loc["nsga2"].max()
    assert (ends.loc["nsga2"] > 0.999 * truth).all() and ends.loc["random"].median() == pytest.approx(
        0.992 * truth, rel=2e-3
    )
    assert len(pd.read_csv(folder / "pareto.csv")) == 63 + 1  # and the base


def test_no_network_of_the_front_is_better_than_another(front: Any) -> None:
    points = [(row.macs, row.predicted_latency_ms, -row.naswot) for row in front.drop("hrvit_b1").itertuples()]
    for one in points:
        assert not any(other != one and all(a <= b for a, b in zip(other, one, strict=True)) for other in points)


def test_found_networks(said: str, front: Any) -> None:
    """Costs are counted again, ratios of predictions are those of the search, measured ratios those of the race."""
    spec = load_search(ROOT / "studies" / "search" / "lighter_b1.yaml")
    results = read_results(FOLDER)
    base = front.loc["hrvit_b1"]
    race = {row["model"]: row for line in (FOLDER / "race.jsonl").read_text().splitlines() if (row := json.loads(line))}
    better = front[
        (front.macs <= base.macs)
        & (front.predicted_latency_ms <= base.predicted_latency_ms)
        & (front.naswot >= base.naswot)
    ].drop("hrvit_b1", errors="ignore")
    assert f"{len(front) - 1} networks are not dominated" in said and f"and {len(better)} of them" in said
    shown = re.findall(r"\| `(found \d+)` \|", said)
    assert len(shown) == 4 and set(shown) <= set(better.index)
    for name in ("hrvit_b1", *shown):
        params, macs, naswot, predicted, measured = cells(said, f"`{name}`")
        config = HRViTConfig.from_dict(results.configs[name])
        assert config.id == front.config_id[name]
        if name in shown:
            raced = HRViTConfig.from_yaml((FOLDER / f"{name.replace(' ', '_')}.yaml").read_text())
            assert raced.id == config.id
        counted = count(config, spec.resolution)
        assert numbers(params) == [round(counted.params / 1e6, 1)]
        own, *change = numbers(macs)
        assert own == round(counted.macs / 1e9, 2) and counted.macs == front.macs[name]
        assert numbers(naswot) == [pytest.approx(front.naswot[name], abs=0.05)]
        ratio = front.predicted_latency_ms[name] / base.predicted_latency_ms
        assert numbers(predicted) == [pytest.approx(ratio, abs=5e-4)]
        if name == "hrvit_b1":
            continue
        assert change == [round(100 * (counted.macs / base.macs - 1))]
        found = race[f"{name.replace(' ', '_')}.yaml"]["ratio"]
        assert numbers(measured) == pytest.approx([found["value"], found["low"], found["high"]], abs=5e-4)
        assert found["high"] < 1, "measured to be faster than b1"
