"""How far a search is, from the states of its runs, and its charts on the page "Run"."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from hrvit_lab import cli
from hrvit_lab.app.chart_view import draw_chart
from hrvit_lab.app.curves_chart import curves_chart
from hrvit_lab.app.search_time import seconds_left
from hrvit_lab.config import ConfigError
from hrvit_lab.plots.search import NAMES
from hrvit_lab.search.run import Search
from hrvit_lab.search.spec import SearchSpec, load_search
from hrvit_lab.search.state import history_rows

FOLDER, FILE = "search", "search.yaml"
MAX_GENERATIONS = 60
"""Points of a line; later generations improve little, so that they are thinned out."""


@dataclass(frozen=True)
class SearchProgress:
    """The state of a search.

    Attributes:
        spec: the search.
        history: ``method``, ``seed``, ``evaluations``, ``hypervolume``: a row for every run and generation.
        done: networks that are evaluated, in all runs; 0 for a search with trainings.
        total: of how many.
        finished: whether its results are written.
        left_s: estimated time of the rest in seconds; None if it is unknown.
    """

    spec: SearchSpec
    history: pd.DataFrame
    done: int
    total: int
    finished: bool
    left_s: float | None


def is_search(folder: Path) -> bool:
    """Whether the folder is that of a search."""
    return (folder / FOLDER / FILE).is_file()


def read_search(folder: Path) -> SearchProgress | None:
    """The state of the search in a folder, which may be running; None if it has not begun, or its files are damaged."""
    files = [*sorted((folder / FOLDER).glob("*-seed*.json")), folder / FOLDER / FILE, folder / "table.csv"]
    return _read(folder, [path.stat().st_mtime_ns for path in files if path.exists()])


@st.cache_data(max_entries=8, show_spinner=False)
def _read(folder: Path, changes: list[int]) -> SearchProgress | None:
    """Read again only after a change of the files."""
    try:
        search = Search(folder.name, load_search(folder / FOLDER / FILE), folder)
        states = {} if search.spec.trainings else search.states()
    except (ConfigError, OSError):
        return None
    budget = search.spec.budget.evaluations
    done = sum(budget if state.exhausted else min(state.evaluations, budget) for state in states.values())
    total = 0 if search.spec.trainings else budget * len(search.runs)
    history = pd.DataFrame(history_rows(states), columns=["method", "seed", "evaluations", "hypervolume"])
    written = (folder / "table.csv").exists()
    left_s = seconds_left(search, states) if total else None
    return SearchProgress(search.spec, history, done, total, written and done >= total, left_s)


def draw_progress(progress: SearchProgress, running: bool) -> None:
    """The bar, or a sentence where there is none."""
    if progress.total:
        share = min(1.0, progress.done / progress.total)
        left = progress.left_s if running and share < 1 else None
        said = f", about {cli.rough_duration(left)} left" if left is not None else ""
        st.progress(share, f"{progress.done:,} of {progress.total:,} networks, in all runs{said}")
    elif running:
        st.progress(0.0, "Networks are being trained; the log below says how many.")


def draw_hypervolume(progress: SearchProgress) -> None:
    """How fast the methods find good networks."""
    st.subheader("Hypervolume", anchor=False)
    if progress.history.empty:
        st.caption(
            "Searches with trainings have no such chart."
            if progress.spec.trainings
            else "The chart appears after the first generation."
        )
        return
    draw_chart(
        curves_chart(by_method(progress.history), "evaluations", "evaluated networks", "hypervolume", ""),
        "hypervolume of a search",
        title="hypervolume by number of evaluated networks", conditions=_conditions(progress.spec),
        data=progress.history,
        alt=f"Hypervolume against evaluated networks of {progress.history['method'].nunique()} methods.",
    )  # fmt: skip
    st.caption("Higher is better: the share of the objectives' box that is dominated.")


def _conditions(spec: SearchSpec) -> str:
    seeds = f"{len(spec.budget.seeds)} seed{'s' * (len(spec.budget.seeds) != 1)}"
    return f"{', '.join(spec.objectives)} at {cli.show_size(spec.resolution)} px; mean and range over {seeds}"


def by_method(history: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds for ``curves_chart``: ``variant`` (the method), ``evaluations``, ``value``, ``low``, ``high``,
    ``n``; at most ``MAX_GENERATIONS`` points of a method, the last one included. A run that has ended keeps its last
    value."""
    parts = []
    for method, rows in history.groupby("method", sort=False):
        seeds = rows.pivot(index="evaluations", columns="seed", values="hypervolume").sort_index().ffill()
        means = pd.DataFrame(
            {"value": seeds.mean(axis=1), "low": seeds.min(axis=1), "high": seeds.max(axis=1), "n": seeds.count(axis=1)}
        ).reset_index()
        step = -(-len(means) // MAX_GENERATIONS)
        parts.append(means.iloc[::-1].iloc[::step].iloc[::-1].assign(variant=NAMES.get(str(method), str(method))))
    return pd.concat(parts, ignore_index=True)
