"""User-supplied text (names, questions, errors) in places where Streamlit renders Markdown."""

import re


def plain(text: object) -> str:
    """Escape all characters that have a meaning in Markdown.

    >>> plain("a *b* $c$ [d](e)")
    'a \\\\*b\\\\* \\\\$c\\\\$ \\\\[d\\\\]\\\\(e\\\\)'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^])", r"\\\1", str(text))
