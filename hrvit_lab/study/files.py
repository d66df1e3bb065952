"""Find, read and change study files."""

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, read_text, read_yaml, suggest
from hrvit_lab.config.settings import assign
from hrvit_lab.config.text import first_problem
from hrvit_lab.files import MIB, read_bounded
from hrvit_lab.study.spec import Spec

RESERVED_NAMES = ("report", "trials")
MAX_NAME = 100
MAX_FILE_BYTES = 4 * MIB
"""Enough for the longest study, which lists 10,000 networks."""
SUFFIXES = (".yaml", ".yml")
# Separators, characters that Windows does not allow, and control characters; dots and spaces at the ends (such as
# "..").
_NO_NAME = re.compile(r"[/\\:*?\"<>|]|^[. ]|[. ]$|^$")


def find_study(name: str) -> Path:
    """The file of a study: a path that ends in .yaml or .yml, or a name in ``./studies`` or the checkout's studies.

    Raises:
        ConfigError: if there is none; suggests similar names.
    """
    return find_file(name, "study", list_studies())


def find_file(name: str, kind: str, known: Mapping[str, Path]) -> Path:
    """The file of that path or known name; ``kind`` is what it describes, for messages.

    Raises:
        ConfigError: if there is none; suggests similar names.
    """
    if name.endswith(SUFFIXES):
        path = Path(name)
        if not path.exists():
            raise ConfigError(f"{kind} file {name!r} not found; check the path, or see --list for those that ship")
        check_name(study_name(path))
        return path
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}; {suggest(name, known) if known else 'there are none here'}")
    return known[name]


def list_studies() -> dict[str, Path]:
    """Studies by name; those in ``./studies`` take precedence over the checkout's."""
    return list_files("studies")


def list_files(folder: str) -> dict[str, Path]:
    """YAML files by name; those in ``./folder`` take precedence over the checkout's ``folder``."""
    here = Path(folder)
    folders = (Path(__file__).parents[2] / folder, here)
    paths = sorted(path for folder in folders for path in folder.glob("*.y*ml") if path.name.endswith(SUFFIXES))
    by_name = {study_name(path): path for path in sorted(paths, key=lambda path: path.parent == here)}
    return {name: by_name[name] for name in sorted(by_name) if not _NO_NAME.search(name)}


def study_name(path: Path) -> str:
    """The study's name, which is also the name of its results folder: the file name without suffix.

    The name of ``study.yaml`` in a folder of results is that of the folder.
    """
    if path.name == "study.yaml" and path.with_name("environment.json").exists():
        return path.parent.resolve().name
    return path.name.removesuffix(".yaml").removesuffix(".yml")


def named_after(title: str) -> str:
    """A name for a study without a file, from its title.

    >>> named_after("How many branches?")
    'how-many-branches'
    """
    return re.sub(r"[\W_]+", "-", title.lower()).strip("-")[:MAX_NAME].strip("-") or "study"


def study_file(path: Path, content: bytes | None = None) -> dict[str, str]:
    """Digests of a study file's path and content, to distinguish files of the same name.

    Args:
        content: of a file that is not written yet; None: read it.
    """
    place = str(path.resolve()).encode()
    return {"place": _digest(place), "content": _digest(content or read_bounded(path, MAX_FILE_BYTES))}


def study_in_memory(spec: Spec) -> dict[str, str]:
    """The same for a study without a file: title, question and base are used instead of the path."""
    place = f"{spec.title}\0{spec.question}\0{spec.base}"
    return {"place": _digest(place.encode()), "content": _digest(spec.to_yaml().encode())}


def check_name(name: str) -> None:
    """Check that a name is valid as the name of a folder on every operating system.

    Raises:
        ConfigError: if it is not.
    """
    if not name:
        raise ConfigError("the name of the study is empty; give one, such as branch_sweep, or rename the file")
    if name in RESERVED_NAMES:
        raise ConfigError(f"study name {name!r} is reserved; rename the file")
    if len(name) > MAX_NAME or _NO_NAME.search(name) or cli.printable(name) != name or "\n" in name:
        raise ConfigError(
            f"study name {name!r} is not valid as the name of the results folder; "
            f"rename the file: use up to {MAX_NAME} letters, digits, spaces, - and _"
        )


def load_study(path: Path, settings: Sequence[tuple[str, Any]] = ()) -> Spec:
    """Read a study file and change it by ``(dotted key, value)`` settings.

    Raises:
        ConfigError: one sentence with the file (or ``--set``), the key and the remedy.
    """
    text = read_text(path, "the study file", MAX_FILE_BYTES)
    return spec_from(_parse(text, path), settings, str(path))


def spec_from(fields: Mapping[str, Any], settings: Sequence[tuple[str, Any]] = (), source: str = "the study") -> Spec:
    """The study with these fields, changed by ``(dotted key, value)`` settings.

    Raises:
        ConfigError: one sentence with the source (or ``--set``), the key and the remedy.
    """
    raw = copy.deepcopy(dict(fields))
    spec = _validate(raw, source)
    if not settings:
        return spec
    raw["base"] = dict(spec.base)
    for key, value in settings:
        assign(raw, key, value)
    changed = dict(settings)
    if "metrics" in changed and "tradeoff" not in changed:
        requested = changed["metrics"] if isinstance(changed["metrics"], list) else []
        if not set(spec.tradeoff or ()) <= set(map(str, requested)):
            raw["tradeoff"] = None  # the file's trade-off may use metrics that are no longer measured
    named = {"metrics": "--metrics", "seeds": "--seeds", "device": "--device"}
    sources = {named.get(key, "--set") for key, _ in settings}
    return _validate(raw, " or ".join(sorted(sources)))


def _parse(text: str, path: Path) -> dict[str, Any]:
    raw = read_yaml(text, f"study file {path}", MAX_FILE_BYTES)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping with title, question, base and an axis; see --help")
    return raw


def _validate(raw: Mapping[str, Any], source: str) -> Spec:
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error, Spec)}") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
