"""One parser for each kind of value on a command line; each raises ``argparse.ArgumentTypeError`` with one sentence."""

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from hrvit_lab.devices import check_threads
from hrvit_lab.errors import ConfigError, suggest

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

MAX_SIDE = 65_536
"""Maximum height and width of an image in pixels."""
MODEL = (
    "a preset, the YAML file of a config, the folder of a training or a file of weights in it, a network that ships "
    "with trained weights, or timm:NAME"
)
"""Help of an argument that names a network with its weights."""

DTYPES = {
    "float32": "float32", "fp32": "float32",
    "bfloat16": "bfloat16", "bf16": "bfloat16",
    "float16": "float16", "fp16": "float16", "half": "float16",
}  # fmt: skip
"""Accepted names of number formats, with their names in torch."""

T = TypeVar("T")
Parse = Callable[[str], T]


class HelpFormatter(argparse.HelpFormatter):
    """Wraps the paragraphs of a description and an epilog; paragraphs with indented lines (examples) stay as they
    are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(part if "\n " in part else fill(part, width, indent) for part in paragraphs)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence (a ConfigError), without abbreviations of options."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=HelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError with the message, as argparse calls it on an invalid command line."""
        if found := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            near = difflib.get_close_matches(found[1], options, n=1)
            message += f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{message.removeprefix('argument ')}; see {self.prog} --help")

    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        """Write a help text or a version; argparse would ignore an error of the operating system."""
        (file or sys.stderr).write(message)


def size(text: str) -> tuple[int, int]:
    """Parse ``512`` or ``512x1024`` into ``(height, width)`` in pixels."""
    sides = re.split("[xX×]", text)
    if len(sides) > 2 or not all(map(_is_whole, sides)) or not all(1 <= int(side) <= MAX_SIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; write 224, or 512x1024 for height x width, with 1 to {MAX_SIDE} pixels a side"
        )
    return int(sides[0]), int(sides[-1])


def show_size(resolution: tuple[int, int]) -> str:
    """Format height and width as ``512×1024``."""
    return f"{resolution[0]}×{resolution[1]}"


def whole(low: int, high: int) -> Parse[int]:
    """Return a parser of whole numbers from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not _is_whole(text.strip()) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is invalid; give a whole number from {low} to {high}")
        return int(text)

    return parse


def _is_whole(text: str) -> bool:
    """Whether the text has only the digits 0 to 9, and few enough for ``int``."""
    return re.fullmatch("[0-9]{1,20}", text) is not None


seed = whole(0, 2**32 - 1)


def threads(text: str) -> int:
    """Parse a number of CPU threads that this machine supports."""
    number = whole(1, 10**9)(text)
    try:
        check_threads(number)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return number


def number(above: float, most: float) -> Parse[float]:
    """Return a parser of finite numbers greater than ``above`` and at most ``most``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not above < value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is invalid; give a number above {above:g} and at most {most:g}")
        return value

    return parse


def one_of(names: Iterable[str], what: str) -> Parse[str]:
    """Return a parser of names; ``what`` is the word for a name in errors."""
    known = tuple(names)

    def parse(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"unknown {what} {text!r}; {suggest(text, known)}")
        return text

    return parse


def dtype(text: str) -> str:
    """Parse a number format into its name in torch: ``bf16`` into ``bfloat16``."""
    return DTYPES[one_of(DTYPES, "number format")(text.lower())]


def device(text: str) -> str:
    """Check the name of a device. Whether this machine has it is checked when it is used."""
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,2})?|mps", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a device; use cpu, cuda, cuda:N or mps")
    return text


def path(text: str) -> Path:
    """Parse a path; ``~`` is the home folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; give a file or folder")
    from hrvit_lab.files import user_path  # imported here to keep --help fast

    try:
        return user_path(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def listed(parse: Parse[T]) -> Parse[list[T]]:
    """Return a parser of one or more values separated by commas; repeated values are dropped."""

    def parse_list(text: str) -> list[T]:
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise argparse.ArgumentTypeError(f"{text!r} has an empty entry; give values separated by commas")
        return list(dict.fromkeys(map(parse, parts)))

    return parse_list
