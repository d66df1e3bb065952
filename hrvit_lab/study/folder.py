"""Write a study's folder: inputs at the start; table, figures and report at the end."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hrvit_lab.config import ConfigError
from hrvit_lab.files import read_bounded, write_atomically
from hrvit_lab.study.claims import try_claim
from hrvit_lab.study.files import load_study
from hrvit_lab.study.reporting import plan_under
from hrvit_lab.study.results import MAX_FILE_BYTES, STUDY_FILE, Results
from hrvit_lab.study.space import expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.tables import to_csv
from hrvit_lab.study.trials import Trial

POLL_S = 0.1


@contextmanager
def writing_lock(folder: Path) -> Iterator[None]:
    """Claim the folder for writing; waits until no other process writes to it."""
    folder.mkdir(parents=True, exist_ok=True)
    while (claim := try_claim(folder / "writing.claim")) is None:
        time.sleep(POLL_S)
    try:
        yield
    finally:
        claim.release()


def choose_folder(
    out: Path, name: str, file: Mapping[str, str], spec: Spec, planned: Mapping[str, Sequence[Trial]]
) -> Path:
    """The first of ``NAME``, ``NAME-2``, ``NAME-3``, … that is free, or whose results this run includes.

    Results are included if all their metrics and trials are also part of this run: it resumes an interrupted run, or
    has more seeds, metrics or variants. Results with other settings, or of another machine or version of torch, are
    kept.

    Raises:
        ConfigError: if the folder of that name contains the results of another study, and no numbered folder contains
            those of this one.
    """
    mine, refusal = False, None
    for number in itertools.count(1):
        folder = out / (name if number == 1 else f"{name}-{number}")
        if not any((folder / kept).exists() for kept in ("study.yaml", "table.csv")):
            break
        try:
            check_owner(folder, file, spec)
        except ConfigError as error:
            refusal = refusal or error
        else:
            mine = True
            if _includes(spec, planned, folder):
                break
    if refusal and not mine:
        raise refusal
    return folder


def _includes(spec: Spec, planned: Mapping[str, Sequence[Trial]], folder: Path) -> bool:
    """Whether the planned trials include all results in the folder; False if these cannot be read."""
    try:
        conditions = json.loads(read_bounded(folder / "environment.json", MAX_FILE_BYTES))
        before = load_study(folder / "study.yaml")
        earlier = plan_under(conditions, before, expand(before))
    except (OSError, ValueError, RecursionError, AttributeError):  # including ConfigError
        return False
    return set(before.metrics) <= set(spec.metrics) and _keys(earlier) <= _keys(planned)


def _keys(planned: Mapping[str, Sequence[Trial]]) -> set[str]:
    return {trial.key for trials in planned.values() for trial in trials}


def check_owner(folder: Path, file: Mapping[str, str], spec: Spec) -> None:
    """Check that the folder does not contain the results of another study of the same name.

    Raises:
        ConfigError: if it does; names the title of that study and the remedy.
    """
    if (title := other_study(folder, file, spec)) is not None:
        raise ConfigError(
            f"{folder} contains the results of another study with the same name ({title!r}); rename this file "
            "or study, or choose another folder with --out"
        )


def check_copy(into: Path, folder: Path, spec: Spec) -> None:
    """Check that a copy of a study's results would not replace another study's.

    Args:
        into: the folder of the copy.
        folder: the study's own folder.
    Raises:
        ConfigError: if it would; names the title of the other study and the remedy.
    """
    if (title := other_study(into, _origin(folder), spec)) is not None:
        raise ConfigError(
            f"{into} contains the results of another study ({title!r}), which are never overwritten; choose another "
            "folder with --into"
        )


def other_study(folder: Path, file: Mapping[str, str], spec: Spec) -> str | None:
    """The title of another study of which the folder contains results; None if there is none.

    A study is the same if its file has the same path (edits and settings of the command line do not matter), or the
    same content at another path. Folders of older versions do not store this; for them, title and question are
    compared.
    """
    try:
        before = load_study(folder / "study.yaml")
    except ConfigError:
        return None
    kept = _origin(folder)
    if kept.keys() >= file.keys() > set():
        same = any(kept[of] == file[of] for of in file)
    else:
        same = (before.title, before.question) == (spec.title, spec.question)
    return None if same else before.title


def _origin(folder: Path) -> Mapping[str, str]:
    """The digests of the study's file in the folder's ``environment.json``; {} if it has none."""
    try:
        kept = json.loads(read_bounded(folder / "environment.json", MAX_FILE_BYTES))[STUDY_FILE]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def write_inputs(folder: Path, results: Results) -> None:
    """Write ``study.yaml`` (with all defaults), ``configs.json``, ``environment.json`` and ``dropped.json``
    ({variant: reason})."""
    texts = {
        "study.yaml": results.spec.to_yaml(),
        "configs.json": _json(results.configs),
        "environment.json": _json(results.environment),
        "dropped.json": _json(results.dropped),
    }
    with writing_lock(folder):
        for name, text in texts.items():
            write_atomically(folder / name, text)


def write_results(folder: Path, results: Results) -> dict[str, str]:
    """Write ``table.csv``, ``curves.csv``, ``measured_in.json``, ``figures/`` and ``report.html``.

    Returns:
        Paths of all files of the study by what they are, in the order to read them.
    """
    from hrvit_lab import plots  # imported late: writing inputs needs no figures
    from hrvit_lab.study.report import figures_of, render

    drawings = {name: plots.draw(figure) for name, figure in figures_of(results).items()}
    page = render(results, {name: drawing.svg for name, drawing in drawings.items()})
    with writing_lock(folder):
        write_atomically(folder / "table.csv", to_csv(results.table))
        write_atomically(folder / "curves.csv", to_csv(results.curves))
        write_atomically(folder / "measured_in.json", _json(results.measured_in))
        pictures = [path for name, drawing in drawings.items() for path in drawing.write(folder / "figures" / name)]
        for old in set((folder / "figures").glob("*.*")) - set(pictures):
            old.unlink()  # figures of an earlier run with other metrics
        write_atomically(folder / "report.html", page)
    named = f"{', '.join(drawings)} (each as .png and .svg)" if drawings else "none"
    files = {"table": "table.csv", "curves": "curves.csv"}
    inputs = {"study": "study.yaml", "configs": "configs.json", "dropped": "dropped.json"}
    inputs |= {"environment": "environment.json", "measured in": "measured_in.json"}
    return {
        "report": str(folder / "report.html"),
        **{what: str(folder / name) for what, name in files.items()},
        "figures": f"{folder / 'figures'}: {named}",
        **{what: str(folder / name) for what, name in inputs.items()},
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=list) + "\n"
