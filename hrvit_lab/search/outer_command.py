"""The work of ``hrvit-lab search`` with trainings: propose and train networks, then show the best ones."""

import argparse
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from hrvit_lab import cli
from hrvit_lab.search.archive import SAMPLE
from hrvit_lab.search.front import results_of
from hrvit_lab.search.hold import Hold
from hrvit_lab.search.outer import Outcome, best_of, engine_of, run_trainings, write_trainings
from hrvit_lab.search.outside import REMEDY, missed_by_most
from hrvit_lab.search.run import Search, begun, check
from hrvit_lab.search.state import Evaluator
from hrvit_lab.study.engine import Engine
from hrvit_lab.study.engine_options import devices_of, slurm_of
from hrvit_lab.study.folder import write_inputs
from hrvit_lab.study.progress import Display
from hrvit_lab.study.reporting import present
from hrvit_lab.study.store import Store
from hrvit_lab.study.sweep import durations
from hrvit_lab.study.trials import Trial

NAMES = {"tpe": "TPE", "gp": "a Gaussian process", "nsga2": "NSGA-II"}


def train_networks(asked: Search, options: argparse.Namespace, console: Console) -> int:
    """Train what is missing; print and write the results. Returns the exit code."""
    trainings = asked.spec.trainings
    assert trainings is not None
    seeds = len(trainings.seeds)
    console.print(
        f"{len(asked.space.genes)} choices, {cli.big(asked.space.size)} combinations. "
        f"{trainings.networks} networks are proposed by {NAMES[trainings.sampler]}, {trainings.batch} at a time, and "
        f"trained with {seeds} seed{'s' * (seeds > 1)}; those that were trained before are not trained again.",
        soft_wrap=True,
    )
    check(asked)
    engine = engine_of(
        asked, options.jobs, executor=options.executor, devices=devices_of(options), slurm=slurm_of(options),
        ask=not options.dry_run,
    )  # fmt: skip
    if options.dry_run:
        return 0
    with begun(asked) as hold:
        return _train(asked, hold, engine, options.retry_failed, console)


def _train(asked: Search, hold: Hold, engine: Engine, retry_failed: bool, console: Console) -> int:
    trainings = asked.spec.trainings
    assert trainings is not None
    if engine.fewer_jobs:
        cli.complain(engine.fewer_jobs)
    store = Store(asked.folder.parent)

    def watch(pending: Sequence[Trial], finished: int) -> Display:
        console.print(f"{finished} of {trainings.networks} networks are finished.")
        return Display(pending, durations(store, list(pending), {}), engine.jobs, console)

    state = run_trainings(asked, hold, engine, watch, retry_failed)
    write_trainings(asked, state.outcomes)
    if not state.outcomes:
        rng = np.random.default_rng(trainings.seed)
        missed = missed_by_most(
            Evaluator(asked.space, asked.own_folder), [asked.space.random(rng) for _ in range(SAMPLE)]
        )
        cli.complain(f"error: no network within the constraints was found: of random ones, {missed}; {REMEDY}")
        return 1
    best = best_of(asked, state.outcomes)
    results, failed = results_of(asked, best, engine.conditions)
    write_inputs(asked.folder, results)
    code = present(asked.folder, results, failed, console)
    console.print(said(state.outcomes, len(best)), soft_wrap=True)
    console.print(f"{'search':<12} {asked.own_folder}: trainings.csv, state", soft_wrap=True)
    return code


def said(outcomes: Sequence[Outcome], best: int) -> str:
    """A sentence on what was trained."""
    stopped = sum(outcome.stopped is not None for outcome in outcomes)
    failed = sum(outcome.values is None for outcome in outcomes)
    return (
        f"{len(outcomes)} networks were proposed: {len(outcomes) - stopped - failed} trained, {stopped} stopped early, "
        f"{failed} failed. {best} are not dominated by another one."
    )
