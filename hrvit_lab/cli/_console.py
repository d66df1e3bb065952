"""The console of ``hrvit_lab.cli.console``, in a separate module so that rich is imported only when it is used."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hrvit_lab.cli.display import printable, wrapped


class PlainConsole(Console):
    """A rich console without markup, in which a closed pipe raises."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"markup": False, "emoji": False, "highlight": False} | options))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of the renderable, with control characters in texts escaped."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else printable(segment.text)
            yield segment if shown == segment.text else Segment(shown, segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text with control characters escaped before its width is measured."""
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """Print; with ``soft_wrap`` a terminal gets lines that end between words, and a file whole lines."""
        soft_wrap = self.soft_wrap if soft_wrap is None else soft_wrap
        if soft_wrap and self.is_terminal:  # rich itself would break a long path, which is a word to copy
            objects = tuple(wrapped(printable(it), self.width) if isinstance(it, str) else it for it in objects)
            soft_wrap = all(isinstance(it, str) for it in objects)
        super().print(*objects, soft_wrap=soft_wrap, **options)

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError for ``hrvit_lab.cli.run``; rich would exit with code 1."""
        raise
