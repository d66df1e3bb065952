"""Page "Run": start a study, a training or a search as a process of its own, watch it, stop it, and find it again."""

import math
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from hrvit_lab import cli
from hrvit_lab.app import processes, run_choices, watch
from hrvit_lab.app.folders import results_root, runs_root
from hrvit_lab.app.run_choices import AXES, BASES, DATA, MEASURED, SIDES, Composed, words
from hrvit_lab.app.search_time import how_long
from hrvit_lab.app.training_progress import seconds_of_recipe
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.plots.search import NAMES
from hrvit_lab.search.spec import SearchSpec
from hrvit_lab.study.files import find_study, load_study
from hrvit_lab.study.progress import describe_plan
from hrvit_lab.study.requirements import trains
from hrvit_lab.study.sweep import Sweep, durations
from hrvit_lab.train.recipe import AnyRecipe

POLL_S = 2.0
VIEWS = {"start": "Start a run", "watch": "Watch runs"}
SHIPPED, OWN, TRAINING, SEARCH = (
    "A shipped study", "A study of your own", "A training by a recipe", "A search for better networks",
)  # fmt: skip
INTRODUCTION = (
    "A run is a process of its own: it goes on when this page, the browser or the app is closed. Everything finished "
    "is kept, and a stopped run can be resumed."
)
NO_RUNS = "There are no runs in `{folder}` yet. Choose *Start a run* above: `branch_sweep` is a good first study."


def show() -> None:
    """Draw the page."""
    results, runs = results_root(sys.argv[1:]), runs_root(sys.argv[1:])
    st.markdown(INTRODUCTION)
    found = watch.find_runs(results, runs)
    runs_now = any(run.process and run.process.running for run in found.values())
    _restore("view", VIEWS, "watch" if runs_now else "start")
    view = st.segmented_control(
        "View", list(VIEWS), key="view", format_func=VIEWS.__getitem__, required=True, label_visibility="collapsed"
    )
    st.query_params["view"] = view or "start"
    if view == "watch":
        _watch(found, results)
    else:
        _start(results, runs)


def _restore(name: str, choices: Collection[str], first: str) -> None:
    """Set the state of a widget to that of the address, or to the first choice, unless it has a valid one."""
    if st.session_state.get(name) not in choices:
        given = st.query_params.get(name)
        st.session_state[name] = given if given in choices else first


# -- watch -----------------------------------------------------------------------------------------------------


def _watch(found: dict[str, watch.Run], results: Path) -> None:
    if not found:
        st.info(NO_RUNS.format(folder=results.name), icon=":material/science:")
        return
    _restore("run", found, next(iter(found)))
    name = st.selectbox("Run", list(found), key="run", width=420)
    st.query_params["run"] = name
    run = found[name]
    seen = watch.look(run)
    st.session_state["seen"] = seen.version
    st.fragment(_head, run_every=POLL_S if seen.running else None)(name, results)
    watch.draw_results(run, seen)


def _head(name: str, results: Path) -> None:
    """State and progress, drawn again and again. When charts and tables have changed, the whole page is."""
    run = watch.find_runs(results, runs_root(sys.argv[1:])).get(name)
    if run is None:
        st.info("The files of this run are gone.", icon=":material/delete:")
        return
    seen = watch.look(run)
    watch.draw_head(run, seen, results)
    if st.session_state.get("seen") != seen.version:
        st.rerun()


# -- start -----------------------------------------------------------------------------------------------------


def _start(results: Path, runs: Path) -> None:
    left, right = st.columns([2, 3], gap="large")
    with left:
        kind = st.radio("What", [SHIPPED, OWN, TRAINING, SEARCH], key="kind", bind="query-params", horizontal=False)
        try:
            with st.container(border=True):
                draw = {SHIPPED: _shipped, OWN: _own, TRAINING: _training, SEARCH: _search}[kind]
                draw_plan, request = draw(results, runs)
        except ConfigError as error:
            st.error(plain(error), icon=":material/error:")
            return
        if message := st.session_state.pop("run_error", None):
            st.error(plain(message), icon=":material/error:")
    with right:
        try:
            draw_plan()
        except ConfigError as error:
            st.error(plain(error), icon=":material/error:")
            return
        st.button(
            "Start", type="primary", icon=":material/play_arrow:", on_click=_on_start, args=(request, results),
            key="start",
        )  # fmt: skip


def _on_start(request: Any, results: Path) -> None:
    """Start, and show the run; or keep the reason why not."""
    try:
        process = processes.start(results, request())
    except ConfigError as error:
        st.session_state["run_error"] = str(error)
        return
    kind, target = process.request.kind, process.request.target
    st.session_state.update(view="watch", run=watch.run_name(kind, target))


def _shipped(results: Path, runs: Path) -> tuple[Any, Any]:
    titles = run_choices.studies()
    if not titles:
        raise ConfigError("there are no studies here; compose one of your own")
    names = sorted(titles, key=lambda name: name != "branch_sweep")
    name = st.selectbox("Study", names, key="study", bind="query-params", help="The files in studies/ of this folder.")
    spec = load_study(find_study(name))
    seeds, epochs = len(spec.seeds), None
    if trains(spec):
        first, second = st.columns(2)
        seeds = int(
            first.number_input(
                "Seeds", 1, run_choices.MAX_SEEDS, len(spec.seeds), key=f"seeds of {name}",
                help="Trainings of each network. Differences need at least two.",
            )
        )  # fmt: skip
        if spec.recipe is None:
            epochs = int(
                second.number_input(
                    "Epochs", 1, run_choices.MAX_EPOCHS, spec.train.epochs, key=f"epochs of {name}",
                    help="Passes over the training images.",
                )
            )  # fmt: skip
    choice = (name, seeds, epochs, results)
    return (
        lambda: _draw_plan(_planned("shipped", choice, _stamp(results))),
        lambda: run_choices.shipped_request(*choice),
    )


def _own(results: Path, runs: Path) -> tuple[Any, Any]:
    composed = _compose()
    spec = composed.spec()
    return (
        lambda: _draw_plan(_planned("composed", (spec, results), _stamp(results))),
        lambda: run_choices.composed_request(spec, results),
    )


def _compose() -> Composed:
    """The fields of a composed study."""
    base = st.selectbox("Network to start from", BASES, key="base")
    axis = st.selectbox("What varies", list(AXES), key="axis", format_func=words)
    values = st.multiselect("Values", AXES[axis], list(AXES[axis])[:3], key=f"values of {axis}")
    metrics = st.multiselect(
        "Measured", MEASURED, ["params", "macs", "top1"], key="measured", format_func=lambda key: METRICS[key].label
    )
    equal = st.toggle(
        "At equal MACs", key="equal", help="Scale widths until the MACs equal those of the first network."
    )
    data, side, seeds, epochs, images = DATA[0], SIDES[0], 1, 2, run_choices.FEW_IMAGES
    first, second = st.columns(2)
    side = first.selectbox("Input side, px", SIDES, key="side", help="Five branches need 64 px.")
    if "top1" in metrics:
        data = second.selectbox("Data", DATA, key="data", format_func=lambda name: name.replace("_", "-"))
        first, second, third = st.columns(3)
        seeds = int(first.number_input("Seeds", 1, run_choices.MAX_SEEDS, 2, key="own seeds"))
        epochs = int(second.number_input("Epochs", 1, run_choices.MAX_EPOCHS, 2, key="own epochs"))
        images = int(
            third.number_input(
                "Images", 100, run_choices.MAX_IMAGES, run_choices.FEW_IMAGES, 100, key="images",
                help="At most so many training images.",
            )
        )  # fmt: skip
    title = st.text_input(
        "Title", key="title", max_chars=run_choices.MAX_TITLE, placeholder="from the choices above",
        help="The folder of the results is named after it.",
    )  # fmt: skip
    return Composed(
        base, axis, tuple(values), tuple(metrics), data, side, seeds, epochs, images, equal, title
    )  # fmt: skip


def _stamp(results: Path) -> int:
    """Changes with every finished trial, and with every study that begins."""
    paths = (results, results / "trials", results / "trials" / "journal.jsonl")
    return max((path.stat().st_mtime_ns for path in paths if path.exists()), default=0)


@st.cache_resource(max_entries=16, show_spinner="Planning")
def _planned(kind: str, choice: tuple[Any, ...], stamp: int) -> Sweep:
    """The plan; made again if the choice or the finished trials change.

    Raises:
        ConfigError: if the study can't run here.
    """
    return run_choices.shipped_sweep(*choice) if kind == "shipped" else run_choices.composed_sweep(*choice)


def _draw_plan(sweep: Sweep) -> None:
    """The question, the networks with their costs, the trials, and the time that they take."""
    from hrvit_lab.study.command import network_costs

    records = sweep.records()
    st.subheader(plain(sweep.spec.title), anchor=False)
    st.markdown(plain(" ".join(sweep.spec.question.split())))
    missing = [trial for trial in sweep.trials if trial.key not in records]
    known = durations(sweep.store, missing, records)
    st.info(plain(describe_plan(sweep.trials, records, sweep.engine.jobs, known)), icon=":material/schedule:")
    rows = []
    for variant in sweep.expansion.variants:
        trials = [trial for trial in sweep.planned[variant.name] if trial.computed is None]
        costs = zip(("params", "macs"), network_costs(variant), strict=True)
        shown = {
            METRICS[key].label: "–" if math.isnan(cost) else format_value(METRICS[key], cost) for key, cost in costs
        }
        done = sum(trial.key in records for trial in trials)
        rows.append({"network": variant.name, **shown, "trials": len(trials), "finished": done})
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch", height=38 * min(len(rows), 12) + 3)
    for name, reason in sweep.expansion.dropped:
        st.caption(plain(f"Left out: {name}: {reason}"))
    st.caption(f"Results: `{sweep.folder}`. Networks that are identical are measured once.")


def _training(results: Path, runs: Path) -> tuple[Any, Any]:
    recipes = run_choices.recipes()
    name = st.selectbox("Recipe", list(recipes), key="recipe", bind="query-params")
    recipe = recipes[name]
    setting, own = run_choices.length_of(recipe)
    first, second = st.columns(2)
    unit = setting.rpartition(".")[2]
    length = int(first.number_input(unit.capitalize(), 1, max(own, 1) * 10, own, key=f"length of {name}"))
    seed = int(second.number_input("Seed", 0, 1000, recipe.run.seed, key=f"seed of {name}"))
    st.caption("Recipes for data sets that need a folder of files are run in a terminal: `hrvit-lab train list`.")
    request = run_choices.training_request(name, length, seed, runs)
    return lambda: _draw_recipe(recipe, length, unit, request, runs), lambda: request


def _draw_recipe(recipe: AnyRecipe, length: int, unit: str, request: processes.Request, runs: Path) -> None:
    st.subheader(plain(recipe.title), anchor=False)
    height, width = recipe.data.resolution_px
    about = {
        "task": recipe.task,
        "network": recipe.model.name,
        "data": recipe.data.name.replace("_", "-"),
        "input": f"{height} × {width} px",
        "length": f"{length:,} {unit}",
        "batch": f"{recipe.data.global_batch_size} images",
        "optimiser": f"{recipe.optimiser.name}, peak learning rate {recipe.optimiser.learning_rate:g}",
    }
    st.dataframe(pd.DataFrame(about.items(), columns=["setting", "value"]), hide_index=True, width="stretch")
    st.info(plain(_how_long(recipe, length, runs)), icon=":material/schedule:")
    st.caption(f"Results: `{runs / request.target}`. In a terminal:")
    st.code(request.command, language=None, wrap_lines=True)


def _how_long(recipe: AnyRecipe, length: int, runs: Path) -> str:
    """The time that it takes, from an earlier training by the same recipe."""
    seconds = seconds_of_recipe(runs, recipe.title, "epoch" if recipe.schedule.epochs else "step", length)
    if seconds is None:
        return "The time is unknown until a training by this recipe has run here."
    return f"About {cli.rough_duration(seconds)}, estimated from an earlier training by this recipe."


def _search(results: Path, runs: Path) -> tuple[Any, Any]:
    searches = run_choices.searches()
    if not searches:
        raise ConfigError("there are no searches here; write one as docs/search.md says, and run hrvit-lab search")
    name = st.selectbox("Search", list(searches), key="search", bind="query-params", help="Files in studies/search/.")
    spec = searches[name]
    evaluations = None
    if spec.trainings is None:
        own = spec.budget.evaluations
        evaluations = int(
            st.number_input(
                "Networks per run", spec.budget.population, 1_000_000, own, key=f"networks of {name}",
                help="Evaluated by each method and seed. More continue the search.",
            )
        )  # fmt: skip
    request = run_choices.search_request(name, evaluations, results)
    return lambda: _draw_search(spec, evaluations, request, results), lambda: request


def _draw_search(spec: SearchSpec, evaluations: int | None, request: processes.Request, results: Path) -> None:
    st.subheader(plain(spec.title), anchor=False)
    st.markdown(plain(" ".join(spec.question.split())))
    height, width = spec.resolution
    objectives = [
        f"{METRICS[key].label if key in METRICS else key}, {better}" for key, better in spec.objectives.items()
    ]
    about = {"better is": "; ".join(objectives), "what varies": ", ".join(map(words, spec.space))}
    if spec.trainings is None:
        about |= {
            "methods": " and ".join(NAMES.values()), "seeds": str(len(spec.budget.seeds)),
            "networks per run": f"{evaluations:,}",
        }  # fmt: skip
    else:
        about |= {"trained networks": str(spec.trainings.networks), "proposed by": spec.trainings.sampler}
    about["input"] = f"{height} × {width} px"
    st.dataframe(pd.DataFrame(about.items(), columns=["setting", "value"]), hide_index=True, width="stretch")
    st.info(plain(how_long(request.target, spec, evaluations, results / request.target)), icon=":material/schedule:")
    st.caption(f"Results: `{results / request.target}`, an ordinary study of the networks found. In a terminal:")
    st.code(request.command, language=None, wrap_lines=True)
