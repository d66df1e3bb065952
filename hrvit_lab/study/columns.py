"""Formatting of a study's table in the terminal, the report and the app: cells and comparison columns."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from hrvit_lab.metrics import METRICS, format_value, metric_label, si_scale
from hrvit_lab.study.results import records_of
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.tables import DISTURBED

Row = Mapping[str, Any]
Text = Callable[[Row], str]

FACTOR_FROM = 900
"""Changes from this many percent are shown as a factor."""

MARK = "!"
"""Mark behind the value of an unreliable measurement, as in the latency table."""

MARKED = f"{MARK} marks unreliable measurements, which are excluded from the Pareto front."

AGREES = "="
"""Mark of values that, rounded to the printed digits, equal the published value."""


class Column(NamedTuple):
    """A column that compares our values with the reference or with published values.

    Attributes:
        title: header where the column stands alone.
        head: header below the heading of its metric, or of the published values.
        doc: its meaning.
        metric: the metric whose values it compares; None for published values alone.
        joins: whether narrow tables may append its texts to the metric's own cells.
        texts: the text of each row.
        keys: the sort key of each row: a number, or a string for text columns.
    """

    title: str
    head: str
    doc: str
    metric: str | None
    joins: bool
    texts: list[str]
    keys: list[float | str]

    @property
    def prose(self) -> bool:
        """Whether the cells are text, which may wrap, and not numbers, which may not."""
        return any(isinstance(key, str) and key for key in self.keys)


class Candidate(NamedTuple):
    """A column that is shown if the table has values in column ``name``."""

    name: str
    title: str
    head: str
    doc: str
    text: Text
    metric: str | None = None
    joins: bool = False


def is_disturbed(row: Row, key: str) -> bool:
    """Whether the measurement of a value is unreliable."""
    return isinstance(row.get(f"{key}_{DISTURBED}"), str)


def cell(key: str, row: Row) -> str:
    """A metric's value with its spread: ``96.4 ± 0.3 %``, ``12.3 ms (11.9–13.0)``, ``12.3 ms ! (11.9–13.0)``."""
    metric, value = METRICS[key], row.get(key, math.nan)
    text = format_value(metric, value, row.get(f"{key}_std"))
    if is_disturbed(row, key):
        text += f" {MARK}"
    if f"{key}_p10" in row and not any(map(math.isnan, (value, row[f"{key}_p10"], row[f"{key}_p90"]))):
        low, high = (
            format_value(metric, row[f"{key}_{end}"]).removesuffix(f" {metric.unit}") for end in ("p10", "p90")
        )
        text += f" ({low}–{high})"
    return text


def comparisons(spec: Spec, frame: pd.DataFrame) -> list[Column]:
    """The columns that compare a study's rows with its reference variant and with published values.

    Args:
        frame: the study's table, see ``analysis.table``.
    """
    rows: list[Row] = [*records_of(frame)]
    return [
        Column(
            title=found.title,
            head=found.head,
            doc=found.doc,
            metric=found.metric,
            joins=found.joins,
            texts=[found.text(row) for row in rows],
            keys=["" if pd.isna(row[found.name]) else row[found.name] for row in rows],
        )
        for found in (*_changes(spec), *_published())
        if found.name in frame and frame[found.name].notna().any()
    ]


def _changes(spec: Spec) -> Iterator[Candidate]:
    """Differences to the reference variant, ours and the published ones."""
    if spec.compare_to is None:
        return
    for key in spec.metrics:
        metric, name = METRICS[key], f"{key}_change_percent"
        if metric.group == "cost":
            doc = f"Change against {spec.compare_to!r}."
            yield Candidate(name, f"Δ {metric.label}", "Δ", doc, _number(name, _percent), key, joins=True)
        elif metric.per_seed and metric.better == "higher":
            yield Candidate(
                f"{key}_delta",
                f"Δ {metric_label(key, spec.dataset)}",
                "Δ",
                f"Mean difference to {spec.compare_to!r} in points, paired by seed, with its 95 % interval.",
                _delta(key),
                key,
            )
    yield Candidate("cost_published", "Δ cost, published", "Δ cost", "As published.", _word("cost_published"))
    for label, name in (("ImageNet top-1", "imagenet_top1"), ("Cityscapes mIoU", "cityscapes_miou")):
        name = f"{name}_delta_published"
        doc = "Difference between fully trained networks, in points, as published; not comparable with a proxy."
        yield Candidate(name, f"Δ {label}, published", f"Δ {label}", doc, _word(name))


def _published() -> Iterator[Candidate]:
    """Published values, each with the difference of ours."""
    for key, label, unit, prefix, ours in (
        ("params", "parameters", 1e6, "M", ("params",)),
        ("macs", "FLOPs", 1e9, "G", ("macs", "macs_paper")),
    ):
        name = f"{key}_published"
        doc = "As published. FLOPs are multiply-accumulates, counted by the convention of each source."
        yield Candidate(name, f"{label}, published", label, doc, _number(name, partial(_in_units, unit, prefix)))
        for own in ours:
            doc = (
                f"Difference to the published value; {AGREES} if our value, rounded to the published digits, equals it."
            )
            title = f"{METRICS[own].label}, difference to published"
            yield Candidate(f"{own}_difference_percent", title, "difference", doc, _off_by(own), own, joins=True)
    doc = "Accuracy of the fully trained network on the named data set, as published; not comparable with a proxy."
    yield Candidate("accuracy_published", "accuracy, published", "accuracy", doc, _accuracy)


def _number(name: str, show: Callable[[float], str]) -> Text:
    return lambda row: "–" if pd.isna(row[name]) else show(row[name])


def _off_by(key: str) -> Text:
    number = _number(f"{key}_difference_percent", _percent)
    return lambda row: AGREES if str(row.get(f"{key}_agrees")) == "True" else number(row)


def _delta(key: str) -> Text:
    """``-0.8 [-2.1, +0.5]``: a mean difference and its interval."""

    def text(row: Row) -> str:
        mean, low, high = (row.get(f"{key}_delta{end}", math.nan) for end in ("", "_low", "_high"))
        if pd.isna(mean):
            return "–"
        return f"{mean:+z.1f}" + ("" if pd.isna(low) or pd.isna(high) else f" [{low:+z.1f}, {high:+z.1f}]")

    return text


def _word(name: str) -> Text:
    """The text in a column; it can wrap, but not between a number and its percent sign."""
    return lambda row: "–" if pd.isna(row[name]) else str(row[name]).replace(" %", "\N{NO-BREAK SPACE}%")


def _accuracy(row: Row) -> str:
    return "–" if pd.isna(row["accuracy_published"]) else f"{row['accuracy_published']:g} % {row['accuracy_metric']}"


def _in_units(unit: float, prefix: str, value: float) -> str:
    """All published digits in the source's unit; values of 1000 units or more have a larger prefix.

    >>> _in_units(1e9, "G", 0.6e9), _in_units(1e9, "G", 1027e9)
    ('0.6 G', '1.027 T')
    """
    scale, larger = (unit, prefix) if value < 1000 * unit else si_scale(value)
    return f"{value / scale:g} {larger}"


def _percent(value: float) -> str:
    """A change in percent; from ``FACTOR_FROM`` percent on, a factor.

    >>> _percent(-2.04), _percent(340), _percent(3256)
    ('-2.0 %', '+340 %', '×33.6')
    """
    if value >= FACTOR_FROM:
        factor = 1 + value / 100
        return f"×{factor:.1f}" if factor < 100 else f"×{factor:.0f}"
    return f"{value:+z.1f} %" if abs(value) < 100 else f"{value:+.0f} %"
