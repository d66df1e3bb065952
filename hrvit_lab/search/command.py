"""The work of ``hrvit-lab search``: run a search, show its plan or the list of searches."""

import argparse
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from hrvit_lab import cli, plots
from hrvit_lab.config import ConfigError
from hrvit_lab.plots.search import NAMES, hypervolume_curves
from hrvit_lab.search.files import find_search, list_searches
from hrvit_lab.search.front import results_of, shown
from hrvit_lab.search.hold import Hold
from hrvit_lab.search.outside import REMEDY, missed_by_most
from hrvit_lab.search.pace import Watch
from hrvit_lab.search.run import (
    Search,
    Truth,
    as_good_as_base,
    begun,
    check,
    front_of,
    is_enumerated,
    run,
    truth_of,
    volume_of,
    write_front,
    write_history,
)
from hrvit_lab.search.spec import SearchSpec, load_search, search_from
from hrvit_lab.search.state import Evaluator
from hrvit_lab.study.engine_options import device_of, slurm_of
from hrvit_lab.study.executors import WorkerUnable
from hrvit_lab.study.executors.host import choose_jobs, in_turn
from hrvit_lab.study.files import study_name
from hrvit_lab.study.folder import write_inputs
from hrvit_lab.study.reporting import present

if TYPE_CHECKING:
    import pandas as pd


def show_list(console: Console) -> int:
    """Print the shipped searches with their questions."""
    table = cli.table("Searches")
    for column in ("search", "question"):
        table.add_column(column, overflow="fold")
    for name, path in list_searches().items():
        table.add_row(name, " ".join(load_search(path).question.split()))
    console.print(table)
    return 0


def search(options: argparse.Namespace, console: Console) -> int:
    """Run what is missing of a search, then show and write its results. Returns 1 if a worker failed."""
    try:
        return _run_and_show(prepare(options), options, console)
    except WorkerUnable as error:
        cli.complain(f"error: {error}")
        return 1


def _run_and_show(asked: Search, options: argparse.Namespace, console: Console) -> int:
    space, budget = asked.space, asked.spec.budget
    console.print(" ".join(asked.spec.question.split()), soft_wrap=True)
    if asked.spec.trainings is not None:
        from hrvit_lab.search.outer_command import train_networks  # imported here: Optuna takes a second

        return train_networks(asked, options, console)
    runs = (
        f"{len(asked.runs)} runs ({', '.join(NAMES.values())}; {len(budget.seeds)} seed{'s' * (len(budget.seeds) > 1)})"
    )
    console.print(
        f"{len(space.genes)} choices, {cli.big(space.size)} combinations. {runs} of "
        f"{budget.evaluations:,} networks each.",
        soft_wrap=True,
    )
    check(asked, build=not options.dry_run)
    if options.dry_run:
        return 0
    with begun(asked) as hold:
        truth = _search(asked, hold, options.jobs, console)
        return _present(asked, truth, console)


def _search(asked: Search, hold: Hold, requested: int | None, console: Console) -> Truth | None:
    """Run what is missing, and enumerate the space if it is small. Latency measurements on this host wait until it has
    ended, as for the trainings of a study."""
    jobs, fewer = choose_jobs(requested, "cpu")
    if fewer:
        cli.complain(fewer)
    with in_turn(exclusive=False, say=console.print), Watch(console) as watch:
        say = watch.of("networks", "searched", asked.spec.budget.evaluations * len(asked.runs))
        say(sum(state.evaluations for state in asked.states().values()))
        run(asked, hold, jobs, say)
        if not is_enumerated(asked):
            return None
        say = watch.of("combinations", "enumerated", asked.space.size)  # of which some are invalid or equal
        truth = truth_of(asked, say)
        say(asked.space.size)
        return truth


def prepare(options: argparse.Namespace) -> Search:
    """The search of the command line, checked.

    Raises:
        ConfigError: if the file or an option is invalid.
    """
    path = find_search(options.search)
    spec = load_search(path)
    changes = {key: value for key in ("evaluations", "seeds") if (value := getattr(options, key)) is not None}
    if changes and spec.trainings is not None:
        raise ConfigError(
            "--evaluations and --seeds are for searches without trainings; change trainings in the file instead"
        )
    if options.retry_failed and spec.trainings is None:
        raise ConfigError("--retry-failed is for searches with trainings; remove it")
    if changes:
        fields = spec.model_dump(mode="json")
        spec = search_from({**fields, "budget": {**fields["budget"], **changes}}, "--evaluations and --seeds")
    spec = _on_device(spec, options)
    name = study_name(path)
    return Search(name, spec, options.out / name)


def _on_device(spec: SearchSpec, options: argparse.Namespace) -> SearchSpec:
    """The search with the device of the command line.

    Raises:
        ConfigError: if device or executor do not fit a search without trainings, or an option is invalid.
    """
    device = device_of(options)
    slurm_of(options)  # which checks the options of jobs
    if spec.trainings is None and (device or options.executor != "local"):
        raise ConfigError(
            f"--{'device' if device else 'executor'} is for searches with trainings; remove it, since this search "
            "computes on the CPU of this machine"
        )
    if device is None:
        return spec
    fields = spec.model_dump(mode="json")
    return search_from({**fields, "trainings": {**fields["trainings"], "device": device}}, "--device")


def _present(asked: Search, truth: Truth | None, console: Console) -> int:
    states = asked.states()
    history = write_history(asked, states)
    genomes, objectives = front_of(asked, states)
    figure = hypervolume_curves(history, asked.spec.title, truth.hypervolume if truth else None)
    plots.save(figure, asked.own_folder / "hypervolume")
    found = {f"found {number}": genome for number, genome in enumerate(genomes, 1)}
    evaluator = Evaluator(asked.space, asked.own_folder)
    write_front(asked, evaluator, found)
    kept = shown(found)
    results, failed = results_of(asked, kept)
    write_inputs(asked.folder, results)
    code = present(asked.folder, results, failed, console)
    console.print(
        f"{'search':<12} {asked.own_folder}: hypervolume.csv, pareto.csv, figure, states of the runs", soft_wrap=True
    )
    if not found:
        if truth is not None:
            console.print(enumerated(truth), soft_wrap=True)
        last = [genome for (method, _), state in states.items() if method == "nsga2" for genome in state.population]
        missed = missed_by_most(evaluator, last)
        cli.complain(
            f"error: no network that NSGA-II evaluated is within the constraints: of the last ones, {missed}; {REMEDY}"
        )
        return 1
    for sentence in said(history, truth, volume_of(asked, objectives), len(found)):
        console.print(sentence, soft_wrap=True)
    as_good = as_good_as_base(evaluator, objectives)
    console.print(
        f"Found networks that are at least as good as the base in all objectives: {as_good:,}.", soft_wrap=True
    )
    if len(kept) < len(found):
        console.print(
            f"The table has {len(kept)} of {len(found):,} networks, evenly spaced along the Pareto set; pareto.csv has "
            "all.",
            soft_wrap=True,
        )
    return code


def said(history: "pd.DataFrame", truth: Truth | None, volume: float, found: int) -> list[str]:
    """Sentences on how good the search was."""
    sentences = [f"NSGA-II found {found:,} networks of which none is better than another in all objectives."]
    for method, runs in history.groupby("method", sort=False):
        last = runs.sort_values("evaluations").groupby("seed").tail(1)
        low, middle, high = np.quantile(last["hypervolume"], (0.25, 0.5, 0.75))
        spread = f", quartiles {low:.4f} and {high:.4f}" if len(last) > 1 else ""
        share = f", {100 * middle / truth.hypervolume:.1f} % of the true one" if truth and truth.hypervolume else ""
        sentences.append(
            f"{NAMES.get(str(method), str(method))}: median hypervolume {middle:.4f}{spread}{share}, after "
            f"{int(last['evaluations'].median()):,} networks."
        )
    if truth is not None:
        sentences.append(enumerated(truth))
        if truth.hypervolume:
            sentences.append(f"The runs together reach {100 * volume / truth.hypervolume:.2f} % of its hypervolume.")
    return sentences


def enumerated(truth: Truth) -> str:
    """A sentence on all networks of a small space."""
    on_front = f"{len(truth.front):,} are on the true Pareto front" if truth.front else "none is within the constraints"
    return f"All {truth.networks:,} valid combinations of the space were enumerated: {on_front}."
