"""``hrvit-lab study --list``: the studies, one line each."""

import textwrap
from pathlib import Path
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.metrics import METRICS
from hrvit_lab.study.files import list_studies, load_study
from hrvit_lab.study.spec import Spec

GAP = 2
"""Columns between two columns of the table."""


class Line(NamedTuple):
    """A study in the list.

    Attributes:
        variants: number of variants in its file.
        seeds: number of trainings of a variant; ``–`` if the study trains nothing.
        results: whether there is a table of results.
    """

    name: str
    title: str
    variants: str
    seeds: str
    results: str


HEAD = Line("study", "title", "variants", "seeds", "results")


def show_list(out: Path, console: Console) -> int:
    """Print the studies with their titles, numbers of variants and seeds, and whether ``out`` has results of them.

    Only the files are read: building or counting a network can import torch and timm.

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
            lines.append(Line(name, spec.title, str(spec.num_points * len(spec.match)), count_seeds(spec), results))
        except ConfigError as error:
            lines.append(Line(name, "(invalid, see below)", "–", "–", results))
            invalid.append(f"{name}: {error}")
    _print(lines, console)
    for sentence in invalid:
        console.print(sentence, soft_wrap=True)
    console.print(f"Every variant is trained with every seed. Results are those in {out}.", soft_wrap=True)
    console.print("'hrvit-lab study NAME --dry-run' shows a study's question, networks and costs.", soft_wrap=True)
    return 0


def count_seeds(spec: Spec) -> str:
    """The number of seeds of a study that trains; else ``–``."""
    return str(len(spec.seeds)) if any(METRICS[key].per_seed for key in spec.metrics) else "–"


def _print(lines: list[Line], console: Console) -> None:
    """A table with titles cut after a word where the console is too narrow for them."""
    others = sum(max(cell_len(line[of]) for line in (HEAD, *lines)) + GAP for of in (0, 2, 3, 4))
    room = max(cell_len(HEAD.title), console.width - others - GAP - 1)  # a table begins with a space
    table = cli.table("")
    table.title = None
    for head in HEAD:
        table.add_column(head, justify="right" if head in (HEAD.variants, HEAD.seeds) else "left", no_wrap=True)
    for line in lines:
        title = textwrap.shorten(line.title, room, placeholder="…", break_on_hyphens=False)
        table.add_row(*map(Text, line._replace(title=title)))
    console.print(table)
