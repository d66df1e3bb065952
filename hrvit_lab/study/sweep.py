"""Prepare and run a sweep, from a study's spec to its records; used by the command and by ``run_study``."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, suggest
from hrvit_lab.study import runner
from hrvit_lab.study.cluster.chunks import describe_estimate, estimate
from hrvit_lab.study.cluster.options import SlurmOptions
from hrvit_lab.study.engine import Engine, choose_engine
from hrvit_lab.study.groups import PROBES
from hrvit_lab.study.progress import Display, comparable, describe_plan, describe_trials
from hrvit_lab.study.reporting import Failures, gather, plan_under
from hrvit_lab.study.space import Expansion, expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial, in_order

if TYPE_CHECKING:
    from hrvit_lab.study.results import Results


@dataclass(frozen=True)
class Sweep:
    """A valid study and its environment; created by `prepare`.

    Attributes:
        name: name of the study and of its folder.
        spec: the study.
        origin: digests that identify the study's file, see ``study_file``.
        out: folder of all results.
        folder: folder of its results.
        expansion: its networks.
        planned: trials by variant.
        engine: where its trials run.
    """

    name: str
    spec: Spec
    origin: Mapping[str, str]
    out: Path
    folder: Path
    expansion: Expansion
    planned: Mapping[str, list[Trial]]
    engine: Engine

    @cached_property
    def store(self) -> Store:
        """The store with the records of all studies in ``out``."""
        return Store(self.out)

    @cached_property
    def trials(self) -> list[Trial]:
        """All distinct trials of the study."""
        return in_order(self.planned)

    def records(self) -> dict[str, dict[str, Any]]:
        """The existing outcomes, by trial key."""
        return self.store.load_all({trial.key for trial in self.trials})

    def results(self) -> tuple["Results", Failures]:
        """The results from the records, and the failed trials."""
        return gather(self.folder, self.spec, self.expansion, self.planned, self.store, self.engine.conditions)


def prepare(
    name: str,
    spec: Spec,
    origin: Mapping[str, str],
    out: Path,
    jobs: int | None = None,
    again: Collection[str] = (),
    *,
    executor: str | None = None,
    devices: Sequence[str] = (),
    slurm: SlurmOptions | None = None,
    ask: bool = True,
) -> Sweep:
    """Check whether a study can run, and plan its trials. Writes nothing, except that a job may ask a node of a cluster
    for its hardware.

    Args:
        jobs, executor, devices, slurm, ask: as in `choose_engine`.
    Raises:
        ConfigError: if it cannot run here, does not measure a group of ``again``, or if the folder of its name holds
            the results of another study.
    """
    from hrvit_lab.study.folder import choose_folder

    expansion = expand(spec)
    engine = choose_engine(
        spec, expansion.variants, out, jobs, executor=executor, devices=devices, slurm=slurm, ask=ask
    )
    planned = plan_under(engine.conditions, spec, expansion)
    folder = choose_folder(out, name, origin, spec, planned)
    sweep = Sweep(name, spec, origin, out, folder, expansion, planned, engine)
    _check_again(again, sweep.trials)
    return sweep


def show_folder(sweep: Sweep, console: Console) -> None:
    """Print the results folder if it is not the one with the study's name."""
    if sweep.folder.name != sweep.name:
        console.print(
            f"{sweep.out / sweep.name} is kept, because it has results that this run does not include. "
            f"The results of this run are in {sweep.folder}.",
            soft_wrap=True,
        )


def begin(sweep: Sweep) -> None:
    """Create the study's folder and write its inputs.

    Raises:
        ConfigError: if the folder can't be written.
    """
    try:
        sweep.store.create()
        sweep.folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {sweep.out} can't be written: {error.strerror}; choose another folder") from None
    from hrvit_lab.study import analysis
    from hrvit_lab.study.folder import write_inputs
    from hrvit_lab.study.results import STUDY_FILE

    about = {**sweep.engine.conditions, STUDY_FILE: dict(sweep.origin)}
    write_inputs(sweep.folder, analysis.results(sweep.folder, sweep.spec, sweep.expansion, sweep.planned, {}, about))


def run(sweep: Sweep, console: Console, retry_failed: bool = False, again: Collection[str] = ()) -> None:
    """Run every trial without an outcome, with a progress display.

    Raises:
        KeyboardInterrupt: on Ctrl-C, or (`runner.Ended`) if a signal tells this process to end; finished trials are
            kept.
        runner.WorkerUnable: if no worker can start.
    """
    trials, records = sweep.trials, sweep.records()
    retaken = {
        trial.key
        for trial in trials
        if trial.key in records and runner.is_retaken(trial, records[trial.key], retry_failed, again)
    }
    pending = [trial for trial in trials if trial.key not in records or trial.key in retaken]
    began = time.monotonic()
    try:
        if pending:
            there = {key: record for key, record in records.items() if key not in retaken}
            known = durations(sweep.store, pending, records)
            if sweep.engine.fewer_jobs:
                cli.complain(sweep.engine.fewer_jobs)
            console.print(describe(sweep, there, known), soft_wrap=True)
            with Display(pending, known, sweep.engine.jobs, console) as display:
                sweep.engine.run(
                    pending, sweep.store, PROBES, display, timeout_s=sweep.spec.trial_timeout_s,
                    retry_failed=retry_failed, again=again,
                )  # fmt: skip
    except KeyboardInterrupt:
        cli.complain(
            f"interrupted: {len(sweep.records())} of {len(trials)} trials are kept in {sweep.store.folder}; "
            "run the same command again to resume"
            + ("; submitted jobs go on (study status shows them)" if sweep.engine.slurm is not None else "")
        )
        raise
    if trials:
        console.print(
            f"{len(trials)} trial{'s' * (len(trials) != 1)}: {len(trials) - len(pending)} already finished, "
            f"{len(pending)} run" + (f" in {cli.duration(time.monotonic() - began)}." if pending else "."),
        )


def describe(sweep: Sweep, records: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> str:
    """Sentences on the trials, and on their jobs if they run on a cluster.

    Args:
        records: the existing records, by key.
        known: records from which to estimate durations.
    """
    slurm = sweep.engine.slurm
    if slurm is None:
        return describe_plan(sweep.trials, records, sweep.engine.jobs, known)
    missing = [trial for trial in sweep.trials if trial.key not in records]
    said = describe_trials(sweep.trials, records)
    return f"{said} {describe_estimate(estimate(missing, slurm, known), slurm)}" if missing else said


def durations(store: Store, trials: list[Trial], records: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Records to estimate durations from: the study's own, and others under the same conditions."""
    others = (record for record in store.recent() if record["key"] not in records)
    return [*records.values(), *comparable(others, trials)]


def _check_again(groups: Collection[str], trials: list[Trial]) -> None:
    """Check that the study measures the groups of ``--again``."""
    measured = list(dict.fromkeys(trial.group for trial in trials))
    for group in groups:
        if group not in measured:
            remedy = suggest(group, measured) if measured else "remove --again: all metrics of the study are computed"
            raise ConfigError(f"--again {group}: the study has no trials of group {group!r}; {remedy}")
