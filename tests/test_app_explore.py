"""The pages Explore and Published as a user sees them, and their charts."""

import doctest
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from test_app import TIMEOUT_S, run
from test_chart_view import charts_of
from test_points import MEASURED, measurement, of, write_latency, write_run
from test_report import HOSTILE, write_study

from hrvit_lab.app import ablations, axes, folders, points_chart, subjects
from hrvit_lab.app.builder.state import from_query
from hrvit_lab.app.compared import MAX_MODELS, offered
from hrvit_lab.app.details import distinct_names
from hrvit_lab.app.navigate import OPENED
from hrvit_lab.app.parallel_chart import heights, parallel_chart
from hrvit_lab.app.point_groups import groups
from hrvit_lab.app.points_chart import (
    as_errors,
    scatter_chart,
    scatter_data,
    scatter_titles,
)
from hrvit_lab.charts import SERIES
from hrvit_lab.config import HRViTConfig, diff
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.network.baselines import TimmConfig
from hrvit_lab.published import published_ablations, published_results
from hrvit_lab.study.points import Points, collect
from hrvit_lab.study.quantities import Quantity

pytestmark = pytest.mark.usefixtures("main_module")


def draw_explore() -> None:
    from hrvit_lab.app.pages import explore

    explore.show()


def draw_published() -> None:
    from hrvit_lab.app.pages import published

    published.show()


def draw_compare() -> None:
    from hrvit_lab.app.pages import compare

    compare.show()


@pytest.fixture(scope="module")
def reference() -> Points:
    return collect(MEASURED)


def charts(app: AppTest) -> int:
    return len(charts_of(app))


def sources(app: AppTest) -> set[str]:
    return set(app.dataframe[0].value["source"])


def test_docstring_examples() -> None:
    assert doctest.testmod(axes).attempted > 0 and doctest.testmod(axes).failed == 0


# -- Explore ----------------------------------------------------------------------------------------------


def test_a_first_visit_shows_the_reference_studies(results: Path) -> None:
    app = run(draw_explore)
    assert charts(app) == 1
    assert len(app.dataframe[0].value) > 30 and "branch_sweep" in sources(app)
    assert not app.error and not app.warning


def test_parallel_coordinates_are_drawn_when_they_are_opened(results: Path, reference: Points) -> None:
    app = run(draw_explore)
    assert not [choice for choice in app.multiselect if choice.label == "Axes"]
    app.session_state["view"] = "Parallel coordinates"
    app.run()
    assert not app.exception and charts(app) == 1
    assert [len(choice.value) for choice in app.multiselect if choice.label == "Axes"] == [2]
    [chart] = charts_of(app)
    axes_of = [choice for choice in app.multiselect if choice.label == "Axes"]
    latency = next(option for option in axes_of[0].options if option.startswith("latency"))
    keys = {str(quantity): key for key, quantity in reference.quantities.items()}
    axes_of[0].set_value([keys[latency], *axes_of[0].value]).run()
    said = " ".join(charts_of(app)[0]["title"]["subtitle"])
    assert "1. cpu, batch 1, float32" in said and "thread" in said and "3. digits, 2 epochs" in said


def test_own_studies_and_trainings_are_points(results: Path) -> None:
    write_study(results / "mine")
    write_run(Path("runs") / "long")
    write_latency(results / "timed", measurement(), measurement("hrvit_micro", samples_ms=(1.0, 1.0, 1.0)))
    short = write_run(results / "train" / "quick")
    (short / "recipe.yaml").unlink()
    app = run(draw_explore)
    options = app.multiselect(key="sources").options
    assert options[0] == "mine" and {"training long", "short training quick", "latency timed"} <= set(options)
    assert not app.warning
    app.multiselect(key="sources").set_value(["latency timed"]).run()
    assert not app.exception and app.subheader[0].value == "All points (2)"
    app.multiselect(key="sources").set_value(["mine"]).run()
    assert not app.exception
    assert app.subheader[0].value == "All points (3)" and sources(app) == {"mine"} and charts(app) == 1
    app.multiselect(key="sources").set_value(["training long"]).run()
    assert not app.exception and app.subheader[0].value == "All points (1)"


def test_points_outside_the_limits_are_omitted(results: Path) -> None:
    app = run(draw_explore)
    everything = len(app.dataframe[0].value)
    app.text_input(key="limits").set_value("top1 > 96, params < many").run()
    assert app.error and "is not a limit" in app.error[0].value
    app.text_input(key="limits").set_value("top1 > 96, params < 0.4M").run()
    assert not app.error and 0 < len(app.dataframe[0].value) < everything
    app.text_input(key="limits").set_value("top1 > 99.99").run()
    assert "The filters leave no point with two values" in app.info[0].value


def test_every_pair_of_offered_axes_has_points(results: Path, reference: Points) -> None:
    app, keys = run(draw_explore), {str(quantity): key for key, quantity in reference.quantities.items()}
    for option in app.selectbox(key="y").options[:4]:
        app.selectbox(key="y").set_value(keys[option]).run()
        for other in app.selectbox(key="x").options[-1:]:
            app.selectbox(key="x").set_value(keys[other]).run()
            assert not app.exception and not app.info and charts(app) == 1 and len(app.dataframe[0].value)


def select_rows(app: AppTest, rows: list[int], table: int = 0) -> None:
    """As the keyboard does it: space on the boxes of these rows."""
    key = app.dataframe[table].key
    assert key is not None
    app.session_state[key] = {"selection": {"rows": rows}}
    app.run()
    assert not app.exception


def links(app: AppTest) -> dict[str, dict[str, list[str]]]:
    """The queries of the page's links by path and label."""
    return {
        f"{link.proto.page}: {link.proto.label}": parse_qs(link.proto.query_string) for link in app.get("page_link")
    }


def test_rows_that_are_selected_in_the_table_have_details(results: Path, reference: Points) -> None:
    app = run(draw_explore)
    assert not [heading for heading in app.subheader if heading.value == "Details"] and not links(app)
    app.multiselect(key="sources").set_value(["branch_sweep"]).run()
    select_rows(app, [0, 2])
    table = app.dataframe[0].value
    names = table["name"].iloc[[0, 2]].tolist()
    values, changes = app.dataframe[1].value, app.dataframe[2].value
    assert list(values) == ["quantity", *names, "conditions"] and list(changes) == ["field", *names]
    rows = reference.table[reference.table["source"] == "branch_sweep"].set_index("name")
    shown = values.set_index("quantity").loc["parameters"]
    assert [shown[name] for name in names] == [
        format_value(METRICS["params"], rows.loc[name, "params"]) for name in names
    ]
    configs = [HRViTConfig.from_dict(rows.loc[name, "config"]) for name in names]
    assert changes["field"].tolist() == [field for field in diff(*configs) if field != "name"]
    found = links(app)
    assert found["compare: Compare these"]["models"] == [
        f"{name} · {c.id}" for name, c in zip(names, configs, strict=True)
    ]
    opened = [from_query({key: value[0] for key, value in found[label].items()}) for label in found if "Build" in label]
    assert [HRViTConfig.from_dict(dict(draft.fields)).id for draft in opened] == [config.id for config in configs]


def test_compare_offers_what_explore_links_to(results: Path) -> None:
    app = run(draw_explore)
    app.multiselect(key="sources").set_value(["baselines"]).run()
    kinds = app.dataframe[0].value["kind"].tolist()
    select_rows(app, sorted([kinds.index("HRViT"), *(row for row, kind in enumerate(kinds) if kind == "baseline")]))
    [models] = [query["models"] for label, query in links(app).items() if label.startswith("compare")]
    networks = offered(app.session_state[OPENED])
    assert len(models) == MAX_MODELS and set(models) <= set(networks)
    assert {type(networks[model]) for model in models} == {HRViTConfig, TimmConfig}


def test_compare_opens_the_networks_of_the_link(results: Path) -> None:
    app = run(draw_explore)
    app.multiselect(key="sources").set_value(["branch_sweep"]).run()
    select_rows(app, [0, 2])
    page = AppTest.from_function(draw_compare, default_timeout=TIMEOUT_S)
    page.session_state[OPENED] = app.session_state[OPENED]
    models = links(app)["compare: Compare these"]["models"]
    page.query_params["models"] = models
    page.run()
    assert not page.exception and page.multiselect(key="models").value == models
    ids = {model.partition(" · ")[2] for model in models}
    assert ids == set(app.dataframe[0].value["config id"].iloc[[0, 2]])


def test_a_published_network_leads_to_build_compare_and_look_inside(results: Path) -> None:
    app = run(draw_explore)
    app.multiselect(key="sources").set_value(["HRViT release"]).run()
    select_rows(app, [app.dataframe[0].value["name"].tolist().index("hrvit_b1")])
    found = links(app)
    assert found == {
        "compare: Compare with mit\\_b1": {"models": ["hrvit_b1", "mit_b1"]},
        "look-inside: Look inside": {"network": ["hrvit_b1 (random weights)"]},
        "build: Open in Build": {"preset": ["hrvit_b1"]},
    }
    assert set(found["look-inside: Look inside"]["network"]) <= set(subjects.networks())


def test_a_training_leads_to_look_inside(results: Path) -> None:
    for name in ("short", "empty"):
        folder = write_run(Path("runs") / name)
        (folder / "recipe.yaml").write_text("title: Mine")
    (Path("runs") / "short" / "best.safetensors").touch()
    app = run(draw_explore)
    app.multiselect(key="sources").set_value(["training short", "training empty"]).run()
    select_rows(app, [0, 1])
    assert links(app)["look-inside: Look inside"] == {"network": ["training short"]}


def test_a_network_without_a_preset_says_why_nothing_opens_it(results: Path) -> None:
    app = run(draw_explore)
    app.multiselect(key="sources").set_value(["HRFormer release"]).run()
    select_rows(app, [0])
    assert not links(app) and any("no preset has its layout" in caption.value for caption in app.caption)


def test_a_selection_is_not_of_other_points_after_a_filter(results: Path) -> None:
    app = run(draw_explore)
    select_rows(app, [1])
    assert [heading.value for heading in app.subheader][-1] == "Details"
    app.multiselect(key="sources").set_value(["branch_sweep"]).run()
    assert [heading.value for heading in app.subheader][-1] != "Details"


def test_points_of_one_name_are_told_apart() -> None:
    rows = pd.DataFrame({"name": ["a", "a", "a", "b", "field"], "source": ["x", "x", "y", "x", "x"]})
    assert distinct_names(rows) == ["a (x) 1", "a (x) 2", "a (y)", "b", "field (network)"]


def test_hostile_names_are_text(results: Path) -> None:
    write_study(results / "hostile", title=HOSTILE)
    table = pd.read_csv(results / "hostile" / "table.csv")
    table["variant"] = [HOSTILE, "**b**", "$x$"]
    table.to_csv(results / "hostile" / "table.csv", index=False)
    fields = HRViTConfig.from_dict({"preset": "hrvit_nano", "num_classes": 10}).to_dict()
    (results / "hostile" / "configs.json").write_text(json.dumps(dict.fromkeys(table["variant"], fields)))
    (results / "broken").mkdir()
    (results / "broken" / "table.csv").write_bytes(b"\xff\xfe")
    (Path("runs") / "<b>").mkdir(parents=True)
    (Path("runs") / "<b>" / "result.json").write_text("[")
    app = run(draw_explore)
    assert len(app.warning) == 2 and charts(app) == 1
    assert all("<" not in warning.value.replace("\\<", "") for warning in app.warning)
    app.multiselect(key="sources").set_value(["hostile"]).run()
    select_rows(app, [0, 1, 2])
    said = [*links(app), *(caption.value for caption in app.caption)]
    assert len(links(app)) == 4 and all("<" not in text.replace("\\<", "") for text in said)
    assert all("**" not in text for text in said)


def test_a_published_row_leads_to_build_compare_and_look_inside(results: Path) -> None:
    app = run(draw_published)
    names = app.dataframe[0].value["network"].tolist()
    select_rows(app, [names.index("mit_b0 imagenet-1k")])
    found = links(app)
    assert found["build: Open in Build"]["preset"] == ["mit_b0"]
    assert found["compare: Compare with hrvit\\_b1"] == {"models": ["mit_b0", "hrvit_b1"]}
    assert found["look-inside: Look inside"] == {"network": ["mit_b0 (random weights)"]}
    select_rows(app, [names.index("hrformer_tiny imagenet-1k")])
    assert not links(app) and "no preset has its layout" in app.markdown[-1].value


# -- Published --------------------------------------------------------------------------------------------


def test_published_figures_are_shown_beside_ours(results: Path) -> None:
    app = run(draw_published)
    shown = app.dataframe[0].value.set_index("network")
    assert len(shown) == len(published_results())
    b1 = shown.loc["hrvit_b1 imagenet-1k"]
    assert (b1["parameters, published"], b1["parameters, ours"]) == ("19.7 M", "19.7 M")
    assert b1["MACs, the paper's count, difference to published"] == "="
    assert shown["remark"].str.len().gt(0).sum() >= 5
    assert charts(app) == 1


def test_printed_costs_at_several_sizes_are_separate_charts(results: Path) -> None:
    app = run(draw_published)
    assert any("MiT\\: no printed MACs are known" in caption.value for caption in app.caption)
    key = "miou [ade20k, published]"
    app.session_state["accuracy"] = key
    app.run()
    [cost] = [choice for choice in app.button_group if choice.key == f"cost of {key}"]
    assert not app.exception and charts(app) == 1
    assert cost.options == ["MACs at 512×512 px", "MACs at 512×2048 px", "parameters"]
    assert any("CSWin\\: its MACs are printed for 512×2048 px" in caption.value for caption in app.caption)


def test_printed_ablations_are_shown_beside_ours(results: Path) -> None:
    app = run(draw_published)
    assert app.subheader[-1].value == "Ablations: printed and ours"
    shown = app.dataframe[1].value.set_index("change")
    table = pd.read_csv(folders.REFERENCE / "paper_ablation" / "table.csv").set_index("variant")
    assert list(shown.index) == [row.change for row in published_ablations()] == list(table.index[1:])
    for row in published_ablations():
        own: dict[Any, Any] = shown.loc[row.change].to_dict()
        ours: dict[Any, Any] = table.loc[row.change].to_dict()
        assert own["Δ ImageNet top-1, published"] == row.imagenet_top1
        assert own["Δ Cityscapes mIoU, published"] == row.cityscapes_miou
        assert own["Δ parameters, ours"] == f"{ours['params_change_percent']:+z.1f} %"
        assert own["Δ top-1 on digits (proxy), ours"].startswith(f"{ours['top1_delta']:+z.1f} [")
    said = app.caption[-1].value.replace("\\", "")
    assert "fully trained on ImageNet and Cityscapes; ours are of hrvit_nano" in said
    assert "digits, 2 epochs of all images, 64×64 px" in said and "5 seeds" in said
    select_rows(app, [5], table=1)
    [models] = [query["models"] for label, query in links(app).items() if label.startswith("compare")]
    assert [model.partition(" · ")[0] for model in models] == ["as published", "sparse fusion"]
    fields = {key: value[0] for key, value in links(app)["build: Open in Build"].items()}
    assert from_query(fields).fields["fusion"] == "sparse"


def test_without_our_results_the_printed_ablations_are_shown(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "REFERENCE", results)
    app = run(draw_published)
    assert app.dataframe[1].value["Δ Cityscapes mIoU"].tolist() == [
        row.cityscapes_miou for row in published_ablations()
    ]
    assert "studies/measured" in app.caption[-1].value


# -- charts -----------------------------------------------------------------------------------------------


def test_points_of_a_chart_equal_the_table(reference: Points) -> None:
    x, y = of(reference, "macs", "64×64"), of(reference, "top1", "digits, 2")
    rows = reference.table[reference.table[[x.key, y.key]].notna().all(axis=1)]
    data = scatter_data(rows, x, y, "branches")
    # A network with two names in one study is one point.
    rows = rows[~rows.duplicated(["source", "config_id", x.key, y.key])]
    assert len(rows) < len(reference.table) and (data["name"].str.contains(" = ").sum() == 1)
    assert data["x"].tolist() == rows[x.key].tolist() and data["y"].tolist() == rows[y.key].tolist()
    assert data["row"].tolist() == rows.index.tolist()
    assert (data["y_low"] <= data["y"]).all() and (data["y_high"] > data["y"]).any()
    assert set(data["group"]) == set(rows["branches"])


def test_errors_are_100_minus_the_score(reference: Points) -> None:
    y = of(reference, "top1", "digits, 2")
    rows = reference.table[reference.table[y.key].notna()]
    errors, error = as_errors(rows, y)
    assert (errors[error.key] + rows[y.key]).tolist() == pytest.approx([100] * len(rows))
    spread = rows[f"{y.key} high"] - rows[f"{y.key} low"]
    assert (errors[f"{error.key} high"] - errors[f"{error.key} low"]).tolist() == pytest.approx(spread.tolist())
    assert error.better == "lower" and error.title == "top-1 error, %"


@pytest.mark.parametrize(("better", "expected"), [("higher", [0, 0.25, 1]), ("lower", [1, 0.75, 0])])
def test_better_values_are_higher_on_parallel_axes(better: Any, expected: list[float]) -> None:
    quantity = Quantity("top1", "top-1", "", "%", better)
    assert heights(pd.Series([10.0, 20.0, 50.0]), quantity).tolist() == expected
    assert heights(pd.Series([3.0, 3.0]), quantity).tolist() == [0.5, 0.5]


def test_rare_groups_share_a_colour() -> None:
    values = pd.Series([str(n) for n in range(40)] + ["0"] * 5 + [None])
    found = groups(values)
    assert found.nunique() <= len(SERIES) + 1 and (found[found.index < 1] == "0").all()
    assert groups(pd.Series(["a", None])).tolist() == ["a", "unknown"]


@pytest.mark.parametrize("number", [1, 2, 10_000])
def test_charts_of_any_number_of_points(number: int, reference: Points) -> None:
    """A chart of many points stays small enough for a browser, and names only points of the front."""
    x, y = of(reference, "macs", "64×64"), of(reference, "top1", "digits, 2")
    rows = reference.table[reference.table[[x.key, y.key]].notna().all(axis=1)]
    many = pd.concat([rows] * (number // len(rows) + 1), ignore_index=True)[:number]
    many[y.key] -= [place % 97 / 10 for place in range(number)]
    data = scatter_data(many, x, y, "attention")
    chart = scatter_chart(data, x, y, scatter_titles(x, y, "attention"), "attention")
    if number <= 2:  # Altair itself refuses more than 5,000 rows in a file; Streamlit sends them as a table
        assert json.dumps(chart.to_dict())
        assert json.dumps(parallel_chart(many, [x, y], "attention").to_dict())
    assert (data["place"] != "").sum() <= points_chart.MAX_NAMES
    assert data["front"].any()
