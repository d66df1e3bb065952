"""Shared by all commands: parsers of values, tables and numbers for a terminal, and exit codes.

Nothing here imports torch, and rich is imported with the first table, so that ``--help`` is fast.
"""

from hrvit_lab.cli.display import big, console, duration, mib, printable, rough_duration, si, table, working, wrapped
from hrvit_lab.cli.ending import complain, run
from hrvit_lab.cli.values import (
    DTYPES,
    MAX_SIDE,
    MODEL,
    Parser,
    device,
    dtype,
    listed,
    number,
    one_of,
    path,
    seed,
    show_size,
    size,
    threads,
    whole,
)
from hrvit_lab.interrupts import loading

__all__ = [
    "DTYPES",
    "MAX_SIDE",
    "MODEL",
    "Parser",
    "big",
    "complain",
    "console",
    "device",
    "dtype",
    "duration",
    "listed",
    "loading",
    "mib",
    "number",
    "one_of",
    "path",
    "printable",
    "rough_duration",
    "run",
    "seed",
    "show_size",
    "si",
    "size",
    "table",
    "threads",
    "whole",
    "working",
    "wrapped",
]
