"""The progress of a search or a profile: a bar in a terminal, otherwise a line now and then."""

from collections.abc import Callable
from time import monotonic
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hrvit_lab import cli

LINE_EVERY_S = 30.0
"""Shorter work prints no line."""

Say = Callable[[int], None]
"""Called with the number that is done: once at the start, with that of earlier calls of the command, then again and
again."""


class Watch:
    """Shows progress; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._bar.__exit__(*details)

    def of(self, what: str, done: str, total: int) -> Say:
        """A function that shows how many are done.

        Args:
            what, done: as ``"networks"`` and ``"searched"``.
            total: how many there are.
        """
        if not self._console.is_terminal:
            return _Lines(self._console, what, done, total)
        task = self._bar.add_task(done, total=total)
        return lambda number: self._bar.update(task, completed=number)


class _Lines:
    """Prints a line with the number, rate and time left, if the last one was a while ago."""

    def __init__(self, console: Console, what: str, done: str, total: int) -> None:
        self._console, self._what, self._done, self._total = console, what, done, total
        self._first: int | None = None
        self._began = self._said = 0.0

    def __call__(self, number: int) -> None:
        now = monotonic()
        if self._first is None:
            self._first, self._began, self._said = number, now, now
        if number <= self._first or now - self._said < LINE_EVERY_S:
            return
        per_s = (number - self._first) / (now - self._began)
        left = cli.rough_duration(max(0, self._total - number) / per_s)
        self._console.print(
            f"{min(number, self._total):,} of {self._total:,} {self._what} are {self._done} "
            f"({60 * per_s:,.{0 if per_s > 0.15 else 1}f} a minute, about {left} left).",
            soft_wrap=True,
        )
        self._said = now
