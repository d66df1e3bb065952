"""The console behind ``hrvit_lab.cli.console``; a module of its own, so that rich is imported only when it is used."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hrvit_lab.cli.display import printable


class PlainConsole(Console):
    """A rich console that shows text as it is, and lets a closed pipe end the command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"markup": False, "emoji": False, "highlight": False} | options))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of the renderable; what is text in them has no control characters."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else printable(segment.text)
            yield segment if shown == segment.text else Segment(shown, segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text with control characters written out before its width is measured."""
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that rich handles here, for ``hrvit_lab.cli.run`` (rich itself exits with 1)."""
        raise
