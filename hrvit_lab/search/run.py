"""Run a search: all methods and seeds, on several processes; then its results, which are an ordinary study.

The folder ``OUT/NAME`` has the table, figures and report of a study of the Pareto set. Its folder ``search`` has the
states of the runs, ``hypervolume.csv`` with its figure, and the search itself.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hrvit_lab.config import ConfigError, write_yaml
from hrvit_lab.files import MIB, read_bounded, user_path, write_atomically, write_csv
from hrvit_lab.search.archive import Archive, box, hypervolume
from hrvit_lab.search.genome import Genome, Space
from hrvit_lab.search.hold import Hold, held
from hrvit_lab.search.methods import METHODS
from hrvit_lab.search.spec import SearchSpec, search_from
from hrvit_lab.search.state import VERSION, Evaluator, State, advance, enumerate_all, history_rows, read_state
from hrvit_lab.study.executors import WorkerUnable

MAX_ENUMERATED = 300_000
"""Spaces with at most this many combinations are enumerated."""
POLL_S = 0.5

Progress = Callable[[int], None]
"""Called with the number of networks so far."""


@dataclass(frozen=True)
class Search:
    """A search and its folder.

    Attributes:
        name: of the search and of its folder.
        spec: the search.
        folder: of its results.
    """

    name: str
    spec: SearchSpec
    folder: Path

    @cached_property
    def space(self) -> Space:
        """The networks."""
        return Space(self.spec)

    @property
    def base_name(self) -> str:
        """The name of the base in tables."""
        return self.spec.base_config.name or "base"

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Method and seed of every run."""
        return [(method, seed) for seed in self.spec.budget.seeds for method in METHODS]

    @property
    def own_folder(self) -> Path:
        """Folder of the states."""
        return self.folder / "search"

    @cached_property
    def digest(self) -> str:
        """Of what the states depend on: more evaluations, seeds or networks continue a search, other changes do not."""
        fields = self.spec.model_dump(mode="json", exclude={"title", "question"})
        fields["budget"] = {"population": self.spec.budget.population}
        if not self.spec.predicted:
            del fields["predictors"]
        if self.spec.profile is None:
            del fields["profile"]
        else:
            fields["profile"] = hashlib.sha256(user_path(self.spec.profile).read_bytes()).hexdigest()
        if fields["trainings"] is None:
            del fields["trainings"]
        else:
            del fields["trainings"]["networks"], fields["budget"]
            if fields["trainings"]["device"] == "cpu":
                del fields["trainings"]["device"]  # searches began before there was a choice
            if (recipe := fields["trainings"]["recipe"]) and recipe["processes"] == 1:
                del recipe["processes"]  # searches began before there were several
        return hashlib.sha256(json.dumps([VERSION, fields], sort_keys=True).encode()).hexdigest()[:16]

    def state_file(self, method: str, seed: int) -> Path:
        """File of a run's state."""
        return self.own_folder / f"{method}-seed{seed}.json"

    def states(self) -> dict[tuple[str, int], State]:
        """The states of the runs that have begun."""
        read = {run: read_state(self.state_file(*run), self.digest) for run in self.runs}
        return {run: state for run, state in read.items() if state is not None}


@dataclass(frozen=True)
class Truth:
    """The result of enumerating a space: number of valid combinations, Pareto set, and hypervolume of that set."""

    networks: int
    front: list[Genome]
    hypervolume: float


def check(search: Search, build: bool = True) -> None:
    """Check before a search that its quantities can be computed: for the base, and for a network with each number of
    branches and each part. The images of predictors are loaded, and all quantities of the base and of one network are
    computed. The search's folder must have no other study or search.

    Args:
        build: False: no network is built.
    Raises:
        ConfigError: with the reason.
    """
    folder = search.own_folder if search.own_folder.exists() else None
    evaluator = Evaluator(search.space, folder)
    evaluator.quantities.check(search.space.base)
    for name, genome in search.space.examples().items():
        try:
            evaluator.quantities.check(search.space.config(genome))
        except ConfigError as error:
            raise ConfigError(f"space: networks with {name} can't be searched: {error}") from None
    evaluator.quantities.load_images()
    check_folder(search)
    if not build:
        return
    evaluator.values(search.space.random(np.random.default_rng(0)))
    evaluator.values_of_base()


def check_folder(search: Search) -> None:
    """Check that the search's folder has no other study and no states of another search.

    Raises:
        ConfigError: if it has.
    """
    owned = (search.own_folder / "search.yaml").exists()
    if not owned and (search.folder / "study.yaml").exists():
        raise ConfigError(f"{search.folder} holds a study of that name; rename the search file, or change --out")
    for run in search.runs:
        read_state(search.state_file(*run), search.digest)


@contextmanager
def begun(search: Search) -> Iterator[Hold]:
    """Context: create the folder of a search, hold it, and write the search into it.

    Raises:
        ConfigError: if it can't be written, holds another study or search, or if another process runs this one.
    """
    check_folder(search)
    with ExitStack() as ours:
        try:
            search.own_folder.mkdir(parents=True, exist_ok=True)
            hold = ours.enter_context(held(search.own_folder))
            check_folder(search)  # again: another process may have ended just now
            text = write_yaml(search.spec.model_dump(mode="json"), width=120)
            write_atomically(search.own_folder / "search.yaml", text)
        except OSError as error:
            raise ConfigError(f"{search.folder} can't be written: {error.strerror}; choose another folder") from None
        yield hold


def run(search: Search, hold: Hold, jobs: int, progress: Progress) -> None:
    """Run what is missing of all runs.

    Args:
        hold: on the search, from `begun`.
        jobs: number of processes.
    Raises:
        ConfigError: if another process has taken over this search, or a state can't be used.
        WorkerUnable: if a worker process was killed; the states of finished generations are kept.
    """
    done = {run: state.evaluations for run, state in search.states().items()}
    if jobs > 1:
        _run_in_processes(search, hold, jobs, done, progress)
        return
    for method, seed in search.runs:
        path = search.state_file(method, seed)
        for state in advance(search.space, method, seed, path, search.digest, hold.check):
            done[method, seed] = state.evaluations
            progress(sum(done.values()))


def _run_in_processes(
    search: Search, hold: Hold, jobs: int, done: dict[tuple[str, int], int], progress: Progress
) -> None:
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", [done.get(run, 0) for run in search.runs])
    fields = search.spec.model_dump(mode="json")
    pool = ProcessPoolExecutor(min(jobs, len(search.runs)), context, _start_worker, (counts,))
    try:
        waiting: set[Future[None]] = {
            pool.submit(_run_one, fields, method, seed, search.state_file(method, seed), search.digest, hold, place)
            for place, (method, seed) in enumerate(search.runs)
        }
        while waiting:
            finished, waiting = wait(waiting, POLL_S, FIRST_COMPLETED)
            for future in finished:
                future.result()
            progress(sum(counts[:]))
    except BrokenProcessPool:
        raise WorkerUnable(
            "a worker process of the search was killed, possibly because memory ran out; run the same command again to "
            "resume, with fewer --jobs if memory is short"
        ) from None
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_WORKER: dict[str, Any] = {}


def _start_worker(counts: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _WORKER.update(counts=counts)


def _end_with_parent() -> None:
    """End this process when its parent was killed: another one may take over the search at once."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_one(
    fields: Mapping[str, Any], method: str, seed: int, path: Path, digest: str, hold: Hold, place: int
) -> None:
    space = Space(search_from(fields))
    for state in advance(space, method, seed, path, digest, hold.check):
        _WORKER["counts"][place] = state.evaluations


def is_enumerated(search: Search) -> bool:
    """Whether all networks of the space are evaluated: it is small, and no network has to be built."""
    return search.space.size <= MAX_ENUMERATED and not search.spec.predicted


def truth_of(search: Search, progress: Progress = lambda _: None) -> Truth | None:
    """Enumerate the space if it is small; the result is kept on disk. None if it is not enumerated."""
    if not is_enumerated(search):
        return None
    path = search.own_folder / "truth.json"
    try:
        raw = json.loads(read_bounded(path, 64 * MIB))
        if raw["search"] == search.digest:
            return Truth(raw["networks"], [tuple(genome) for genome in raw["front"]], raw["hypervolume"])
    except (OSError, ValueError, LookupError, TypeError):
        pass  # missing or damaged: enumerated again
    found = Truth(*enumerate_all(search.space, progress))
    write_atomically(path, json.dumps({"search": search.digest, **vars(found)}))
    return found


def front_of(search: Search, states: Mapping[tuple[str, int], State]) -> tuple[list[Genome], np.ndarray[Any, Any]]:
    """The non-dominated networks of all runs of NSGA-II, with their objectives (lower is better), in their order."""
    score, archive = Evaluator(search.space, search.own_folder), Archive(len(search.spec.objectives))
    for (method, _), state in states.items():
        if method == "nsga2":
            archive.add(state.archive, score(state.archive).objectives)
    order = np.lexsort(archive.objectives.T[::-1])
    return [archive.genomes[index] for index in order], archive.objectives[order]


def write_history(search: Search, states: Mapping[tuple[str, int], State]) -> pd.DataFrame:
    """Write ``hypervolume.csv``: method, seed, evaluations, hypervolume."""
    columns = ["method", "seed", "evaluations", "hypervolume"]
    history = pd.DataFrame(history_rows(states), columns=columns)
    write_csv(search.own_folder / "hypervolume.csv", [columns, *history.itertuples(index=False)])
    return history


def write_front(search: Search, evaluator: Evaluator, genomes: Mapping[str, Genome]) -> None:
    """Write ``pareto.csv``: the base and networks by name, with all objectives and constrained quantities."""
    base = [search.base_name, search.space.base.id, *evaluator.values_of_base()]
    rows = [[name, search.space.config(genome).id, *evaluator.values(genome)] for name, genome in genomes.items()]
    write_csv(search.own_folder / "pareto.csv", [["variant", "config_id", *search.spec.quantities], base, *rows])


def as_good_as_base(evaluator: Evaluator, objectives: np.ndarray[Any, Any]) -> int:
    """The number of networks that are at least as good as the base in every objective.

    Args:
        objectives: lower is better, (networks, objectives).
    """
    base = evaluator.signs * evaluator.values_of_base()[: len(evaluator.signs)]
    return int((objectives <= base).all(axis=1).sum())


def volume_of(search: Search, objectives: np.ndarray[Any, Any]) -> float:
    """The hypervolume of points in the box of this search."""
    return hypervolume(objectives, *box(search.space, Evaluator(search.space, search.own_folder)))
