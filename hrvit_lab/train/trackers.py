"""Experiment trackers: TensorBoard and Weights & Biases.

To add one, write a function ``(folder, settings, step) -> Tracker`` and add a line to ``TRACKERS``.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hrvit_lab.errors import ConfigError, suggest
from hrvit_lab.files import write_atomically

PROJECT = "hrvit_lab"
WANDB_ID = "wandb_id.txt"


@dataclass(frozen=True)
class Tracker:
    """Attributes:
    add: (finished steps, values by name); sends them to the tracker.
    close: writes remaining data.
    """

    add: Callable[[int, Mapping[str, float]], None]
    close: Callable[[], None]


def check_trackers(names: Sequence[str]) -> None:
    """Check the names of trackers and that their packages are installed.

    Raises:
        ConfigError: for an unknown name, or a missing package.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"unknown tracker {name!r:.80}; {suggest(name, TRACKERS)}")
        if find_spec(name) is None:
            raise ConfigError(
                f"--track {name}: the package {name} is not installed; pip install {name}, or remove --track"
            )


def open_trackers(
    names: Sequence[str],
    folder: Path,
    settings: Mapping[str, Any],
    step: int,
    failed: Callable[[str, Exception], None],
) -> dict[str, Tracker]:
    """Open trackers by name; call `check_trackers` first.

    Args:
        folder: of the run; trackers write their files to it.
        settings: of the recipe, by dotted name.
        step: number of finished steps; a tracker's data of later steps is replaced.
        failed: called with the name and the error of a tracker that cannot be opened; it is left out.
    """
    opened = {}
    for name in dict.fromkeys(names):
        try:
            opened[name] = TRACKERS[name](folder, settings, step)
        except Exception as error:  # of another package: no key, no network
            failed(name, error)
    return opened


def tensorboard(folder: Path, settings: Mapping[str, Any], step: int) -> Tracker:
    """Event files in ``FOLDER/tensorboard``: ``tensorboard --logdir runs`` shows all runs."""
    writer = import_module("torch.utils.tensorboard").SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
    table = "\n".join(f"    {key}: {value}" for key, value in settings.items())  # indented: code, not Markdown
    writer.add_text("recipe", table, step)

    def add(at: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, at)
        writer.flush()

    return Tracker(add, writer.close)


def wandb(folder: Path, settings: Mapping[str, Any], step: int) -> Tracker:
    """A run of the project ``hrvit_lab``; a resumed training continues the same run."""
    package = import_module("wandb")
    path = folder / WANDB_ID
    if not path.exists():
        write_atomically(path, secrets.token_hex(8))
    run = package.init(
        project=PROJECT, name=folder.name, id=path.read_text(encoding="utf-8").strip(), resume="allow",
        dir=str(folder), config=dict(settings),
    )  # fmt: skip

    def add(at: int, figures: Mapping[str, float]) -> None:
        run.log(dict(figures), step=at)

    return Tracker(add, run.finish)


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any], int], Tracker]] = {"tensorboard": tensorboard, "wandb": wandb}
