"""The work of ``hrvit-lab study``: run a study, or show its plan (``--dry-run``)."""

import argparse
import math
from typing import Any

from rich.console import Console

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.config.settings import parse_settings
from hrvit_lab.cost.count import UncountedOperator, count
from hrvit_lab.study.engine_options import device_of, devices_of, slurm_of
from hrvit_lab.study.files import find_study, load_study, study_file, study_name
from hrvit_lab.study.reporting import present
from hrvit_lab.study.requirements import trains
from hrvit_lab.study.runner import Ended, WorkerUnable
from hrvit_lab.study.space import Expansion, Variant
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.sweep import Sweep, begin, describe, durations, prepare, run, show_folder
from hrvit_lab.train.data.image_folders import describe_skipped, list_images


def sweep(options: argparse.Namespace, console: Console) -> int:
    """Run the missing trials of a study, then show and write its results."""
    if options.study is None:
        raise ConfigError("no study given; give a name from --list, or a path that ends in .yaml")
    path = find_study(options.study)
    spec = load_study(path, _settings(options))
    again = options.again or ()
    sweep = prepare(
        study_name(path), spec, study_file(path), options.out, options.jobs, again, executor=options.executor,
        devices=devices_of(options), slurm=slurm_of(options), ask=not options.dry_run,
    )  # fmt: skip
    show_folder(sweep, console)
    show_dropped(sweep.expansion, console)
    show_skipped(spec, console)
    if options.dry_run:
        return show_plan(sweep, console)
    begin(sweep)
    try:
        run(sweep, console, options.retry_failed, again)
    except Ended as ending:
        return 128 + ending.signal
    except KeyboardInterrupt:
        return 130
    except WorkerUnable as error:
        cli.complain(f"error: {error}")
        return 1
    return present(sweep.folder, *sweep.results(), console)


def show_plan(sweep: Sweep, console: Console) -> int:
    """Show the question, the trials that would run and the costs of the networks. No trial runs, no file is written."""
    from hrvit_lab.study.show import plan_table

    console.print(" ".join(sweep.spec.question.split()), soft_wrap=True)
    records = sweep.records()
    costs = {variant.name: network_costs(variant) for variant in sweep.expansion.variants}
    to_run = {name: [trial for trial in kept if trial.computed is None] for name, kept in sweep.planned.items()}
    console.print(plan_table(sweep.spec, to_run, costs, set(records)))
    missing = [trial for trial in sweep.trials if trial.key not in records]
    console.print(describe(sweep, records, durations(sweep.store, missing, records)), soft_wrap=True)
    return 0


def show_dropped(expansion: Expansion, console: Console) -> None:
    """Print every dropped variant with its reason."""
    for name, reason in expansion.dropped:
        console.print(f"dropped: {name}: {reason}", soft_wrap=True)


def show_skipped(spec: Spec, console: Console) -> None:
    """Print how many entries of an image folder are skipped in training, and why."""
    if spec.recipe is not None or not trains(spec) or spec.data.name != "folder" or spec.data.root is None:
        return
    if skipped := list_images(spec.data.root).skipped:
        console.print(f"Image folder: {describe_skipped(skipped)}", soft_wrap=True)


def network_costs(variant: Variant) -> tuple[float, float]:
    """Parameters and MACs; NaN if the network can't be counted (its trial reports the reason)."""
    try:
        counts = count(variant.cost_config, variant.resolution)
    except (ConfigError, UncountedOperator):
        return math.nan, math.nan
    return counts.params, counts.macs


def _settings(options: argparse.Namespace) -> list[tuple[str, Any]]:
    settings = [setting for text in options.set for setting in parse_settings(text)]
    settings += [(key, value) for key in ("metrics", "seeds") if (value := getattr(options, key)) is not None]
    if (device := device_of(options)) is not None:
        settings.append(("device", device))
    return settings
