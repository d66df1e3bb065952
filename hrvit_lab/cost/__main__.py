"""``python -m hrvit_lab.cost MODEL``: what a network costs, in closed form, and what other counters would say."""

import argparse
import sys
from collections.abc import Mapping, Sequence

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hrvit_lab.config import ConfigError, HRViTConfig, read_config
from hrvit_lab.cost.audit import audit
from hrvit_lab.cost.count import GROUPINGS, MIB, NUMBERS, Counts, count
from hrvit_lab.cost.memory import peak_memory_bytes
from hrvit_lab.cost.tools import predictions
from hrvit_lab.metrics import si_scale
from hrvit_lab.network.build import build
from hrvit_lab.parts.ops import DTYPE_BYTES
from hrvit_lab.study.axes import apply, check_axis
from hrvit_lab.study.files import parse_settings

EXAMPLES = """\
examples:
  python -m hrvit_lab.cost hrvit_b1 --resolution 512
  python -m hrvit_lab.cost hrvit_b1 --resolution 512x1024 --by stage --dtype bfloat16 --batch-size 8
  python -m hrvit_lab.cost mine.yaml --by operator --csv > costs.csv
  python -m hrvit_lab.cost hrvit_b1 --set "branches=3,window_sizes=[1, 2, 7]"
  python -m hrvit_lab.cost hrvit_b1 --audit        runs fvcore, ptflops and torch's counter too (a minute)

Everything is arithmetic on the config, no network is built, except with --audit.
Exit code: 0, or 2 if the request can't be met.
"""

HEADS = {
    "params": "parameters", "weight_bytes": "weights", "macs": "MACs", "macs_padded": "padded", "macs_padding": "waste",
    "activations": "activations", "moved_bytes": "moved",
}  # fmt: skip
"""What the columns of costs are called here: short, the caption explains them."""

MAX_SIDE = 65536
MAX_BATCH = 65536
PLAIN_WIDTH = 140
"""Columns for tables in files and pipes, which have no width of their own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = parser().parse_args(arguments)
    try:
        show(options)
    except ValueError as error:  # ConfigError and its kin: what was asked can't be had
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def show(options: argparse.Namespace) -> None:
    """Print the tables that the command line asks for."""
    config = changed(read_config(options.model), options.set)
    counts = count(config, options.resolution)
    audited = audit(build(config), options.resolution, reference_macs=counts.macs) if options.audit else None
    if options.csv:
        frame = counts.table(options.by, options.dtype) if audited is None else audited
        print(frame.to_csv(index=False), end="")
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
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
    table = _table(f"{config.name or config.id} at {height}×{width}, one image, {dtype}")
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
        f"{_si(counts.macs_paper)}. Moved: maps and weights that convolutions, linears and fused attention read and "
        f"write, a floor. A batch of {batch_size}: {_bytes(moved)} moved, {_bytes(peak)} at the fullest moment of "
        f"inference.",
        style="dim",
    )
    return table


def tool_table(counts: Counts, audited: pd.DataFrame | None) -> Table:
    """What each counter would say, why, and (given an audit) what it does say."""
    table = _table("What other counters would say" if audited is None else "What other counters say")
    table.add_column("tool", no_wrap=True)
    table.add_column("attention")
    for name in ("predicted", *(("measured",) if audited is not None else ()), "of exact"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("does not see", ratio=1)
    table.add_column("counts beside", ratio=1)
    foreseen = predictions(row.cost for row in counts.rows)
    said = [None] * len(foreseen) if audited is None else list(audited.macs)
    for prediction, macs in zip(foreseen, said, strict=True):
        measured = [] if audited is None else ["failed" if pd.isna(macs) else _si(macs, 6)]
        table.add_row(
            f"{prediction.tool.package} ({prediction.tool.backend})",
            prediction.attention,
            _si(prediction.macs, 6),
            *measured,
            f"{prediction.macs / counts.macs:.1%}",
            _amounts(prediction.unseen),
            _amounts(prediction.extra),
        )
    differing = audited is not None and not audited.macs.eq(audited.predicted_macs).fillna(False).all()
    table.caption = Text(
        f"Exact: {_si(counts.macs, 6)}. torch counts two operations per multiply-accumulate: halved here. "
        "Additions are biases, and maps that a product is added to."
        + (" Where both figures differ, a tool's version has other rules than those known here." if differing else ""),
        style="dim",
    )
    return table


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold"), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )  # fmt: skip


def _cell(name: str, value: int) -> str:
    if not value:
        return "–"
    return _bytes(value) if name.endswith("_bytes") else _si(value)


def _si(value: float, digits: int = 4) -> str:
    """``15.76 G``, with a space that does not break."""
    scale, prefix = si_scale(value)
    return f"{value / scale:#.{digits}g}\N{NO-BREAK SPACE}{prefix}".rstrip() if prefix else f"{value:g}"


def _bytes(value: int) -> str:
    return f"{value / MIB:.{1 if value >= 100 * MIB else 2}f}\N{NO-BREAK SPACE}MiB"


def _amounts(amounts: Mapping[str, int]) -> str:
    return "\n".join(f"{name} {_si(amount)}" for name, amount in amounts.items()) or "–"


def resolution(text: str) -> tuple[int, int]:
    """``512`` or ``512x1024``, height × width.

    Raises:
        argparse.ArgumentTypeError: for anything else.
    """
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and 0 < int(side) <= MAX_SIDE for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 512 or 512x1024, at most {MAX_SIDE} a side")
    return int(sides[0]), int(sides[-1])


def batch_size(text: str) -> int:
    """A positive number of images.

    Raises:
        argparse.ArgumentTypeError: for anything else.
    """
    if not text.isdecimal() or not 0 < int(text) <= MAX_BATCH:
        raise argparse.ArgumentTypeError(f"{text!r} is no batch size; use 1 to {MAX_BATCH}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m hrvit_lab.cost",
        description="What a network costs, in closed form, and what other counters would say about it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a preset (hrvit_b1, …) or a config's YAML file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE,…",
        help="change the config, as in studies: fields, branches, width_scale, depth_scale (YAML values)",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", type=resolution, default=(224, 224), metavar="N|HxW", help="input in pixels (224)"
    )
    parser.add_argument("--by", choices=GROUPINGS, default="part", help="what a line of the table is (part)")
    parser.add_argument("--dtype", choices=tuple(DTYPE_BYTES), default="float32", help="of weights and maps (float32)")
    parser.add_argument("--batch-size", type=batch_size, default=1, metavar="N", help="for memory (1)")
    parser.add_argument("--audit", action="store_true", help="build the network and ask the other counters too")
    parser.add_argument(
        "--csv", action="store_true", help="print the table as CSV, unrounded; with --audit, the audit's"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
