"""The fastest correct back end of this machine for one network and setting: found by a race once, and kept."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hrvit_lab.environment import environment, hardware, versions
from hrvit_lab.errors import ConfigError
from hrvit_lab.files import MIB, read_bounded, try_lock, write_atomically
from hrvit_lab.latency.aot import cache_root
from hrvit_lab.latency.backends import BACKENDS
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.measurement import Entry, Measurement, Setting
from hrvit_lab.latency.models import NamedModel
from hrvit_lab.latency.race import race
from hrvit_lab.latency.steps import Report
from hrvit_lab.source import PACKAGE, source_digest

AUTO = "auto"
"""The name that ``--backend`` takes instead of a back end."""

ACCIDENTS = {"failed": "failed", "out of memory": "ran out of memory"}
"""A status that another race may not have, and how it is said."""


@dataclass(frozen=True)
class Tried:
    """A back end that was tried.

    Attributes:
        backend: a key of ``BACKENDS``.
        latency_ms: its median; None if it was not timed.
        reason: why it was not timed.
    """

    backend: str
    latency_ms: float | None
    reason: str = ""


@dataclass(frozen=True)
class Choice:
    """The fastest back end, and what it was chosen over.

    Attributes:
        tried: all back ends, the fastest first, those without a time last.
        disturbed: whether other programs disturbed the race.
        date_utc: of the race.
        path: of the file that keeps it.
        unkept: why it is not kept.
    """

    tried: tuple[Tried, ...]
    disturbed: bool
    date_utc: str
    path: Path
    unkept: str = ""

    @property
    def backend(self) -> str:
        """The fastest."""
        return self.tried[0].backend

    @property
    def sentences(self) -> str:
        """The choice, what it was chosen over, and how to choose again."""
        best, *others = self.tried
        fastest_ms = best.latency_ms or math.nan
        slower = [f"{one.backend} {one.latency_ms / fastest_ms:.2f} ×" for one in others if one.latency_ms is not None]
        missing = [f"{one.backend} ({one.reason.rstrip('.')})" for one in others if one.latency_ms is None]
        said = f"auto: {best.backend} is the fastest, {fastest_ms:.4g} ms."
        said += f" Times of others, relative to it: {', '.join(slower)}." if slower else ""
        said += f" Not timed: {'; '.join(missing)}." if missing else ""
        busy = ", while other programs were running" if self.disturbed else ""
        said += f" Found on {self.date_utc[:10]}{busy}; "
        if self.unkept:
            return f"{said}the next run chooses again, because {self.unkept}"
        return f"{said}to choose again, remove {self.path}"


def choose(
    model: NamedModel,
    setting: Setting,
    dtype: str = "float32",
    *,
    budget: Budget | None = None,
    seed: int = 0,
    max_warmup_seconds: float = 10.0,
    report: Report = lambda step: None,
) -> Choice:
    """The kept choice for this network, setting and machine; or else the result of a race.

    It is kept, unless a back end failed or ran out of memory, which may be an accident.

    Back ends that round more than ``dtype`` does (int8) are not candidates, nor are those with wrong outputs.

    Args:
        model: from ``find_model``. Its weights do not matter.
        setting: of inference.
        budget, seed, max_warmup_seconds, report: of the race.
    Raises:
        ConfigError: for training, or if no back end runs.
    """
    if setting.training:
        raise ConfigError("back end auto supports inference only; name a back end, or remove --training")
    names = candidates(setting, dtype)
    path = cache_root() / "auto" / f"{digest(model.module, setting, dtype, names)}.json"
    if (kept := read_choice(path, names)) is not None:
        return kept
    results = race(
        [Entry(model, name, dtype) for name in names], setting, budget, seed=seed, report=report,
        max_warmup_seconds=max_warmup_seconds,
    )  # fmt: skip
    if any(result.status == "interrupted" for result in results):
        raise KeyboardInterrupt
    choice = Choice(ranked(results), any(m.disturbed for m in results), str(environment()["date_utc"]), path)
    accidents = [f"{m.backend} {ACCIDENTS[m.status]}" for m in results if m.status in ACCIDENTS]
    return replace(choice, unkept=" and ".join(accidents)) if accidents else keep(choice)


def keep(choice: Choice) -> Choice:
    """Write the file of a choice, unless another process is writing it. A folder that cannot be written does not lose
    the choice; ``unkept`` then says why."""
    facts = asdict(choice) | {"path": str(choice.path), "versions": versions()}
    try:
        choice.path.parent.mkdir(parents=True, exist_ok=True)
        if (lock := try_lock(choice.path.with_suffix(".lock"))) is not None:
            try:
                write_atomically(choice.path, json.dumps(facts, indent=2) + "\n")
            finally:
                lock.release(unlink=True)
    except OSError as error:
        return replace(choice, unkept=f"{choice.path} cannot be written ({error.strerror or type(error).__name__})")
    return choice


def candidates(setting: Setting, dtype: str) -> list[str]:
    """Back ends that support the setting and whose packages are installed, in the order of ``BACKENDS``."""
    return [
        name
        for name, backend in BACKENDS.items()
        if backend.arithmetic is None
        and backend.refusal(setting.device, dtype, training=False) is None
        and not backend.missing
    ]


def ranked(results: list[Measurement]) -> tuple[Tried, ...]:
    """What was tried, the fastest first.

    Raises:
        ConfigError: if nothing was timed.
    """
    tried = [Tried(m.backend, m.latency.value if m.latency else None, m.reason) for m in results]
    if all(one.latency_ms is None for one in tried):
        raise ConfigError(f"no back end runs {results[0].model}: {tried[0].backend} {tried[0].reason}")
    return fastest_first(tried)


def fastest_first(tried: Sequence[Tried]) -> tuple[Tried, ...]:
    """The same, those without a time last."""
    return tuple(sorted(tried, key=lambda one: math.inf if one.latency_ms is None else one.latency_ms))


def digest(model: nn.Module, setting: Setting, dtype: str, names: list[str]) -> str:
    """24 hexadecimal digits of all that a choice depends on: modules and shapes of the network, the setting, the
    candidates, versions, hardware, and the code that builds, converts and runs networks."""
    shapes = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    threads = setting.threads or torch.get_num_threads()
    facts = [repr(model), shapes, asdict(setting) | {"threads": threads}, dtype, names, sorted(versions().items())]
    facts += [hardware(setting.device), *(source_digest(PACKAGE / room) for room in ("network", "export", "latency"))]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]


def read_choice(path: Path, names: Sequence[str]) -> Choice | None:
    """The choice that a file keeps; None if there is none, or the file is damaged.

    Args:
        names: of the candidates. A file that names others is damaged.
    """
    try:
        raw: Mapping[str, Any] = json.loads(read_bounded(path, MIB))
        tried = []
        for one in raw["tried"]:
            latency_ms = None if one["latency_ms"] is None else float(one["latency_ms"])
            if latency_ms is not None and not 0 < latency_ms < math.inf:
                return None
            tried.append(Tried(str(one["backend"]), latency_ms, str(one["reason"])))
        if sorted(one.backend for one in tried) != sorted(names) or tuple(tried) != fastest_first(tried):
            return None
        if tried[0].latency_ms is None:
            return None
        return Choice(tuple(tried), bool(raw["disturbed"]), str(raw["date_utc"]), path)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
