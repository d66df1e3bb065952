"""Charts on a page: each has a title, its conditions, and buttons for SVG and CSV. (PNG is in the chart's toolbar.)"""

import io
import re
from functools import partial
from typing import Any

import altair
import pandas as pd
import streamlit as st

from hrvit_lab.app.axes import LINE, wrapped
from hrvit_lab.study.tables import to_csv

WIDTH = 760
"""Width in pixels of downloaded charts; those on a page are as wide as their column."""

TITLE, CONDITIONS = (14, 46, 19), (11, LINE, 15)
"""Font size, characters of a line, and height of a line in pixels: a line fits the screen of a telephone."""

GAP = 12
"""Pixels between conditions and plot."""


def draw_chart(
    chart: altair.TopLevelMixin, key: str, *, title: str, conditions: str, data: pd.DataFrame, alt: str, **options: Any
) -> Any:
    """Draw a chart over the full width, with buttons for its SVG and CSV files.

    Args:
        chart: with a height.
        key: unique on the page; the names of the files are made from it.
        title: what is shown. Not Markdown.
        conditions: device, method, data set, spread and so on, in one line or several.
        data: the values, as the CSV file has them; names of columns include units.
        alt: the chart in words.
        options: of ``st.altair_chart``.
    Returns:
        Selected points, if ``options`` asks for them.
    """
    whole = titled(chart, title, conditions)
    drawn = whole.properties(height=whole.height + _head_height(title, conditions))
    # The text stands for the whole chart: by default, each layer would be an image without a text.
    drawn = drawn.configure(aria=False, mark=altair.MarkConfig(aria=False))
    event = st.altair_chart(drawn, width="stretch", key=key, alt=alt, **options)
    with st.container(horizontal=True):
        for label, make, mime, what in (
            ("SVG", partial(svg, whole), "image/svg+xml", "Download the chart as SVG, for papers"),
            ("CSV", partial(to_csv, data), "text/csv", "Download the values of the chart as CSV"),
        ):
            st.download_button(
                label, make, file_name(key, label.lower()), mime, key=f"{label} of {key}", icon=":material/download:",
                type="tertiary", on_click="ignore", help=what,
            )  # fmt: skip
    return event


def titled(chart: altair.TopLevelMixin, title: str, conditions: str) -> Any:
    """The chart with a title and, in smaller letters below it, its conditions."""
    assert title and conditions
    head = altair.TitleParams(
        wrapped(title, TITLE[1]), subtitle=wrapped(conditions, CONDITIONS[1]), anchor="start", frame="bounds",
        fontSize=TITLE[0], lineHeight=TITLE[2], subtitleFontSize=CONDITIONS[0], subtitleLineHeight=CONDITIONS[2],
        subtitleColor="gray", offset=GAP,
    )  # fmt: skip
    return chart.properties(title=head)


def _head_height(title: str, conditions: str) -> int:
    """Height of title and conditions in pixels: on a page, they are part of the chart's height."""
    parts = (title, TITLE), (conditions, CONDITIONS)
    return GAP + sum(len(wrapped(text, width)) * height for text, (_, width, height) in parts)


def svg(chart: altair.TopLevelMixin) -> str:
    """The chart as an SVG document on white; nothing is fetched from a network."""
    sized = chart.properties(width=WIDTH) if getattr(chart, "width", None) is altair.Undefined else chart
    text = io.StringIO()
    with altair.data_transformers.enable("default", max_rows=None):  # by default, Altair saves at most 5,000 rows
        sized.configure(background="white").save(text, format="svg")
    return text.getvalue()


def file_name(key: str, ending: str) -> str:
    """
    >>> file_name("scatter of macs, latency_ms", "svg")
    'scatter-of-macs-latency_ms.svg'
    """
    return re.sub(r"\W+", "-", key).strip("-")[:80] + f".{ending}"
