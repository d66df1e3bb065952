"""What ``hrvit-lab study`` does: sweep, rehearse, list the studies."""

import argparse
import math
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, suggest
from hrvit_lab.cost.count import UncountedOperator, count
from hrvit_lab.environment import environment
from hrvit_lab.metrics import METRICS
from hrvit_lab.study import runner
from hrvit_lab.study.executors.host import choose_jobs
from hrvit_lab.study.files import find_study, list_studies, load_study, parse_settings, study_name
from hrvit_lab.study.groups import PROBES
from hrvit_lab.study.progress import Display, comparable, outlook
from hrvit_lab.study.reporting import gather, plan_under, present
from hrvit_lab.study.requirements import check_requirements, trains
from hrvit_lab.study.space import Expansion, Variant, expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial, in_order
from hrvit_lab.train.image_folders import describe_skipped, files_digest, list_images


def sweep(options: argparse.Namespace, console: Console) -> int:
    """Run what a study still needs, then write and show its results."""
    if options.study is None:
        raise ConfigError("say which study: a name of --list, or a path that ends in .yaml")
    path = find_study(options.study)
    spec = load_study(path, _settings(options))
    jobs, fewer = choose_jobs(options.jobs, spec.device)
    expansion = expand(spec)
    check_requirements(spec, expansion.variants)
    store = Store(options.out)
    data_files = files_digest(spec.data.root) if trains(spec) else ""
    conditions = environment(spec.device) | {"data_files": data_files}
    planned = plan_under(conditions, spec, expansion)
    trials = in_order(planned)
    check_again(options.again or (), trials)
    show_dropped(expansion, console)
    show_skipped(spec, console)
    if options.dry_run:
        return rehearse(spec, expansion, planned, store, jobs, console)

    try:
        store.create()
        folder = options.out / study_name(path)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {options.out} can't be written: {error.strerror}; choose another folder") from None
    from hrvit_lab.study import analysis
    from hrvit_lab.study.folder import check_owner, study_file, write_inputs
    from hrvit_lab.study.results import STUDY_FILE

    file = study_file(path)
    check_owner(folder, file, spec)
    warn_of_less(folder, spec)
    write_inputs(folder, analysis.results(folder.name, spec, expansion, planned, {}, conditions | {STUDY_FILE: file}))
    records = store.load_all({trial.key for trial in trials})
    retaken = {
        trial.key
        for trial in trials
        if trial.key in records
        and runner.is_retaken(trial, records[trial.key], options.retry_failed, options.again or ())
    }
    pending = [trial for trial in trials if trial.key not in records or trial.key in retaken]
    began = time.monotonic()
    try:
        if pending:
            there = {key: record for key, record in records.items() if key not in retaken}
            known = durations(store, pending, records)
            if fewer:
                cli.complain(fewer)
            console.print(outlook(trials, there, jobs, known), soft_wrap=True)
            with Display(pending, known, jobs, console) as display:
                runner.run(
                    pending,
                    store,
                    PROBES,
                    display,
                    jobs=jobs,
                    timeout_s=spec.trial_timeout_s,
                    environment=conditions,
                    retry_failed=options.retry_failed,
                    again=options.again or (),
                )
    except KeyboardInterrupt as ending:
        done = len(store.load_all({trial.key for trial in trials}))
        cli.complain(
            f"interrupted: {done} of {len(trials)} trials are kept in {store.folder}; "
            "the same command goes on from there"
        )
        return 128 + ending.signal if isinstance(ending, runner.Ended) else 130
    except runner.WorkerUnable as error:
        cli.complain(f"error: {error}")
        return 1
    if trials:
        console.print(
            f"{len(trials)} trials: {len(trials) - len(pending)} were there, {len(pending)} done"
            + (f" in {cli.duration(time.monotonic() - began)}." if pending else "."),
        )
    return present(folder, *gather(folder.name, spec, expansion, planned, store, conditions), console)


def rehearse(
    spec: Spec,
    expansion: Expansion,
    planned: dict[str, list[Trial]],
    store: Store,
    jobs: int,
    console: Console,
) -> int:
    """What would run and what it costs; nothing is computed or written."""
    from hrvit_lab.study.show import plan_table

    trials = in_order(planned)
    records = store.load_all({trial.key for trial in trials})
    costs = {variant.name: _costs(variant) for variant in expansion.variants}
    to_run = {name: [trial for trial in kept if trial.computed is None] for name, kept in planned.items()}
    console.print(plan_table(spec, to_run, costs, set(records)))
    missing = [trial for trial in trials if trial.key not in records]
    console.print(outlook(trials, records, jobs, durations(store, missing, records)))
    return 0


def durations(store: Store, trials: list[Trial], records: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Records that tell how long trials take: the study's own, and those of others under the same conditions."""
    others = (record for record in store.recent() if record["key"] not in records)
    return [*records.values(), *comparable(others, trials)]


def check_again(groups: Collection[str], trials: list[Trial]) -> None:
    """Refuse to measure again what this study does not measure."""
    measured = list(dict.fromkeys(trial.group for trial in trials))
    for group in groups:
        if group not in measured:
            remedy = suggest(group, measured) if measured else "its figures are computed"
            raise ConfigError(f"--again {group}: the study runs no trials of a group {group!r}; {remedy}")


def show_list(console: Console) -> int:
    """The studies there are, each with its question."""
    studies = list_studies()
    if not studies:
        raise ConfigError("there are no studies: neither ./studies nor the checkout's studies folder has any")
    table = Table(box=None, padding=(0, 2, 1, 0))
    table.add_column("study", no_wrap=True, style="bold")
    table.add_column("what it asks", overflow="fold")
    for name, path in studies.items():
        try:
            spec = load_study(path)
            table.add_row(name, Text.assemble(spec.title, "\n", (" ".join(spec.question.split()), "dim")))
        except ConfigError as error:
            table.add_row(name, Text(str(error), style="red"))
    console.print(table)
    return 0


def show_dropped(expansion: Expansion, console: Console) -> None:
    """Name every variant that is not measured, with its reason."""
    for name, reason in expansion.dropped:
        console.print(f"dropped: {name}: {reason}", soft_wrap=True)


def show_skipped(spec: Spec, console: Console) -> None:
    """Say how many entries of an image folder are not trained on, and why; nothing is listed without a training."""
    trains = any(METRICS[key].group == "accuracy" for key in spec.metrics)
    if not trains or spec.data.name != "folder" or spec.data.root is None:
        return
    if skipped := list_images(spec.data.root).skipped:
        console.print(f"Of the image folder {describe_skipped(skipped)}", soft_wrap=True)


def warn_of_less(folder: Path, spec: Spec) -> None:
    """Say what an earlier run of this study showed and this one will not: its table and report are replaced."""
    try:
        before = load_study(folder / "study.yaml")
    except ConfigError:
        return
    gone = [key for key in before.metrics if key not in spec.metrics]
    seeds = [str(seed) for seed in before.seeds if seed not in spec.seeds]
    gone += [f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"] if seeds else []
    if gone:
        cli.complain(
            f"warning: {folder} is written again without {', '.join(gone)}; those trials are kept, "
            "and asking for all of it again brings them back"
        )


def _costs(variant: Variant) -> tuple[float, float]:
    """Parameters and MACs; NaN where the network can't be counted, which its trial will tell."""
    try:
        counts = count(variant.cost_config, variant.resolution)
    except (ConfigError, UncountedOperator):
        return math.nan, math.nan
    return counts.params, counts.macs


def _settings(options: argparse.Namespace) -> list[tuple[str, Any]]:
    settings = [setting for text in options.set for setting in parse_settings(text)]
    settings += [(key, value) for key in ("metrics", "seeds", "device") if (value := getattr(options, key)) is not None]
    return settings
