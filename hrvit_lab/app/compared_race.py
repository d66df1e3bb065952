"""A short race of the compared models: its command line, and its results from the file that it writes."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hrvit_lab.app import processes
from hrvit_lab.app.compared import Model
from hrvit_lab.app.memory_cap import check_pass
from hrvit_lab.app.processes import FOLDER, Process, Request
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.files import MIB, read_bounded, write_atomically

SECONDS = (10, 30, 60)
MAX_BYTES = 64 * MIB
MAX_SAMPLES = 400
CONTROL = "A/A control"


class Lap(NamedTuple):
    """The result of one model.

    Attributes:
        samples_ms: wall times of all rounds.
        latency: median with its 95 % interval, ms; None if it was not timed.
        ratio: to the first model, with its 95 % interval; None for the first.
        control: the same ratio of the first model's second entry.
        verdict: ``faster``, ``slower``, ``tie``; empty for the first.
        fault: why it was not timed; empty if it was.
        doubts: why the times are unreliable.
        conditions: device, threads, input and rounds, for titles.
    """

    name: str
    samples_ms: tuple[float, ...]
    latency: tuple[float, float, float] | None
    ratio: tuple[float, float, float] | None
    control: tuple[float, float, float] | None
    verdict: str
    fault: str
    doubts: str
    conditions: str


def target(models: Sequence[Model], side: int, deploy: bool) -> str:
    """The name of a race; equal for equal networks in the same order, at the same size, in the same form."""
    key = json.dumps([[model.config.id for model in models], side, deploy])
    return f"race-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def request(models: Sequence[Model], side: int, deploy: bool, seconds: int, results: Path) -> Request:
    """The request to time the models on one thread, with the first one as the reference. Configs become files.

    Raises:
        ConfigError: if a model is too large, or the folder of results can't be written.
    """
    for model in models:
        check_pass(model.name, model.counts)
    name = target(models, side, deploy)
    place = results / FOLDER / "races"
    number = 1 + len(list(place.glob(f"{name}-*")))
    out = place / f"{name}-{number}"
    names = [_argument(model, results) + ":deploy" * (deploy and model.has_ledger) for model in models]
    arguments = [*names, "--resolution", str(side), "--threads", "1", "--max-seconds", str(seconds)]
    return Request(
        "race", name, f"race of {' and '.join(model.name for model in models)}", "hrvit_lab.latency",
        (*arguments, "--precision", "2", "--out", str(out)), {"out": out.name, "models": [m.name for m in models]},
    )  # fmt: skip


def _argument(model: Model, results: Path) -> str:
    """A model as the command takes it: its name, or the file of its config."""
    config = model.config
    if not isinstance(config, HRViTConfig):
        return config.model
    if model.name == config.name:
        return model.name
    path = results / FOLDER / "configs" / f"{config.id}.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, config.to_yaml())
    except OSError as error:
        raise ConfigError(f"{results} can't be written: {error.strerror}; check its permissions") from None
    return str(path)


def read_race(process: Process, results: Path) -> list[Lap]:
    """The results of a race, in the order of the models; empty while there are none."""
    names = [str(name) for name in process.request.extra.get("models", ())]
    out = results / FOLDER / "races" / Path(str(process.request.extra.get("out", "none"))).name
    try:
        lines = read_bounded(out / "latency.jsonl", MAX_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    laps = []
    for name, line in zip(names, lines, strict=False):
        try:
            laps.append(_lap(name, json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError):
            return []
    return laps


def _lap(name: str, record: dict[str, Any]) -> Lap:
    height, width = record["resolution"]
    threads = int(record["threads"])
    latency = _estimate(record["latency"])
    rounds = f", {record['rounds']} interleaved rounds" if record.get("rounds") else ""
    conditions = (
        f"{record['device_name']}, {threads} thread{'s' * (threads > 1)}, batch {record['batch_size']}, "
        f"{height}×{width} px, {record['dtype']}, {record['backend']}{rounds}"
    )
    samples = tuple(float(sample) for sample in record["samples_ms"])[:MAX_SAMPLES]
    return Lap(
        name, samples if latency else (), latency, _estimate(record["ratio"]), _estimate(record["control"]),
        str(record["verdict"] or ""), "" if latency else f"{record['status']}: {record['reason']}",
        " ".join(map(str, record["disturbed"])), conditions,
    )  # fmt: skip


def _estimate(value: Any) -> tuple[float, float, float] | None:
    if not isinstance(value, dict):
        return None
    found = float(value["value"]), float(value["low"]), float(value["high"])
    return found if all(map(math.isfinite, found)) else None


def sample_rows(laps: Sequence[Lap]) -> pd.DataFrame:
    """A row for each sample: ``model``, ``ms``."""
    rows = [(lap.name, sample) for lap in laps for sample in lap.samples_ms]
    return pd.DataFrame(rows, columns=["model", "ms"])


def summary_rows(laps: Sequence[Lap]) -> pd.DataFrame:
    """A row for each timed model: ``model``, ``median``, ``low``, ``high`` (95 %), ``p10``, ``p90``, in ms."""
    rows = []
    for lap in laps:
        if lap.latency is not None:
            p10, p90 = np.percentile(lap.samples_ms, [10, 90]) if lap.samples_ms else (math.nan, math.nan)
            rows.append((lap.name, *lap.latency, float(p10), float(p90)))
    return pd.DataFrame(rows, columns=["model", "median", "low", "high", "p10", "p90"])


def ratio_rows(laps: Sequence[Lap]) -> pd.DataFrame:
    """A row for each ratio to the first model, and one for the A/A control: ``model``, ``ratio``, ``low``, ``high``,
    ``verdict``."""
    rows = [(lap.name, *lap.ratio, lap.verdict) for lap in laps if lap.ratio is not None]
    control = next((lap.control for lap in laps if lap.control is not None), None)
    if control is not None:
        rows.append((CONTROL, *control, "error of the method"))
    return pd.DataFrame(rows, columns=["model", "ratio", "low", "high", "verdict"])


def find_race(results: Path, models: Sequence[Model], side: int, deploy: bool) -> Process | None:
    """The last race of these models."""
    return processes.find_one(results, "race", target(models, side, deploy))
