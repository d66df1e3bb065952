"""The page "Compare": costs and their difference against the counts, races, accuracies, and hostile addresses."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from test_chart_view import charts_of

from hrvit_lab.app import compared, compared_race, processes
from hrvit_lab.app.compared import MAX_STEPS, Model
from hrvit_lab.app.folders import REFERENCE
from hrvit_lab.app.navigate import OPENED
from hrvit_lab.app.processes import Process
from hrvit_lab.config import ConfigError, preset
from hrvit_lab.cost.count import count
from hrvit_lab.network.baselines import TimmConfig
from hrvit_lab.study.results import read_results

pytestmark = pytest.mark.usefixtures("main_module")

TIMEOUT_S = 250


def models(*names: str, side: int = 64) -> list[Model]:
    offered = compared.offered({})
    return [compared.counted(name, offered[name], side) for name in names]


# -- costs -------------------------------------------------------------------------------------------------------


def test_costs_equal_those_of_the_counts() -> None:
    rows = compared.cost_rows(models("hrvit_nano", "hrvit_b1", "timm:resnet18"))
    for name in ("hrvit_nano", "hrvit_b1", "timm:resnet18"):
        counts = count(name, 64)
        for key in ("params", "macs", "activations"):
            row = rows[(rows["model"] == name) & (rows["key"] == key)].iloc[0]
            assert row["value"] == getattr(counts, key)
            assert row["ratio"] == pytest.approx(row["value"] / getattr(count("hrvit_nano", 64), key))


@pytest.mark.parametrize("pair", [("hrvit_b1", "mit_b1"), ("hrvit_nano", "cswin_tiny"), ("hrvit_b1", "timm:resnet18")])
@pytest.mark.parametrize("key", ["macs", "params", "activations"])
def test_the_waterfall_leads_from_one_total_to_the_other(pair: tuple[str, str], key: str) -> None:
    first, second = models(*pair)
    for by in compared.groupings(first, second):
        table = compared.ledgers(first, second, by, key)
        assert table["first"].sum() == getattr(first.counts, key)
        assert table["second"].sum() == getattr(second.counts, key)
        steps = compared.waterfall(table, pair, key)
        assert steps["end"].iloc[-1] == getattr(second.counts, key)
        assert steps["label"].iloc[[0, -1]].tolist() == list(pair)
        inner = steps.iloc[1:-1]
        assert inner["start"].tolist() == [steps["end"].iloc[0], *inner["end"].iloc[:-1]]
        assert len(inner) <= MAX_STEPS + 1


def test_one_changed_field_is_the_only_difference() -> None:
    """Against the definition: another FFN changes the FFN, and nothing else."""
    one = preset("hrvit_nano")
    pair = [compared.counted(name, config, 64) for name, config in (("one", one), ("other", one.replace(ffn="mlp")))]
    table = compared.ledgers(pair[0], pair[1], "part", "macs").set_index("group")["difference"]
    assert table.drop("FFN").eq(0).all()
    assert table["FFN"] == pair[1].counts.macs - pair[0].counts.macs != 0


def test_predictions_of_other_counters_are_for_hrvits() -> None:
    rows = compared.other_counts(models("hrvit_nano", "timm:resnet18"))
    assert set(rows["model"]) == {"hrvit_nano"}
    exact = rows[(rows["counter"] == "torch, dispatch") & (rows["attention"] == "fused")]
    assert exact["of our count"].tolist() == ["100.0%"]


# -- accuracy ----------------------------------------------------------------------------------------------------


def test_accuracies_equal_those_of_the_studies_and_intervals_are_paired() -> None:
    """Two variants of a shipped study; the difference is computed by hand from its curves."""
    results = read_results(REFERENCE / "branch_sweep")
    names = results.table["variant"][:2].tolist()
    pair = [compared.counted(name, preset("hrvit_nano").from_dict(results.configs[name]), 64) for name in names]
    found = compared.accuracies(pair, [REFERENCE / "branch_sweep"])
    assert [one.study for one in found] == [results.spec.title]
    last = results.curves.groupby(["variant", "seed"])["val_top1"].last().unstack()
    difference = last.loc[names[1]] - last.loc[names[0]]
    row = found[0].effects.iloc[0]
    assert row["delta"] == pytest.approx(difference.mean())
    half = 4.302653 * difference.std(ddof=1) / np.sqrt(3)  # Student's t of 2 degrees of freedom
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=1e-5)
    assert found[0].means["mean"].tolist() == pytest.approx(last.mean(axis=1)[names].tolist())


def test_a_preset_is_found_in_a_study_with_other_classes() -> None:
    found = compared.accuracies(models("hrvit_nano", "timm:resnet18"), [REFERENCE / "baselines"])
    assert found[0].means["model"].tolist() == ["hrvit_nano", "timm:resnet18"]
    assert compared.accuracies(models("hrvit_b1", "hrvit_b2"), [REFERENCE / "baselines", Path("/nowhere")]) == []


# -- races -------------------------------------------------------------------------------------------------------


def record(name: str, times: list[float], ratio: float | None) -> dict[str, Any]:
    estimate = {"value": 2.0, "low": 1.9, "high": 2.1}
    return {
        "kind": "latency", "model": name, "backend": "eager", "dtype": "float32", "resolution": [64, 64],
        "batch_size": 1, "device_name": "a CPU", "threads": 1, "status": "ok", "reason": "", "rounds": len(times),
        "samples_ms": times, "latency": estimate, "ratio": estimate | {"value": ratio} if ratio else None,
        "verdict": "slower" if ratio else None, "control": {"value": 1.0, "low": 0.99, "high": 1.01}, "disturbed": [],
    }  # fmt: skip


def raced(results: Path, lines: list[str]) -> Process:
    pair = models("hrvit_nano", "hrvit_micro")
    request = compared_race.request(pair, 64, True, 10, results)
    out = results / ".app" / "races" / str(request.extra["out"])
    out.mkdir(parents=True)
    (out / "latency.jsonl").write_text("\n".join(lines))
    return Process(results, request, 0.0, "finished", 0, 1.0, None)


def test_a_race_is_read_from_its_file(tmp_path: Path) -> None:
    lines = [json.dumps(record("a", [1.0, 2.0, 3.0], None)), json.dumps(record("b", [2.0, 4.0], 2.0))]
    laps = compared_race.read_race(raced(tmp_path, lines), tmp_path)
    assert [lap.name for lap in laps] == ["hrvit_nano", "hrvit_micro"]
    assert compared_race.sample_rows(laps)["ms"].tolist() == [1, 2, 3, 2, 4]
    ratios = compared_race.ratio_rows(laps)
    assert ratios["model"].tolist() == ["hrvit_micro", "A/A control"]
    assert ratios["verdict"].tolist() == ["slower", "error of the method"]
    summary = compared_race.summary_rows(laps)
    assert summary["p10"].tolist() == pytest.approx([1.2, 2.2])


@pytest.mark.parametrize("line", ["", "[]", "{", '{"latency": 1}', '{"resolution": [1]}'])
def test_a_damaged_race_is_no_error(tmp_path: Path, line: str) -> None:
    assert compared_race.read_race(raced(tmp_path, [line]), tmp_path) == []


def test_the_command_line_of_a_race(tmp_path: Path) -> None:
    config = preset("hrvit_nano").replace(ffn="mlp")
    chosen = [*models("hrvit_nano", "timm:resnet18"), compared.counted("mine", config, 64)]
    request = compared_race.request(chosen, 64, True, 10, tmp_path)
    file = tmp_path / ".app" / "configs" / f"{config.id}.yaml"
    assert request.arguments[:3] == ("hrvit_nano:deploy", "timm:resnet18", f"{file}:deploy")
    assert preset("hrvit_nano").from_yaml(file.read_text()).id == config.id
    again = compared_race.request(list(reversed(chosen)), 64, True, 10, tmp_path)
    assert again.target != request.target
    with pytest.raises(ConfigError, match=r"needs about .* MiB at 1024×1024 px, and the app allows 4,096 MiB"):
        compared_race.request(models("cswin_base", "hrvit_nano", side=1024), 1024, True, 10, tmp_path)


# -- the page ----------------------------------------------------------------------------------------------------


def draw_compare() -> None:
    from hrvit_lab.app.pages import compare

    compare.show()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["app.py", "--results", str(tmp_path)])
    return AppTest.from_function(draw_compare, default_timeout=TIMEOUT_S)


def test_the_first_visit_shows_costs_and_says_what_to_do(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert page.multiselect(key="models").value == ["hrvit_b1", "mit_b1"]
    table = page.dataframe[0].value
    assert table.set_index("cost").loc["parameters", "hrvit_b1"] == "19.7 M"
    ratios, waterfall = charts_of(page)
    assert all("one image of 224 × 224 px" in " ".join(each["title"]["subtitle"]) for each in (ratios, waterfall))
    assert ["have not raced here yet" in info.value or "No study here" in info.value for info in page.info] == [
        True
    ] * 2


def draw_laps() -> None:
    import json

    from test_app_compare import record

    from hrvit_lab.app.compared_race import _lap
    from hrvit_lab.app.pages.compare import _draw_laps

    lines = record("a", [1.0, 2.0, 3.0], None), record("b", [2.0, 4.0], 2.0)
    _draw_laps([_lap(str(line["model"]), json.loads(json.dumps(line))) for line in lines])


def test_charts_of_a_race_name_device_and_method() -> None:
    app = AppTest.from_function(draw_laps, default_timeout=TIMEOUT_S).run()
    assert not app.exception
    drawn = charts_of(app)
    assert len(drawn) == 2
    for chart in drawn:
        said = " ".join(chart["title"]["subtitle"])
        assert "a CPU, 1 thread, batch 1, 64×64 px, float32, eager, 3 interleaved rounds" in said and "95 %" in said


def test_opened_configs_are_offered_and_accuracies_shown(page: AppTest) -> None:
    config = preset("hrvit_nano").replace(ffn="mlp", name="mine")
    page.session_state[OPENED] = {config.id: config.to_yaml()}
    page.run()
    page.multiselect(key="models").set_value(["hrvit_nano", "timm:resnet18", f"mine · {config.id}"]).run()
    page.toggle(key="counters").set_value(True).run()
    assert not page.exception
    assert any("How does HRViT stand against others" in text.value for text in page.markdown)
    assert page.selectbox(key="other").options == ["timm:resnet18", f"mine · {config.id}"]


def test_hostile_addresses(page: AppTest) -> None:
    page.query_params["models"] = ["../../etc/passwd", "<script>", "hrvit_b1"]
    page.query_params["size"] = "99999999"
    page.query_params["other"] = "x"
    page.run()
    assert not page.exception
    assert page.selectbox(key="size").value == 224


def test_a_model_that_does_not_accept_the_input_says_so(page: AppTest) -> None:
    page.run()
    page.multiselect(key="models").set_value(["hrvit_b1", "timm:deit_small_patch16_224", "timm:hrnet_w18"]).run()
    page.selectbox(key="size").set_value(64).run()
    assert not page.exception


def test_a_race_is_started_as_a_process(page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(processes, "start", lambda results, request: started.append((results, request)))
    page.run()
    page.multiselect(key="models").set_value(["hrvit_nano", "hrvit_micro"]).run()
    page.selectbox(key="size").set_value(64).run()
    page.button(key="race").click().run()
    assert not page.exception
    assert [results for results, _ in started] == [tmp_path]
    assert started[0][1].module == "hrvit_lab.latency"


def test_identity_ignores_name_and_classes_only() -> None:
    nano = preset("hrvit_nano")
    assert compared.identity(nano) == compared.identity(nano.replace(name="x", num_classes=10))
    assert compared.identity(nano) != compared.identity(nano.replace(ffn="mlp"))
    timm = TimmConfig("timm:resnet18")
    assert compared.identity(timm) == compared.identity(timm.replace(num_classes=10))
    assert compared.identity(timm) != compared.identity(TimmConfig("timm:resnet50"))


def test_merged_groups_keep_both_orders() -> None:
    assert compared._merged([["stem", "a", "head"], ["stem", "b", "head"]]) == ["stem", "b", "a", "head"]
    assert pd.Index(compared._merged([[], ["x", "y"]])).tolist() == ["x", "y"]
