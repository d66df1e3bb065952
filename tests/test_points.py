"""All results as points: values, conditions and limits, compared with their tables and naive loops."""

import doctest
import json
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_report import write_study

from hrvit_lab.app import points_chart
from hrvit_lab.config import PRESETS, ConfigError
from hrvit_lab.cost.count import count
from hrvit_lab.published import published_results
from hrvit_lab.study import limits as limits_module
from hrvit_lab.study.limits import Limit, parse_limits, within
from hrvit_lab.study.points import Points, collect, pareto_front
from hrvit_lab.study.quantities import Quantity

MEASURED = sorted(path.parent for path in (Path(__file__).parents[1] / "studies" / "measured").glob("*/table.csv"))


@pytest.fixture(scope="module")
def reference() -> Points:
    return collect(MEASURED)


def of(points: Points, metric: str, word: str = "") -> Quantity:
    [found] = [q for q in points.quantities.values() if q.metric == metric and word in q.conditions]
    return found


def write_run(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True)
    recipe = {"data.name": "fashion_mnist", "data.resolution_px": [32, 32], "model.name": "hrvit_nano"}
    result = {"recipe": recipe, "last": {"epoch": 12.0, "eval_top1": 89.25, "eval_loss": 0.3}, **changes}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text(PRESETS["hrvit_nano"].replace(num_classes=10).to_yaml())
    return folder


def test_docstring_examples() -> None:
    for module in (limits_module, points_chart):
        assert doctest.testmod(module).attempted > 0
        assert doctest.testmod(module).failed == 0


def test_every_value_of_the_reference_studies_equals_its_table(reference: Points) -> None:
    assert reference.faults == ()
    for folder in MEASURED:
        rows = reference.table[reference.table["source"] == folder.name]
        for cells in pd.read_csv(folder / "table.csv").to_dict("records"):
            if cells["status"] != "ok":
                continue
            own = rows[rows["name"] == cells["variant"]]
            for metric in ("params", "macs", "latency_ms", "top1"):
                keys = [key for key, quantity in reference.quantities.items() if quantity.metric == metric]
                found = own[keys].stack().dropna().tolist()
                assert found == ([cells[metric]] if not math.isnan(cells.get(metric, math.nan)) else [])


def test_values_under_different_conditions_are_different_quantities(reference: Points) -> None:
    """Accuracy of a proxy never has the axis of a published accuracy, nor MACs at one size that of another size."""
    for quantity in reference.quantities.values():
        rows = reference.table[reference.table[quantity.key].notna()]
        if quantity.unit == "%":
            assert set(rows["kind"] == "published") == {"published" in quantity.conditions}
        if quantity.metric in ("macs", "activations"):
            assert " px" in quantity.conditions
        if quantity.metric == "latency_ms":
            assert all(word in quantity.conditions for word in ("cpu", "batch", "float32", " px", "thread"))
    assert of(reference, "params").conditions == ""


def test_published_networks_are_points(reference: Points) -> None:
    rows = reference.table[reference.table["kind"] == "published"]
    assert len(rows) == len(published_results())
    top1, macs = of(reference, "top1", "published"), of(reference, "macs", "224×224 px, as published")
    b1 = rows[(rows["name"] == "hrvit_b1") & rows[top1.key].notna()].iloc[0]
    assert (b1[top1.key], b1[macs.key], b1["params"]) == (80.5, 2.7e9, 19.7e6)


def test_costs_of_another_network_are_a_separate_point(tmp_path: Path) -> None:
    points = collect([write_study(tmp_path / "ablation", cost_base="hrvit_micro")])
    rows = points.table[points.table["source"] == "ablation"]
    assert len(rows) == 6 and rows["name"].nunique() == 3
    assert not (rows["params"].notna() & rows[of(points, "top1", "digits").key].notna()).any()


def test_a_training_is_a_point_with_its_networks_costs(tmp_path: Path) -> None:
    points = collect((), [write_run(tmp_path / "mine")])
    [row] = points.table[points.table["source"] == "training mine"].to_dict("records")
    costs = count(PRESETS["hrvit_nano"].replace(num_classes=10), 32)
    assert row[of(points, "top1", "fashion_mnist, 12 epochs").key] == 89.25
    assert (row["params"], row[of(points, "macs", "32×32 px").key]) == (costs.params, costs.macs)
    assert (row["kind"], row["branches"], row["attention"]) == ("HRViT", "4", "cross_shaped")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"recipe": 3, "last": 4}', '{"recipe": {}, "last": null}', "[" * 100_000,
     '{"recipe": {"data.name": "x", "model.name": "y"}, "last": {"epoch": "often"}}'],
)  # fmt: skip
def test_a_broken_training_is_left_out_and_named(tmp_path: Path, text: str) -> None:
    folder = write_run(tmp_path / "bad")
    (folder / "result.json").write_text(text)
    points = collect((), [folder, write_run(tmp_path / "good")])
    assert points.faults == ("bad: result.json is not the result of a training by a recipe",)
    assert "training good" in set(points.table["source"])


@pytest.mark.parametrize("size", [None, [], [32], "32x32", [10**9, 4], [-1, 32], {"a": 1}])
def test_a_training_with_an_impossible_size_is_left_out_and_named(tmp_path: Path, size: object) -> None:
    recipe = {"data.name": "fashion_mnist", "data.resolution_px": size, "model.name": "hrvit_nano"}
    points = collect((), [write_run(tmp_path / "bad", recipe=recipe)])
    assert len(points.faults) == 1 and points.faults[0].startswith("bad: ")


def test_a_broken_config_is_left_out_and_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "bad")
    (folder / "config.yaml").write_text("widths: [")
    assert collect((), [folder]).faults[0].startswith("bad: ")


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert collect([tmp_path / "empty"]).faults[0].startswith("empty: there is no empty/table.csv")


@pytest.mark.parametrize("better", [("lower", "higher"), ("higher", "higher"), ("lower", "lower")])
def test_the_front_equals_that_of_a_naive_loop(better: tuple[str, str]) -> None:
    draw = random.Random(7)
    x, y = (Quantity(name, name, "", "", end) for name, end in zip("xy", better, strict=True))  # type: ignore[arg-type]
    values = [(float(draw.randrange(9)), draw.choice([math.nan, *map(float, range(9))])) for _ in range(60)]
    reasons = [draw.choice([None] * 9 + ["why"]) for _ in values]
    table = pd.DataFrame(values, columns=["x", "y"])
    table["x disturbed"], table["y disturbed"] = reasons, None
    signs = [1 if end == "higher" else -1 for end in better]
    sound = [
        (a * signs[0], b * signs[1])
        for (a, b), why in zip(values, reasons, strict=True)
        if why is None and not math.isnan(b)
    ]
    expected = [
        why is None
        and not math.isnan(b)
        and not any(o != (a * signs[0], b * signs[1]) and o[0] >= a * signs[0] and o[1] >= b * signs[1] for o in sound)
        for (a, b), why in zip(values, reasons, strict=True)
    ]
    assert pareto_front(table, x, y).tolist() == expected
    assert any(expected) and not all(expected)


# -- limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("macs < 3G", [Limit("macs", "<", 3e9)]),
        ("macs<=3.5G and top1≥80", [Limit("macs", "<=", 3.5e9), Limit("top1", "≥", 80.0)]),
        (" params > 1e3 ,, ", [Limit("params", ">", 1e3)]),
    ],
)
def test_limits_are_parsed(text: str, expected: list[Limit]) -> None:
    assert parse_limits(text, ["macs", "top1", "params"]) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mac < 3", "did you mean 'macs'"),
        ("macs", "is not a limit; write a metric"),
        ("macs < many", "is not a limit"),
        ("macs == 3", "is not a limit"),
        ("macs < 1e999", "is not a limit"),
        ("macs < -1", "is not a limit"),
        ("__import__('os')", "is not a limit"),
        ("<b>x</b> < 3", "is not a limit"),
    ],
)
def test_an_invalid_limit_is_reported_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_limits(text, ["macs", "top1"])
    assert len(str(raised.value).splitlines()) == 1


def test_points_within_limits() -> None:
    """A point needs a value of the metric, and all its values must be within."""
    quantities = [Quantity("macs", "MACs", place, "", "lower") for place in ("32 px", "64 px")]
    small, large = (quantity.key for quantity in quantities)
    table = pd.DataFrame({small: [1.0, 1.0, math.nan, math.nan], large: [2.0, 5.0, 2.0, math.nan]})
    assert within(table, quantities, [Limit("macs", "<", 3)]).tolist() == [True, False, True, False]
    assert within(table, quantities, []).all()
    assert not np.any(within(table, quantities, [Limit("macs", "<", 3), Limit("macs", ">", 3)]))
