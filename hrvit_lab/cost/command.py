"""The tables of ``hrvit-lab cost``: costs in closed form and, with ``--audit``, the results of other counters."""

import argparse
import csv
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table

from hrvit_lab import cli
from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, HRViTConfig, read_config
from hrvit_lab.config.settings import parse_settings
from hrvit_lab.cost.count import NUMBERS, Counts, count
from hrvit_lab.cost.memory import peak_memory_bytes
from hrvit_lab.cost.tools import Prediction, predictions
from hrvit_lab.study.axes import apply, check_axis

if TYPE_CHECKING:
    import pandas as pd

HEADS = {
    "params": "parameters", "weight_bytes": "weights\nMiB", "macs": "MACs", "macs_padding": "padding\nMACs",
    "activations": "activations", "moved_bytes": "moved\nMiB",
}  # fmt: skip
"""Heads of the columns. They are short; the sentences below the table define them."""
MAX_WIDTH = 100
"""Maximum width of the sentences, in columns."""


def show(options: argparse.Namespace) -> None:
    """Print the tables that the command line requests."""
    config = changed(named(options.model), options.set)
    counts = count(config, options.resolution)
    console, audited = cli.console(), None
    if options.audit:
        # Loading: an exception of Ctrl-C in a callback of torch's can abort the process.
        with cli.working(console) as begins, cli.loading():
            from hrvit_lab.cost.audit import audit  # imported here: costs alone do not need torch
            from hrvit_lab.network.build import build

            begins("building the network and counting with other tools")
            audited = audit(build(config), options.resolution, reference_macs=counts.macs)
    if options.csv:
        if audited is not None:
            print(audited.to_csv(index=False), end="")
            return
        writer = csv.DictWriter(sys.stdout, [options.by, *NUMBERS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(counts.sums(options.by, options.dtype))
        return
    width = min(console.width, MAX_WIDTH)
    console.print(cost_table(config, counts, options.by, options.dtype), crop=False)
    console.print(cli.wrapped(explained(config, counts, options.batch_size, options.dtype), width), style="dim")
    if audited is not None:
        console.print()
        predicted = predictions(row.cost for row in counts.rows)
        console.print(tool_table(counts, predicted, audited), crop=False)
        for sentence in tool_sentences(counts, predicted, audited):
            console.print(cli.wrapped(sentence, width), style="dim")


def named(model: str) -> HRViTConfig:
    """The config of a preset or a YAML file. A config in a file without ``name`` is named after the file."""
    config = read_config(model)
    unnamed = not config.name or config.name in PRESETS | SEGMENTERS
    return config.replace(name=cli.printable(Path(model).name)[:100]) if unnamed and model != config.name else config


def changed(config: HRViTConfig, texts: Sequence[str]) -> HRViTConfig:
    """The config changed by settings of fields (``FIELD=VALUE``) or study axes (``branches=3``); its name lists them.

    Raises:
        ConfigError: if a setting is invalid for every network, or for this one.
    """
    settings = dict(setting for text in texts for setting in parse_settings(text))
    try:
        for name, value in settings.items():
            check_axis(name, value)
        network = apply(config, settings)
    except ConfigError as error:
        raise ConfigError(f"--set: {error}") from None
    assert isinstance(network, HRViTConfig)
    return network.replace(name=", ".join((config.name or config.id, *texts))[:100]) if texts else network


def cost_table(config: HRViTConfig, counts: Counts, by: str, dtype: str) -> Table:
    """Costs of one image by part, operator, stage or branch, and their sums. Padding has a column if it is not 0."""
    rows = counts.sums(by, dtype)
    shown = [name for name in HEADS if name != "macs_padding" or counts.macs_padding]
    total = {by: "total", **{name: sum(row[name] for row in rows) for name in shown}}
    table = cli.table(f"{config.name or config.id} at {cli.show_size(counts.resolution)}, one image, {dtype}")
    cells = [[str(row[by]), *(_cell(name, row[name]) for name in shown)] for row in (*rows, total)]
    _add_columns(table, [by, *(HEADS[name] for name in shown)], cells)
    for row in cells[:-1]:
        table.add_row(*row)
    table.add_section()
    table.add_row(*cells[-1], style="bold")
    return table


def explained(config: HRViTConfig, counts: Counts, batch_size: int, dtype: str) -> str:
    """Definitions of the columns, and the memory of a batch."""
    peak = peak_memory_bytes(config, counts.resolution, batch_size=batch_size, dtype=dtype)
    padding = (
        "Padding: the MACs that windows padded to full size would add."
        if counts.macs_padding
        else "No window needs padding."
    )
    return (
        f"MACs: multiply-accumulates, exact; FLOPs are twice that. {padding} MACs by the paper's convention: "
        f"{cli.si(counts.macs_paper)}. Moved: feature maps and weights that convolutions, linears and fused attention "
        f"read and write, each once per operator. Batch of {batch_size}: "
        f"{cli.mib(counts.moved_bytes(batch_size, dtype))} moved, peak memory of inference {cli.mib(peak)}."
    )


def tool_table(counts: Counts, predicted: Sequence[Prediction], audited: "pd.DataFrame") -> Table:
    """The MACs of each counter: predicted by its rules, and measured."""
    table = cli.table("MACs by other counters")
    cells = [
        [
            _tool(prediction), prediction.attention, cli.si(prediction.macs, 6),
            cli.si(macs, 6) if macs is not None else "failed", f"{prediction.macs / counts.macs:.1%}",
        ]
        for prediction, macs in zip(predicted, _measured(audited), strict=True)
    ]  # fmt: skip
    _add_columns(table, ["tool", "attention", "predicted", "measured", "of exact"], cells, texts=2)
    for row in cells:
        table.add_row(*row)
    return table


def tool_sentences(counts: Counts, predicted: Sequence[Prediction], audited: "pd.DataFrame") -> Iterable[str]:
    """Explanations of the differences, one sentence for each counter that differs."""
    yield (
        f"Exact: {cli.si(counts.macs, 6)} MACs. torch counts FLOPs, two per multiply-accumulate; they are halved here. "
        "Additions are those of biases."
    )
    if any(macs != prediction.macs for prediction, macs in zip(predicted, _measured(audited), strict=True)):
        yield "Where predicted and measured differ, the installed version of the tool follows other rules."
    for prediction in predicted:
        differences = [
            f"{what} {', '.join(f'{name} {cli.si(amount)}' for name, amount in amounts.items())}"
            for what, amounts in (("does not count", prediction.unseen), ("also counts", prediction.extra))
            if amounts
        ]
        if differences:
            yield f"{_tool(prediction)}, {prediction.attention}: {'; '.join(differences)}."


def _tool(prediction: Prediction) -> str:
    return f"{prediction.tool.package} ({prediction.tool.backend})"


def _measured(audited: "pd.DataFrame") -> list[int | None]:
    return [None if missing else int(macs) for macs, missing in zip(audited.macs, audited.macs.isna(), strict=True)]


def _add_columns(table: Table, heads: Sequence[str], cells: Sequence[Sequence[str]], texts: int = 1) -> None:
    """Add columns that are at least as wide as their longest word or number. The first ``texts`` are left-aligned."""
    for i, head in enumerate(heads):
        words = [word for text in (head, *(row[i] for row in cells)) for word in re.split("[ \n]", text)]
        table.add_column(head, justify="left" if i < texts else "right", min_width=max(map(cell_len, words)))


def _cell(name: str, value: int) -> str:
    if not value:
        return "–"
    return cli.mib(value).removesuffix("\N{NO-BREAK SPACE}MiB") if name.endswith("_bytes") else cli.si(value)
