"""One run of a search (a method and a seed): generation by generation, with its state on disk after each.

A generation is a function of the population and of (seed, generation), so a run that was killed continues with the
same networks as an uninterrupted one.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hrvit_lab.config import ConfigError
from hrvit_lab.files import MIB, read_bounded, write_atomically
from hrvit_lab.search.archive import Archive, box, hypervolume
from hrvit_lab.search.genome import Genome, Space
from hrvit_lab.search.methods import METHODS, Scores
from hrvit_lab.search.objectives import Quantities

MAX_STATE_BYTES = 256 * MIB
MAX_CACHED = 200_000
CHUNK = 1000
VERSION = 1
"""Of methods and genomes: states of other versions are not resumed."""


@dataclass
class State:
    """Where a run is.

    Attributes:
        generation: number of finished generations.
        evaluations: number of evaluated genomes, in whole generations. One that a later generation meets again counts
            again.
        population: genomes of the last generation.
        archive: non-dominated genomes so far.
        history: (evaluations, hypervolume) after each generation.
        exhausted: whether no new network can be found.
        seconds: wall time of all finished generations.
    """

    generation: int = 0
    evaluations: int = 0
    population: list[Genome] = field(default_factory=list)
    archive: list[Genome] = field(default_factory=list)
    history: list[tuple[int, float]] = field(default_factory=list)
    exhausted: bool = False
    seconds: float = field(default=0.0, compare=False)


class Evaluator:
    """Scores genomes of a space by all objectives that need no training; equal genomes are scored once.

    Args:
        folder: where the scores of predictors are kept; None: in memory only.

    Attributes:
        quantities: of the search, for a network.
        signs: 1 for an objective that should be low, -1 for one that should be high, (objectives,).
    """

    def __init__(self, space: Space, folder: Path | None = None) -> None:
        spec = space.spec
        self.space = space
        self._keys = spec.untrained
        self.quantities = Quantities(self._keys, spec.resolution, spec.predictors, spec.profile, folder)
        known = [better for key, better in spec.objectives.items() if key in self._keys]
        self.signs = np.array([1.0 if better == "lower" else -1.0 for better in known])
        self._known: dict[Genome, tuple[float, ...]] = {}

    def __call__(self, genomes: Sequence[Genome]) -> Scores:
        """Objectives (lower is better) and violations of the constraints; a score that is not finite is one."""
        values = np.array([self.values(genome) for genome in genomes]).reshape(len(genomes), len(self._keys))
        finite = np.isfinite(values)
        violation = (~finite).sum(axis=1).astype(float)
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        objectives = values[:, : len(self.signs)] * self.signs
        for key, bounds in self.space.spec.constraints.items():
            value = values[:, self._keys.index(key)]
            for limit, over in ((bounds.max, 1.0), (bounds.min, -1.0)):
                if limit is not None:
                    violation += np.maximum(over * (value - limit), 0) / max(abs(limit), 1.0)
        return Scores(objectives, violation, finite.all(axis=1))

    def values(self, genome: Genome) -> tuple[float, ...]:
        """The quantities of the search, objectives first."""
        if genome not in self._known:
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[genome] = self.quantities(self.space.config(genome))
        return self._known[genome]

    def values_of_base(self) -> tuple[float, ...]:
        """The same of the base, which may be outside the space."""
        return self.quantities(self.space.base)


def advance(
    space: Space, method: str, seed: int, path: Path, digest: str, check: Callable[[], None] = lambda: None
) -> Iterator[State]:
    """Run the missing generations of a run. Yields its state after each, once it is on disk.

    Args:
        path: file of the state.
        digest: of the search; a state of another search is refused.
        check: called before a state is written; raises if another process runs the search now.
    Raises:
        ConfigError: if the file is the state of another search, or damaged.
    """
    state = read_state(path, digest) or State()
    budget, score = space.spec.budget, Evaluator(space, path.parent)
    archive = Archive(len(space.spec.objectives))
    _extend(archive, state.archive, score(state.archive))
    best, worst = box(space, score)
    while state.evaluations < budget.evaluations and not state.exhausted:
        began = time.perf_counter()
        met: dict[Genome, None] = {}

        def observed(genomes: Sequence[Genome], met: dict[Genome, None] = met) -> Scores:
            met.update(dict.fromkeys(genomes))
            return score(genomes)

        before = set(state.population)
        rng = np.random.default_rng([seed, state.generation])
        state.population = METHODS[method](space, observed, state.population, budget.population, rng)
        met.update(dict.fromkeys(state.population))
        new = [genome for genome in met if genome not in before]
        _extend(archive, new, score(new))
        state.generation += 1
        state.evaluations += len(new)
        state.exhausted = not new
        state.archive = archive.genomes
        state.history.append((state.evaluations, hypervolume(archive.objectives, best, worst)))
        state.seconds += time.perf_counter() - began
        check()
        write_state(path, state, digest)
        yield state


def _extend(archive: Archive, genomes: Sequence[Genome], scores: Scores) -> None:
    inside = np.flatnonzero(scores.violation <= 0).tolist()
    archive.add([genomes[index] for index in inside], scores.objectives[inside])


def write_state(path: Path, state: State, digest: str) -> None:
    """Write a state, replacing the file in one step."""
    write_atomically(path, json.dumps({"version": VERSION, "search": digest, **vars(state)}))


def read_state(path: Path, digest: str) -> State | None:
    """Read a state; None if there is no file.

    Raises:
        ConfigError: if it is damaged, or of another search or version.
    """
    try:
        raw = json.loads(read_bounded(path, MAX_STATE_BYTES))
        if raw["version"] != VERSION or raw["search"] != digest:
            raise ConfigError(f"{path} is the state of another search or version; choose another folder with --out")
        return State(
            generation=int(raw["generation"]),
            evaluations=int(raw["evaluations"]),
            population=[tuple(map(int, genome)) for genome in raw["population"]],
            archive=[tuple(map(int, genome)) for genome in raw["archive"]],
            history=[(int(evaluations), float(volume)) for evaluations, volume in raw["history"]],
            exhausted=bool(raw["exhausted"]),
            seconds=_seconds(raw.get("seconds", 0.0)),  # states of earlier versions have none
        )
    except FileNotFoundError:
        return None
    except ConfigError:
        raise
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} can't be read ({type(error).__name__}); remove it to start this run again") from None


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError
    return seconds


def enumerate_all(space: Space, progress: Callable[[int], None] = lambda _: None) -> tuple[int, list[Genome], float]:
    """All of a small space: the number of its genomes, the Pareto set, and its hypervolume.

    Args:
        progress: called with the number of genomes so far.
    """
    score, archive, number = Evaluator(space), Archive(len(space.spec.objectives)), 0
    best, worst = box(space, score)
    genomes = space.all()
    progress(0)
    while chunk := list(itertools.islice(genomes, CHUNK)):
        _extend(archive, chunk, score(chunk))
        number += len(chunk)
        progress(number)
    return number, archive.genomes, hypervolume(archive.objectives, best, worst)


def history_rows(states: Mapping[tuple[str, int], State]) -> list[dict[str, Any]]:
    """The hypervolume of every run after every generation: method, seed, evaluations, hypervolume."""
    return [
        {"method": method, "seed": seed, "evaluations": evaluations, "hypervolume": volume}
        for (method, seed), state in states.items()
        for evaluations, volume in state.history
    ]
