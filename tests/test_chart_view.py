"""Charts of the app: their titles, and their SVG and CSV files."""

import ast
import doctest
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from test_points import MEASURED, of
from test_report import HOSTILE

from hrvit_lab.app import chart_view
from hrvit_lab.app.chart_view import WIDTH, svg, titled
from hrvit_lab.app.compare_charts import ratio_chart
from hrvit_lab.app.curves_chart import curves_chart
from hrvit_lab.app.parallel_chart import parallel_chart
from hrvit_lab.app.point_groups import SHAPES
from hrvit_lab.app.points_chart import scatter_chart, scatter_conditions, scatter_data, scatter_titles, scatter_values
from hrvit_lab.charts import shorten
from hrvit_lab.study.points import collect
from hrvit_lab.study.quantities import Quantity

NAMESPACE = "{http://www.w3.org/2000/svg}"
TELEPHONE = 330
"""Width of a plot on a telephone in pixels."""

APP = Path(chart_view.__file__).parent

pytestmark = pytest.mark.usefixtures("main_module")


def charts_of(app: AppTest) -> list[dict[str, Any]]:
    """The charts that a page draws, as Vega-Lite. Each has title, conditions, and a button for SVG and for CSV."""
    drawn = [json.loads(chart.proto.spec) for chart in (*app.get("vega_lite_chart"), *app.get("arrow_vega_lite_chart"))]
    for chart in drawn:
        assert "".join(chart["title"]["text"]) and "".join(chart["title"]["subtitle"]), chart["title"]
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels.count("CSV") == labels.count("SVG") == len(drawn)
    return drawn


def widest(drawn: ET.Element, role: str) -> float:
    """Width of the longest line of a kind of text in pixels, with half the font size for a character."""
    groups = [group for group in drawn.iter(f"{NAMESPACE}g") if role in group.get("class", "").split()]
    texts = [text for group in groups for text in group.iter(f"{NAMESPACE}text")]
    assert texts
    spans = [(span, text) for text in texts for span in (list(text) or [text])]
    sizes = [float((text.get("font-size") or "").removesuffix("px")) for _, text in spans]
    return max(0.5 * size * len("".join(span.itertext())) for (span, _), size in zip(spans, sizes, strict=True))


def test_docstring_examples() -> None:
    assert doctest.testmod(chart_view).failed == 0


def test_a_chart_as_svg_has_all_points_and_titles_and_hostile_names_are_text() -> None:
    points = collect(MEASURED)
    x, y = of(points, "macs", "64×64"), of(points, "top1", "digits, 2")
    rows: pd.DataFrame = points.table[points.table[[x.key, y.key]].notna().all(axis=1)].head(7)
    rows = rows.assign(name=HOSTILE)
    data = scatter_data(rows, x, y, "source")
    drawn = ET.fromstring(svg(scatter_chart(data, x, y, scatter_titles(x, y, "source"), "source")))
    assert drawn.tag == f"{NAMESPACE}svg" and float(drawn.get("width", 0)) >= WIDTH
    texts = ["".join(text.itertext()) for text in drawn.iter(f"{NAMESPACE}text")]
    assert any(text.startswith(x.label) for text in texts) and any(text.startswith(y.label) for text in texts), texts
    assert not list(drawn.iter(f"{NAMESPACE}script")) and not list(drawn.iter(f"{NAMESPACE}img"))
    circles = [path for path in drawn.iter(f"{NAMESPACE}path") if path.get("aria-roledescription") == "point"]
    assert len(circles) >= 7


def test_on_a_telephone_only_the_front_is_named_and_no_tick_is_negative() -> None:
    """In pixels of the drawn chart: names of dominated points are transparent where the plot is narrow."""
    points = collect(MEASURED)
    x, y = of(points, "macs", "64×64"), of(points, "top1", "digits, 2")
    rows = points.table[points.table[[x.key, y.key]].notna().all(axis=1)].head(9)
    data = scatter_data(rows, x, y, "source")
    named = data[data["place"] != ""]
    assert 0 < named["front"].sum() < len(named)
    chart = scatter_chart(data, x, y, scatter_titles(x, y, "source"), "source")
    for width in (330, WIDTH):
        drawn = ET.fromstring(svg(chart.properties(width=width)))
        texts = [("".join(text.itertext()), text) for text in drawn.iter(f"{NAMESPACE}text")]
        assert not any(text.startswith(("-", "−")) for text, _ in texts)
        shown = {text for text, element in texts if float(element.get("opacity", 1)) > 0}
        front, others = (set(named.loc[named["front"] == on, "name"].map(shorten)) for on in (True, False))
        assert front <= shown
        assert bool(others & shown) == (width == WIDTH)


# -- titles, conditions and files ----------------------------------------------------------------------------


def test_only_one_function_draws_charts() -> None:
    """So that each chart has a title, its conditions and its files."""
    own = {"altair_chart", "vega_lite_chart", "line_chart", "bar_chart", "area_chart", "scatter_chart", "pyplot"}
    calls = [
        path.name
        for path in APP.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in own and getattr(node.value, "id", "") == "st"
    ]
    assert calls == ["chart_view.py"]


def draw_one() -> None:
    from test_chart_view import one_chart

    from hrvit_lab.app.chart_view import draw_chart

    chart, data = one_chart()
    draw_chart(chart, "one", title="MACs of networks", conditions="64×64 px\ncounted", data=data, alt="Points.")


def one_chart() -> tuple[Any, pd.DataFrame]:
    points = collect(MEASURED)
    x, y = of(points, "macs", "64×64"), of(points, "top1", "digits, 2")
    rows = points.table[points.table[[x.key, y.key]].notna().all(axis=1)].head(7)
    data = scatter_data(rows.assign(name=["=1+1", *rows["name"][1:]]), x, y, "source")
    return scatter_chart(data, x, y, scatter_titles(x, y, "source"), "source"), scatter_values(data, x, y, "source")


def test_a_drawn_chart_has_its_title_and_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, Callable[[], str]] = {}
    names: list[str] = []

    def keep(label: str, make: Callable[[], str], name: str, *_: Any, **__: Any) -> None:
        files[label] = make
        names.append(name)

    monkeypatch.setattr(chart_view.st, "download_button", keep)
    app = AppTest.from_function(draw_one, default_timeout=100).run()
    assert not app.exception and names == ["one.svg", "one.csv"]
    [chart] = app.get("vega_lite_chart") or app.get("arrow_vega_lite_chart")
    spec = json.loads(chart.proto.spec)
    assert (spec["title"]["text"], spec["title"]["subtitle"]) == (["MACs of networks"], ["64×64 px", "counted"])
    texts = ["".join(text.itertext()) for text in ET.fromstring(files["SVG"]()).iter(f"{NAMESPACE}text")]
    assert "MACs of networks" in texts and "counted" in "".join(texts)
    _, data = one_chart()
    table = pd.read_csv(io.StringIO(files["CSV"]()))
    assert list(table) == list(data) and table["name"][0] == "'=1+1"  # no formula for a spreadsheet
    numbers = table.select_dtypes("number")
    assert len(numbers.columns) == 6
    pd.testing.assert_frame_equal(numbers.astype(float), data[list(numbers)].astype(float))


def test_spreads_end_on_a_logarithmic_axis_but_not_in_the_file() -> None:
    x, y = (Quantity(key, key, "", "", "lower") for key in ("macs", "params"))
    ends: dict[str, list[Any]] = {f"{q.key}{end}": [] for q in (x, y) for end in (" low", " high", " disturbed")}
    table = pd.DataFrame(
        {
            "name": ["a", "b"],
            "source": "s",
            "kind": "HRViT",
            "family": "HRViT",
            "config_id": None,
            x.key: [1.0, 1000],
            y.key: [1.0, 2],
        }
        | {key: [None, None] for key in ends}
    ).assign(**{"macs low": [-5.0, 990], "macs high": [7.0, 1010]})
    data = scatter_data(table, x, y, "source")
    assert scatter_values(data, x, y, "source")["macs low"].tolist() == [-5.0, 990.0]
    spec = scatter_chart(data, x, y, {}, "source").to_dict()
    assert [row["x_low"] for rows in spec["datasets"].values() for row in rows] == [0.1, 990.0]


def test_title_and_conditions_fit_a_telephone() -> None:
    chart, _ = one_chart()
    long = "top-1 accuracy on the proxy of 1,797 digits against latency of a batch of images"
    drawn = ET.fromstring(
        svg(titled(chart, long, "cpu, batch 1, float32, one thread per core, " * 3).properties(width=TELEPHONE))
    )
    for role in ("role-title-text", "role-title-subtitle"):
        assert 200 < widest(drawn, role) <= 360, role
    assert float(drawn.get("width", 0)) < 420


def test_a_line_leads_from_a_point_to_a_name_far_from_it() -> None:
    """In pixels of the drawn chart: it begins at the point and ends at the name."""
    x, y = (Quantity(key, key, "", "", "lower") for key in ("macs", "params"))
    table = pd.DataFrame(
        {
            "name": [f"network {place}" for place in range(9)],
            "source": "s",
            "kind": "HRViT",
            "family": "HRViT",
            "config_id": None,
        }
        | {x.key: [*range(100, 108), 300], y.key: [*range(100, 108), 300]}
        | {f"{q.key}{end}": None for q in (x, y) for end in (" low", " high", " disturbed")}
    )
    data = scatter_data(table, x, y, "source")
    far = data[data["place"].str.startswith("far")]
    assert len(far) >= 2 and (data["place"] != "").all()
    chart = scatter_chart(data, x, y, {"name": "variant"}, "source").properties(width=640, height=370)
    drawn = ET.fromstring(svg(chart))
    lines = [line for line in drawn.iter(f"{NAMESPACE}line") if line.get("stroke-width") == "0.7"]
    assert len(lines) == len(far)
    start = {_moved(line) for line in lines}
    circles = {_moved(p) for p in drawn.iter(f"{NAMESPACE}path") if p.get("aria-roledescription") == "point"}
    assert start <= circles
    ends = [(_moved(line)[0] + float(line.get("x2", 0)), _moved(line)[1] + float(line.get("y2", 0))) for line in lines]
    texts = [_moved(text) for text in drawn.iter(f"{NAMESPACE}text") if "".join(text.itertext()) in set(far["name"])]
    assert all(min(abs(a - x) + abs(b - y) for a, b in texts) < 13 for x, y in ends)


def _moved(element: ET.Element) -> tuple[float, float]:
    x, y = re.findall(r"-?[\d.]+", element.get("transform", ""))[:2]
    return round(float(x), 2), round(float(y), 2)


# -- shapes, dashes and legends ------------------------------------------------------------------------------


def marks(drawn: ET.Element, role: str) -> list[ET.Element]:
    return [path for path in drawn.iter(f"{NAMESPACE}path") if path.get("aria-roledescription") == role]


def test_families_differ_in_shape_and_colour() -> None:
    """In the drawn chart of published networks, and in its one legend."""
    points = collect()
    y = of(points, "top1", "imagenet-1k, published")
    costs = [q for q in points.quantities.values() if q.metric == "macs"]
    x = max(costs, key=lambda q: int(points.table[[q.key, y.key]].notna().all(axis=1).sum()))
    rows = points.table[points.table[[x.key, y.key]].notna().all(axis=1)]
    families = set(rows["family"])
    assert len(families) >= 3
    for colored in ("family", "source"):
        data = scatter_data(rows, x, y, colored)
        drawn = ET.fromstring(svg(scatter_chart(data, x, y, scatter_titles(x, y, colored), colored)))
        looks = [(mark.get("d"), mark.get("stroke")) for mark in marks(drawn, "point")]
        assert len(looks) == len(rows) and len({shape for shape, _ in looks}) == len(families)
        if colored == "family":
            assert len(set(looks)) == len({color for _, color in looks}) == len(families)
            labels = ["".join(text.itertext()) for text in drawn.iter(f"{NAMESPACE}text")]
            assert all(labels.count(family) == 1 for family in families)


def test_published_points_among_others_have_a_ring() -> None:
    x, y = (Quantity(key, key, "", "", "lower") for key in ("macs", "params"))
    table = pd.DataFrame(
        {"name": ["a", "b"], "source": "s", "kind": ["HRViT", "published"], "family": "HRViT", "config_id": None}
        | {x.key: [1.0, 2.0], y.key: [2.0, 1.0]}
        | {f"{q.key}{end}": None for q in (x, y) for end in (" low", " high", " disturbed")}
    )
    for rows, rings in ((table, 1), (table[:1], 0), (table[1:], 0)):
        data = scatter_data(rows, x, y, "source")
        drawn = ET.fromstring(svg(scatter_chart(data, x, y, {}, "source")))
        assert len(marks(drawn, "point")) == len(rows) + rings
        assert ("Rings: published values." in scatter_conditions(data, x, y)) == bool(rings)


def test_lines_of_groups_differ_in_dash_and_colour() -> None:
    points = collect(MEASURED)
    x, y = of(points, "macs", "64×64"), of(points, "top1", "digits, 2")
    rows = points.table[points.table[[x.key, y.key]].notna().all(axis=1)]
    drawn = ET.fromstring(svg(parallel_chart(rows, [x, y], "source")))
    looks = {(line.get("stroke"), line.get("stroke-dasharray")) for line in marks(drawn, "line mark")}
    assert len(looks) == rows["source"].nunique() >= 5
    assert len({dash for _, dash in looks}) == len({color for color, _ in looks}) == len(looks)


def long_names(number: int) -> list[str]:
    return [f"a network with a name that has many words, number {place}" for place in range(number)]


def points_of_long_names() -> Any:
    x, y = (Quantity(key, key, "", "", "lower") for key in ("macs", "params"))
    table = pd.DataFrame(
        {"name": "a", "source": long_names(8), "kind": "HRViT", "family": [*SHAPES, *SHAPES][:8], "config_id": None}
        | {x.key: range(1, 9), y.key: range(8, 0, -1)}
        | {f"{q.key}{end}": None for q in (x, y) for end in (" low", " high", " disturbed")}
    )
    return scatter_chart(scatter_data(table, x, y, "source"), x, y, {}, "source")


def curves_of_long_names() -> Any:
    one = {"epoch": [1, 2], "value": [1.0, 2], "low": [1.0, 2], "high": [1.0, 2], "n": 1}
    return curves_chart(
        pd.concat([pd.DataFrame(one | {"variant": name}) for name in long_names(8)]), "epoch", "", "", "%"
    )


def ratios_of_long_names() -> Any:
    names = long_names(4)
    return ratio_chart(
        pd.DataFrame({"model": names, "cost": "MACs", "text": "1", "ratio": [1, 2, 3, 4]}), ["a", *names[1:]]
    )


@pytest.mark.parametrize("make", [points_of_long_names, curves_of_long_names, ratios_of_long_names])
def test_legends_of_long_names_fit_a_telephone(make: Callable[[], Any]) -> None:
    """Width of the drawn chart: that of the plot, or of a legend that is wider, which a page would cut."""
    for width, most in ((TELEPHONE, TELEPHONE + 95), (WIDTH, WIDTH + 95)):
        drawn = ET.fromstring(svg(make().properties(width=width)))
        assert float(drawn.get("width", 0)) < most
        labels = [
            text
            for group in drawn.iter(f"{NAMESPACE}g")
            if "role-legend-label" in group.get("class", "").split()
            for text in group.iter(f"{NAMESPACE}text")
            if "".join(text.itertext()).startswith("a network with a name")
        ]
        assert len(labels) >= 3


@pytest.mark.parametrize("make", [points_of_long_names, curves_of_long_names])
def test_the_plot_stays_high_above_a_legend_of_one_column(make: Callable[[], Any]) -> None:
    """As on a page, where title, plot, axes and legend together have the chart's height; a row has 30 pixels there."""
    assert make().height - 8 * 30 >= 300
