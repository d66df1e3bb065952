"""Study files: how they are found, read and changed."""

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
MAX_FILE_BYTES = MIB
SUFFIXES = (".yaml", ".yml")
# Separators, what Windows refuses, and control characters; at the ends, dots (so that none is "." or "..") and spaces.
_NO_NAME = re.compile(r"[/\\:*?\"<>|]|^[. ]|[. ]$|^$")


def find_study(name: str) -> Path:
    """The file of a study: a path that ends in .yaml or .yml, or a name in ``./studies`` or the checkout's studies.

    Raises:
        ConfigError: with near names, if there is none.
    """
    if name.endswith(SUFFIXES):
        path = Path(name)
        if not path.exists():
            raise ConfigError(f"there is no study file {name!r}; check the path, or see --list for shipped studies")
        check_name(study_name(path))
        return path
    known = list_studies()
    if name not in known:
        raise ConfigError(f"unknown study {name!r}; {suggest(name, known) if known else 'there are none in ./studies'}")
    return known[name]


def list_studies() -> dict[str, Path]:
    """Studies by name; those in ``./studies`` go before the checkout's."""
    folders = (Path(__file__).parents[2] / "studies", Path("studies"))
    paths = sorted(path for folder in folders for path in folder.glob("*.y*ml") if path.name.endswith(SUFFIXES))
    by_name = {study_name(path): path for path in sorted(paths, key=lambda path: path.parent == Path("studies"))}
    return {name: by_name[name] for name in sorted(by_name) if not _NO_NAME.search(name)}


def study_name(path: Path) -> str:
    """The study's name, which is also the name of the folder of its results: the file's without its suffix."""
    return path.name.removesuffix(".yaml").removesuffix(".yml")


def named_after(title: str) -> str:
    """A name for a study without a file: ``how-many-branches`` of "How many branches?".

    >>> named_after("How many branches?")
    'how-many-branches'
    """
    return re.sub(r"[\W_]+", "-", title.lower()).strip("-")[:MAX_NAME].strip("-") or "study"


def study_file(path: Path) -> dict[str, str]:
    """What tells one study file from another of the same name: digests of its place and of its content."""
    place, content = str(path.resolve()).encode(), read_bounded(path, MAX_FILE_BYTES)
    return {"place": _digest(place), "content": _digest(content)}


def study_in_memory(spec: Spec) -> dict[str, str]:
    """The same for a study without a file: title, question and base stand for its place."""
    place = f"{spec.title}\0{spec.question}\0{spec.base}"
    return {"place": _digest(place.encode()), "content": _digest(spec.to_yaml().encode())}


def check_name(name: str) -> None:
    """Refuse a name that cannot be the name of a folder on every system.

    Raises:
        ConfigError: naming it, with the remedy.
    """
    if name in RESERVED_NAMES:
        raise ConfigError(f"a study can't be called {name!r}; rename the file")
    if len(name) > MAX_NAME or _NO_NAME.search(name) or cli.printable(name) != name or "\n" in name:
        raise ConfigError(
            f"{name!r} can't name a study, whose results go into a folder of that name; "
            f"rename the file: up to {MAX_NAME} letters, digits, spaces, - and _"
        )


def load_study(path: Path, settings: Sequence[tuple[str, Any]] = ()) -> Spec:
    """Read a study file and change it by ``(dotted key, value)`` settings.

    Raises:
        ConfigError: one sentence with the file (or ``--set``), the key and the remedy.
    """
    text = read_text(path, "the study file")
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
        asked = changed["metrics"] if isinstance(changed["metrics"], list) else []
        if not set(spec.tradeoff or ()) <= set(map(str, asked)):
            raw["tradeoff"] = None  # of the file's metrics, which are not asked for now
    named = {"metrics": "--metrics", "seeds": "--seeds", "device": "--device"}
    sources = {named.get(key, "--set") for key, _ in settings}
    return _validate(raw, " or ".join(sorted(sources)))


def _parse(text: str, path: Path) -> dict[str, Any]:
    raw = read_yaml(text, f"study file {path}")
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
