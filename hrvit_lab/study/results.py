"""The results of a study in memory: computed from trials by ``study/analysis.py``, or read from a results folder.

Files in a folder are untrusted: their size is bounded, and invalid parts are ignored and reported once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrvit_lab.config import ConfigError
from hrvit_lab.files import MIB, read_bounded
from hrvit_lab.metrics import METRICS, score_of
from hrvit_lab.study.files import load_study
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.tables import NOT_BUILT, PARTIAL, no_curves, read_curves, read_table

if TYPE_CHECKING:
    from hrvit_lab.plots import Figure

MAX_FILE_BYTES = 64 * MIB
MAX_DEPTH = 20

STUDY_FILE = "study_file"
"""Key in ``environment.json`` of the digests that identify the study's file."""


@dataclass(frozen=True)
class Results:
    """A study and its results.

    Attributes:
        folder: the folder of its files.
        spec: the resolved study.
        environment: of the latest run.
        configs: the fields of every variant's config, by the variant's name; not validated if read from a file.
        dropped: excluded variants with the reasons.
        table: one row per variant, see `study/analysis.py`.
        curves: one row per variant, seed and epoch; empty if no network was trained.
        measured_in: distinct environments of the table's records, each with groups and numbers of trials; empty if
            unknown.
        faults: problems in the folder's files, each with what was ignored.
    """

    folder: Path
    spec: Spec
    environment: Mapping[str, Any]
    configs: Mapping[str, Any]
    dropped: Mapping[str, str]
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: pd.DataFrame = field(default_factory=no_curves)
    measured_in: Sequence[Mapping[str, Any]] = ()
    faults: Sequence[str] = ()

    def __repr__(self) -> str:
        failed = f"{len(self.failed)} failed" if self.failed else "none failed"
        return (
            f"Results({self.name!r}, {len(self.table)} variants; {', '.join(self.metrics) or 'no metrics'}; {failed}; "
            f"in {self.folder})"
        )

    @property
    def name(self) -> str:
        """The name of the study and of its folder."""
        return self.folder.resolve().name

    @property
    def failed(self) -> dict[str, str]:
        """Variants with a failed trial, with the reason."""
        rows = records_of(self.table) if "status" in self.table else []
        return {row["variant"]: row["status"] for row in rows if row["status"] not in ("ok", PARTIAL, NOT_BUILT)}

    @property
    def report(self) -> Path:
        """The path of the report, which exists once the study has finished."""
        return self.folder / "report.html"

    @cached_property
    def figures(self) -> "dict[str, Figure]":
        """The report's figures by name; drawn on first access."""
        from hrvit_lab.study.report.figures import figures_of

        return figures_of(self)

    @property
    def dataset(self) -> str:
        """The data set of the trainings."""
        return self.spec.dataset

    @property
    def score(self) -> str:
        """The score by which trained networks are compared: ``top1`` or ``miou``."""
        return score_of(self.table)

    @property
    def metrics(self) -> list[str]:
        """Keys of `METRICS` that have values in the table, in the order of `METRICS`."""
        return [key for key in METRICS if key in self.table and self.table[key].notna().any()]

    @property
    def axes(self) -> list[str]:
        """Columns of the axes in which variants differ; for variants listed by name, only resolution and matching."""
        named = self.spec.compare_to is not None or self.spec.variants
        several = [axis for axis in ("resolution", "matching") if axis in self.table and self.table[axis].nunique() > 1]
        return [axis for axis in (() if named else self.spec.axis_names) if axis in self.table] + several

    @property
    def comparable(self) -> bool:
        """Whether costs are comparable with accuracy and between rows: of the trained network, at one resolution."""
        return self.spec.cost_base is None and "resolution" not in self.table


def read_results(folder: Path) -> Results:
    """Read a study's folder.

    Raises:
        ConfigError: if `table.csv` or `study.yaml` is missing, invalid or too large.
    """
    faults: list[str] = []
    try:
        table, wrong = read_table(read_bounded(folder / "table.csv", MAX_FILE_BYTES))
    except FileNotFoundError:
        raise ConfigError(f"there is no {folder.name}/table.csv; run the study first") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder.name}/table.csv can't be read: {_reason(error)}; run the study again") from None
    faults += wrong
    curves = no_curves()
    try:
        curves, wrong = read_curves(read_bounded(folder / "curves.csv", MAX_FILE_BYTES))
        faults += wrong
    except FileNotFoundError:
        if any(METRICS[key].per_seed and key in table for key in METRICS):
            faults.append("there is no curves.csv: training curves are missing")
    except (OSError, ValueError) as error:
        faults.append(f"curves.csv is left out: {_reason(error)}")
    dropped = _read_json(folder / "dropped.json", dict, faults, _plain)
    environments = _read_json(folder / "measured_in.json", list, faults, _plain)
    return Results(
        folder=folder,
        spec=load_study(folder / "study.yaml"),
        environment=_read_json(folder / "environment.json", dict, faults, _plain),
        configs=_read_json(folder / "configs.json", dict, faults),
        dropped={name: str(reason) for name, reason in dropped.items()},
        table=table,
        curves=curves,
        measured_in=[each for each in environments if isinstance(each, Mapping)],
        faults=faults,
    )


def records_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's rows as dicts."""
    names, columns = [str(name) for name in table], [table[name].tolist() for name in table]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def front_first(table: pd.DataFrame, most: int) -> NDArray[np.bool_]:
    """A mask of at most ``most`` rows to show, (rows,); rows on the Pareto front take precedence."""
    order = np.argsort(~table["pareto"].to_numpy(dtype=bool), kind="stable")[:most]
    return np.isin(np.arange(len(table)), order)


def _read_json(path: Path, kind: type[Any], faults: list[str], check: Callable[[Any], Any] | None = None) -> Any:
    """Read a JSON value of that type; an empty one if the file is missing or invalid."""
    try:
        value = json.loads(read_bounded(path, MAX_FILE_BYTES), parse_constant=_refuse)
        if not isinstance(value, kind):
            raise ValueError("its content has the wrong type")
        return check(value) if check else value
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path.name} is left out: {_reason(error)}")
        return kind()


def _plain(value: Any, depth: int = 0) -> Any:
    """The value with strings that can be encoded as UTF-8.

    Raises:
        ValueError: if it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_plain(name): _plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _reason(error: Exception) -> str:
    """A short reason in one line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        return "it is not JSON"
    return " ".join(str(error).split())[:200]
