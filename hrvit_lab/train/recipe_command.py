"""``hrvit-lab train list | show | copy | validate``: list, show, copy and check recipes. Does not import torch."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.train.recipe import (
    SUFFIXES,
    AnyRecipe,
    find_recipe,
    list_recipes,
    read_recipe,
)
from hrvit_lab.train.recipe_sections import TIMM

COMMANDS = {
    "list": "list the shipped recipes",
    "show": "show each setting of a recipe and where it comes from",
    "copy": "copy a recipe to a new file",
    "validate": "check a recipe file",
}
"""Names and descriptions of the commands."""


def run(arguments: Sequence[str]) -> int:
    """Run ``list``, ``show``, ``copy`` or ``validate``, and return the exit code."""
    command, *rest = arguments
    given = parser(command).parse_args(rest)
    match command:
        case "list":
            show_list()
        case "show":
            show(given.recipe)
        case "copy":
            copy(given.recipe, given.file)
        case _:
            validate(given.recipe)
    return 0


def parser(command: str) -> cli.Parser:
    """The command line of a command."""
    description = COMMANDS[command]
    parser = cli.Parser(f"hrvit-lab train {command}", f"{description[0].upper()}{description[1:]}.")
    if command != "list":
        parser.add_argument("recipe", metavar="RECIPE", help="a recipe of hrvit-lab train list, or a YAML file")
    if command == "copy":
        parser.add_argument("file", type=cli.path, metavar="FILE.yaml", help="the new file; it must not exist")
    return parser


def show_list() -> None:
    """Print one row per shipped recipe: name, title, task, data set, model and length."""
    table = Table(box=None, padding=(0, 2, 1, 0))
    table.add_column("recipe", no_wrap=True, style="bold")
    table.add_column("title, task, data set, model, length")
    for name, path in list_recipes().items():
        recipe = read_recipe(path)
        facts = ", ".join((recipe.task, recipe.data.name, recipe.model.name, length(recipe)))
        table.add_row(name, Text.assemble(recipe.title, "\n", (facts, "dim")))
    console = cli.console()
    console.print(table)
    console.print("Run 'hrvit-lab train RECIPE' to train with one of them.", soft_wrap=True)


def show(name: str) -> None:
    """Print each setting with value and source, the differences for some models, and the notes."""
    recipe = read_recipe(find_recipe(name))
    table = cli.table(f"{name}: {recipe.title}")
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("source", no_wrap=True)
    section = ""
    for key, value in recipe.settings.items():
        if section and not key.startswith(f"{section}."):
            table.add_section()
        section = key.partition(".")[0]
        table.add_row(key, shown(value), recipe.source(key) or "–")
    console = cli.console()
    console.print(table)
    for model, changes in recipe.per_model.items():
        settings = (f"{part}.{key} = {shown(value)}" for part, keys in changes.items() for key, value in keys.items())
        console.print(f"With --model {model}: {', '.join(settings) or 'the same'}", soft_wrap=True)
    for note in recipe.notes:
        console.print(f"Note: {note}", soft_wrap=True)
    console.print("Sources: the paper (arXiv 2111.01236), its release, or ours (this lab).", soft_wrap=True)


def copy(name: str, file: Path) -> None:
    """Write the recipe's file, comments included, to a new file.

    Raises:
        ConfigError: if the file exists or its name does not end in .yaml.
        OSError: if it cannot be written; no partial file is left.
    """
    if not file.name.endswith(SUFFIXES):
        raise ConfigError(f"{file} does not end in .yaml; use a name that ends in .yaml")
    path = find_recipe(name)
    read_recipe(path)
    content = path.read_bytes()
    try:
        with open(file, "xb") as new:
            try:
                new.write(content)
                new.flush()
            except OSError:
                with contextlib.suppress(OSError):
                    file.unlink()
                raise
    except FileExistsError:
        raise ConfigError(f"{file} already exists and is never overwritten; choose another name") from None
    cli.console().print(f"Wrote {file}. Change it, then run: hrvit-lab train {file}", soft_wrap=True)


def validate(name: str) -> None:
    """Check a recipe, including names of timm.

    Raises:
        ConfigError: one sentence with the file, the key and the remedy.
    """
    path = find_recipe(name)
    recipe = read_recipe(path)
    _check_timm(recipe, path)
    unknown = [key for key in recipe.settings if recipe.source(key) is None]
    without = f" {len(unknown)} settings have no source." if unknown else ""
    console = cli.console()
    console.print(f"{path} is a valid recipe: {recipe.task} on {recipe.data.name}, {length(recipe)}.{without}")


def length(recipe: AnyRecipe) -> str:
    """The length of the training as text.

    >>> from hrvit_lab.train.recipe import load_recipe
    >>> length(load_recipe("imagenet_hrvit")), length(load_recipe("ade20k_upernet"))
    ('300 + 10 epochs', '160,000 iterations')
    """
    schedule = recipe.schedule
    if schedule.iterations is not None:
        return f"{schedule.iterations:,} iterations"
    cooldown = f" + {schedule.cooldown_epochs}" if schedule.cooldown_epochs else ""
    return f"{schedule.epochs}{cooldown} epochs"


def shown(value: Any) -> str:
    """A value as YAML-like text.

    >>> shown((0.75, 4 / 3)), shown(1e-5), shown(True), shown({"widths": [8, 16]})
    ('[0.75, 1.33333]', '1e-5', 'true', '{widths: [8, 16]}')
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}".replace("e-0", "e-")
        case tuple() | list():
            return f"[{', '.join(map(shown, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {shown(entry)}' for key, entry in value.items())}}}"
    return str(value)


def _check_timm(recipe: AnyRecipe, path: Path) -> None:
    """Check that timm has the model and the optimizer."""
    with cli.loading():
        from timm.optim import list_optimizers

        from hrvit_lab.train.assemble import timm_network
    if recipe.model.name.startswith(TIMM):
        timm_network(recipe, num_classes=2)
    if (name := recipe.optimiser.name) not in list_optimizers():
        raise ConfigError(f"{path}: optimiser.name = {name!r}: timm has no such optimizer; use adamw, sgd or lamb")
