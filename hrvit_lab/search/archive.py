"""The non-dominated networks found so far, and their hypervolume."""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from hrvit_lab.search.genome import Genome, Space
from hrvit_lab.search.methods import Evaluate

SAMPLE = 256
"""Random networks that set the reference point."""


class Archive:
    """Networks of which no other one is at least as good in every objective and better in one.

    Attributes:
        genomes: the networks.
        objectives: their values, lower is better, (networks, objectives).
    """

    def __init__(self, num_objectives: int) -> None:
        self.genomes: list[Genome] = []
        self.objectives: NDArray[np.float64] = np.empty((0, num_objectives))

    def add(self, genomes: Sequence[Genome], objectives: NDArray[np.float64]) -> None:
        """Add networks within the constraints. Of networks with equal objectives, the first one stays."""
        if not len(genomes):
            return
        all_genomes = [*self.genomes, *genomes]
        values = np.concatenate([self.objectives, objectives])
        _, first = np.unique(values, axis=0, return_index=True)
        kept = np.sort(first)
        best = moocore.is_nondominated(values[kept])
        kept = kept[best]
        self.genomes = [all_genomes[index] for index in kept]
        self.objectives = values[kept]


def hypervolume(objectives: NDArray[np.float64], best: NDArray[np.float64], worst: NDArray[np.float64]) -> float:
    """The share of the box from ``best`` to ``worst`` that these points dominate, 0 to 1; exact (moocore).

    Args:
        objectives: (networks, objectives), lower is better.
        best, worst: (objectives,). Points beyond ``worst`` in one objective add nothing.
    """
    if not len(objectives):
        return 0.0
    scaled = np.maximum((objectives - best) / (worst - best), 0)
    return float(moocore.hypervolume(scaled, ref=np.ones(len(best))))


def box(space: Space, evaluate: Evaluate) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The box for the hypervolume: the smallest and largest values of random networks, widened by half.

    Networks whose scores are not finite do not count, unless there are no others. Networks outside the constraints do:
    within tight constraints there may be too few for a range. The box depends on the space alone, so that all methods
    and seeds are measured in the same box.
    """
    rng = np.random.default_rng(0)
    scores = evaluate([space.random(rng) for _ in range(SAMPLE)])
    values = scores.objectives[scores.finite] if scores.finite.any() else scores.objectives
    low, high = values.min(axis=0), values.max(axis=0)
    margin = np.maximum((high - low) / 2, 1e-9)
    return low - margin, high + margin
