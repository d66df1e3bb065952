"""Names of others in figures: short, in one line, and of characters that the figures' font has."""

import unicodedata
from functools import cache

from matplotlib.font_manager import findfont, get_font

FONT = "DejaVu Sans"
"""Bundled with matplotlib: the layout is the same on every machine."""


def drawable(text: str) -> str:
    r"""The text with characters that the font lacks, and those that control a terminal or turn text, written out.

    >>> drawable("naïve 网"), drawable("\x1b[31m")
    ('naïve \\u7f51', '\\x1b[31m')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one == "\n" or _has_glyph(one) else ascii(one)[1:-1] for one in text)


def shorten(name: object, width: int = 30) -> str:
    """One line of at most `width` characters, cut in the middle: both ends of a name tell variants apart."""
    text = drawable(" ".join(str(name).split()))
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def _has_glyph(character: str) -> bool:
    return not unicodedata.category(character).startswith("C") and ord(character) in _characters()
