"""Charts on a page, each with a button that downloads it as SVG. (PNG is in the chart's own toolbar.)"""

import io
import re
from functools import partial
from typing import Any

import altair
import streamlit as st

WIDTH = 760
"""Width in pixels of downloaded charts; those on a page are as wide as their column."""


def draw_chart(chart: altair.TopLevelMixin, key: str, alt: str, **options: Any) -> Any:
    """Draw a chart over the full width, with a button for its SVG file.

    Args:
        key: unique on the page; the name of the file is made from it.
        alt: the chart in words.
        options: of ``st.altair_chart``.
    Returns:
        Selected points, if ``options`` asks for them.
    """
    # The text stands for the whole chart: by default, each layer would be an image without a text.
    drawn = chart.configure(aria=False, mark=altair.MarkConfig(aria=False))
    event = st.altair_chart(drawn, width="stretch", key=key, alt=alt, **options)
    st.download_button(
        "SVG", partial(svg, chart), file_name(key), "image/svg+xml", key=f"SVG of {key}", icon=":material/download:",
        type="tertiary", on_click="ignore", help="Download the chart as SVG, for papers",
    )  # fmt: skip
    return event


def svg(chart: altair.TopLevelMixin) -> str:
    """The chart as an SVG document on white; nothing is fetched from a network."""
    sized = chart.properties(width=WIDTH) if getattr(chart, "width", None) is altair.Undefined else chart
    text = io.StringIO()
    with altair.data_transformers.enable("default", max_rows=None):  # by default, Altair saves at most 5,000 rows
        sized.configure(background="white").save(text, format="svg")
    return text.getvalue()


def file_name(key: str) -> str:
    """
    >>> file_name("scatter of macs, latency_ms")
    'scatter-of-macs-latency_ms.svg'
    """
    return re.sub(r"\W+", "-", key).strip("-")[:80] + ".svg"
