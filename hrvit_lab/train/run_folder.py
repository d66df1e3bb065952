"""The folder of a training by a recipe. Each file is written atomically.

``recipe.yaml`` and ``config.yaml`` have the settings and the network, ``environment.json`` versions and machine.
``metrics.jsonl`` has lines of steps, ``summary.csv`` one row per evaluation (timm's column names), ``checkpoints/`` the
states to resume from, ``best.safetensors`` and ``last.safetensors`` weights, ``result.json`` the scores, and
``curves.png`` and ``curves.svg`` their curves.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.files import user_path, write_atomically, write_csv
from hrvit_lab.network.weight_files import RESULT
from hrvit_lab.train import state as states
from hrvit_lab.train.run import last_folder, numbered_folder

FOLDER = Path("runs")
CHECKPOINTS = "checkpoints"


class RunFolder:
    """The folder of one training.

    Args:
        path: of the existing folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    def begin(self, recipe: str, config: str | None, environment: Mapping[str, Any]) -> None:
        """Write recipe, config and environment.

        Args:
            recipe, config: as YAML; timm models have no config.
        """
        write_atomically(self.path / "recipe.yaml", recipe)
        if config is not None:
            write_atomically(self.path / "config.yaml", config)
        write_atomically(self.path / "environment.json", as_json(environment))

    def forget_after(self, step: int) -> None:
        """Remove lines of steps that a resumed training repeats."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):  # a line truncated by a crash
                continue
        write_atomically(path, "".join(f"{line}\n" for line in kept))

    def add_line(self, line: Mapping[str, float]) -> None:
        """Append to ``metrics.jsonl``."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write_rows(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write ``summary.csv``."""
        write_csv(self.path / "summary.csv", [list(rows[0]), *(row.values() for row in rows)])

    def write_weights(self, name: str, model: nn.Module) -> None:
        """Write the model's tensors as ``NAME.safetensors``."""
        write_atomically(self.path / f"{name}.safetensors", save_tensors(plain_tensors(model)))

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``."""
        write_atomically(self.path / RESULT, as_json(result))

    def save(self, state: Mapping[str, Any], keep: int, best: int | None = None) -> None:
        """Save a checkpoint; the last ``keep`` ones and that of the best step are kept."""
        states.save(self.checkpoints, state, keep, best)


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as CPU tensors without shared memory, which safetensors does not support."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}


def open_folder(out: Path | None, name: str, resume: str | None) -> tuple[RunFolder, dict[str, Any] | None, list[str]]:
    """The folder of a training, the state to resume from, and the checkpoints that could not be read.

    Args:
        out: the folder; None: that of the checkpoint, or a new one in ``runs``, or with ``auto`` the newest one of that
            name there.
        resume: a checkpoint; ``auto``: the last one of the folder, if there is one; None: a new training.
    Raises:
        ConfigError: if the folder contains a training that ``resume`` does not continue; if the checkpoint, or all
            checkpoints of the folder, cannot be read; or if the checkpoint is in no folder of a training, and ``out``
            is None.
    """
    if resume not in (None, "auto"):
        path = user_path(str(resume))
        state: dict[str, Any] | None = states.load(path)
        place = path.resolve().parent
        own = place.parent if place.name == CHECKPOINTS else None
        if out is not None and out.resolve() != own:
            _check_free(out)
        chosen = out or own
        if chosen is None:
            raise ConfigError(f"{path} is not in the folder of a training; give a folder for the results with --out")
        return RunFolder(_made(chosen)), state, []
    if resume == "auto":
        folder = RunFolder(_made(out or last_folder(FOLDER, name)))
        state, broken = states.latest(folder.checkpoints)
        if state is None and broken:
            raise ConfigError(
                f"no checkpoint of {folder.path} can be read ({broken[0]}); start a new training in another folder "
                "with --out"
            )
        return folder, state, broken
    if out is None:
        return RunFolder(numbered_folder(FOLDER, name)), None, []
    _check_free(out)
    return RunFolder(_made(out)), None, []


def as_json(value: Any) -> str:
    """Indented JSON; NaN is replaced by null."""
    return json.dumps(_finite(value), indent=2, default=str) + "\n"


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(key): _finite(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_finite(entry) for entry in value]
    return value


def _check_free(out: Path) -> None:
    """Check that the folder contains no training.

    Raises:
        ConfigError: if it does.
    """
    if (out / RESULT).exists() or states.checkpoints(out / CHECKPOINTS):
        raise ConfigError(
            f"{out} already contains a training; add --resume auto to continue it, or choose another folder with --out"
        )


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
