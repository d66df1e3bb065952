"""Networks to train next, by a sampler of Optuna.

A batch is a function of the earlier outcomes and the seed: the sampler is made anew for each, so that a search that was
killed proposes the same networks.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState

from hrvit_lab.search.genome import Gene, Genome, Space

TRIES = 20
"""Proposals that may be known or outside the constraints, before a random network takes their place."""
DRAWS = 1000
"""Random networks that are drawn before a space counts as exhausted."""
STARTS = 10
"""Random networks at the start, and size of NSGA-II's population."""

SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=STARTS),
    "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=STARTS),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=STARTS),
}
"""Makers of samplers by name, from a seed."""


class Proposal(NamedTuple):
    """A network, and the integers that the sampler stored with it (NSGA-II: the generation)."""

    genome: Genome
    attributes: dict[str, int]


class Told(NamedTuple):
    """A proposal with its objectives, lower is better; None if it could not be trained."""

    proposal: Proposal
    objectives: Sequence[float] | None


def propose(
    space: Space, told: Sequence[Told], number: int, sampler: str, seed: int, allowed: Callable[[Genome], bool]
) -> list[Proposal]:
    """New networks within the constraints; fewer than ``number`` if the space has no more.

    Args:
        told: all earlier proposals with their outcomes.
        sampler: a key of `SAMPLERS`.
        seed: of the search.
        allowed: whether a network is within the constraints.
    """
    streams = np.random.SeedSequence([seed, len(told)])
    rng = np.random.default_rng(streams)
    distributions = {str(index): _distribution(gene) for index, gene in enumerate(space.genes)}
    study = _study(space, told, distributions, SAMPLERS[sampler](int(streams.generate_state(1)[0])))
    known = {each.proposal.genome for each in told}
    found: list[Proposal] = []
    for _ in range(number):
        proposal = _from_sampler(study, space, distributions, known, allowed)
        if proposal is None:
            drawn = (space.random(rng) for _ in range(DRAWS))
            new = next((genome for genome in drawn if genome not in known and allowed(genome)), None)
            if new is None:
                break
            proposal = Proposal(new, _attributes(study, len(study.get_trials(deepcopy=False)) - 1))
        known.add(proposal.genome)
        found.append(proposal)
    return found


def _from_sampler(
    study: optuna.Study,
    space: Space,
    distributions: dict[str, BaseDistribution],
    known: set[Genome],
    allowed: Callable[[Genome], bool],
) -> Proposal | None:
    for _ in range(TRIES):
        with _quiet():
            trial = study.ask(distributions)
        genome = space.repaired([trial.params[str(index)] for index in range(len(space.genes))])
        if genome not in known and allowed(genome):
            return Proposal(genome, _attributes(study, trial.number))
        with _quiet():
            study.tell(trial, state=TrialState.FAIL)
    return None


def _study(
    space: Space, told: Sequence[Told], distributions: dict[str, BaseDistribution], sampler: BaseSampler
) -> optuna.Study:
    with _quiet():
        study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(space.spec.objectives))
        for (genome, attributes), objectives in told:
            study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.FAIL if objectives is None else TrialState.COMPLETE,
                    values=None if objectives is None else [float(value) for value in objectives],
                    params={str(index): choice for index, choice in enumerate(genome)},
                    distributions=distributions,
                    system_attrs=dict(attributes),
                )
            )
    return study


def _distribution(gene: Gene) -> BaseDistribution:
    """Numbers are in order, names are not."""
    if all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in gene.choices):
        return IntDistribution(0, len(gene.choices) - 1)
    return CategoricalDistribution(range(len(gene.choices)))


def _attributes(study: optuna.Study, number: int) -> dict[str, int]:
    stored: Mapping[str, Any] = study.get_trials(deepcopy=False)[number].system_attrs
    return {name: value for name, value in stored.items() if isinstance(value, int)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's messages about every trial, and its warnings that a part is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
