"""``hrvit-lab study --list``: the studies, one line each."""

import textwrap
from pathlib import Path
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.study.files import list_studies, load_study
from hrvit_lab.study.requirements import trains
from hrvit_lab.study.space import expand
from hrvit_lab.study.spec import Spec

GAP = 2
"""Columns between two columns of the table."""


class Line(NamedTuple):
    """A study in the list.

    Attributes:
        trainings: number of different networks × number of seeds, as ``9 × 3``.
        results: whether there is a table of results.
    """

    name: str
    title: str
    trainings: str
    results: str


HEAD = Line("study", "title", "trainings", "results")


def show_list(out: Path, console: Console) -> int:
    """Print the studies with their titles, their numbers of trainings, and whether ``out`` has results of them.

    Raises:
        ConfigError: if there are no studies.
    """
    studies = list_studies()
    if not studies:
        raise ConfigError("there are no studies: neither ./studies nor the checkout's studies folder has any")
    lines, invalid = [], []
    for name, path in studies.items():
        results = "yes" if (out / name / "table.csv").is_file() else "–"
        try:
            spec = load_study(path)
            lines.append(Line(name, spec.title, count_trainings(spec), results))
        except ConfigError as error:
            lines.append(Line(name, "(invalid, see below)", "–", results))
            invalid.append(f"{name}: {error}")
    _print(lines, console)
    for sentence in invalid:
        console.print(sentence, soft_wrap=True)
    console.print(f"Trainings are networks × seeds. Results are those in {out}.", soft_wrap=True)
    console.print("'hrvit-lab study NAME --dry-run' shows a study's question, networks and costs.", soft_wrap=True)
    return 0


def count_trainings(spec: Spec) -> str:
    """``9 × 3``: the number of different networks that a study trains, and the number of seeds."""
    if not trains(spec):
        return "none"
    return f"{len({variant.config.id for variant in expand(spec).variants})} × {len(spec.seeds)}"


def _print(lines: list[Line], console: Console) -> None:
    """A table with titles cut after a word where the console is too narrow for them."""
    others = sum(max(cell_len(line[of]) for line in (HEAD, *lines)) + GAP for of in (0, 2, 3))
    room = max(cell_len(HEAD.title), console.width - others - GAP - 1)  # a table begins with a space
    table = cli.table("")
    table.title = None
    for head in HEAD:
        table.add_column(head, justify="right" if head == HEAD.trainings else "left", no_wrap=True)
    for line in lines:
        title = textwrap.shorten(line.title, room, placeholder="…")
        table.add_row(*map(Text, line._replace(title=title)))
    console.print(table)
