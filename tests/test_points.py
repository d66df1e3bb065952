"""All results as points: values, conditions and limits, compared with their tables and naive loops."""

import doctest
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_report import write_study

from hrvit_lab.app import points_chart
from hrvit_lab.config import PRESETS, ConfigError, HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.latency.estimate import Estimate
from hrvit_lab.latency.measurement import Measurement, to_csv, to_frame
from hrvit_lab.published import published_results
from hrvit_lab.study import limits as limits_module
from hrvit_lab.study import point_rows
from hrvit_lab.study.limits import Limit, parse_limits, within
from hrvit_lab.study.point_rows import family_of
from hrvit_lab.study.points import Points, collect, pareto_front
from hrvit_lab.study.published_points import absent, config_of
from hrvit_lab.study.quantities import Quantity
from hrvit_lab.train.__main__ import main as train

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
    (folder / "recipe.yaml").write_text("title: Mine")
    return folder


SHORT = ("hrvit_nano", "--data", "digits", "--resolution", "32", "--epochs", "1", "--train-limit", "40", "--seed", "3")


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training, as the command writes it."""
    folder = tmp_path_factory.mktemp("results") / "train" / "mine"
    assert train([*SHORT, "--out", str(folder)]) == 0
    return folder


def measurement(model: str = "hrvit_nano:deploy", **changes: Any) -> Measurement:
    """A measurement of three kept rounds, as `race` returns it."""
    given: dict[str, Any] = {
        "model": model, "backend": "eager", "dtype": "float32", "resolution": (64, 96), "batch_size": 2,
        "device": "cpu", "device_name": "Some CPU", "memory_format": "contiguous", "threads": 1, "training": False,
        "samples_ms": (5.0, 7.0, 4.0), "throttled": ((), (), ()), "latency": Estimate(5.0, 4.0, 7.0),
        "peak_memory_mib": 12.5,
    }  # fmt: skip
    return Measurement(**given | changes)


def write_latency(folder: Path, *measurements: Measurement) -> Path:
    """The folder of ``hrvit-lab latency --out``."""
    folder.mkdir(parents=True)
    (folder / "latency.csv").write_text(to_csv(to_frame(measurements)))
    return folder


def test_docstring_examples() -> None:
    for module in (limits_module, point_rows, points_chart):
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


def test_printed_flops_are_at_the_size_for_which_they_are_printed(reference: Points) -> None:
    """MACs of the config at that size are near the printed ones: at another size they would be at least 1.9 times."""
    sizes = set()
    for result in published_results():
        config = config_of(result)
        assert (result.gflops is None) == (result.flops_resolution is None)
        if result.flops_resolution is None or result.gflops is None or config is None:
            continue
        own = count(config, result.flops_resolution).macs
        assert own / float(result.gflops) / 1e9 == pytest.approx(1, abs=0.12), result.key
        quantity = of(reference, "macs", "{}×{} px, as".format(*result.flops_resolution))
        [point] = reference.table[
            (reference.table["source"] == result.source)
            & (reference.table["config_id"] == config.id)
            & reference.table[quantity.key].notna()
        ].to_dict("records")
        assert point[quantity.key] == float(result.gflops) * 1e9
        sizes.add(result.flops_resolution)
    assert sizes == {(224, 224), (512, 512), (512, 2048)}


@pytest.mark.parametrize(
    ("data", "size", "expected"),
    [
        ("imagenet-1k", "224×224", ["MiT: no printed MACs are known for these accuracies of the SegFormer paper"]),
        (
            "ade20k",
            "512×512",
            ["CSWin: its MACs are printed for 512×2048 px", "HRFormer: no mIoU on ade20k is known"],
        ),
        (
            "ade20k",
            "512×2048",
            [
                "HRViT: its MACs are printed for 512×512 px",
                "MiT: its MACs are printed for 512×512 px",
                "HRFormer: no mIoU on ade20k is known",
            ],
        ),
    ],
)
def test_absent_architectures_are_named_with_the_reason(
    reference: Points, data: str, size: str, expected: list[str]
) -> None:
    score = of(reference, "miou" if data == "ade20k" else "top1", f"{data}, published")
    assert absent(score, of(reference, "macs", f"{size} px, as published")) == expected


def test_published_networks_have_the_configs_of_their_published_counts(reference: Points) -> None:
    """Parameters of the config are those that are printed, within the digits that sources cut or round up."""
    rows = reference.table[(reference.table["kind"] == "published") & reference.table["config"].notna()]
    assert set(published_results()[-3:]) == {r for r in published_results() if r.model.startswith("hrformer")}
    assert len(rows) == len(published_results()) - 3
    printed = rows[rows["params"].notna()]
    for row in printed.to_dict("records"):
        own = count(HRViTConfig.from_dict(row["config"]), 512).params
        odd = row["name"] == "cswin_tiny upernet"  # 60 M are printed, and it is not known why
        assert own / row["params"] == pytest.approx(1, abs=0.15 if odd else 0.035), row["name"]
    assert rows["attention"].nunique() == 3 and printed["config_id"].nunique() == len(printed)


def test_costs_of_another_network_are_a_separate_point(tmp_path: Path) -> None:
    points = collect([write_study(tmp_path / "ablation", cost_base="hrvit_micro")])
    rows = points.table[points.table["source"] == "ablation"]
    assert len(rows) == 6 and rows["name"].nunique() == 3
    assert not (rows["params"].notna() & rows[of(points, "top1", "digits").key].notna()).any()


def test_a_training_is_a_point_with_its_networks_costs(tmp_path: Path) -> None:
    points = collect((), {"training mine": write_run(tmp_path / "mine")})
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
    points = collect((), {"bad": folder, "training good": write_run(tmp_path / "good")})
    assert points.faults == ("bad: result.json is not the result of hrvit-lab train",)
    assert "training good" in set(points.table["source"])


def test_a_short_training_is_a_point_with_its_networks_costs(short_run: Path) -> None:
    """Its score has the quantity of a study that trains as long on the same data."""
    points = collect((), {"short training mine": short_run})
    assert points.faults == ()
    [row] = points.table[points.table["source"] == "short training mine"].to_dict("records")
    curves = pd.read_csv(short_run / "curves.csv")
    top1 = of(points, "top1", "digits")
    assert top1.conditions == "digits, 1 epoch of 40 images, 32×32 px"
    assert (
        row[top1.key] == curves["val_top1"].iloc[-1] and row[of(points, "val_loss").key] == curves["val_loss"].iloc[-1]
    )
    costs = count(PRESETS["hrvit_nano"].replace(num_classes=10), 32)
    assert (row["params"], row[of(points, "macs", "32×32 px").key]) == (costs.params, costs.macs)
    assert (row["name"], row["kind"], row["branches"]) == ("hrvit_nano", "HRViT", "4")


def test_a_short_training_has_the_axis_of_studies_of_the_same_length(short_run: Path, tmp_path: Path) -> None:
    result = json.loads((short_run / "result.json").read_text())
    result |= {"epochs_done": 2, "train": result["train"] | {"epochs": 2, "train_limit": None}}
    result["data"]["resolution"] = [64, 64]
    (tmp_path / "result.json").write_text(json.dumps(result))
    points = collect(MEASURED, {"mine": tmp_path})
    top1 = of(points, "top1", "digits, 2")
    sources = set(points.table[points.table[top1.key].notna()]["source"])
    assert {"mine", "branch_sweep"} <= sources


def test_an_unfinished_short_training_has_conditions_of_its_own(short_run: Path, tmp_path: Path) -> None:
    result = json.loads((short_run / "result.json").read_text())
    result["train"]["epochs"] = 4
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert of(collect((), {"mine": tmp_path}), "top1", "digits").conditions.startswith("digits, 1 of 4 epochs of")
    (tmp_path / "result.json").write_text(json.dumps(result | {"top1": None, "val_loss": None, "epochs_done": 0}))
    points = collect((), {"mine": tmp_path})
    assert points.faults == () and "mine" in set(points.table["source"])


def test_timed_networks_are_points_with_device_settings_and_method(tmp_path: Path) -> None:
    folder = write_latency(
        tmp_path / "mine", measurement(), measurement(backend="openvino", samples_ms=(2.0, 3.0, 2.0)),
        measurement("timm:resnet18", macs=2 * 5_000), measurement("x.yaml", training=True, macs=2 * 3 * 700),
        measurement("hrvit_b1", status="refused", reason="no", samples_ms=(), throttled=()),
        measurement("hrvit_micro", status="interrupted", reason="stopped"),
    )  # fmt: skip
    points = collect((), {}, [folder])
    rows = points.table[points.table["source"] == "latency mine"].set_index("name")
    assert list(rows.index) == [
        "hrvit_nano:deploy",
        "hrvit_nano:deploy, openvino",
        "timm:resnet18",
        "x.yaml",
        "hrvit_micro",
    ]
    latency, step = of(points, "latency_ms", "px, 1 thread, inter"), of(points, "latency_ms", "training step")
    assert latency.conditions == "Some CPU, batch 2, float32, 64×96 px, 1 thread, interleaved rounds"
    assert rows[latency.key].dropna().tolist() == [5.0, 2.0, 5.0, 5.0] and rows[step.key].dropna().tolist() == [5.0]
    assert rows[f"{latency.key} low"].iloc[0] == pytest.approx(4.2)  # 10th percentile of 4, 5 and 7
    assert rows[of(points, "throughput_img_s", "64×96 px, 1").key].iloc[0] == 400
    macs = of(points, "macs", "64×96 px")
    costs = count(PRESETS["hrvit_nano"], (64, 96))
    assert rows[macs.key].tolist()[:4] == [costs.macs, costs.macs, 5_000, 700]
    assert rows["params"].tolist()[:2] == [costs.params] * 2 and math.isnan(rows["params"].iloc[2])
    assert rows["kind"].tolist()[1:3] == ["HRViT", "baseline"]
    for metric in ("latency_ms", "throughput_img_s"):
        key = of(points, metric, "px, 1 thread, inter").key
        assert rows[f"{key} disturbed"].dropna().to_dict() == {"hrvit_micro": "stopped"}
    memory = [key for key, quantity in points.quantities.items() if quantity.metric == "peak_memory_mib"]
    assert len(memory) == 2 and rows[[f"{key} disturbed" for key in memory]].isna().all(axis=None)


def test_a_latency_on_a_gpu_has_no_cpu_threads(tmp_path: Path) -> None:
    folder = write_latency(tmp_path / "gpu", measurement(device_samples_ms=(4.0, 6.0, 3.0), device_name="Some GPU"))
    assert "thread" not in of(collect((), {}, [folder]), "latency_ms").conditions


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "model\n", "\x00", '"'])
def test_a_broken_latency_table_is_left_out_and_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "latency.csv").write_text(text)
    points = collect((), {}, [tmp_path / "bad", write_latency(tmp_path / "good", measurement())])
    assert points.faults == ("bad: latency.csv is not a table of hrvit-lab latency",)
    assert "latency good" in set(points.table["source"])


@pytest.mark.parametrize(("column", "cell"), [("height", "inf"), ("batch_size", "-1"), ("threads", ""), ("width", "x")])
def test_a_latency_table_with_an_impossible_setting_is_left_out(tmp_path: Path, column: str, cell: str) -> None:
    folder = write_latency(tmp_path / "bad", measurement())
    table = pd.read_csv(folder / "latency.csv", dtype=str)
    table[column] = cell
    table.to_csv(folder / "latency.csv", index=False)
    assert len(collect((), {}, [folder]).faults) == 1


@pytest.mark.parametrize("size", [None, [], [32], "32x32", [10**9, 4], [-1, 32], {"a": 1}])
def test_a_training_with_an_impossible_size_is_left_out_and_named(tmp_path: Path, size: object) -> None:
    recipe = {"data.name": "fashion_mnist", "data.resolution_px": size, "model.name": "hrvit_nano"}
    points = collect((), {"bad": write_run(tmp_path / "bad", recipe=recipe)})
    assert len(points.faults) == 1 and points.faults[0].startswith("bad: ")


def test_a_broken_config_is_left_out_and_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "bad")
    (folder / "config.yaml").write_text("widths: [")
    assert collect((), {"bad": folder}).faults[0].startswith("bad: ")


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


def test_every_point_has_its_family(reference: Points) -> None:
    published = reference.table[reference.table["kind"] == "published"]
    first = {"hrvit": "HRViT", "mit": "MiT", "cswin": "CSWin", "hrformer": "HRFormer"}
    assert published["family"].tolist() == [first[re.split("_| ", name)[0]] for name in published["name"]]
    own = reference.table[reference.table["kind"] != "published"]
    assert set(zip(own["kind"], own["family"], strict=True)) == {("HRViT", "HRViT"), ("baseline", "other")}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_of_their_families(name: str) -> None:
    """Also as the config of a study, which has no name; blocks of another family in HRViT's layout are an HRViT."""
    expected = {"mit": "MiT", "cswin": "CSWin"}.get(name.split("_")[0], "HRViT")
    assert family_of(PRESETS[name].to_dict()) == family_of(PRESETS[name].replace(name="").to_dict()) == expected


@pytest.mark.parametrize("config", [{"topology": []}, {"topology": "pyramid", "attention": {}}, {"model": 3}, {}])
def test_a_damaged_config_has_a_family(config: dict[str, object]) -> None:
    assert family_of(config) in ("HRViT", "other")
