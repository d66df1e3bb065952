"""The folder of one training run: new for every run, brought up to date after each epoch."""

import glob
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.files import write_atomically, write_csv
from hrvit_lab.train.loop import Epoch

FOLDER = Path("results") / "train"
FILES = ("result.json", "config.yaml", "curves.csv", "model.safetensors")
MAX_NAME = 80


def check_unused(folder: Path) -> None:
    """Make sure that a run in ``folder`` would replace no file.

    Raises:
        ConfigError: naming the file that is there.
    """
    if present := next((name for name in FILES if (folder / name).exists()), None):
        raise ConfigError(f"{folder} already contains {present}, which is never overwritten; choose another --out")


def new_folder(out: Path | None, name: str) -> Path:
    """Make the folder of a run: ``out``, or a new one below ``FOLDER``.

    Args:
        out: a folder without any of ``FILES``; made if absent.
        name: what the run is called; of two runs with one name the second's folder ends in ``-2``. Characters that
            mean something in a path are replaced.
    Raises:
        ConfigError: if ``out`` holds a run.
        OSError: if the folder can't be made.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        check_unused(out)
        return out
    return numbered_folder(FOLDER, name)


def numbered_folder(parent: Path, name: str) -> Path:
    """Make a new folder ``parent/name``; if it exists, ``name-2``, and so on.

    Raises:
        OSError: if the folder can't be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    plain = plain_name(name)
    number = 1
    while True:
        folder = parent / (plain if number == 1 else f"{plain}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def last_folder(parent: Path, name: str) -> Path:
    """The newest of the folders that `numbered_folder` has made with that name; the first one if there is none."""
    plain = plain_name(name)
    numbers = [
        int(match[1] or 1)
        for path in parent.glob(f"{glob.escape(plain)}*")
        if (match := re.fullmatch(rf"{re.escape(plain)}(?:-(\d{{1,9}}))?", path.name))
    ]
    return parent / (plain if max(numbers, default=1) == 1 else f"{plain}-{max(numbers)}")


def plain_name(name: str) -> str:
    """The name without characters that mean something in a path.

    >>> plain_name("../mine.yaml timm:resnet18")
    'mine.yaml-timm-resnet18'
    """
    return re.sub(r"[^\w.+]+", "-", name).strip(".-")[:MAX_NAME] or "run"


class Run:
    """What a training leaves in its folder; each file is whole at any time.

    ``config.yaml`` rebuilds the network, ``model.safetensors`` holds its weights, ``curves.csv`` has a row an
    epoch, and ``result.json`` the figures with all that they depend on.

    Args:
        folder: from `new_folder`.
        about: what the figures depend on, for ``result.json``.
    Raises:
        ConfigError: another run has begun in this folder at the same moment.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, model: nn.Module, config: HRViTConfig, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.model = model
        self.about = dict(about)
        self.curves: list[Epoch] = []
        try:
            (folder / FILES[0]).touch(exist_ok=False)  # of two runs that begin at once one makes it
        except FileExistsError:
            check_unused(folder)
            raise
        write_atomically(folder / "config.yaml", config.to_yaml())
        self.save_result("running")

    def add(self, row: Epoch) -> None:
        """Keep an epoch: its row, the weights after it, and the result so far."""
        self.curves.append(row)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        write_atomically(self.folder / "model.safetensors", save(weights))
        write_csv(self.folder / "curves.csv", [list(row), *(epoch.values() for epoch in self.curves)])
        self.save_result("running")

    def save_result(self, status: str) -> None:
        """Write ``result.json``; status is running (or killed), complete, interrupted, or what went wrong."""
        last = self.curves[-1] if self.curves else None
        result = {
            "status": status,
            "epochs_done": len(self.curves),
            "top1": last["val_top1"] if last else None,
            "val_loss": last["val_loss"] if last else None,
            **self.about,
        }
        write_atomically(self.folder / FILES[0], json.dumps(result, indent=2) + "\n")
