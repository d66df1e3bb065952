"""What to say if no network is within the constraints."""

import math
from collections import Counter
from collections.abc import Sequence

from hrvit_lab.search.genome import Genome
from hrvit_lab.search.state import Evaluator
from hrvit_lab.study.spec import Bounds

REMEDY = "loosen the constraints, or change the space"


def missed_by_most(evaluator: Evaluator, genomes: Sequence[Genome]) -> str:
    """The constraint that most of these networks miss, and the value that is nearest to it, as a part of a sentence.

    Args:
        genomes: at least one, none of which is within the constraints.
    """
    spec = evaluator.space.spec
    rows = [dict(zip(spec.untrained, evaluator.values(genome), strict=True)) for genome in genomes]
    away = [{key: _distance(value, spec.constraints.get(key)) for key, value in row.items()} for row in rows]
    [(key, number)] = Counter(key for row in away for key, distance in row.items() if distance > 0).most_common(1)
    nearest = min(range(len(rows)), key=lambda place: away[place][key])
    if math.isinf(away[nearest][key]):
        return f"{key} is not finite for {number} of {len(rows)}"
    return f"{number} of {len(rows)} miss {key} ({spec.constraints[key]}; the nearest one has {rows[nearest][key]:.4g})"


def _distance(value: float, bounds: Bounds | None) -> float:
    """How far a value is outside its bounds; infinity if it is not finite."""
    if not math.isfinite(value):
        return math.inf
    low, high = (None, None) if bounds is None else (bounds.min, bounds.max)
    return max(0.0, -math.inf if low is None else low - value, -math.inf if high is None else value - high)
