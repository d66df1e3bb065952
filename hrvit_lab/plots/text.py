"""Names given by users in figures: shortened to one line, with characters that the font supports."""

import unicodedata
from functools import cache

from matplotlib.font_manager import findfont, get_font

from hrvit_lab import charts

FONT = "DejaVu Sans"
"""Bundled with matplotlib, so that the layout is the same on every machine."""


def drawable(text: str) -> str:
    r"""The text with unsupported, control and text-direction characters replaced by escape sequences.

    >>> drawable("naïve 网"), drawable("\x1b[31m")
    ('naïve \\u7f51', '\\x1b[31m')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one == "\n" or _has_glyph(one) else ascii(one)[1:-1] for one in text)


def shorten(name: object, width: int = 30) -> str:
    """One line of at most `width` drawable characters, truncated in the middle."""
    return charts.shorten(drawable(" ".join(str(name).split())), width)


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def _has_glyph(character: str) -> bool:
    return not unicodedata.category(character).startswith("C") and ord(character) in _characters()
