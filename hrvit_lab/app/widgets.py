"""User-supplied text (names, questions, errors) in places where Streamlit renders Markdown."""

import re

_SPLIT = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)(?=\w)|(?<=:)(?=[\w+-]+:)", re.IGNORECASE)
"""Places in URLs, host names, mail addresses and names of emojis, which Streamlit finds in text after Markdown."""


def plain(text: object) -> str:
    """Escape all characters that have a meaning in Markdown, and split addresses, which become links even if escaped.

    >>> plain("a *b* $c$ [d](e)")
    'a \\\\*b\\\\* \\\\$c\\\\$ \\\\[d\\\\]\\\\(e\\\\)'
    """
    text = _SPLIT.sub("\u2060", str(text))  # a word joiner, which is invisible
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^])", r"\\\1", text)
