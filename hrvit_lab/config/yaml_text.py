"""Read YAML and JSON from users: plain data, limited in size, without duplicate keys. Write YAML that reads back equal.

PyYAML follows YAML 1.1, where ``yes`` is true, ``010`` is 8, ``1:30`` is 90, ``1e-3`` is text, and duplicate keys are
accepted. This module follows the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from hrvit_lab.errors import ConfigError
from hrvit_lab.files import read_bounded

MAX_TEXT_BYTES = 64 * 1024


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2 without duplicate keys and aliases; nested aliases can fill the memory."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - an instance variable to its stubs
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", None)
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.MarkedYAMLError(problem="a key must be a name", problem_mark=key_node.start_mark)
            if key in lines:
                problem = f"duplicate key {key!r}, first used in line {lines[key]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            lines[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _bool(text: str) -> bool:
    return text.lower() == "true"


def _int(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as another type."""


def _register(tag: str, pattern: str, first: list[str], read: Callable[[str], Any]) -> None:
    """Convert plain scalars that match the pattern with ``read``; ``first`` are their possible first characters."""
    whole = re.compile(rf"(?:{pattern})\Z")

    def construct(loader: _Loader, node: Any) -> Any:
        text = loader.construct_scalar(node)
        if not whole.match(text):  # a tag, as in !!int x
            kind = tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(problem=f"{text[:60]!r} is not a valid {kind}", problem_mark=node.start_mark)
        return read(text)

    _Loader.add_constructor(tag, construct)
    for language in (_Loader, _Dumper):
        language.add_implicit_resolver(tag, whole, first)


_register("tag:yaml.org,2002:null", "~|null|Null|NULL|", ["~", "n", "N", ""], lambda _: None)
_register("tag:yaml.org,2002:bool", "true|True|TRUE|false|False|FALSE", list("tTfF"), _bool)
_register("tag:yaml.org,2002:int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789"), _int)
_register(
    "tag:yaml.org,2002:float",
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    list("-+.0123456789"),
    _float,
)


def read_yaml(text: str, what: str, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Parse YAML of limited size: plain data without duplicate keys and aliases.

    Args:
        what: name of the text in errors.
    Raises:
        ConfigError: for text that is too long or not valid YAML, with the line.
    """
    _check_length(text, what, max_bytes)
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable"
        raise ConfigError(f"{what} is not valid YAML{where}: {problem}; correct that line") from None
    except (RecursionError, ValueError):  # nested too deep; a number of thousands of digits
        raise ConfigError(f"{what} is nested too deeply or has a number with too many digits; simplify it") from None


def write_yaml(value: Any, width: int) -> str:
    """Write YAML that ``read_yaml`` reads back equal. Lists of scalars take one line of at most ``width`` columns."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=width)


def read_json(text: str, what: str) -> Any:
    """Parse JSON of at most 64 KiB, each key once.

    Raises:
        ConfigError: for text that is too long or not valid JSON, with the line.
    """
    _check_length(text, what, MAX_TEXT_BYTES)
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{what} is not valid JSON in line {error.lineno}: {error.msg}; correct that line") from None
    except ConfigError as error:
        raise ConfigError(f"{what} is not valid JSON: {error}") from None
    except (RecursionError, ValueError):
        raise ConfigError(f"{what} is nested too deeply or has a number with too many digits; simplify it") from None


def read_text(path: Path, what: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text of a file of limited size.

    Raises:
        ConfigError: if it cannot be read, is not a regular file, is too large, or is not UTF-8.
    """
    try:
        return read_bounded(path, max_bytes).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}; give a YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what} {path} cannot be read: it is not UTF-8 text; save it as UTF-8") from None
    except ValueError:  # a NUL character in the name
        raise ConfigError(f"{what} {str(path)!r} cannot be read: invalid file name; give a YAML file") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(f"duplicate key {twice!r}; keep one of them")
    return dict(pairs)


def _check_length(text: str, what: str, max_bytes: int) -> None:
    if len(text.encode(errors="replace")) > max_bytes:
        raise ConfigError(f"{what} is larger than {max_bytes // 1024:,} KiB; give a smaller file")
