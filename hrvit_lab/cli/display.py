"""Tables, numbers and untrusted text for a terminal. Rich is imported with the first use."""

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hrvit_lab.metrics import si_scale

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 120
"""Width in columns for files and pipes, unless the variable COLUMNS is set."""
MIN_WIDTH = 20
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

# C0 and C1 control characters except the line feed, line separators, lone surrogates, and controls of the writing
# direction. With them, a name could recolour, overwrite or reorder printed text.
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Escape control characters and controls of the writing direction, so that a terminal prints them.

    >>> printable("\x1b[31mred")
    '\\x1b[31mred'
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], str(text))


def console(**options: Any) -> "Console":
    """A console for tables and sentences.

    It prints text without markup and emoji codes, and escapes control characters. Its width is that of the terminal;
    in pipes and files it is that of the variable COLUMNS, or else ``PLAIN_WIDTH``.
    """
    from hrvit_lab.cli._console import PlainConsole

    width = None
    if not (sys.stdout and sys.stdout.isatty()):
        columns = os.environ.get("COLUMNS", "")
        width = max(MIN_WIDTH, int(columns)) if re.fullmatch("[0-9]{1,4}", columns) else PLAIN_WIDTH
    return PlainConsole(**({"width": width} | options))


def table(title: str) -> "Table":
    """An empty table in the style that all commands share."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


@contextmanager
def working(console: "Console") -> Iterator[Callable[[str], object]]:
    """Show what is being done in one line, with the elapsed time; shows nothing in files and pipes.

    Yields:
        a function of the words to show.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda words: bar.update(task, description=words)


def wrapped(text: str, width: int) -> str:
    """Wrap the text at ``width`` columns, only between words. A number stays with its unit.

    >>> wrapped("about 12.5\xa0MiB", 10)
    'about\\n12.5\\xa0MiB'
    """
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def si(value: float, digits: int = 4) -> str:
    """Format a count with an SI prefix after a no-break space.

    >>> si(2_775_573_440), si(0)
    ('2.776\\xa0G', '0')
    """
    scale, prefix = si_scale(value)
    return f"{f'{value / scale:#.{digits}g}'.rstrip('.')}\N{NO-BREAK SPACE}{prefix}" if prefix else f"{value:g}"


def big(number: int) -> str:
    """Format a whole number of any size: in full below 10⁹, else with two digits and a power of ten.

    >>> big(243_000), big(144 * 10**18)
    ('243,000', '1.4\xa0·\xa010²⁰')
    """
    if number < 10**9:
        return f"{number:,}"
    digits, _, power = f"{Decimal(number):.1e}".partition("e+")
    return f"{digits} · 10{power.translate(_SUPERSCRIPT)}".replace(" ", "\N{NO-BREAK SPACE}")


def mib(count: float) -> str:
    """Format bytes in MiB, with a no-break space.

    >>> mib(3 * 2**20)
    '3.00\\xa0MiB'
    """
    value = count / 2**20
    return f"{value:.{1 if value >= 100 else 2}f}\N{NO-BREAK SPACE}MiB"


def rough_duration(seconds: float) -> str:
    """Format an estimate: whole seconds below a minute and a half, whole minutes above.

    >>> rough_duration(64.3), rough_duration(1392), rough_duration(7530)
    ('64 s', '23 min', '2 h 6 min')
    """
    if seconds < 90:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def duration(seconds: float) -> str:
    """Format seconds with units.

    >>> duration(4.2), duration(64), duration(7500)
    ('4.2 s', '1 min 4 s', '2 h 5 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
