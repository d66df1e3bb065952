"""What a study leaves in ``OUT/<study>``: inputs when it begins; table, figures and report when it ends; read back.

Those files may come from anybody: they are bounded when read.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hrvit_lab.config import ConfigError
from hrvit_lab.files import try_lock, write_atomically
from hrvit_lab.metrics import METRICS
from hrvit_lab.network.baselines import NetworkConfig, network_from_dict
from hrvit_lab.study.columns import numeric_columns
from hrvit_lab.study.files import load_study
from hrvit_lab.study.space import Dropped, Variant
from hrvit_lab.study.spec import Spec

POLL_S = 0.1


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into the folder, and keep others out."""
    folder.mkdir(parents=True, exist_ok=True)
    while (lock := try_lock(folder / "writing.lock")) is None:
        time.sleep(POLL_S)
    try:
        yield
    finally:
        lock.release(unlink=True)


def write_inputs(
    folder: Path,
    spec: Spec,
    variants: Sequence[Variant],
    dropped: Sequence[Dropped],
    environment: Mapping[str, Any],
) -> None:
    """What the study is: ``study.yaml`` (every default spelled out), ``configs.json``, ``environment.json``
    and ``dropped.json`` ({variant: reason})."""
    texts = {
        "study.yaml": spec.to_yaml(),
        "configs.json": _json({variant.name: variant.config.to_dict() for variant in variants}),
        "environment.json": _json(environment),
        "dropped.json": _json(dict(dropped)),
    }
    with alone_in(folder):
        for name, text in texts.items():
            write_atomically(folder / name, text)


def write_results(folder: Path, table: pd.DataFrame, curves: pd.DataFrame) -> dict[str, str]:
    """What came out: ``table.csv``, ``curves.csv``, ``figures/``, ``report.html``, beside the inputs that are there.

    Returns:
        Where everything of the study lies, by what it is, in the order to read it.
    """
    from hrvit_lab import plots
    from hrvit_lab.study.report.figures import figures_of
    from hrvit_lab.study.report.page import write_report
    from hrvit_lab.study.results import read_results, whole_numbers

    with alone_in(folder):
        write_atomically(folder / "table.csv", whole_numbers(table, table.columns).to_csv(index=False))
        write_atomically(folder / "curves.csv", curves.to_csv(index=False))
        figures = figures_of(read_results(folder))
        pictures = [path for name, figure in figures.items() for path in plots.save(figure, folder / "figures" / name)]
        for old in set((folder / "figures").glob("*.*")) - set(pictures):
            old.unlink()  # of another set of metrics
        report = write_report(folder)
    return {
        "report": str(report),
        "table": str(folder / "table.csv"),
        "curves": str(folder / "curves.csv"),
        "figures": f"{folder / 'figures'}: " + (f"{', '.join(figures)} (each as .png and .svg)" if figures else "none"),
        "study": str(folder / "study.yaml"),
        "configs": str(folder / "configs.json"),
        "dropped": str(folder / "dropped.json"),
        "environment": str(folder / "environment.json"),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


MAX_FILE_BYTES = 64 * 2**20


MAX_ROWS = 10_000


@dataclass(frozen=True)
class Results:
    """What a study left in its folder.

    Attributes:
        name: the folder's, which is the study's.
        spec: the resolved study.
        table: one row a variant, see `study/analysis.py`.
        curves: one row a variant, seed and epoch; empty if nothing was trained.
        environment: under what conditions it ran.
        configs: the config of every variant, by name; those that can't be read are left out.
        dropped: variants that the study's constraints left out, and why.
    """

    name: str
    spec: Spec
    table: pd.DataFrame
    curves: pd.DataFrame
    environment: Mapping[str, Any]
    configs: Mapping[str, NetworkConfig]
    dropped: Mapping[str, str]

    @property
    def dataset(self) -> str:
        """The data set that accuracy is a proxy on."""
        return self.spec.data.name

    @property
    def metrics(self) -> list[str]:
        """Keys of `METRICS` that the table has values of, in the order of `METRICS`."""
        return [key for key in METRICS if key in self.table and self.table[key].notna().any()]

    @property
    def axes(self) -> list[str]:
        """Columns that tell the variants apart; where a variant has a name of its own, that says it."""
        named = self.spec.compare_to is not None or self.spec.variants
        several = [axis for axis in ("resolution", "matching") if axis in self.table and self.table[axis].nunique() > 1]
        return [axis for axis in (() if named else self.spec.axis_names) if axis in self.table] + several

    @property
    def comparable(self) -> bool:
        """Whether a row's costs can be set against its accuracy and other rows' costs: of one network, at one size."""
        return self.spec.cost_base is None and "resolution" not in self.table


def read_results(folder: Path) -> Results:
    """Read a study's folder.

    Raises:
        ConfigError: in one sentence, if `table.csv` or `study.yaml` is missing, broken or too large.
    """
    table = _read_csv(folder / "table.csv")
    if "variant" not in table:
        raise ConfigError(f"{folder.name}/table.csv has no column 'variant'; run the study again")
    for column in table.columns.intersection(numeric_columns()):
        table[column] = pd.to_numeric(table[column], errors="coerce")  # whatever the file says, a figure is a number
    table = whole_numbers(table, table.columns.difference(numeric_columns()))
    curves = folder / "curves.csv"
    return Results(
        name=folder.name,
        spec=load_study(folder / "study.yaml"),
        table=table,
        curves=_read_csv(curves) if curves.is_file() else pd.DataFrame(),
        environment=_read_json(folder / "environment.json"),
        configs=_read_configs(folder / "configs.json"),
        dropped={name: str(reason) for name, reason in _read_json(folder / "dropped.json").items()},
    )


def whole_numbers(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The table with 1000 for 1000.0 in columns whose whole numbers became fractions because some are missing."""
    became = [
        column
        for column in columns
        if pd.api.types.is_float_dtype(table[column])
        and table[column].isna().any()
        and (table[column].dropna() % 1 == 0).all()
    ]
    return table.astype(dict.fromkeys(became, "Int64"))


def records_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def _read_csv(path: Path) -> pd.DataFrame:
    _check_size(path)
    try:
        return pd.read_csv(path, nrows=MAX_ROWS if path.name == "table.csv" else None)
    except (ValueError, pd.errors.ParserError) as error:
        raise ConfigError(f"{_show(path)} is no table ({str(error).splitlines()[0]}); run the study again") from None


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an absent file is an empty one."""
    if not path.is_file():
        return {}
    _check_size(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ConfigError(f"{_show(path)} is no JSON; run the study again") from None
    return value if isinstance(value, dict) else {}


def _read_configs(path: Path) -> dict[str, NetworkConfig]:
    configs = {}
    for name, fields in _read_json(path).items():
        try:
            configs[name] = network_from_dict(fields)
        except ConfigError:
            continue
    return configs


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"there is no {_show(path)}; run the study first")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"{_show(path)} is larger than {MAX_FILE_BYTES // 2**20} MiB, too large for a study")


def _show(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
