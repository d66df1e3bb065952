"""What the page "Run" shows of one run: state, progress and log, which are drawn again and again; charts and tables."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import streamlit as st

from hrvit_lab import cli
from hrvit_lab.app import processes
from hrvit_lab.app.chart_view import draw_chart
from hrvit_lab.app.curves_chart import curves_chart, study_curves
from hrvit_lab.app.folders import find_trainings, is_by_recipe
from hrvit_lab.app.pages.studies import draw_table, draw_tradeoff, quantity
from hrvit_lab.app.processes import SAID, Process, State
from hrvit_lab.app.run_choices import again, resume_request
from hrvit_lab.app.search_progress import SearchProgress, draw_hypervolume, draw_progress, is_search, read_search
from hrvit_lab.app.training_progress import TrainingProgress, read_training
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError
from hrvit_lab.metrics import SCORES
from hrvit_lab.study.status import Status, read_status, still_running
from hrvit_lab.study.tables import to_csv

COLORS: dict[State, Literal["blue", "green", "orange", "red"]] = {
    "running": "blue",
    "finished": "green",
    "stopped": "orange",
    "failed": "red",
    "lost": "orange",
}
ICONS: dict[State, str] = {
    "running": ":material/play_circle:", "finished": ":material/check_circle:", "stopped": ":material/pause_circle:",
    "failed": ":material/error:", "lost": ":material/help:",
}  # fmt: skip
MAX_NAMED = 3


class Run(NamedTuple):
    """A run that can be watched.

    Attributes:
        name: as in the list of runs.
        kind: ``study``, ``training`` or ``search``.
        folder: of its results.
        process: that the app started for it; None if it was started elsewhere.
    """

    name: str
    kind: str
    folder: Path
    process: Process | None


def find_runs(results: Path, runs: Path) -> dict[str, Run]:
    """All runs by name, the newest first: of the app, and those whose files are in the folders."""
    roots = {"study": results, "training": runs, "search": results}
    started = {
        (str(one.request.kind), roots[one.request.kind] / one.request.target): one
        for one in processes.find(results)
        if one.request.kind in roots
    }
    places = [("search", path.parent.parent) for path in results.glob("*/search/search.yaml")]
    places += [("study", path.parent) for path in results.glob("*/study.yaml") if not is_search(path.parent)]
    places = [(kind, path) for kind, path in places if path.resolve().is_relative_to(path.parent.resolve())]
    named = {(kind, path): run_name(kind, path.name) for kind, path in places}
    named |= {("training", path): name for name, path in find_trainings(runs, results).items()}
    named |= {(kind, path): run_name(kind, path.name) for kind, path in started if (kind, path) not in named}
    found = [Run(name, *place, started.get(place)) for place, name in named.items()]
    return {run.name: run for run in sorted(found, key=lambda run: -_last_change(run))}


def run_name(kind: str, target: str) -> str:
    """The name of a run of the app: in the list of runs, and in addresses."""
    return target if kind == "study" else f"{kind} {target}"


def _last_change(run: Run) -> float:
    files = ("study.yaml", "table.csv", "recipe.yaml", "result.json", "metrics.jsonl", "curves.csv")
    times = [path.stat().st_mtime for name in files if (path := run.folder / name).exists()]
    return max([*times, run.process.started if run.process else 0.0], default=0.0)


class Seen(NamedTuple):
    """What is known of a run at one moment.

    Attributes:
        running: whether it runs.
        elsewhere: the processes that run it, if the app has not started them.
        status: of a study, once its folder is valid.
        progress: of a training.
        search: of a search, once it has begun.
        fault: why a study can't be read; empty if it can, or if it has just begun.
    """

    running: bool
    elsewhere: Sequence[str] = ()
    status: Status | None = None
    progress: TrainingProgress | None = None
    search: SearchProgress | None = None
    fault: str = ""

    @property
    def version(self) -> tuple[Any, ...]:
        """Changes when charts and tables do."""
        if self.progress is not None:
            return self.running, len(self.progress.steps), len(self.progress.evaluations), self.progress.status
        if self.search is not None:
            return self.running, self.search.done, self.search.finished
        return self.running, self.fault, self.status.finished if self.status is not None else -1

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run."""
        if self.progress is not None:
            return self.progress.status == "complete"
        if self.search is not None:
            return self.search.finished
        return self.status is not None and self.status.complete


def look(run: Run) -> Seen:
    """Look at a run."""
    own = run.process is not None and run.process.running
    if run.kind == "training":
        return Seen(own, progress=read_training(run.folder))
    search = read_search(run.folder) if run.kind == "search" else None
    if run.kind == "search" and (search is None or not search.finished):
        return Seen(own, search=search)
    try:
        status = status_of(run.folder)
    except ConfigError as error:
        begun = (run.folder / "study.yaml").exists()
        return Seen(own, fault=str(error) if begun and not own else "")
    elsewhere = [] if own else sorted({each.where for each in status.running if still_running(run.folder, each)})
    return Seen(own or bool(elsewhere), elsewhere, status, search=search)


def draw_head(run: Run, seen: Seen, results: Path) -> None:
    """Title, state, progress, what can be done, and the log."""
    _draw_title(run, seen)
    if seen.progress is not None:
        _draw_steps(seen.progress, seen.running)
    elif seen.search is not None:
        draw_progress(seen.search, seen.running)
    elif seen.status is not None:
        _draw_trials(seen.status, seen.running)
    elif seen.running:
        st.progress(0.0, "Starting: loading the packages takes some seconds.")
    if seen.fault:
        st.error(plain(seen.fault), icon=":material/error:")
    for label, reason in seen.status.failures[:MAX_NAMED] if seen.status is not None else ():
        st.warning(plain(f"{label}: {reason}"), icon=":material/warning:")
    if seen.progress is not None and seen.progress.ended and not seen.running:
        st.warning(plain(f"The training ended early: {seen.progress.ended}"), icon=":material/warning:")
    _draw_controls(run, results, seen)
    _draw_log(run.process)


def draw_results(run: Run, seen: Seen) -> None:
    """Charts and tables of what has finished."""
    if seen.progress is not None:
        _draw_training(run, seen.progress)
        return
    if seen.search is not None:
        draw_hypervolume(seen.search)
    if seen.status is not None:
        _draw_study(seen.status)


# -- studies ---------------------------------------------------------------------------------------------------


@st.cache_data(max_entries=8, show_spinner=False)
def _status(folder: Path, changes: Sequence[int]) -> Status:
    """Read again only after a change of the study's files, or after a trial has started or finished."""
    return read_status(folder)


def status_of(folder: Path) -> Status:
    """The state of a study.

    Raises:
        ConfigError: if its folder has no valid study.
    """
    files = [folder / "study.yaml", folder / "environment.json", folder.parent / "trials" / "journal.jsonl"]
    changes = [stamp for path in files if path.exists() for stamp in (path.stat().st_mtime_ns, path.stat().st_size)]
    return _status(folder, changes)


def _draw_trials(status: Status, running: bool) -> None:
    number, done = len(status.trials), status.finished
    if not number:
        st.caption("No trials: costs are computed in closed form.")
        return
    said = [f"{done} of {number} trials"]
    now = time.time()
    if running and (left := status.left_s(now)) is not None and done < number:
        said.append(f"about {cli.rough_duration(left)} left")
    st.progress(done / number, ", ".join(said))
    if running and status.running:
        labels = [f"{each.trial.label} ({cli.duration(max(0.0, now - each.owner.since))})" for each in status.running]
        more = f" and {len(labels) - MAX_NAMED} more" if len(labels) > MAX_NAMED else ""
        st.caption("Running: " + plain(", ".join(labels[:MAX_NAMED]) + more))


def _draw_study(status: Status) -> None:
    results = status.results
    curves = study_curves(results.curves, results.score)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Curves", anchor=False)
        if curves.empty:
            st.caption("Curves appear when the first training finishes.")
        else:
            label = SCORES[results.score]
            draw_chart(
                curves_chart(curves, "epoch", "epoch", f"validation {label} on {results.dataset}, %", "%"),
                "curves of a study", title=f"validation {label} by epoch",
                conditions=f"{quantity(results, results.score).conditions}\nMean over the finished seeds; bars: range.",
                data=curves, alt=f"Validation {label} by epoch of {curves['variant'].nunique()} networks.",
            )  # fmt: skip
    with right:
        st.subheader("Trade-off", anchor=False)
        x, y = results.spec.axes_of_tradeoff
        rows = results.table[[x, y]].notna().all(axis=1).sum() if {x, y} <= set(results.table) else 0
        if rows and results.comparable:
            draw_tradeoff(results, x, y)
            st.caption(f"{rows} of {len(results.table)} networks have both values so far. Hover for all values.")
        else:
            st.caption("The chart appears when a network has both values.")
    st.subheader("Table so far" if not status.complete else "Table", anchor=False)
    draw_table(results)
    with st.container(horizontal=True):
        for name, frame in (("table", results.table), ("curves", results.curves)):
            st.download_button(
                f"{name}.csv", to_csv(frame), f"{results.name}-{name}.csv", "text/csv", icon=":material/download:",
                on_click="ignore", key=f"{name} of {results.name}",
            )  # fmt: skip


# -- trainings -------------------------------------------------------------------------------------------------


def _draw_steps(progress: TrainingProgress, running: bool) -> None:
    done, unit = progress.done, progress.unit
    if progress.total:
        st.progress(min(1.0, done / progress.total), f"{unit.capitalize()} {done:,} of {progress.total:,}")
    elif running:
        st.progress(0.0, f"{unit.capitalize()} {done:,}" if done else "Starting: loading the data takes a minute.")
    elif not done:
        st.caption(f"This training has no finished {unit}.")


def _draw_training(run: Run, progress: TrainingProgress) -> None:
    left, right = st.columns(2, gap="large")
    unit = progress.unit
    with left:
        st.subheader("Loss", anchor=False)
        losses = (
            _one_line(progress.steps, "loss", "training, one batch", unit)
            if unit == "step"
            else _one_line(progress.evaluations, "train_loss", "training, mean of the epoch", unit)
        )
        if len(progress.evaluations):
            parts = [losses, _one_line(progress.evaluations, "eval_loss", "validation", unit)]
            losses = pd.concat([part for part in parts if len(part)] or [losses], ignore_index=True)
        _draw_line(losses, unit, "loss, nats", "", "Loss appears after some seconds of training.", progress.conditions)
    with right:
        score = progress.score
        st.subheader(SCORES[score] if score else "Score", anchor=False)
        scores = _one_line(progress.evaluations, f"eval_{score}", "validation", unit)
        label = f"validation {SCORES[score]}, %" if score else ""
        _draw_line(scores, unit, label, "%", "The score appears after the first evaluation.", progress.conditions)
    if len(progress.evaluations):
        st.subheader("Evaluations", anchor=False)
        st.dataframe(progress.evaluations, hide_index=True, width="stretch")
        st.download_button(
            "Evaluations (CSV)", to_csv(progress.evaluations), f"{run.folder.name}.csv", "text/csv",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip


def _one_line(frame: pd.DataFrame, column: str, name: str, unit: str) -> pd.DataFrame:
    if column not in frame or frame[column].dropna().empty:
        return pd.DataFrame(columns=["variant", unit, "value", "low", "high", "n"])
    rows = frame.dropna(subset=[column])
    value = rows[column].astype(float)
    return pd.DataFrame({"variant": name, unit: rows[unit], "value": value, "low": value, "high": value, "n": 1})


def _draw_line(data: pd.DataFrame, x: str, title: str, unit: str, empty: str, conditions: str) -> None:
    if data.empty:
        st.caption(empty)
        return
    draw_chart(
        curves_chart(data, x, x, title, unit), f"{title} of a training", title=f"{title.partition(', ')[0]} by {x}",
        conditions=conditions, data=data, alt=f"{title} by {x}, {len(data)} values.",
    )  # fmt: skip


# -- the frame of both -----------------------------------------------------------------------------------------


def _draw_title(run: Run, seen: Seen) -> None:
    process, status = run.process, seen.status
    title = status.results.spec.title if status is not None else process.request.title if process else run.name
    state: State | None = "running" if seen.running else process.state if process else None
    if not seen.running and seen.complete and not (status is not None and status.failures):
        state = "finished"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(plain(title), anchor=False, width="content")
        if state is not None:
            st.badge(SAID[state], icon=ICONS[state], color=COLORS[state])
        else:
            st.badge("not complete", icon=ICONS["stopped"], color=COLORS["stopped"])
    said = []
    if process is not None:
        until = time.time() if seen.running else process.ended
        lasted = f", {cli.duration(until - process.started)}" if until is not None else ""
        said.append(f"Started {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(process.started))}{lasted}.")
    if seen.elsewhere:
        said.append(f"It was started outside the app ({', '.join(seen.elsewhere)}), and can be stopped there.")
    st.caption(" ".join([*said, f"Results: `{run.folder}`"]))


def _draw_controls(run: Run, results: Path, seen: Seen) -> None:
    """Stop, or how to go on. A failed action says why below."""
    process = run.process
    if seen.running:
        if process is not None and process.running:
            st.button(
                "Stop", icon=":material/stop_circle:", on_click=processes.stop, args=(process,), key="stop",
                help="Finished trials and the training's last state are kept, so that it can be resumed.",
            )  # fmt: skip
        return
    if seen.complete:
        return
    request = process.request if process is not None else None
    if request is None and run.kind == "study":
        request = resume_request(run.folder, run.name)
    if seen.progress is not None and not is_by_recipe(run.folder):
        going = "If its command still runs in a terminal, reload the page for further epochs. "
        st.caption(
            (going if seen.progress.status == "running" else "")
            + "A short training can't be resumed; its command writes to a new folder when it is run again."
        )
        return
    if request is None:
        st.caption("To go on, run the command that started it again. Finished work is kept.")
        return
    if process is not None and process.state in ("stopped", "lost"):
        why = "Stopped." if process.state == "stopped" else "It was ended from outside."
        st.info(f"{why} Finished work is kept; *Resume* runs the rest.", icon=":material/pause_circle:")
    st.button("Resume", icon=":material/play_arrow:", on_click=_resume, args=(request, results), key="resume")
    if message := st.session_state.pop("run_error", None):
        st.error(plain(message), icon=":material/error:")
    st.caption("Or in a terminal:")
    st.code(request.command, language=None, wrap_lines=True)


def _resume(request: processes.Request, results: Path) -> None:
    try:
        processes.start(results, again(request, results))
    except ConfigError as error:
        st.session_state["run_error"] = str(error)


def _draw_log(process: Process | None) -> None:
    if process is None:
        return
    with st.expander("Log", expanded=process.state == "failed", icon=":material/terminal:"):
        text = processes.log(process)
        st.code(text or "There is no output yet.", language=None, wrap_lines=True, height=260 if text else "content")
