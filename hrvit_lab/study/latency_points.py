"""Points of ``hrvit-lab latency --out``: each timed network, with its back end in its name."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from hrvit_lab.cli import show_size
from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, own_name
from hrvit_lab.files import read_bounded, unguarded
from hrvit_lab.metrics import METRICS
from hrvit_lab.study.point_rows import MAX_BYTES, cost, kind_of, properties, put, put_costs
from hrvit_lab.study.quantities import Quantity, of_metric, threads
from hrvit_lab.study.results import records_of
from hrvit_lab.study.tables import DISTURBED

TEXTS = ("model", "backend", "dtype", "device", "memory_format", "status", "reason", "disturbed")
NUMBERS = ("height", "width", "batch_size", "threads", "latency_ms", "latency_ms_p10", "latency_ms_p90")
OPTIONAL = ("macs", "throughput_img_s", "peak_memory_mib", "device_latency_ms")
"""Columns of numbers that a table may lack, or that have no value on some devices."""

EAGER, CONTIGUOUS = "eager", "contiguous"
METHOD = "interleaved rounds"
TIMM = "timm:"
TRAINING_MACS = 3
"""MACs of a training step divided by those of inference."""


def latency_points(folder: Path, quantities: dict[str, Quantity]) -> Iterator[dict[str, Any]]:
    """The timed networks of a folder; new quantities are added to ``quantities``.

    Networks that were not timed (wrong, refused, out of memory) are left out. An interrupted measurement is unreliable.

    Raises:
        ConfigError: if ``latency.csv`` is not a table of ``hrvit-lab latency``.
        OSError: if it cannot be read.
    """
    for row in records_of(_read(folder / "latency.csv")):
        if row["status"] not in ("ok", "interrupted") or pd.isna(row["latency_ms"]):
            continue
        values: dict[str, Any] = {}
        latency, others = _measured(row)
        put(values, quantities, latency, row["latency_ms"])
        if not (pd.isna(row["latency_ms_p10"]) or pd.isna(row["latency_ms_p90"])):
            values |= {f"{latency.key} low": row["latency_ms_p10"], f"{latency.key} high": row["latency_ms_p90"]}
        why = row["disturbed"] if row["status"] == "ok" else row["reason"] or "it was interrupted"
        for quantity in others:
            if not pd.isna(row[quantity.metric]):
                put(values, quantities, quantity, row[quantity.metric])
        if why:
            timed = [q for q in (latency, *others) if METRICS[q.metric].group == "latency" and q.key in values]
            values |= {f"{quantity.key} {DISTURBED}": why for quantity in timed}
        yield _network(row, values, quantities) | {"source": f"latency {folder.resolve().name}"}


def _read(path: Path) -> pd.DataFrame:
    """The table, with text and finite or missing numbers in its columns."""
    try:
        table = pd.read_csv(io.BytesIO(read_bounded(path, MAX_BYTES)), dtype=str, keep_default_na=False)
        table = table.map(unguarded)
        for name in NUMBERS + OPTIONAL:
            given = table[name] if name in NUMBERS else table.get(name, pd.Series("", index=table.index))
            table[name] = pd.to_numeric(given, errors="coerce").replace([float("inf"), -float("inf")], float("nan"))
        table["training"] = table["training"] == "True"
        sizes = table[["height", "width", "batch_size", "threads"]]
        if not sizes.ge(1).all(axis=None) or not sizes.le(1e6).all(axis=None):
            raise ValueError
        return table[[*TEXTS, *NUMBERS, *OPTIONAL, "training"]]
    except (ValueError, KeyError):  # of pandas' parser: also of an empty file
        raise ConfigError("latency.csv is not a table of hrvit-lab latency") from None


def _measured(row: dict[str, Any]) -> tuple[Quantity, list[Quantity]]:
    """The latency's quantity, and the others that were measured, all with device and settings."""
    on_gpu = not pd.isna(row["device_latency_ms"])  # CUDA events exist there only
    size = f"{show_size((int(row['height']), int(row['width'])))} px"
    batch = f"batch {int(row['batch_size'])}"
    layout = "" if row["memory_format"] == CONTIGUOUS else row["memory_format"]
    step = "training step" if row["training"] else ""
    shared = [row["device"], batch, row["dtype"], size, layout, step]
    timed = [*shared, "" if on_gpu else threads(int(row["threads"])), METHOD]
    return of_metric("latency_ms", _joined(timed)), [
        of_metric("throughput_img_s", _joined(timed)),
        of_metric("peak_memory_mib", _joined(shared)),
    ]


def _joined(parts: list[str]) -> str:
    return ", ".join(filter(None, parts))


def _network(row: dict[str, Any], values: dict[str, Any], quantities: dict[str, Quantity]) -> dict[str, Any]:
    """The network's name, config and costs. Only presets have a config: a name is never read as a path."""
    size = int(row["height"]), int(row["width"])
    model = own_name(row["model"])
    config = (PRESETS | SEGMENTERS).get(model.removesuffix(":deploy"))
    fields = config.to_dict() if config is not None else None
    if config is not None:
        try:
            put_costs(values, quantities, config, size)
        except ConfigError:
            config, fields = None, None  # a size that it does not accept: the row is of another network
    else:
        fields = {"model": model} if model.startswith(TIMM) else None
    if config is None and not pd.isna(row["macs"]):
        share = row["batch_size"] * (TRAINING_MACS if row["training"] else 1)
        put(values, quantities, cost("macs", size), row["macs"] / share)
    return {
        "name": row["model"] if row["backend"] == EAGER else f"{row['model']}, {row['backend']}",
        "kind": kind_of(fields), "config_id": config.id if config is not None else None, "config": fields,
        **properties(fields), **values,
    }  # fmt: skip
