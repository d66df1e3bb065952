"""All results as points of one table: variants of studies, trainings, timed networks, and published networks.

Files are untrusted: their size is bounded, and invalid ones are left out and reported.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrvit_lab.charts import undominated
from hrvit_lab.config import ConfigError
from hrvit_lab.metrics import METRICS
from hrvit_lab.study.latency_points import latency_points
from hrvit_lab.study.point_rows import FIELDS, kind_of, properties
from hrvit_lab.study.published_points import published_points
from hrvit_lab.study.quantities import Quantity, measured
from hrvit_lab.study.results import read_results, records_of
from hrvit_lab.study.tables import DISTURBED
from hrvit_lab.study.training_points import training_point

MAX_FOLDERS = 1000


@dataclass(frozen=True)
class Points:
    """Points and the quantities that they have values of.

    Attributes:
        table: one row per point. Columns: ``name``, ``source`` (study, training, latency or publication), ``kind``
            (one of ``KINDS``), ``family``, ``config_id``, ``FIELDS``, ``config`` (its fields, None if unknown); and for
            each quantity ``KEY``, ``KEY low`` and ``KEY high`` (its spread), ``KEY disturbed`` (why it is unreliable).
        quantities: by key, those with the most values first.
        faults: folders that were left out, each with the reason.
    """

    table: pd.DataFrame
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def collect(
    studies: Iterable[Path] = (), trainings: Mapping[str, Path] = MappingProxyType({}), latencies: Iterable[Path] = ()
) -> Points:
    """Points of the studies, trainings and latencies in these folders, and of all published results.

    Args:
        studies: folders with a ``table.csv``.
        trainings: folders with a ``result.json`` of ``hrvit-lab train``, by name.
        latencies: folders with a ``latency.csv`` of ``hrvit-lab latency``.
    """
    rows: list[dict[str, Any]] = []
    quantities: dict[str, Quantity] = {}
    faults: list[str] = []
    sources: list[tuple[Path, Callable[[], Iterable[dict[str, Any]]]]] = [
        *((folder, partial(study_points, folder, quantities)) for folder in studies),
        *((folder, partial(_one_training, folder, name, quantities)) for name, folder in trainings.items()),
        *((folder, partial(latency_points, folder, quantities)) for folder in latencies),
    ]
    for folder, read in sources[:MAX_FOLDERS]:
        try:
            rows += read()
        except (ConfigError, OSError) as error:
            faults.append(f"{folder.name}: {error}")
    rows += published_points(quantities)
    table = pd.DataFrame(rows, columns=_columns(quantities))
    return Points(table, present(table, quantities), tuple(faults))


def _one_training(folder: Path, name: str, quantities: dict[str, Quantity]) -> list[dict[str, Any]]:
    return [training_point(folder, name, quantities)]


def present(table: pd.DataFrame, quantities: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """The quantities that points of the table have, those of most points first."""
    number = {key: int(table[key].notna().sum()) for key in quantities}
    return {key: quantities[key] for key in sorted(quantities, key=lambda key: -number[key]) if number[key]}


def _columns(quantities: Iterable[str]) -> list[str]:
    spread = [f"{key}{end}" for key in quantities for end in ("", " low", " high", f" {DISTURBED}")]
    return ["name", "source", "kind", "family", "config_id", *FIELDS, "config", *spread]


# -- studies --------------------------------------------------------------------------------------------------


def study_points(folder: Path, quantities: dict[str, Quantity]) -> Iterator[dict[str, Any]]:
    """The variants of a study; new quantities are added to ``quantities``.

    If costs are those of another network than the trained one (``cost_base``), a variant is two points.

    Raises:
        ConfigError: if the folder cannot be read.
    """
    results = read_results(folder)
    accuracy = [key for key in results.metrics if METRICS[key].per_seed]
    others = [key for key in results.metrics if key not in accuracy]
    groups = [others, accuracy] if results.spec.cost_base is not None else [results.metrics]
    source = folder.resolve().name
    quantity_of = cache(lambda key, size: measured(key, results, size))
    for row in records_of(results.table):
        config = results.configs.get(row["variant"])
        config = config if isinstance(config, Mapping) else None
        place = {
            "name": row["variant"], "source": source, "config_id": row["config_id"], "config": config,
            "kind": kind_of(config), **properties(config),
        }  # fmt: skip
        for keys in groups:
            if values := dict(_values(row, keys, quantity_of, quantities)):
                yield place | values


def _values(
    row: Mapping[str, Any], keys: Iterable[str], quantity_of: Callable[[str, str | None], Quantity],
    quantities: dict[str, Quantity],
) -> Iterator[tuple[str, Any]]:  # fmt: skip
    size = row.get("resolution")
    for key in keys:
        value = row[key]
        if not math.isfinite(value):
            continue
        quantity = quantity_of(key, size if isinstance(size, str) else None)
        quantities.setdefault(quantity.key, quantity)
        yield quantity.key, value
        ends = row.get(f"{key}_p10", math.nan), row.get(f"{key}_p90", math.nan)
        std = row.get(f"{key}_std", math.nan)
        if not math.isnan(std):
            ends = value - std, value + std
        if not any(map(math.isnan, ends)):
            yield f"{quantity.key} low", ends[0]
            yield f"{quantity.key} high", ends[1]
        if isinstance(why := row.get(f"{key}_{DISTURBED}"), str):
            yield f"{quantity.key} {DISTURBED}", why


def pareto_front(table: pd.DataFrame, x: Quantity, y: Quantity) -> NDArray[np.bool_]:
    """Points that are not dominated in two quantities, (points,)."""
    signs = [1 if quantity.better == "higher" else -1 for quantity in (x, y)]
    reliable = table[[f"{x.key} {DISTURBED}", f"{y.key} {DISTURBED}"]].isna().all(axis=1).to_numpy()
    return undominated(table[[x.key, y.key]].to_numpy(dtype=float) * signs, reliable)
