"""What a study leaves in ``OUT/<study>``: inputs when it begins; table, figures and report when it ends."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from hrvit_lab.study.space import Dropped, Variant
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.store import try_lock, write_atomically

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
    from hrvit_lab.study.report import figures_of, read_results, whole_numbers, write_report

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
