"""Show and write the results of a study, at its end or by ``report``."""

import argparse
import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hrvit_lab.config import ConfigError
from hrvit_lab.files import MIB, read_bounded
from hrvit_lab.metrics import METRICS
from hrvit_lab.study.files import check_name, load_study, study_name
from hrvit_lab.study.places import without_places
from hrvit_lab.study.space import Expansion, expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial, computed, in_order, plan

if TYPE_CHECKING:
    from hrvit_lab.study.results import Results

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
MAX_ENVIRONMENT_BYTES = 16 * MIB

Failures = list[tuple[str, str]]


def rebuild(options: argparse.Namespace, console: Console) -> int:
    """Rebuild the report from the records on disk; if ``out`` has no records at all, from the files in the study's
    folder.

    If ``out`` has records, but none of this study, the table may be from an older version; this is an error.

    The results are written to ``options.into`` if given, since the study's folder may be read-only.

    Raises:
        ConfigError: if there are no results; if ``options.into`` contains the results of another study; or, once they
            were shown, if the study's folder can't be written.
    """
    name = study_name(Path(options.study))
    check_name(name)
    folder = options.out / name
    if not (folder / "study.yaml").exists():
        raise ConfigError(
            f"no results of {options.study!r} in {options.out}; run the study first, or give its folder with --out"
        )
    spec, store = load_study(folder / "study.yaml"), Store(options.out)
    if options.into is not None:
        from hrvit_lab.study.folder import check_copy

        check_copy(options.into, folder, spec)
    archived = store.is_empty() and (folder / "table.csv").exists()
    measured = any(METRICS[key].group != "cost" for key in spec.metrics)
    found = None if archived and measured else _from_records(folder, spec, store)
    if found is None:
        from hrvit_lab.study.results import read_results

        if not archived:
            raise ConfigError(
                f"{options.out} has no finished trial of {name!r} (trials with other settings or of an older version "
                "do not count); run the study first"
            )
        console.print(
            f"Read from the files in {folder}, because {options.out} has no records of trials.", soft_wrap=True
        )
        found = read_results(folder), []
    results, failed = found
    for dropped, reason in results.dropped.items():
        console.print(f"dropped: {dropped}: {reason}", soft_wrap=True)
    try:
        return present(options.into or folder, results, failed, console, copy=options.into is not None)
    except OSError as error:
        if options.into is not None or error.errno not in UNWRITABLE:
            raise
        raise ConfigError(
            f"{folder} can't be written ({error.strerror}), so there is no report; choose another folder with --into"
        ) from None


def present(folder: Path, results: "Results", failed: Failures, console: Console, copy: bool = False) -> int:
    """Show the results, then write them, so that they are visible even if the disk is full. Returns 1 if a trial
    failed.

    Args:
        copy: whether the folder is not the study's own, so that ``study.yaml`` and the other inputs are written too.
            Copies are for publication, so names of hosts are left out.
    """
    from hrvit_lab.study.folder import write_inputs, write_results
    from hrvit_lab.study.report.differences import differences
    from hrvit_lab.study.report.summary import notes, unfinished
    from hrvit_lab.study.show import differences_table, result_table

    console.print(result_table(results.spec, results.table, console.width))
    if said := unfinished(results.table):
        console.print(said, soft_wrap=True)
    if (differ := differences(results)) is not None:
        console.print(differences_table(differ))
        for sentence in differ.sentences:
            console.print(sentence, soft_wrap=True, markup=False)
    for names, note in notes(results.table):
        console.print(f"note: {names}: {note}", soft_wrap=True)
    for fault in results.faults:
        console.print(f"note: {fault}", soft_wrap=True)
    for label, reason in failed:
        console.print(f"failed: {label}: {reason}", soft_wrap=True)
    if failed:
        console.print("Failed trials are not run again by default; use --retry-failed to run them again.")
    if copy:
        results = without_places(results)
        write_inputs(folder, results)
    for what, where in write_results(folder, results).items():
        console.print(f"{what:<12} {where}", soft_wrap=True)
    return 1 if failed else 0


def gather(
    folder: Path,
    spec: Spec,
    expansion: Expansion,
    planned: Mapping[str, list[Trial]],
    store: Store,
    conditions: Mapping[str, Any],
) -> tuple["Results", Failures]:
    """The results from the records of a study's trials, and the failed trials."""
    from hrvit_lab.study import analysis

    trials = in_order(planned)
    records = store.load_all({trial.key for trial in trials}) | computed(planned)
    results = analysis.results(folder, spec, expansion, planned, records, conditions)
    return results, analysis.failures(trials, records)


def plan_under(conditions: Mapping[str, Any], spec: Spec, expansion: Expansion) -> dict[str, list[Trial]]:
    """The trials of a study in the environment in which it ran, which may differ from this one."""
    found = conditions.get("versions")
    versions = found if isinstance(found, Mapping) else {}
    return plan(
        spec,
        expansion.variants,
        hardware=str(conditions.get("hardware", "")),
        data_files=str(conditions.get("data_files", "")),
        torch=str(versions.get("torch", "")),
        timm=str(versions.get("timm", "")),
    )


def _from_records(folder: Path, spec: Spec, store: Store) -> tuple["Results", Failures] | None:
    """The results from the store's records; None if the study has trials and none has a record."""
    try:
        conditions = json.loads(read_bounded(folder / "environment.json", MAX_ENVIRONMENT_BYTES))
        expansion = expand(spec)
    except (OSError, ValueError, RecursionError):  # including ConfigError: configs that this version does not support
        return None
    if not isinstance(conditions, dict):
        return None
    planned = plan_under(conditions, spec, expansion)
    trials = in_order(planned)
    if trials and not store.load_all({trial.key for trial in trials}):
        return None
    return gather(folder, spec, expansion, planned, store, conditions)
