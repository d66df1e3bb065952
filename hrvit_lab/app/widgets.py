"""Texts of others (names, questions, errors) for places where Streamlit reads Markdown."""

import re


def plain(text: object) -> str:
    """The text with everything that Markdown would read escaped.

    >>> plain("a *b* $c$ [d](e)")
    'a \\\\*b\\\\* \\\\$c\\\\$ \\\\[d\\\\]\\\\(e\\\\)'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^])", r"\\\1", str(text))
