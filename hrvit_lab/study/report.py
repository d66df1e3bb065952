"""The report of a study: one HTML file that needs nothing else, made from what the study left in its folder.

Those files may come from anybody: they are bounded when read and escaped when written, and the page's own policy lets
no script run but ours.
"""

import base64
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hrvit_lab import plots
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.measure import METRICS, format_value
from hrvit_lab.measure.count import count
from hrvit_lab.rivals import NetworkConfig, network_from_dict
from hrvit_lab.study.columns import NOT_BUILT, Column, cell, comparisons, numeric_columns
from hrvit_lab.study.show import costed
from hrvit_lab.study.spec import EQUAL_MACS, Spec, load_study

MAX_FILE_BYTES = 64 * 2**20
MAX_ROWS = 10_000


@dataclass(frozen=True)
class Results:
    """What a study left in its folder.

    Attributes:
        name: the folder's, which is the study's.
        spec: the resolved study.
        table: one row a variant, see `study/analysis.py`.
        curves: one row a variant, seed and epoch; empty if nothing was trained.
        environment: under what conditions it ran.
        configs: the config of every variant, by name; those that can't be read are left out.
        dropped: variants that the study's constraints left out, and why.
    """

    name: str
    spec: Spec
    table: pd.DataFrame
    curves: pd.DataFrame
    environment: Mapping[str, Any]
    configs: Mapping[str, NetworkConfig]
    dropped: Mapping[str, str]

    @property
    def dataset(self) -> str:
        """The data set that accuracy is a proxy on."""
        return self.spec.data.name

    @property
    def metrics(self) -> list[str]:
        """Keys of `METRICS` that the table has values of, in the order of `METRICS`."""
        return [key for key in METRICS if key in self.table and self.table[key].notna().any()]

    @property
    def axes(self) -> list[str]:
        """Columns that tell the variants apart; where a variant has a name of its own, that says it."""
        named = self.spec.compare_to is not None or self.spec.variants
        several = [axis for axis in ("resolution", "matching") if axis in self.table and self.table[axis].nunique() > 1]
        return [axis for axis in (() if named else self.spec.axis_names) if axis in self.table] + several

    @property
    def comparable(self) -> bool:
        """Whether a row's costs can be set against its accuracy and other rows' costs: of one network, at one size."""
        return self.spec.cost_base is None and "resolution" not in self.table


def read_results(folder: Path) -> Results:
    """Read a study's folder.

    Raises:
        ConfigError: in one sentence, if `table.csv` or `study.yaml` is missing, broken or too large.
    """
    table = _read_csv(folder / "table.csv")
    if "variant" not in table:
        raise ConfigError(f"{folder.name}/table.csv has no column 'variant'; run the study again")
    for column in table.columns.intersection(numeric_columns()):
        table[column] = pd.to_numeric(table[column], errors="coerce")  # whatever the file says, a figure is a number
    table = whole_numbers(table, table.columns.difference(numeric_columns()))
    curves = folder / "curves.csv"
    return Results(
        name=folder.name,
        spec=load_study(folder / "study.yaml"),
        table=table,
        curves=_read_csv(curves) if curves.is_file() else pd.DataFrame(),
        environment=_read_json(folder / "environment.json"),
        configs=_read_configs(folder / "configs.json"),
        dropped={name: str(reason) for name, reason in _read_json(folder / "dropped.json").items()},
    )


def whole_numbers(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The table with 1000 for 1000.0 in columns whose whole numbers became fractions because some are missing."""
    became = [
        column
        for column in columns
        if pd.api.types.is_float_dtype(table[column])
        and table[column].isna().any()
        and (table[column].dropna() % 1 == 0).all()
    ]
    return table.astype(dict.fromkeys(became, "Int64"))


def write_report(study_dir: Path) -> Path:
    """Write `report.html` into a study's folder and return its path.

    Raises:
        ConfigError: if the folder holds no readable results.
    """
    path = study_dir / "report.html"
    path.write_text(render(read_results(study_dir)), encoding="utf-8")
    return path


def render(results: Results) -> str:
    """The report as HTML: no address outside the page, no script but the table's sorting."""
    template = resources.files("hrvit_lab.study").joinpath("report.html.j2").read_text(encoding="utf-8")
    columns = table_columns(results)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(template).render(
        results=results,
        summary=summary(results.table, results.dataset, results.spec.compare_to),
        rows=[_row(row) for row in _records(results.table)],
        headings=headings(columns),
        columns=columns,
        figures=[(name, inline_svg(plots.svg_markup(fig), name)) for name, fig in figures_of(results).items()],
        remarks=remarks(results),
        whole=bool(
            results.table.get("status", pd.Series("ok", index=results.table.index)).isin(["ok", NOT_BUILT]).all()
        ),
        protocol=protocol(results.spec),
        environment=_flat(results.environment),
        definitions=[(plots.metric_label(key, results.dataset), METRICS[key].doc) for key in results.metrics]
        + [(column.title, column.doc) for column in comparisons(results.spec, results.table)],
        command=str(results.environment.get("command") or f"python -m hrvit_lab.study {results.name}"),
        has_accuracy=any(METRICS[key].group == "accuracy" for key in results.metrics),
        table_note=_table_note(results),
        sort_script=Markup(SORT_SCRIPT),
        sort_script_hash=base64.b64encode(hashlib.sha256(SORT_SCRIPT.encode()).digest()).decode(),
        light_dark=[(name, color, DARK.get(name, color)) for name, color in plots.COLORS.items()],
    )


# The plots' colours on a dark page; those that are not named stay as they are.
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


def summary(table: pd.DataFrame, dataset: str, compare_to: str | None = None) -> list[str]:
    """What the table says, in sentences that claim no more than its spreads allow."""
    if compare_to is not None and "top1_delta" in table and table["top1_delta_se"].notna().any():
        return _delta_summary(table[table["top1_delta_se"].notna()], dataset, compare_to)
    networks = table.drop_duplicates("config_id") if "config_id" in table else table  # one network may stand twice
    trained = [row for row in _records(networks) if not pd.isna(row.get("top1"))]
    if not trained:
        return _agreement(table) or _cost_summary(table)
    ranked = sorted(trained, key=lambda row: -row["top1"])
    best, label = ranked[0], f"top-1 on {dataset} (a proxy)"
    if len(ranked) == 1:
        return [f"Only {best['variant']} was trained: {_text(best, 'top1')} {label}; there is nothing to compare."]
    said = [f"Highest mean {label}: {best['variant']}, {_text(best, 'top1')}."]
    stds = [row.get("top1_std", math.nan) for row in ranked]
    if any(math.isnan(std) for std in stds):
        return [*said, "For some variants one seed is all there is: no spread is known and the order is not settled."]
    tied = [row for row, std in zip(ranked, stds, strict=True) if row["top1"] + std >= best["top1"] - stds[0]]
    if len(tied) == 1:
        gap = format_value(METRICS["top1"], best["top1"] - ranked[1]["top1"]).removesuffix(" %")
        return [
            *said,
            "No other variant's spread (mean ± 1 std over seeds) reaches it; the next, "
            f"{ranked[1]['variant']}, is {gap} points lower. So few seeds indicate an order, they don't prove it.",
        ]
    overlapping = "of 1 other network overlaps" if len(tied) == 2 else f"of {len(tied) - 1} other networks overlaps"
    said.append(
        f"The spread (mean ± 1 std over seeds) {overlapping} with its own, so the order among these {len(tied)} is "
        "not settled."
    )
    cheapest = min(tied, key=lambda row: row.get("macs", math.inf))
    if cheapest.get("macs"):
        said.append(
            f"It is also the cheapest of them, at {_text(best, 'macs')} MACs."
            if cheapest is best
            else f"The cheapest of them is {cheapest['variant']}: {_text(cheapest, 'top1')} at "
            f"{_text(cheapest, 'macs')} MACs, {cheapest['macs'] / best['macs']:.2f} of what {best['variant']} takes."
        )
    return said


def remarks(results: Results) -> list[tuple[str, str]]:
    """(variant, what about it) of everything that is missing, failed or not as asked."""
    said = []
    for row in _records(results.table):
        status = str(row.get("status", "ok"))
        note = row["note"] if isinstance(row.get("note"), str) else ""
        if status != "ok" and not (status == NOT_BUILT and note):
            said.append((str(row["variant"]), "not finished; run the study again" if status == "partial" else status))
        if note:
            said.append((str(row["variant"]), note))
    return said + [(name, f"not measured: {reason}") for name, reason in results.dropped.items()]


def figures_of(results: Results) -> dict[str, plots.Figure]:
    """The study's figures by name; nothing is drawn against costs that can't be compared, or that were made equal."""
    table, spec = results.table, results.spec
    if not results.comparable:
        table = table.drop(columns=[key for key, metric in METRICS.items() if metric.group == "cost"], errors="ignore")
    if spec.match == (EQUAL_MACS,):
        table = table.drop(columns="macs", errors="ignore")  # what is left of their differences is chance
    axes = spec.axis_names if spec.compare_to is None else ()  # each is at its own value in one row alone
    figures = plots.study_figures(table, results.curves, axes, costs_by_part(results), results.dataset, spec.tradeoff)
    if spec.compare_to is not None and "top1_delta" in table and table["top1_delta"].notna().any():
        figures = {"top1_deltas": plots.deltas(table, "top1", spec.compare_to, results.dataset)} | figures
    return figures


def costs_by_part(results: Results) -> pd.DataFrame:
    """MACs, variants × parts, in closed form; in one piece for networks that are not ours, none where costs are of
    another network than the config's."""
    if results.spec.cost_base is not None:
        return pd.DataFrame()
    parts = {}
    for row in _records(results.table):
        config = results.configs.get(row["variant"])
        if isinstance(config, HRViTConfig):
            counts = count(config, results.spec.resolution_of(row["variant"]))
            parts[row["variant"]] = counts.table("part").set_index("part")["macs"].to_dict()
        elif config is not None and not pd.isna(row.get("macs")):
            parts[row["variant"]] = {"another network": row["macs"]}
    return pd.DataFrame.from_dict(parts, orient="index")


def protocol(spec: Spec) -> list[tuple[str, str]]:
    """How it was measured: (what, how)."""
    groups = {METRICS[key].group for key in spec.metrics}
    matched = " and ".join("at equal MACs" if matching == EQUAL_MACS else matching for matching in spec.match)
    said = [("Networks", f"{spec.num_points}, {matched}, from {_options(spec.base)}")]
    own = sorted({spec.resolution_of(entry.name) for entry in spec.variants or ()} - {spec.resolution})
    sizes = [f"{height} × {width}" for height, width in (spec.resolution, *own)]
    said.append(("Costs and clocks at", f"{' and '.join(sizes)} pixels on {spec.device}"))
    if spec.cost_base is not None:
        said.append(("Costs are of", f"{costed(spec)}, with the same changes; accuracy is of the network above"))
    if spec.compare_to is not None:
        said.append(("Compared with", spec.compare_to))
    if "accuracy" in groups:
        trained = "×".join(map(str, spec.data.resolution))
        said += [
            ("Data set", f"{spec.data.name} at {trained} pixels"),
            ("Seeds", ", ".join(map(str, spec.seeds))),
            ("Training budget", _options(spec.train.model_dump(exclude_none=True))),
        ]
    if groups & {"latency", "memory"}:
        said.append(("Clocks", _options(spec.latency.model_dump(exclude_none=True))))
    if spec.constraints:
        bounds = {key: f"{bound.min:g} to {bound.max:g}" for key, bound in spec.constraints.items()}
        said.append(("Constraints", _options(bounds)))
    return said


def inline_svg(document: str, name: str) -> Markup:
    """An SVG document as part of an HTML page: its ids prefixed with `name`, its colours the page's variables."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    prefix = re.sub(r"\W", "-", name)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", svg)
    for color_name, color in plots.COLORS.items():
        svg = re.sub(rf"(?<=[:\s]){color}(?=[;\"])", f"var(--{color_name})", svg, flags=re.IGNORECASE)
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{prefix}">',
        svg,
        count=1,
    )
    return Markup(svg)


class TableColumn(NamedTuple):
    """A column of the report's table, beside the variants' names.

    Attributes:
        group: the heading that it shares with others; None where its head stands alone.
        head: its own head.
        doc: its meaning.
        style: CSS class of its cells.
        cells: (text, sort key) of every row.
    """

    group: str | None
    head: str
    doc: str
    style: str
    cells: list[tuple[Any, Any]]


def table_columns(results: Results) -> list[TableColumn]:
    """What tells the variants apart, every metric with its comparisons, then what is published."""
    rows = _records(results.table)
    compared = comparisons(results.spec, results.table)
    columns = [
        TableColumn(None, axis.replace("_", " "), "", "", [(value, value) for value in _column(rows, axis)])
        for axis in results.axes
    ]
    if "macs_vs_base" in results.table and "macs_change_percent" not in results.table:
        ratios = [(f"{row['macs_vs_base']:.2f}", row["macs_vs_base"]) for row in rows]
        columns.append(TableColumn(None, "MACs, × base", "", "number", ratios))
    for key in results.metrics:
        label, doc = plots.metric_label(key, results.dataset), METRICS[key].doc
        figures = [(cell(key, row), value) for row, value in zip(rows, _column(rows, key), strict=True)]
        others = [_compared(label, column) for column in compared if column.metric == key]
        columns += [
            TableColumn(label if others else None, "here" if others else label, doc, "number", figures),
            *others,
        ]
    return columns + [_compared("published", column) for column in compared if column.metric is None]


def headings(columns: Sequence[TableColumn]) -> list[tuple[str | None, list[tuple[int, TableColumn]]]]:
    """Columns by their shared headings, each with its place in the table (the names have place 0)."""
    places = enumerate(columns, 1)
    return [(group, list(members)) for group, members in itertools.groupby(places, key=lambda place: place[1].group)]


def _compared(group: str, column: Column) -> TableColumn:
    cells = list(zip(column.texts, column.keys, strict=True))
    return TableColumn(group, column.head, column.doc, "prose" if column.prose else "number", cells)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """A column's values; an empty text where one is missing."""
    return ["" if pd.isna(row[name]) else row[name] for row in rows]


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the template says of a variant beside its figures."""
    return {
        "variant": row["variant"],
        "pareto": row.get("pareto") is True,
        "status": str(row.get("status", "ok")),
        "config_id": row.get("config_id", ""),
    }


def _table_note(results: Results) -> str:
    """How to read the table's numbers."""
    said = ["Press a column's head to sort."]
    if any(f"{key}_std" in results.table and results.table[f"{key}_std"].notna().any() for key in results.metrics):
        said.append("± is one standard deviation over seeds.")
    if results.spec.compare_to is not None and any(f"{key}_delta_se" in results.table for key in results.metrics):
        said.append(
            f"Δ is against {results.spec.compare_to!r}, seed by seed; there ± is the standard error of the mean."
        )
    if any(f"{key}_p10" in results.table for key in results.metrics):
        said.append("Latency is a median, with its 10th to 90th percentile.")
    if "pareto" in results.table and results.table["pareto"].any():
        x, y = results.spec.axes_of_tradeoff
        said.append(f"● marks the Pareto front of {METRICS[x].label} and {METRICS[y].label}, by their central values.")
    return " ".join(said)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def _text(row: Mapping[str, Any], key: str) -> str:
    return format_value(METRICS[key], row[key], row.get(f"{key}_std"))


def _cost_summary(table: pd.DataFrame) -> list[str]:
    """Nothing was trained: how far the costs reach."""
    said = []
    for key in ("macs", "params", "latency_ms"):
        known = [row for row in _records(table) if not pd.isna(row.get(key))]
        if known:
            low, high = (pick(known, key=lambda row: row[key]) for pick in (min, max))
            label = METRICS[key].label
            said.append(
                f"{label[:1].upper()}{label[1:]}: from {_text(low, key)} ({low['variant']}) to {_text(high, key)} "
                f"({high['variant']})."
            )
    return (
        [*said, "Nothing was trained, so this says nothing about accuracy."] if said else ["No values were measured."]
    )


def _delta_summary(table: pd.DataFrame, dataset: str, reference: str) -> list[str]:
    """Which paired differences are more than noise. Rows have a standard error, so two seeds at least."""
    rows = _records(table)
    widths = plots.half_width_95(table, "top1")
    clear = [row for row, width in zip(rows, widths, strict=True) if abs(row["top1_delta"]) > width]
    named = ", ".join(f"{row['variant']} ({row['top1_delta']:+.1f} points)" for row in clear)
    said = [
        f"Against {reference!r}, each seed against itself, {len(clear)} of {len(rows)} changes "
        f"{'moves' if len(clear) == 1 else 'move'} top-1 on {dataset} (a proxy) by more than the 95 % interval of the "
        f"mean{': ' + named if clear else ''}."
    ]
    if len(clear) < len(rows):
        said.append(f"{'The others' if clear else 'They'} can't be told from noise at this budget.")
    chance = 1 - 0.95 ** len(rows)
    return [
        *said,
        f"Had none of the {len(rows)} an effect, at least one would seem to in {100 * chance:.0f} % of such studies.",
    ]


def _agreement(table: pd.DataFrame) -> list[str]:
    """How many published figures ours meet to the printed digit, MACs in the convention of each row's source."""
    compared = {"parameters": ["params"] * len(table)}
    if "macs_convention" in table:
        compared["FLOPs, each in its source's convention"] = list(table["macs_convention"])
    said = []
    for figures, keys in compared.items():
        rows = [
            (str(row[f"{key}_agrees"]) == "True", abs(row[f"{key}_difference_percent"]))
            for (_, row), key in zip(table.iterrows(), keys, strict=True)
            if isinstance(key, str) and pd.notna(row.get(f"{key}_difference_percent"))
        ]
        if rows:
            said.append(
                f"Published {figures}: ours meet {sum(met for met, _ in rows)} of {len(rows)} to the printed digit; "
                f"the farthest is {max(off for _, off in rows):.1f} % off."
            )
    return said


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"
        for key, value in options.items()
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as (dotted key, text)."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{key} ")
        elif value not in (None, [], ""):
            lines.append((f"{prefix}{key}".replace("_", " "), str(value)))
    return lines


def _read_csv(path: Path) -> pd.DataFrame:
    _check_size(path)
    try:
        return pd.read_csv(path, nrows=MAX_ROWS if path.name == "table.csv" else None)
    except (ValueError, pd.errors.ParserError) as error:
        raise ConfigError(f"{_show(path)} is no table ({str(error).splitlines()[0]}); run the study again") from None


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an absent file is an empty one."""
    if not path.is_file():
        return {}
    _check_size(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ConfigError(f"{_show(path)} is no JSON; run the study again") from None
    return value if isinstance(value, dict) else {}


def _read_configs(path: Path) -> dict[str, NetworkConfig]:
    configs = {}
    for name, fields in _read_json(path).items():
        try:
            configs[name] = network_from_dict(fields)
        except ConfigError:
            continue
    return configs


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"there is no {_show(path)}; run the study first")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"{_show(path)} is larger than {MAX_FILE_BYTES // 2**20} MiB, too large for a study")


def _show(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


# Sorts a table by the column whose head is pressed; empty cells stay last.
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
