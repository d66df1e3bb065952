"""Studies from Python and from notebooks: `run_study` and `load_results`."""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, suggest
from hrvit_lab.files import user_path
from hrvit_lab.study.cluster.options import slurm_options
from hrvit_lab.study.files import (
    check_name,
    find_study,
    load_study,
    named_after,
    spec_from,
    study_file,
    study_in_memory,
    study_name,
)
from hrvit_lab.study.folder import write_results
from hrvit_lab.study.results import Results, read_results
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.sweep import begin, prepare, run, show_folder


def run_study(
    study: str | os.PathLike[str] | Spec | Mapping[str, Any],
    *,
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    out: str | os.PathLike[str] = "results",
    jobs: int | None = None,
    retry_failed: bool = False,
    again: Sequence[str] = (),
    executor: str | None = None,
    slurm: Mapping[str, Any] | None = None,
) -> Results:
    """Run a study like ``hrvit-lab study``, with the same records and files; it can be interrupted and resumed.

    Args:
        study: the name of a shipped study, the path of a study file, a `Spec`, or a dict with the fields of one.
        settings: changes to it, by dotted keys: ``{"train.epochs": 2, "seeds": [0, 1]}``.
        name: of the results folder. Default: the file's name; for a `Spec` or a dict, its title in lower case with
            hyphens. A number is added if that folder has results that this run does not include, such as those with
            other settings.
        out: folder of all results; all studies in it share the records of trials.
        jobs: number of trainings at the same time; None: one per core, or one on a GPU; 0: one after another in this
            process, which knows variants that were registered in it, and without a time limit.
        retry_failed: run failed trials again.
        again: groups to measure again even if records exist: ``"latency"``, ``"memory"``, ``"accuracy"``,
            ``"segmentation"``.
        executor: name of what runs the trials, from `hrvit_lab.study.executors`. Default: ``"local"``, or the one that
            ``jobs`` or ``slurm`` need.
        slurm: run the trials as jobs of Slurm, with these options: ``{"partition": "gpu", "time": "2:00:00", …}``, see
            `slurm_options`; on a login node of a cluster.
    Returns:
        Table, curves, figures, and the path of the report; failed trials are in ``failed``.
    Raises:
        ConfigError: if the study is invalid, can't run here, or its folder holds another study of that name.
        KeyboardInterrupt: after Ctrl-C. Finished trials are kept; the same call continues.
        RuntimeError: if no worker process can start.

    >>> run_study("branch_sweep", settings={"metrics": ["params", "macs"]}).table  # doctest: +SKIP
    """
    changes = list((settings or {}).items())
    if isinstance(study, Spec | Mapping):
        spec = spec_from(study.model_dump(exclude_unset=True) if isinstance(study, Spec) else study, changes)
        name, origin = name or named_after(spec.title), study_in_memory(spec)
    elif isinstance(study, str | os.PathLike):
        path = find_study(os.fspath(study))
        spec, origin = load_study(path, changes), study_file(path)
        name = name or study_name(path)
    else:
        raise ConfigError(f"{study!r:.80} is not a study; give a name, the path of a study file, a Spec or a dict")
    check_name(name)
    console = cli.console()
    cluster = None if slurm is None else slurm_options(**_known(slurm))
    sweep = prepare(name, spec, origin, user_path(out), jobs, again, executor=executor, slurm=cluster)
    show_folder(sweep, console)
    begin(sweep)
    run(sweep, console, retry_failed, again)
    results, failed = sweep.results()
    for label, reason in failed:
        console.print(f"failed: {label}: {reason}", soft_wrap=True)
    write_results(sweep.folder, results)
    return results


def load_results(study: str | os.PathLike[str], *, out: str | os.PathLike[str] = "results") -> Results:
    """Read the results of a study.

    Args:
        study: the study's name, or its folder.
        out: folder of all results, for a name.
    Raises:
        ConfigError: if there are no results, or they can't be read.
    """
    given = user_path(study)
    folders = [user_path(out) / given, given]
    folder = next((folder for folder in folders if (folder / "study.yaml").exists()), None)
    if folder is None:
        raise ConfigError(
            f"no results of {str(study)!r} in {out}; run the study first, or give the folder of its results"
        )
    return read_results(folder)


def _known(slurm: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of jobs, if all are options of `slurm_options`."""
    known = tuple(inspect.signature(slurm_options).parameters)
    for name in slurm:
        if name not in known:
            raise ConfigError(f"slurm: unknown option {name!r}; {suggest(str(name), known)}")
    return slurm
