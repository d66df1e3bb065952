"""Settings of a command line: ``--set section.key=value`` for study files, recipes and configs."""

from typing import Any

from hrvit_lab.config.yaml_text import read_yaml
from hrvit_lab.errors import ConfigError


def parse_settings(text: str) -> list[tuple[str, Any]]:
    """Parse ``a.b=1,c=[1, 2]`` to ``[("a.b", 1), ("c", [1, 2])]``; values are YAML, commas in brackets do not separate.

    Raises:
        ConfigError: for a part without ``=`` or a value that is not valid YAML.
    """
    settings = []
    for part in split_commas(text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"--set {part.strip()!r} is not of the form key=value; write key=value, or key=[a, b] for a list"
            )
        settings.append((key.strip(), read_yaml(value, f"the value of --set {key.strip()}")))
    return settings


def split_commas(text: str) -> list[str]:
    """Split at the commas that are outside brackets, braces and quotes.

    >>> split_commas("a=1,b=[1, 2]")
    ['a=1', 'b=[1, 2]']
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if character == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def assign(raw: dict[str, Any], dotted: str, value: Any) -> None:
    """Set the value at a dotted key, in place; missing sections are created.

    Raises:
        ConfigError: if a part of the key before the last one holds a value that is not a mapping.
    """
    *parents, last = dotted.split(".")
    section: Any = raw
    for depth, parent in enumerate(parents):
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {dotted}: {'.'.join(parents[: depth + 1])!r} has no keys; set it as a whole")
    section[last] = value
