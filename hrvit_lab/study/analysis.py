"""Compute results from records: a tidy table with one row per variant, the training curves, the environments."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hrvit_lab.charts import pareto_front
from hrvit_lab.metrics import METRICS, SPREAD
from hrvit_lab.published import by_key
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.places import TRIALS_ON, places
from hrvit_lab.study.results import Results
from hrvit_lab.study.space import Expansion, Variant
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.statistics import against_best, holm, paired
from hrvit_lab.study.tables import CURVES, DISTURBED, NOT_BUILT, PARTIAL, VAL_MIOU, tidy_curves, tidy_table
from hrvit_lab.study.trials import Trial

Records = Mapping[str, Mapping[str, Any]]
Measured = dict[str, dict[int, Mapping[str, Any]]]
"""Values of one variant: ``[group][seed]``."""

COSTS = tuple(key for key, metric in METRICS.items() if metric.group == "cost")
OF_A_RUN = ("date_utc", "command", "data_files")
"""Fields of an environment that differ between runs with the same machine and versions."""


def results(
    folder: Path,
    spec: Spec,
    expansion: Expansion,
    planned: Mapping[str, Sequence[Trial]],
    records: Records,
    environment: Mapping[str, Any],
) -> Results:
    """The results of a study, from its trials' records: the table, the curves and the environments.

    Args:
        folder: where the study's files are written.
        environment: versions and machine of the run.
        planned, records: see ``table``.
    """
    return Results(
        folder=folder,
        spec=spec,
        environment=environment,
        configs={variant.name: variant.config.to_dict() for variant in expansion.variants},
        dropped=dict(expansion.dropped),
        table=table(spec, expansion.variants, planned, records),
        curves=curves(expansion.variants, planned, records),
        measured_in=environments(planned, records),
    )


def table(
    spec: Spec, variants: Sequence[Variant], planned: Mapping[str, Sequence[Trial]], records: Records
) -> pd.DataFrame:
    """The study's table.

    Columns: ``variant``, ``config_id``, the axes (and ``resolution``, ``matching``, ``macs_vs_base``, ``note``); then
    the study's metrics by key: the mean over seeds, with ``_std`` (sample standard deviation) and ``_n`` (number of
    seeds), or with the suffixes in ``SPREAD``, and ``_disturbed`` (why the value is unreliable); ``status`` ("ok",
    "failed: reason", "partial" or "not built here"); ``pareto`` (whether the variant is on the Pareto front of the
    study's two trade-off metrics; of the default metrics, only if one is better high and the other low).

    Every metric over seeds is also compared, paired by seed, with the reference (``compare_to``, else the base, else
    the first variant): ``_delta`` is the mean difference, ``_delta_se`` its standard error, ``_delta_low`` and
    ``_delta_high`` its 95 % interval, ``_delta_p`` the p-value of the paired t-test, corrected for the number of
    networks compared (Holm), ``_delta_n`` the number of seeds that both have. Without ``compare_to``, accuracies are
    also compared with the best one: ``_below_best`` is the mean difference by seed, ``_below_best_p`` its p-value,
    corrected for all pairs of networks. With ``compare_to``, costs have ``_change_percent``. Rows with published values
    have the columns of ``hrvit_lab.published``.

    Args:
        planned: the trials of every variant, by its name.
        records: by key; a missing record leaves its cells empty and sets the status "partial".
    """
    measured = {variant.name: _measured(spec, planned[variant.name], records) for variant in variants}
    reference = _reference(spec, variants)
    seeded = _seed_comparisons(spec, variants, measured)
    rows = [
        {
            "variant": variant.name,
            "config_id": variant.config.id,
            **variant.point,
            **_figures(spec, measured[variant.name]),
            **seeded[variant.name],
            **_cost_changes(spec, measured[variant.name], measured[reference.name]),
            "status": _status(planned[variant.name], records),
        }
        for variant in variants
    ]
    for row, variant in zip(rows, variants, strict=True):
        if variant.published:
            row |= by_key()[variant.published].columns(
                {key: row[key] for key in COSTS if not np.isnan(row.get(key, np.nan))}
            )
        disturbed = _disturbed(planned[variant.name], records)
        row |= {f"{key}_{DISTURBED}": " ".join(reasons) for key, reasons in disturbed.items() if key in spec.metrics}
    for entry in spec.unbuilt:
        published = by_key()[entry.published].columns({}) if entry.published else {}
        rows.append({"variant": entry.name, **published, "status": NOT_BUILT, "note": entry.note})
    frame = pd.DataFrame(rows, dtype=object)  # integers stay integers where some are missing
    x, y = spec.axes_of_tradeoff
    # If both default metrics are better low, the front is the smallest network alone.
    comparable = spec.tradeoff is not None or METRICS[x].better != METRICS[y].better
    comparable &= spec.cost_base is None  # else the two metrics are of different networks
    frame["pareto"] = pareto_front(frame, x, y) if comparable and {x, y} <= set(frame.columns) else False
    return tidy_table(frame)


def _reference(spec: Spec, variants: Sequence[Variant]) -> Variant:
    """The variant to which the others are compared."""
    if spec.compare_to is not None:
        return next(variant for variant in variants if variant.name == spec.compare_to)
    base = spec.base_config.id
    return next((variant for variant in variants if variant.config.id == base), variants[0])


def _measured(spec: Spec, trials: Iterable[Trial], records: Records) -> Measured:
    """The values of one variant, by group and seed."""
    values: Measured = {METRICS[key].group: {} for key in spec.metrics}
    for trial in trials:
        record = records.get(trial.key)
        if record and record["status"] == "ok":
            values[trial.group][trial.inputs.seed] = record["values"]
    return values


def _by_seed(measured: Measured, key: str) -> dict[int, float]:
    """A metric's value for every seed that has one."""
    values = measured[METRICS[key].group]
    return {seed: value[key] for seed, value in values.items() if value.get(key) is not None}


def _figures(spec: Spec, measured: Measured) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for key in spec.metrics:
        metric = METRICS[key]
        if metric.per_seed:
            over_seeds = np.array(list(_by_seed(measured, key).values()), dtype=float)
            count = len(over_seeds)
            figures[key] = over_seeds.mean() if count else np.nan
            figures[f"{key}_std"] = over_seeds.std(ddof=1) if count > 1 else np.nan
            figures[f"{key}_n"] = count
        else:
            own = next(iter(measured[metric.group].values()), {})
            names = [key, *(name for end in SPREAD if (name := f"{key}_{end}") in own)]
            figures |= {name: np.nan if own.get(name) is None else own[name] for name in names}
    return figures


def _seed_comparisons(
    spec: Spec, variants: Sequence[Variant], measured: Mapping[str, Measured]
) -> dict[str, dict[str, float]]:
    """Comparisons paired by seed, with the reference and with the best variant, by variant.

    A network that occurs twice (as is, and matched) counts once in the correction of p-values.
    """
    reference = _reference(spec, variants)
    networks = {variant.config.id: variant.name for variant in reversed(variants)}
    columns: dict[str, dict[str, float]] = {variant.name: {} for variant in variants}
    for key in (key for key in spec.metrics if METRICS[key].per_seed):
        values = {network: _by_seed(measured[name], key) for network, name in networks.items()}
        differences = {network: paired(values[network], values[reference.config.id]) for network in networks}
        others = [network for network in networks if network != reference.config.id]
        p_values = dict(zip(others, holm([differences[network].p for network in others]), strict=True))
        for variant in variants:
            if variant is not reference:
                found = differences[variant.config.id]
                columns[variant.name] |= {
                    f"{key}_delta": found.mean,
                    f"{key}_delta_se": found.se,
                    f"{key}_delta_low": found.low,
                    f"{key}_delta_high": found.high,
                    f"{key}_delta_p": p_values.get(variant.config.id, found.p),
                    f"{key}_delta_n": found.n,
                }
        if spec.compare_to is None and METRICS[key].better == "higher":
            below = dict(zip(networks, against_best(list(values.values())), strict=True))
            for variant in variants:
                found = below[variant.config.id]
                columns[variant.name] |= {f"{key}_below_best": found.mean, f"{key}_below_best_p": found.p}
    return columns


def _cost_changes(spec: Spec, measured: Measured, reference: Measured) -> dict[str, float]:
    """Changes of costs against the reference, in percent."""
    found: dict[str, float] = {}
    if spec.compare_to is None or measured is reference:
        return found
    for key in (key for key in spec.metrics if METRICS[key].group == "cost"):
        ours, theirs = (next(iter(_by_seed(of, key).values()), np.nan) for of in (measured, reference))
        found[f"{key}_change_percent"] = 100 * (ours - theirs) / theirs if theirs else np.nan
    return found


def _disturbed(trials: Iterable[Trial], records: Records) -> dict[str, list[str]]:
    """Unreliable metrics with the distinct reasons."""
    found: dict[str, list[str]] = {}
    for trial in trials:
        for key, reasons in (records.get(trial.key, {}).get("disturbed") or {}).items():
            kept = found.setdefault(key, [])
            kept += [reason for reason in reasons if reason not in kept]
    return found


def _status(trials: Sequence[Trial], records: Records) -> str:
    for trial in trials:
        record = records.get(trial.key)
        if record and record["status"] != "ok":
            seed = f" (seed {trial.inputs.seed})" if GROUPS[trial.group].per_seed else ""
            return f"failed: {trial.group}{seed}: {record['reason']}"
    return "ok" if all(trial.key in records for trial in trials) else PARTIAL


def curves(variants: Iterable[Variant], planned: Mapping[str, Sequence[Trial]], records: Records) -> pd.DataFrame:
    """Training curves with one row per variant, seed and epoch: losses and scores, in training and validation."""
    rows = [
        {
            "variant": variant.name,
            "seed": trial.inputs.seed,
            "epoch": epoch["epoch"],
            **{column: epoch.get(column) for column in (*CURVES, VAL_MIOU)},
        }
        for variant in variants
        for trial in planned[variant.name]
        for epoch in (records.get(trial.key) or {}).get("curves", ())
    ]
    scores = (VAL_MIOU,) if any(row[VAL_MIOU] is not None for row in rows) else ()
    return tidy_curves(pd.DataFrame(rows, columns=["variant", "seed", "epoch", *CURVES, *scores]))


def environments(planned: Mapping[str, Sequence[Trial]], records: Records) -> list[dict[str, Any]]:
    """The distinct environments of the records, those with most trials first.

    Each has ``trials`` ({group: number}), the dates of its first and last trial, versions, processor, commit, …, and
    ``trials_on`` ({host and device: number}) if these are known.
    """
    found: dict[str, dict[str, Any]] = {}
    there_too: dict[str, list[Mapping[str, Any]]] = {}
    distinct = {trial.key: trial.group for trials in planned.values() for trial in trials}
    for key, group in distinct.items():
        if not (there := records.get(key, {}).get("environment")):
            continue
        lasting = {name: value for name, value in there.items() if name not in OF_A_RUN}
        date, name = str(there.get("date_utc", "")), json.dumps(lasting, sort_keys=True)
        of = found.setdefault(name, {"trials": Counter(), "first_utc": date, "last_utc": date, **lasting})
        there_too.setdefault(name, []).append(records[key])
        of["trials"][group] += 1
        of["first_utc"], of["last_utc"] = min(of["first_utc"], date), max(of["last_utc"], date)
    for name, of in found.items():
        on = {place: number for place, number in places(there_too[name]).items() if place}
        of |= {TRIALS_ON: on} if on else {}
    return sorted(found.values(), key=lambda of: -of["trials"].total())


def failures(trials: Iterable[Trial], records: Records) -> list[tuple[str, str]]:
    """Label and reason of every trial whose record is a failure."""
    return [
        (trial.label, f"{record['status'].replace('_', ' ')}: {record['reason']}")
        for trial in trials
        if (record := records.get(trial.key)) and record["status"] != "ok"
    ]
