"""What ``hrvit-lab cost`` does: costs in closed form and, for an audit, what other counters say, as tables."""

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
from hrvit_lab.cost.count import NUMBERS, Counts, count
from hrvit_lab.cost.memory import peak_memory_bytes
from hrvit_lab.cost.tools import Prediction, predictions
from hrvit_lab.study.axes import apply, check_axis
from hrvit_lab.study.files import parse_settings

if TYPE_CHECKING:
    import pandas as pd

HEADS = {
    "params": "parameters", "weight_bytes": "weights\nMiB", "macs": "MACs", "macs_padding": "waste",
    "activations": "activations", "moved_bytes": "moved\nMiB",
}  # fmt: skip
"""What the columns of costs are called here: short, the sentences below the table explain them."""
MAX_WIDTH = 100
"""Columns of sentences; longer lines are hard to read."""


def show(options: argparse.Namespace) -> None:
    """Print the tables that the command line asks for."""
    config = changed(named(options.model), options.set)
    counts = count(config, options.resolution)
    audited = None
    if options.audit:
        from hrvit_lab.cost.audit import audit  # here: costs alone need no torch
        from hrvit_lab.network.build import build

        audited = audit(build(config), options.resolution, reference_macs=counts.macs)
    if options.csv:
        if audited is not None:
            print(audited.to_csv(index=False), end="")
            return
        writer = csv.DictWriter(sys.stdout, [options.by, *NUMBERS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(counts.sums(options.by, options.dtype))
        return
    console = cli.console()
    width = min(console.width, MAX_WIDTH)
    console.print(cost_table(config, counts, options.by, options.dtype), crop=False)
    console.print(cli.wrapped(explained(config, counts, options.batch_size, options.dtype), width), style="dim")
    if audited is not None:
        console.print()
        foreseen = predictions(row.cost for row in counts.rows)
        console.print(tool_table(counts, foreseen, audited), crop=False)
        for sentence in tool_sentences(counts, foreseen, audited):
            console.print(cli.wrapped(sentence, width), style="dim")


def named(model: str) -> HRViTConfig:
    """The config of a preset's name or a YAML file; one that has no name of its own is called like its file."""
    config = read_config(model)
    borrowed = not config.name or config.name in PRESETS | SEGMENTERS
    return config.replace(name=Path(model).name[:100]) if borrowed and model != config.name else config


def changed(config: HRViTConfig, texts: Sequence[str]) -> HRViTConfig:
    """The config with ``FIELD=VALUE`` settings, or settings of a study's axes (``branches=3``), in its name too.

    Raises:
        ConfigError: for a setting that no network can have, or that this one can't.
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
    """Costs of one image by part, operator, stage or branch, and their sums; waste only where there is any."""
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
    """What the columns of costs mean, and what a batch needs."""
    peak = peak_memory_bytes(config, counts.resolution, batch_size=batch_size, dtype=dtype)
    waste = (
        "waste: what windows padded to full size would add to them; "
        if counts.macs_padding
        else "no window is padded; "
    )
    return (
        f"MACs are exact; {waste}the paper's count: {cli.si(counts.macs_paper)}. Moved: the maps and weights that "
        "convolutions, linears and fused attention read and write, the least that an implementation must move. "
        f"A batch of {batch_size}: {cli.mib(counts.moved_bytes(batch_size, dtype))} moved, {cli.mib(peak)} at the "
        "fullest moment of inference."
    )


def tool_table(counts: Counts, foreseen: Sequence[Prediction], audited: "pd.DataFrame") -> Table:
    """What each counter should say by its rules, and what it says."""
    table = cli.table("What other counters say")
    cells = [
        [
            _tool(prediction), prediction.attention, cli.si(prediction.macs, 6),
            cli.si(macs, 6) if macs is not None else "failed", f"{prediction.macs / counts.macs:.1%}",
        ]
        for prediction, macs in zip(foreseen, _measured(audited), strict=True)
    ]  # fmt: skip
    _add_columns(table, ["tool", "attention", "predicted", "measured", "of exact"], cells, texts=2)
    for row in cells:
        table.add_row(*row)
    return table


def tool_sentences(counts: Counts, foreseen: Sequence[Prediction], audited: "pd.DataFrame") -> Iterable[str]:
    """Why the counters differ, one sentence for each that does."""
    yield (
        f"Exact: {cli.si(counts.macs, 6)}. torch counts two operations for each multiply-accumulate: halved here. "
        "Additions are biases."
    )
    if any(macs != prediction.macs for prediction, macs in zip(foreseen, _measured(audited), strict=True)):
        yield "Where both figures differ, a tool's version has other rules than those known here."
    for prediction in foreseen:
        said = [
            f"{what} {', '.join(f'{name} {cli.si(amount)}' for name, amount in amounts.items())}"
            for what, amounts in (("does not see", prediction.unseen), ("also counts", prediction.extra))
            if amounts
        ]
        if said:
            yield f"{_tool(prediction)}, {prediction.attention}: {'; '.join(said)}."


def _tool(prediction: Prediction) -> str:
    return f"{prediction.tool.package} ({prediction.tool.backend})"


def _measured(audited: "pd.DataFrame") -> list[int | None]:
    return [None if missing else int(macs) for macs, missing in zip(audited.macs, audited.macs.isna(), strict=True)]


def _add_columns(table: Table, heads: Sequence[str], cells: Sequence[Sequence[str]], texts: int = 1) -> None:
    """Columns at least as wide as their longest words, and a number is one word; the first ``texts`` go left."""
    for i, head in enumerate(heads):
        words = [word for text in (head, *(row[i] for row in cells)) for word in re.split("[ \n]", text)]
        table.add_column(head, justify="left" if i < texts else "right", min_width=max(map(cell_len, words)))


def _cell(name: str, value: int) -> str:
    if not value:
        return "–"
    return cli.mib(value).removesuffix("\N{NO-BREAK SPACE}MiB") if name.endswith("_bytes") else cli.si(value)
