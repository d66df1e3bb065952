"""The HTML page of a report.

Names and notes are untrusted: they are escaped, and the page's content security policy allows only its own script.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hrvit_lab import plots
from hrvit_lab.metrics import METRICS, metric_label
from hrvit_lab.study.columns import comparisons
from hrvit_lab.study.report.differences import differences
from hrvit_lab.study.report.families import families_sentences
from hrvit_lab.study.report.summary import protocol, remarks, summary, unfinished
from hrvit_lab.study.report.table import headings, row_head, table_columns, table_note
from hrvit_lab.study.results import STUDY_FILE, Results, front_first, records_of
from hrvit_lab.study.tables import NOT_BUILT

MAX_ENVIRONMENTS = 20

MAX_ROWS = 1_000
"""Maximum number of rows in the page's table."""


def render(results: Results, drawings: Mapping[str, str]) -> str:
    """The report as HTML, without external resources; its only script sorts the table.

    Args:
        drawings: the figures as SVG documents, by name.
    """
    template = resources.files("hrvit_lab.study.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    listed = replace(results, table=results.table[front_first(results.table, MAX_ROWS)])
    compared = comparisons(listed.spec, listed.table)
    columns = table_columns(listed, compared)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(template).render(
        results=results,
        summary=[
            *filter(None, [unfinished(results.table)]),
            *summary(results.table, results.dataset, results.spec.compare_to),
        ],
        rows=[row_head(row) for row in records_of(listed.table)],
        headings=headings(columns),
        columns=columns,
        differences=differences(results),
        families=families_sentences(results),
        figures=[(name, inline_svg(svg, name)) for name, svg in drawings.items()],
        remarks=remarks(results),
        whole=bool(results.table["status"].isin(["ok", NOT_BUILT]).all()),
        protocol=protocol(results.spec),
        environments=environments(results),
        definitions=[(metric_label(key, results.dataset), METRICS[key].doc) for key in results.metrics]
        + [(column.title, column.doc) for column in compared],
        command=str(results.environment.get("command") or f"python -m hrvit_lab.study {results.name}"),
        has_accuracy=any(METRICS[key].per_seed for key in results.metrics),
        table_note=table_note(listed, len(results.table)),
        sort_script=Markup(SORT_SCRIPT),
        sort_script_hash=base64.b64encode(hashlib.sha256(SORT_SCRIPT.encode()).digest()).decode(),
        light_dark=[(name, color, DARK.get(name, color)) for name, color in plots.COLORS.items()],
    )


def environments(results: Results) -> list[tuple[str, list[tuple[str, str]]]]:
    """All environments in which values of the table were measured, each as (groups measured there, lines of text)."""
    said = []
    for there in results.measured_in[:MAX_ENVIRONMENTS]:
        trials = there.get("trials")
        numbers = trials.items() if isinstance(trials, Mapping) else ()
        head = ", ".join(f"{number} × {group}" for group, number in numbers)
        said.append((head, _flat({name: value for name, value in there.items() if name != "trials"})))
    if more := len(results.measured_in) - MAX_ENVIRONMENTS:
        said += [(f"and {more} more; see measured_in.json", [])] if more > 0 else []
    run = {name: value for name, value in results.environment.items() if name != STUDY_FILE}
    if not said and (own := _flat(run)):
        said.append(("The run that wrote these results", own))
    return said


# Colours of the plots on a dark page; colours that are not listed stay the same.
DARK = {
    "ink": "#e8ebf0",
    "muted": "#98a2b3",
    "grid": "#2a313c",
    "paper": "#161a20",
    "series-1": "#4aa8e8",
    "series-2": "#f0803c",
    "series-3": "#2fbf94",
    "series-7": "#b09c7d",
}


def inline_svg(document: str, name: str) -> Markup:
    """Prepare an SVG document for an HTML page: prefix its ids with `name`, use the page's variables as colours."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    prefix = re.sub(r"\W", "-", name)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", svg)
    names = {color.lower(): name for name, color in plots.COLORS.items()}
    svg = re.sub(
        r'(?<=[:\s])#[0-9a-fA-F]{6}(?=[;"])',
        lambda found: f"var(--{names[found[0].lower()]})" if found[0].lower() in names else found[0],
        svg,
    )
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{prefix}">',
        svg,
        count=1,
    )
    return Markup(svg)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as (dotted key, text)."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{key} ")
        elif value not in (None, [], ""):
            lines.append((f"{prefix}{key}".replace("_", " "), str(value)))
    return lines


# Sorts a table by the column whose header is clicked; empty cells stay last.
SORT_SCRIPT = """
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.querySelector("button").addEventListener("click", () => {
    const table = head.closest("table"), body = table.tBodies[0];
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const key = row => row.cells[head.dataset.sort].dataset.value;
    const compare = (a, b) => a === "" ? 1 : b === "" ? -1
      : (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, {numeric: true}) : a - b) * (ascending ? 1 : -1);
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  });
}
"""
