"""From records to one tidy table, a row a variant, and to the training curves in long form."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hrvit_lab.measure import METRICS
from hrvit_lab.plots import pareto_front
from hrvit_lab.study.space import Variant
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.trials import Trial

Records = Mapping[str, Mapping[str, Any]]
SEEDED_GROUPS = frozenset(metric.group for metric in METRICS.values() if metric.per_seed)
UNSTEADY = "latency never became steady in its warm-up: distrust it, and time it again on an idle machine"
CURVE_COLUMNS = ("train_loss", "train_top1", "val_loss", "val_top1")


def table(
    spec: Spec, variants: Sequence[Variant], planned: Mapping[str, Sequence[Trial]], records: Records
) -> pd.DataFrame:
    """The study's table.

    Columns: ``variant``, ``config_id``, the axes (and ``matching``, ``macs_vs_base``, ``note``); then every
    metric that was asked for by its key, with ``_std`` and ``_n`` over seeds (the key itself is their mean, the
    spread the sample standard deviation) or with ``_p10`` and ``_p90``; ``status`` ("ok", "failed: reason",
    "partial"); ``pareto`` (on the front of the study's two trade-off metrics, where one is better high and one low).

    Args:
        planned: the trials of every variant, by its name.
        records: by key; those that are missing leave a gap and the status "partial".
    """
    rows = [
        {
            "variant": variant.name,
            "config_id": variant.config.id,
            **variant.point,
            **_figures(spec, planned[variant.name], records),
            "status": _status(planned[variant.name], records),
        }
        for variant in variants
    ]
    for row, variant in zip(rows, variants, strict=True):
        if _unsteady(planned[variant.name], records):
            row["note"] = "; ".join(filter(None, (row.get("note"), UNSTEADY)))
    frame = pd.DataFrame(rows)
    x, y = spec.axes_of_tradeoff
    opposed = METRICS[x].better != METRICS[y].better  # the front of two costs would be the smallest network
    frame["pareto"] = pareto_front(frame, x, y) if opposed and {x, y} <= set(frame.columns) else False
    return frame


def _figures(spec: Spec, trials: Iterable[Trial], records: Records) -> dict[str, Any]:
    values: dict[str, list[Mapping[str, Any]]] = {}
    for trial in trials:
        record = records.get(trial.key)
        if record and record["status"] == "ok":
            values.setdefault(trial.group, []).append(record["values"])
    figures: dict[str, Any] = {}
    for key in spec.metrics:
        metric = METRICS[key]
        found = values.get(metric.group, [])
        if metric.per_seed:
            over_seeds = np.array([v[key] for v in found if v.get(key) is not None], dtype=float)
            count = len(over_seeds)
            figures[key] = over_seeds.mean() if count else np.nan
            figures[f"{key}_std"] = over_seeds.std(ddof=1) if count > 1 else np.nan
            figures[f"{key}_n"] = count
        else:
            own = found[0] if found else {}
            names = [key, *(name for name in (f"{key}_p10", f"{key}_p90") if name in own)]
            figures |= {name: np.nan if own.get(name) is None else own[name] for name in names}
    return figures


def _unsteady(trials: Iterable[Trial], records: Records) -> bool:
    """Whether a clock never became steady in its warm-up."""
    samples = (records.get(trial.key, {}).get("samples") for trial in trials if trial.group == "latency")
    return any(isinstance(kept, Mapping) and kept.get("steady") is False for kept in samples)


def _status(trials: Sequence[Trial], records: Records) -> str:
    for trial in trials:
        record = records.get(trial.key)
        if record and record["status"] != "ok":
            seed = f" (seed {trial.inputs.seed})" if trial.group in SEEDED_GROUPS else ""
            return f"failed: {trial.group}{seed}: {record['reason']}"
    return "ok" if all(trial.key in records for trial in trials) else "partial"


def curves(variants: Iterable[Variant], planned: Mapping[str, Sequence[Trial]], records: Records) -> pd.DataFrame:
    """Training curves, a row for every variant, seed and epoch: losses and top-1, in training and validation."""
    rows = [
        {
            "variant": variant.name,
            "seed": trial.inputs.seed,
            "epoch": epoch["epoch"],
            **{column: epoch.get(column) for column in CURVE_COLUMNS},
        }
        for variant in variants
        for trial in planned[variant.name]
        for epoch in (records.get(trial.key) or {}).get("curves", ())
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "epoch", *CURVE_COLUMNS])


def failures(trials: Iterable[Trial], records: Records) -> list[tuple[str, str]]:
    """Label and reason of every trial whose record is a failure."""
    return [
        (trial.label, f"{record['status'].replace('_', ' ')}: {record['reason']}")
        for trial in trials
        if (record := records.get(trial.key)) and record["status"] != "ok"
    ]
