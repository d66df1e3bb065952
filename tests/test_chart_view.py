"""Charts of the app as SVG files."""

import doctest
import xml.etree.ElementTree as ET

import pandas as pd
from test_points import MEASURED, of
from test_report import HOSTILE

from hrvit_lab.app import chart_view
from hrvit_lab.app.chart_view import WIDTH, svg
from hrvit_lab.app.points_chart import scatter_chart, scatter_data, scatter_titles
from hrvit_lab.charts import shorten
from hrvit_lab.study.points import collect

NAMESPACE = "{http://www.w3.org/2000/svg}"


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
