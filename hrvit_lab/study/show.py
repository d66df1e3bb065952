"""Tables of a study for a terminal; labels and units are those of ``METRICS``."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hrvit_lab.charts import counted
from hrvit_lab.metrics import METRICS, SCORES, format_value, metric_label
from hrvit_lab.study.axes import STARTS
from hrvit_lab.study.columns import AGREES, MARKED, Row, cell, comparisons
from hrvit_lab.study.results import front_first, records_of
from hrvit_lab.study.space import show_size
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.tables import DISTURBED, NOT_BUILT
from hrvit_lab.study.trials import Trial

if TYPE_CHECKING:
    from hrvit_lab.study.report.differences import Differences

NAMES = "variant"
"""Header of the column of names, which every block has."""

NAME_WIDTH = 28
"""Names up to this width are not wrapped to save a block."""

HEAD_LINES = 4
"""Maximum number of lines of a header before it widens its column."""

MAX_SHOWN = 200
"""Maximum number of rows in a terminal."""

MAX_DIFFERENCES = 10
"""Maximum number of comparisons in a terminal."""

GAP = 2
"""Spaces between two columns; the first column has one more to its left."""


class Shown(NamedTuple):
    """A column after the variants' names; cells with text (``prose``) may wrap, numbers do not."""

    title: str
    texts: Sequence[str]
    prose: bool = False

    @property
    def narrowest(self) -> int:
        """Minimum width: of every number, of the longest word, and of the header in ``HEAD_LINES`` lines."""
        solid = [word for text in self.texts for word in text.split(" ")] if self.prose else self.texts
        return self._with_head(max(map(cell_len, solid)), HEAD_LINES)

    @property
    def widest(self) -> int:
        """Useful maximum width."""
        return self._with_head(max(map(cell_len, self.texts)), HEAD_LINES // 2)

    def _with_head(self, width: int, lines: int) -> int:
        width = max(width, *map(cell_len, self.title.split(" ")))
        return next(wider for wider in itertools.count(width) if len(_wrapped(self.title, wider)) <= lines)

    def cells(self, width: int) -> list[str]:
        """The texts, wrapped to that width."""
        return ["\n".join(_wrapped(text, width)) for text in self.texts] if self.prose else list(self.texts)


def result_table(spec: Spec, frame: pd.DataFrame, terminal_width: int) -> Group:
    """The results, one row per variant: values with their spread, comparisons, a star on the Pareto front.

    Columns that do not fit into the width are continued below, in blocks that repeat the names. Nothing is truncated.
    """
    total = len(frame)
    frame = frame[front_first(frame, MAX_SHOWN)]
    rows: list[Row] = [*records_of(frame)]
    names = [f"{row['variant']} ★" if row["pareto"] else str(row["variant"]) for row in rows]
    failed = [row["status"] not in ("ok", NOT_BUILT) for row in rows]
    columns = _columns(spec, frame, rows)
    name_width, blocks = _layout(names, columns, terminal_width)
    tables = []
    for number, block in enumerate(blocks, 1):
        table = _table(f"{spec.title} ({number} of {len(blocks)})" if len(blocks) > 1 else spec.title)
        table.add_column(NAMES, width=name_width, overflow="fold")
        widths = _widths(block, terminal_width - name_width - GAP - 1)
        for column, width in zip(block, widths, strict=True):
            head = "\n".join(_wrapped(column.title, width))
            table.add_column(head, justify="left" if column.prose else "right", width=width, overflow="fold")
        cells = [column.cells(width) for column, width in zip(block, widths, strict=True)]
        for wrong, *texts in zip(failed, names, *cells, strict=True):
            table.add_row(*map(Text, texts), style="red" if wrong else "")
        tables.append(table)
    caption = _caption(spec, frame)
    if len(frame) < total:
        caption += f" Shown: {len(frame)} of {total:,} variants, including those on the front; table.csv has all."
    return Group(*tables, Text(caption, style="dim"))


def _layout(names: Sequence[str], columns: Sequence[Shown], terminal_width: int) -> tuple[int, list[list[Shown]]]:
    """The width of the names, and the columns of each block. Long names wrap if that saves a block."""
    widths = [column.narrowest + GAP for column in columns]
    longest = max(map(cell_len, (NAMES, *names)))
    longest_word = max(cell_len(word) for name in (NAMES, *names) for word in name.split())
    choices = []
    for wanted in (longest, max(longest_word, min(longest, NAME_WIDTH))):
        name_width = min(wanted, terminal_width // 2)
        choices.append((name_width, _blocks(widths, terminal_width - name_width - GAP - 1)))
    name_width, blocks = min(choices, key=lambda choice: len(choice[1]))
    return name_width, [[columns[index] for index in block] for block in blocks]


def _widths(columns: Sequence[Shown], room: int) -> list[int]:
    """The widths of a block's columns: the minimum, plus a share of the remaining space, text columns first."""
    widths = [column.narrowest for column in columns]
    spare = max(0, room - sum(widths) - GAP * len(widths))
    for index in sorted(range(len(columns)), key=lambda index: not columns[index].prose):
        more = min(spare, max(0, columns[index].widest - widths[index]))
        widths[index] += more
        spare -= more
    return widths


def _columns(spec: Spec, frame: pd.DataFrame, rows: Sequence[Row]) -> list[Shown]:
    """The columns after the names: metrics, with comparisons in their cells or in columns after them, then the rest."""
    compared = comparisons(spec, frame)
    joined = {column.metric: column.texts for column in compared if column.joins}
    columns = []
    if "macs_vs_base" in frame and "macs_change_percent" not in frame:
        columns.append(Shown("MACs vs base", [f"{row['macs_vs_base']:.0%}" for row in rows]))
    for key in spec.metrics:
        texts = [cell(key, row) for row in rows]
        if key in joined:
            pairs = zip(texts, joined[key], strict=True)
            texts = [f"{text} {other.removeprefix('–')}".rstrip() for text, other in pairs]
        columns.append(Shown(metric_label(key, spec.dataset), texts))
    columns += [
        Shown(column.title, column.texts, column.prose)
        for column in compared
        if not (column.joins and column.metric in spec.metrics)
    ]
    if not frame["status"].isin(["ok", NOT_BUILT]).all():
        columns.append(Shown("status", [str(row["status"]).partition(":")[0] for row in rows], prose=True))
    return columns


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Indices of columns, in order, in the smallest possible number of blocks of about equal width.

    >>> _blocks([4, 4, 4, 4, 4], 16), _blocks([4, 9, 4], 8)
    ([[0, 1, 2], [3, 4]], [[0], [1], [2]])
    """

    def packed(limit: int) -> list[list[int]]:
        blocks: list[list[int]] = [[]]
        for index, width in enumerate(widths):
            if blocks[-1] and sum(widths[other] for other in blocks[-1]) + width > limit:
                blocks.append([])
            blocks[-1].append(index)
        return blocks

    fewest = len(packed(room))
    return next(blocks for limit in itertools.count() if len(blocks := packed(limit)) <= fewest)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def plan_table(
    spec: Spec, planned: Mapping[str, Sequence[Trial]], costs: Mapping[str, tuple[float, float]], present: set[str]
) -> Table:
    """The plan: each variant's costs, its number of trials, and how many of them have finished."""
    table = _table(spec.title)
    table.add_column("variant", overflow="fold")
    for name in ("params", "macs"):
        table.add_column(METRICS[name].label, justify="right")
    table.add_column("trials", justify="right")
    table.add_column("already finished", justify="right")
    for name, trials in planned.items():
        params, macs = costs[name]
        here = sum(trial.key in present for trial in trials)
        figures = format_value(METRICS["params"], params), format_value(METRICS["macs"], macs)
        table.add_row(Text(name), *figures, str(len(trials)), str(here))
    table.caption = f"Costs at {show_size(spec.resolution)}. Identical networks are measured once."
    return table


def differences_table(found: "Differences") -> Table:
    """The largest effects of a study's changes; names wrap, numbers do not."""
    table = _table("What differs")
    table.add_column("change" if found.reference is None else "variant", overflow="fold")
    for head in found.head:
        table.add_column(head, justify="right", no_wrap=True)
    for row in found.rows[:MAX_DIFFERENCES]:
        table.add_row(*map(Text, row))
    against = "Changes on one axis" if found.reference is None else f"Differences to {found.reference!r}"
    more = " The report has more." if len(found.rows) > MAX_DIFFERENCES else ""
    table.caption = Text(f"{against}, paired by seed, with 95 % intervals; ratios of costs.{more}")
    return table


def costed(spec: Spec) -> str:
    """The network of the table's costs, if it is not the trained one (``cost_base``)."""
    return ", ".join(str(value) if key in STARTS else f"{key} {value}" for key, value in (spec.cost_base or {}).items())


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def _seeds(spec: Spec, frame: pd.DataFrame) -> str:
    """The number of seeds behind the table's values: of finished trials, not of planned ones."""
    key = next(key for key in spec.metrics if METRICS[key].per_seed)
    trained = frame[f"{key}_n"][frame[f"{key}_n"] > 0].astype(int)
    if trained.empty:
        return "no seed finished"
    return f"{'mean ± standard deviation over ' if trained.max() > 1 else ''}{counted(trained, 'seed')}"


def _caption(spec: Spec, frame: pd.DataFrame) -> str:
    groups = {METRICS[key].group for key in spec.metrics}
    sizes = ", ".join(dict.fromkeys(show_size(spec.resolution_of(str(name))) for name in frame["variant"]))
    parts = []
    if "cost" in groups:
        parts.append(f"Costs at {sizes}{f' of {costed(spec)}' if spec.cost_base else ''}.")
    if any(METRICS[key].per_seed for key in spec.metrics):
        epochs = f"{spec.train.epochs} epoch{'s' * (spec.train.epochs > 1)}"
        training = f"{epochs if spec.recipe is None else spec.recipe.length} on {spec.dataset}"
        score = SCORES["miou"] if spec.task == "segmentation" else "Accuracy"
        parts.append(f"{score} is a proxy: {training} at {show_size(spec.train_resolution)}, {_seeds(spec, frame)}.")
    if "latency" in groups:
        parts.append(
            f"Latency: {spec.device}, batch {spec.latency.batch_size}, {spec.latency.dtype}, {sizes}, "
            "median (10th to 90th percentile)."
        )
    if any(f"{key}_{DISTURBED}" in frame for key in spec.metrics):
        parts.append(MARKED)
    if frame["pareto"].any():
        x, y = (metric_label(key, spec.dataset) for key in spec.axes_of_tradeoff)
        parts.append(f"★: on the Pareto front of {x} and {y} (not dominated by another variant).")
    if spec.compare_to is not None:
        trained = any(METRICS[key].per_seed and METRICS[key].better == "higher" for key in spec.metrics)
        interval = "; accuracy in points, paired by seed, with its 95 % interval" if trained else ""
        parts.append(f"Δ: difference to {spec.compare_to!r}{interval}.")
    if any(str(name).endswith("_agrees") for name in frame):
        parts.append(f"{AGREES}: equal to the published value when rounded; otherwise, the difference is shown.")
    if (frame["status"] == NOT_BUILT).any():
        parts.append(f"Networks without our own values are {NOT_BUILT}.")
    return " ".join(parts)
