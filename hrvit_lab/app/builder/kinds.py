"""What each field of a config accepts in a widget and in the address: type, bounds and names, read from the schema."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

from hrvit_lab.config import PER_BRANCH, TABLES, ConfigError, HRViTConfig

Type = Literal["integer", "number", "boolean", "string"]

FLOAT = r"\d{1,20}(\.\d{1,20})?(e[-+]?\d{1,3})?"


class Kind(NamedTuple):
    """One value of a field: of one branch, where it has one for each.

    Attributes:
        low, high: inclusive bounds of numbers. The schema excludes some of them; its validation then says so.
        names: valid names; empty if any text is valid.
    """

    type: Type
    low: float = 0
    high: float = 0
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        match self.type:
            case "integer":
                return f"a whole number from {self.low:g} to {self.high:g}"
            case "number":
                return f"a number from {self.low:g} to {self.high:g}"
            case "boolean":
                return "true or false"
        return f"one of {', '.join(self.names)}" if self.names else "a text of at most 100 characters"


@cache
def kinds() -> Mapping[str, Kind]:
    """The kind of every field. Depths may be 0, for a branch that is not in a stage."""
    schema = HRViTConfig.model_json_schema()["properties"]
    found = {field: _kind(field, entry) for field, entry in schema.items()}
    return found | {"depths": found["depths"]._replace(low=0)}


def _kind(field: str, entry: Mapping[str, Any]) -> Kind:
    while entry["type"] == "array":
        entry = entry["items"]
    low = entry.get("minimum", entry.get("exclusiveMinimum", 0))
    high = entry.get("maximum", entry.get("exclusiveMaximum", 0))
    return Kind(entry["type"], low, high, tuple(entry.get("enum", TABLES.get(field, ()))))


def to_text(field: str, value: Any) -> str:
    """A field's value as text of an address, whose separators need no escapes.

    >>> to_text("widths", (32, 64)), to_text("depths", ((1,), (1, 6))), to_text("mlp_ratios", (4.0, 2.5))
    ('32~64', '1~1.6', '4~2.5')
    """
    if field == "depths":
        return "~".join(".".join(map(str, stage)) for stage in value)
    return "~".join(map(_entry_text, value if field in PER_BRANCH else (value,)))


def _entry_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return exact(value) if isinstance(value, float) else str(value)


def exact(value: float) -> str:
    """The shortest text that reads back as the same number.

    >>> exact(4.0), exact(7 / 3)
    ('4', '2.3333333333333335')
    """
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def from_text(field: str, text: str) -> Any:
    """The value that `to_text` wrote, within the bounds of its kind.

    Raises:
        ConfigError: naming the field, the text and what is valid.
    """
    if field == "name":
        return text
    if field == "depths":
        return tuple(tuple(_entry(field, blocks) for blocks in stage.split(".")) for stage in text.split("~"))
    values = tuple(_entry(field, entry) for entry in text.split("~"))
    if field in PER_BRANCH:
        return values
    if len(values) != 1:
        raise ConfigError(f"the address has {field}={text[:40]!r}; give one value")
    return values[0]


def _entry(field: str, text: str) -> Any:
    kind = kinds()[field]
    value: Any = None
    if kind.type == "integer" and re.fullmatch(r"\d{1,9}", text, re.ASCII):
        value = int(text)
    elif kind.type == "number" and re.fullmatch(FLOAT, text, re.ASCII):
        value = float(text)
    elif kind.type == "boolean" and text in ("true", "false"):
        return text == "true"
    elif kind.type == "string" and text in kind.names:
        return text
    if value is None or not kind.low <= value <= kind.high:
        raise ConfigError(f"the address has {field}={text[:40]!r}; give {kind}")
    return value
