"""Latencies of parts from timed ones: a weighted sum of work for each family, corrected by the nearest timed parts.

The correction interpolates between timed parts in tokens, width, shape, heads, keys and filled lanes. A part
that was timed has its own latency.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hrvit_lab.config.plan import Part
from hrvit_lab.errors import ConfigError
from hrvit_lab.latency.units import Family, family_of, point_of

NEAREST = 6
"""Timed parts that correct a prediction."""
FAR = 1.0
"""Distance in doublings at which the correction is half of that of a timed part."""
SMALLEST_MS = 1e-6


@dataclass(frozen=True)
class Line:
    """The fit of a family.

    Attributes:
        weights: milliseconds per unit of work, none negative, (12,).
        places: of the timed parts, (parts, 6).
        corrections: logarithms of their latencies divided by the weighted sum, (parts,).
        spread: median of the corrections' sizes: the relative error without correction.
    """

    weights: NDArray[np.float64]
    places: NDArray[np.float64]
    corrections: NDArray[np.float64]
    spread: float


@dataclass(frozen=True)
class Table:
    """Latencies of parts, in milliseconds."""

    lines: Mapping[Family, Line]
    _known: dict[Part, tuple[float, float]] = field(default_factory=dict, compare=False, repr=False)

    def latency_ms(self, part: Part) -> float:
        """The latency of one call of a part.

        Raises:
            ConfigError: if no part of its family was timed.
        """
        return self._at(part)[0]

    def doubt(self, part: Part) -> float:
        """The relative error to expect, from the distance to the timed parts; 1 for a family that was never timed."""
        return self._at(part)[1] if family_of(part) in self.lines else 1.0

    def _at(self, part: Part) -> tuple[float, float]:
        found = self._known.get(part)
        if found is None:
            found = self._known[part] = self._compute(part)
        return found

    def _compute(self, part: Part) -> tuple[float, float]:
        line = self.lines.get(family_of(part))
        if line is None:
            raise ConfigError(f"the profile has no {family_of(part)}; measure it on a space that has it")
        point = point_of(part)
        distances = np.sqrt(((line.places - point.place) ** 2).sum(axis=1))
        nearest = np.argsort(distances, kind="stable")[:NEAREST]
        closeness = 1 / np.maximum(distances[nearest], 1e-6) ** 2
        correction = float((closeness * line.corrections[nearest]).sum() / (closeness.sum() + 1 / FAR**2))
        away = float(distances[nearest[0]])
        base = max(float(line.weights @ point.work), SMALLEST_MS)
        return base * math.exp(correction), line.spread * min(1.0, away / FAR) + 0.02 * away


def fit(timed: Iterable[tuple[Part, float]]) -> Table:
    """Fit the latencies of parts.

    Args:
        timed: parts with the latency of a call in milliseconds; a part may occur several times, its median counts.
    Raises:
        ConfigError: for latencies that no weights fit.
    """
    from scipy.optimize import nnls  # imported here because it takes a second

    samples: dict[Family, dict[Part, list[float]]] = {}
    for part, ms in timed:
        samples.setdefault(family_of(part), {}).setdefault(part, []).append(max(ms, SMALLEST_MS))
    lines = {}
    for family, by_part in samples.items():
        points = [point_of(part) for part in by_part]
        medians = np.array([float(np.median(values)) for values in by_part.values()])
        work = np.array([point.work for point in points])
        scale = np.maximum(np.abs(work).max(axis=0), 1e-12)
        try:
            weights, _ = nnls((work / scale) / medians[:, None], np.ones(len(medians)))  # relative errors
        except RuntimeError:  # too many iterations
            raise ConfigError(f"the latencies of {family} can't be fitted; measure the profile again") from None
        weights = weights / scale
        corrections = np.log(medians / np.maximum(work @ weights, SMALLEST_MS))
        places = np.array([point.place for point in points])
        lines[family] = Line(weights, places, corrections, float(np.median(np.abs(corrections))))
    return Table(lines)
