"""The folder of one short training: new for every run, updated after each epoch."""

import glob
import json
import re
from collections.abc import Mapping, Sequence
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


def check_unused(folder: Path, files: Sequence[str] = FILES) -> None:
    """Check that a run that writes ``files`` in ``folder`` would not overwrite any of them.

    Raises:
        ConfigError: if it would; names the existing file.
    """
    if present := next((name for name in files if (folder / name).exists()), None):
        raise ConfigError(
            f"{folder} already contains {present}, which is never overwritten; choose another folder with --out"
        )


def new_folder(out: Path | None, name: str) -> Path:
    """Create the folder of a run: ``out``, or a new one in ``FOLDER``.

    Args:
        out: a folder without any of ``FILES``; created if absent.
        name: of the run; if a folder of that name exists, ``-2`` is appended, and so on. Special characters of paths
            are replaced.
    Raises:
        ConfigError: if ``out`` contains a run.
        OSError: if the folder can't be created.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        check_unused(out)
        return out
    return numbered_folder(FOLDER, name)


def numbered_folder(parent: Path, name: str) -> Path:
    """Create a new folder ``parent/name``; if it exists, ``name-2``, and so on.

    Raises:
        OSError: if the folder can't be created.
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
    """The newest folder that `numbered_folder` created with that name; the first name if there is none."""
    plain = plain_name(name)
    numbers = [
        int(match[1] or 1)
        for path in parent.glob(f"{glob.escape(plain)}*")
        if (match := re.fullmatch(rf"{re.escape(plain)}(?:-(\d{{1,9}}))?", path.name))
    ]
    return parent / (plain if max(numbers, default=1) == 1 else f"{plain}-{max(numbers)}")


def plain_name(name: str) -> str:
    """The name without special characters of paths.

    >>> plain_name("../mine.yaml timm:resnet18")
    'mine.yaml-timm-resnet18'
    """
    return re.sub(r"[^\w.+]+", "-", name).strip(".-")[:MAX_NAME] or "run"


class Run:
    """The files of a training; each is written atomically.

    ``config.yaml`` has the network's config, ``model.safetensors`` its weights, ``curves.csv`` one row per epoch, and
    ``result.json`` the results with all settings.

    Args:
        folder: from `new_folder`.
        about: settings for ``result.json``.

    Raises:
        ConfigError: if another run was started in this folder at the same time.
        OSError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, model: nn.Module, config: HRViTConfig, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.model = model
        self.about = dict(about)
        self.curves: list[Epoch] = []
        try:
            (folder / FILES[0]).touch(exist_ok=False)  # fails for the second of two simultaneous runs
        except FileExistsError:
            check_unused(folder)
            raise
        write_atomically(folder / "config.yaml", config.to_yaml())
        self.save_result("running")

    def add(self, row: Epoch) -> None:
        """Write the results of an epoch: its row, the weights, and the result so far."""
        self.curves.append(row)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        write_atomically(self.folder / "model.safetensors", save(weights))
        write_csv(self.folder / "curves.csv", [list(row), *(epoch.values() for epoch in self.curves)])
        self.save_result("running")

    def save_result(self, status: str) -> None:
        """Write ``result.json``; status is running (also after a kill), complete, interrupted, or the reason of a
        failure."""
        last = self.curves[-1] if self.curves else None
        result = {
            "status": status,
            "epochs_done": len(self.curves),
            "top1": last["val_top1"] if last else None,
            "val_loss": last["val_loss"] if last else None,
            **self.about,
        }
        write_atomically(self.folder / FILES[0], json.dumps(result, indent=2) + "\n")
