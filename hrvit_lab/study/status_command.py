"""The work of ``hrvit-lab study status``: which trials of a study or search are queued, running, done and failed, and
where."""

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.study.cluster.commands import State, ask_states, cancel_jobs, find_jobs
from hrvit_lab.study.cluster.ledger import Ledger, Submission
from hrvit_lab.study.files import check_name, study_name
from hrvit_lab.study.places import places, said
from hrvit_lab.study.status import Status, read_status
from hrvit_lab.study.store import Store

UNKNOWN = State("UNKNOWN")


def show_status(options: argparse.Namespace, console: Console) -> int:
    """Show the state of a study, or cancel its jobs. Returns 1 if a trial failed.

    Raises:
        ConfigError: if there is no such study, or there are no jobs to cancel.
    """
    name = study_name(options.study)
    check_name(name)
    folder = options.out / name
    if not (folder / "study.yaml").exists():
        raise ConfigError(f"no study {name!r} in {options.out}; run it first, or give its folder with --out")
    status = read_status(folder, _store(folder))
    ledger = Ledger(Store(options.out).folder)
    if options.cancel:
        return _cancel(name, status, ledger, console)
    queued = list(_queued(status, ledger))
    waiting = {key for _, keys, state, _ in queued if state.queued for key in keys}
    failed = sum(record["status"] != "ok" for record in status.records.values())
    left = len(status.trials) - status.finished - len(status.running) - len(waiting)
    counts = {
        "done": status.finished - failed, "failed": failed, "running": len(status.running), "queued": len(waiting),
        "neither queued nor started": left,
    }  # fmt: skip
    shown = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    _print(console, f"{name}: {len(status.trials)} trials: {shown}." if status.trials else f"{name}: no trials to run.")
    if there := said(places(record for record in status.records.values() if record["status"] == "ok")):
        _print(console, f"done: {there}")
    for each in status.running:
        _print(console, f"running  {each.trial.label}: {each.where}, {_since(each.owner.since)}")
    for job, keys, state, submitted in queued:
        why = f" ({state.why})" if state.why else ""
        at = f" on {state.where}" if state.where else ""
        _print(console, f"job {job}  {state.name.lower()}{at}{why}: {len(keys)} trials, submitted {_since(submitted)}")
    for label, reason in status.failures:
        _print(console, f"failed   {label}: {reason}")
    return 1 if failed else 0


def _store(folder: Path) -> Store:
    """The trials of a study, or of a search, of which some may be stopped early and kept in its own folder."""
    if not (folder / "search").is_dir():
        return Store(folder.parent)
    from hrvit_lab.search.halving import store_of

    return store_of(folder)


def _queued(status: Status, ledger: Ledger) -> Iterator[tuple[str, list[str], State, float]]:
    """The study's jobs that are not over: id, keys of trials without outcome, state, time of the submission."""
    wanted = {trial.key for trial in status.trials} - set(status.records)
    jobs = [
        (job, [key for key in chunk if key in wanted], submission.submitted)
        for submission in ledger.read_all()
        for job, chunk in zip(_ids(submission), submission.chunks, strict=True)
        if wanted & set(chunk)
    ]
    known = ask_states(job for job, _, _ in jobs if job) if jobs and shutil.which("squeue") else None
    for job, keys, submitted in jobs:
        state = (known or {}).get(job, UNKNOWN)
        if not state.over:
            yield job or "without id", keys, state, submitted


def _ids(submission: Submission) -> tuple[str, ...]:
    """The ids of a submission's jobs; empty ones if they are not known."""
    if submission.ids:
        return submission.ids
    found = find_jobs(submission.name, len(submission.chunks)) if shutil.which("squeue") else None
    return tuple(found) if found else ("",) * len(submission.chunks)


def _cancel(name: str, status: Status, ledger: Ledger, console: Console) -> int:
    wanted = {trial.key for trial in status.trials}
    ours = [each for each in ledger.read_all() if any(key in wanted for chunk in each.chunks for key in chunk)]
    if not ours:
        raise ConfigError(f"no jobs of {name!r} are in the queue, so there is nothing to cancel")
    if shutil.which("scancel") is None:
        raise ConfigError("--cancel needs Slurm's command scancel; run this on a login node of the cluster")
    ids = []
    for submission in ours:
        ledger.cancel(submission.name)  # first, so that a running study does not submit the trials again
        ids += [job for job, chunk in zip(_ids(submission), submission.chunks, strict=True) if job and chunk]
    cancel_jobs(ids)
    _print(console, f"{len(ids)} jobs of {name} are cancelled. Finished trials are kept; run it again to resume.")
    return 0


def _since(when: float) -> str:
    """A time of day, and how long ago it was."""
    return (
        f"{time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(when))}, {cli.duration(max(0.0, time.time() - when))} ago"
    )


def _print(console: Console, text: str) -> None:
    console.print(cli.printable(text), markup=False, highlight=False, soft_wrap=True)
