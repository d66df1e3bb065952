"""Learning-curve extrapolation: the accuracy at the end of a training from its first epochs."""

from collections.abc import Sequence

import numpy as np

FEWEST = 3
"""Points of a curve that determine a power law."""
EXPONENTS = np.geomspace(0.05, 5, 200)


def extrapolate(values: Sequence[float], epoch: int) -> float:
    """The value of a power law ``a − b · epoch^−c`` at a later epoch (curves of this form: arXiv 1712.00409).

    The exponent is the best of a fixed grid; a and b minimise the squared error for each, in closed form, with b ≥ 0.

    Args:
        values: at epochs 1, 2, …; with fewer than three, the last one is returned.
        epoch: at least the number of values.

    >>> curve = [80 - 40 / epoch for epoch in (1, 2, 3, 4)]
    >>> round(extrapolate(curve, 10), 1)
    76.0
    """
    y = np.asarray(values, dtype=float)
    if len(y) < FEWEST:
        return float(y[-1])
    x = np.arange(1, len(y) + 1)[None] ** -EXPONENTS[:, None]  # (exponents, epochs)
    centred, target = x - x.mean(1, keepdims=True), y - y.mean()
    slopes = np.minimum((centred @ target) / (centred**2).sum(1), 0)
    errors = ((target - slopes[:, None] * centred) ** 2).sum(1)
    best = int(np.argmin(errors))
    return float(y.mean() + slopes[best] * (float(epoch) ** -EXPONENTS[best] - x[best].mean()))
