"""Checkpoints of a run: written atomically; the last few and the best are kept; reading runs no code from the file."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hrvit_lab.errors import ConfigError
from hrvit_lab.files import write_atomically

FORMAT = "hrvit_lab training state"
VERSION = 1
PATTERN = re.compile(r"step-(\d{8,})\.pt")
MAX_BYTES = 32 * 2**30
KEYS = {"format", "version", "step", "model", "optimizer", "scaler", "ema", "rows", "recipe", "config",
        "meter", "versions", "seed", "data"}  # fmt: skip


def save(folder: Path, state: Mapping[str, Any], keep: int, best: int | None = None) -> Path:
    """Write a checkpoint, then delete all but the last ``keep`` ones up to it and the best, and those of later steps.

    A training that resumed from an older checkpoint computes the later steps again. Broken files of later steps are
    deleted, too.

    Args:
        folder: created if absent.
        state: the entries of ``KEYS`` without format and version; tensors, numbers, text, lists and dicts.
        keep: at least 1.
        best: the step of the best evaluation, whose checkpoint is kept in addition; None before the first one.
    Returns:
        The path of the checkpoint, ``step-N.pt`` with the number of finished steps.
    Raises:
        OSError: with the file's name, for example for a full disk; earlier checkpoints are kept.
    """
    assert set(state) | {"format", "version"} == KEYS, set(state) ^ KEYS
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, state["step"])
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, **state}, buffer)
    write_atomically(path, buffer.getvalue())
    found = checkpoints(folder)
    end = found.index(path) + 1
    for other in [*found[: max(end - keep, 0)], *found[end:]]:
        if best is None or other != path_of(folder, best):
            other.unlink(missing_ok=True)
    return path


def path_of(folder: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return folder / f"step-{step:08d}.pt"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, by their number of steps."""
    found = [(int(match[1]), path) for path in folder.glob("step-*.pt") if (match := PATTERN.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint written by ``save``.

    Raises:
        ConfigError: if it is missing, broken, too large, or a file of another program.
    """
    try:
        size, regular = path.stat().st_size, path.is_file()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; give a checkpoint, or --resume auto") from None
    if not regular:
        raise ConfigError(f"{path} is not a file; give a checkpoint, or --resume auto")
    if size > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES // 2**30} GiB; give a checkpoint of a training")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load can raise various exceptions of its parsers
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ConfigError(f"{path} cannot be read as a checkpoint ({reason[0][:120]}); give an older one") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ConfigError(
            f"{path} is not a training state of hrvit_lab; to start from its weights, use --set "
            "model.initial_weights=FILE without --resume"
        )
    if state.get("version") != VERSION or set(state) != KEYS:
        raise ConfigError(f"{path} was written by another version of hrvit_lab; resume it with that version")
    return state


def latest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The last readable checkpoint of a folder (None if there is none), and the errors of unreadable later ones."""
    broken: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            return load(path), broken
        except ConfigError as error:
            broken.append(str(error))
    return None, broken
