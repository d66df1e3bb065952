"""What ``hrvit-lab cost`` does: costs in closed form, and what other counters would say, as tables."""

import argparse
from collections.abc import Mapping, Sequence

import pandas as pd
from rich.table import Table
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, HRViTConfig, read_config
from hrvit_lab.cost.count import NUMBERS, Counts, count
from hrvit_lab.cost.memory import peak_memory_bytes
from hrvit_lab.cost.tools import predictions
from hrvit_lab.study.axes import apply, check_axis
from hrvit_lab.study.files import parse_settings

HEADS = {
    "params": "parameters", "weight_bytes": "weights", "macs": "MACs", "macs_padded": "padded", "macs_padding": "waste",
    "activations": "activations", "moved_bytes": "moved",
}  # fmt: skip
"""What the columns of costs are called here: short, the caption explains them."""


def show(options: argparse.Namespace) -> None:
    """Print the tables that the command line asks for."""
    config = changed(read_config(options.model), options.set)
    counts = count(config, options.resolution)
    audited = None
    if options.audit:
        from hrvit_lab.cost.audit import audit  # here: costs alone need no torch
        from hrvit_lab.network.build import build

        audited = audit(build(config), options.resolution, reference_macs=counts.macs)
    if options.csv:
        frame = counts.table(options.by, options.dtype) if audited is None else audited
        print(frame.to_csv(index=False), end="")
        return
    console = cli.console()
    console.print(cost_table(config, counts, options.by, options.batch_size, options.dtype))
    console.print()
    console.print(tool_table(counts, audited))


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


def cost_table(config: HRViTConfig, counts: Counts, by: str, batch_size: int, dtype: str) -> Table:
    """Costs of one image by part, operator, stage or branch, and their sums."""
    height, width = counts.resolution
    table = cli.table(f"{config.name or config.id} at {height}×{width}, one image, {dtype}")
    table.add_column(by)
    for name in NUMBERS:
        table.add_column(HEADS[name], justify="right")
    rows = counts.table(by, dtype)
    for record in rows.to_dict("records"):
        table.add_row(str(record[by]), *(_cell(name, record[name]) for name in NUMBERS))
    table.add_section()
    table.add_row("total", *(_cell(name, int(rows[name].sum())) for name in NUMBERS), style="bold")
    peak = peak_memory_bytes(config, counts.resolution, batch_size=batch_size, dtype=dtype)
    moved = counts.moved_bytes(batch_size, dtype)
    table.caption = Text(
        f"MACs are exact; padded: windows filled up to full size, and waste, what that adds; the paper's count: "
        f"{cli.si(counts.macs_paper)}. Moved: maps and weights that convolutions, linears and fused attention read and "
        f"write, a floor. A batch of {batch_size}: {cli.mib(moved)} moved, {cli.mib(peak)} at the fullest moment of "
        f"inference.",
        style="dim",
    )
    return table


def tool_table(counts: Counts, audited: pd.DataFrame | None) -> Table:
    """What each counter would say, why, and (given an audit) what it does say."""
    table = cli.table("What other counters would say" if audited is None else "What other counters say")
    table.add_column("tool", no_wrap=True)
    table.add_column("attention")
    for name in ("predicted", *(("measured",) if audited is not None else ()), "of exact"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("does not see", ratio=1)
    table.add_column("counts beside", ratio=1)
    foreseen = predictions(row.cost for row in counts.rows)
    said = [None] * len(foreseen) if audited is None else list(audited.macs)
    for prediction, macs in zip(foreseen, said, strict=True):
        measured = [] if audited is None else ["failed" if pd.isna(macs) else cli.si(macs, 6)]
        table.add_row(
            f"{prediction.tool.package} ({prediction.tool.backend})",
            prediction.attention,
            cli.si(prediction.macs, 6),
            *measured,
            f"{prediction.macs / counts.macs:.1%}",
            _amounts(prediction.unseen),
            _amounts(prediction.extra),
        )
    differing = audited is not None and not audited.macs.eq(audited.predicted_macs).fillna(False).all()
    table.caption = Text(
        f"Exact: {cli.si(counts.macs, 6)}. torch counts two operations per multiply-accumulate: halved here. "
        "Additions are biases, and maps that a product is added to."
        + (" Where both figures differ, a tool's version has other rules than those known here." if differing else ""),
        style="dim",
    )
    return table


def _cell(name: str, value: int) -> str:
    if not value:
        return "–"
    return cli.mib(value) if name.endswith("_bytes") else cli.si(value)


def _amounts(amounts: Mapping[str, int]) -> str:
    return "\n".join(f"{name} {cli.si(amount)}" for name, amount in amounts.items()) or "–"
