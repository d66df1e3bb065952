"""The folder of a training by a recipe: what it holds, each file whole at any time.

``recipe.yaml`` and ``config.yaml`` say what is trained, ``environment.json`` where. ``metrics.jsonl`` has lines of
steps, ``summary.csv`` a row for each evaluation (timm's column names), ``checkpoints/`` the states to go on from,
``best.safetensors`` and ``last.safetensors`` weights, ``result.json`` the scores, and ``curves.png`` and ``.svg`` their
course.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.files import write_atomically, write_csv
from hrvit_lab.train import state as states
from hrvit_lab.train.run import last_folder, numbered_folder

FOLDER = Path("runs")
RESULT = "result.json"


class RunFolder:
    """A folder that one training writes.

    Args:
        path: of the folder; it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """Where the states are."""
        return self.path / "checkpoints"

    def begin(self, recipe: str, config: str | None, environment: Mapping[str, Any]) -> None:
        """Write what is trained and where.

        Args:
            recipe, config: as YAML; a model of timm has no config.
        """
        write_atomically(self.path / "recipe.yaml", recipe)
        if config is not None:
            write_atomically(self.path / "config.yaml", config)
        write_atomically(self.path / "environment.json", as_json(environment))

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that a resumed training makes again."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):  # a line that a crash cut off
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

    def save(self, state: Mapping[str, Any], keep: int) -> None:
        """Keep a state to go on from."""
        states.save(self.checkpoints, state, keep)


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as tensors on the CPU that share no memory, which safetensors refuses."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}


def open_folder(out: Path | None, name: str, resume: str | None) -> tuple[RunFolder, dict[str, Any] | None, list[str]]:
    """The folder of a training, the state that it goes on from, and what could not be read.

    Args:
        out: the folder; None: a new one in ``runs``, or with ``auto`` the newest of that name there.
        resume: a checkpoint; ``auto``: the last one of the folder, if there is one; None: a new training.
    Raises:
        ConfigError: the folder holds another training and ``resume`` is None; or the checkpoint cannot be read, or all
            of the folder's cannot.
    """
    if resume not in (None, "auto"):
        path = Path(str(resume)).expanduser()
        state: dict[str, Any] | None = states.load(path)
        return RunFolder(_made(out or path.resolve().parent.parent)), state, []
    if resume == "auto":
        folder = RunFolder(_made(out or last_folder(FOLDER, name)))
        state, broken = states.latest(folder.checkpoints)
        if state is None and broken:
            raise ConfigError(f"no checkpoint of {folder.path} can be read ({broken[0]}); start anew in another --out")
        return folder, state, broken
    if out is None:
        return RunFolder(numbered_folder(FOLDER, name)), None, []
    if (out / RESULT).exists() or states.checkpoints(out / "checkpoints"):
        raise ConfigError(
            f"{out} holds a training already; add --resume auto to go on with it, or choose another --out"
        )
    return RunFolder(_made(out)), None, []


def as_json(value: Any) -> str:
    """JSON for people and programs: NaN, which it does not know, becomes null."""
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


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
