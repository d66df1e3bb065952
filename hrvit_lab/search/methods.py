"""The ways to choose the next networks, each a pure function of a population and a random generator.

A generation depends on nothing else, so a search that is killed and resumed gives the same result. To add a method: a
function and a line in `METHODS`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UniformCrossover

from hrvit_lab.search.genome import Genome, Space

DRAWS = 50
"""Random networks that are drawn for each new one before a space counts as exhausted."""


class Scores(NamedTuple):
    """The values of networks, all lower is better.

    Attributes:
        objectives: (networks, objectives).
        violation: how far each network is outside the constraints, (networks,); 0 inside.
        finite: whether all scores of a network are finite, (networks,). Others count as a violation, and as 0.
    """

    objectives: NDArray[np.float64]
    violation: NDArray[np.float64]
    finite: NDArray[np.bool_]


Evaluate = Callable[[Sequence[Genome]], Scores]
Method = Callable[[Space, Evaluate, Sequence[Genome], int, np.random.Generator], list[Genome]]
"""(space, evaluate, population, size, random numbers) → the next population. An empty population starts a search."""


def nsga2(
    space: Space, evaluate: Evaluate, population: Sequence[Genome], size: int, rng: np.random.Generator
) -> list[Genome]:
    """One generation of NSGA-II: as many offspring as parents, then the best of both (Deb et al. 2002).

    Selection, crossover, ranking and crowding are pymoo's. A mutated gene moves by one choice or to a random one.
    """
    if not population:
        return _distinct(space, size, rng)
    problem = _Problem(space, evaluate)
    algorithm = NSGA2(
        pop_size=size,
        sampling=Population.new("X", np.array(population)),
        crossover=UniformCrossover(prob=0.9),
        mutation=_Mutation(space.lengths),
        repair=_Repair(space),
    )
    algorithm.setup(problem, termination=NoTermination(), seed=int(rng.integers(2**31)))
    for _ in range(2):  # the parents, for their ranks; then the offspring
        candidates = algorithm.ask()
        if candidates is None:
            break  # no new network can be found
        algorithm.evaluator.eval(problem, candidates)
        algorithm.tell(infills=candidates)
    return [tuple(map(int, genome)) for genome in algorithm.pop.get("X")]


def random_search(
    space: Space, evaluate: Evaluate, population: Sequence[Genome], size: int, rng: np.random.Generator
) -> list[Genome]:
    """Networks drawn at random, whatever was found before."""
    drawn = _distinct(space, size, rng)
    evaluate(drawn)
    return drawn


METHODS: Mapping[str, Method] = {"nsga2": nsga2, "random": random_search}


def _distinct(space: Space, size: int, rng: np.random.Generator) -> list[Genome]:
    """Different random networks; fewer than ``size`` if the space does not have more."""
    drawn: dict[Genome, None] = {}
    for _ in range(size * DRAWS):
        drawn[space.random(rng)] = None
        if len(drawn) == size:
            break
    return list(drawn)


# pymoo takes its problem and operators as subclasses.


class _Problem(Problem):
    def __init__(self, space: Space, evaluate: Evaluate) -> None:
        super().__init__(
            n_var=len(space.genes), n_obj=len(space.spec.objectives), n_ieq_constr=1, xl=0, xu=space.lengths - 1,
            vtype=int,
        )  # fmt: skip
        self._scores = evaluate

    def _evaluate(self, x: NDArray[np.int64], out: dict[str, Any], *_: Any, **__: Any) -> None:
        scores = self._scores([tuple(map(int, genome)) for genome in x])
        out["F"], out["G"] = scores.objectives, scores.violation[:, None]


class _Repair(Repair):
    def __init__(self, space: Space) -> None:
        super().__init__()
        self._space = space

    def _do(self, _problem: Problem, x: NDArray[np.int64], **_: Any) -> NDArray[np.int64]:
        return np.array([self._space.repaired(genome) for genome in x]).reshape(x.shape)


class _Mutation(Mutation):
    """On average one gene per network changes: half of the time by one choice, else to a random choice."""

    def __init__(self, lengths: NDArray[np.int64]) -> None:
        super().__init__(prob=1.0)
        self._lengths = lengths

    def _do(
        self, _problem: Problem, x: NDArray[np.int64], *_: Any, random_state: Any = None, **__: Any
    ) -> NDArray[np.int64]:
        rng = random_state
        step = np.clip(x + rng.choice([-1, 1], x.shape), 0, self._lengths - 1)
        anywhere = rng.integers(0, self._lengths, x.shape)
        moved = np.where(rng.random(x.shape) < 0.5, step, anywhere)
        return np.asarray(np.where(rng.random(x.shape) < 1 / x.shape[1], moved, x))
