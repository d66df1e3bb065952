"""Accuracy of a network before and after a change, on the same images, with an interval of the difference."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MAX_LOSS = 0.5
"""Percentage points that a file may lose without a remark."""
RESAMPLES = 1000
AT_ONCE = 50
"""Resamples that are held in memory together."""

Counts = NDArray[np.int64]
"""By image and class, (N, 3, C): numbers of correct predictions, of labels, and of predictions."""


@dataclass(frozen=True)
class Accuracy:
    """A score before and after, in percent.

    Attributes:
        score: ``"top1"`` or ``"miou"``.
        before, after: on the same images.
        change_low, change_high: the 95 % interval of ``after − before`` in percentage points, by resampling images.
        images: how many.
    """

    score: str
    before: float
    after: float
    change_low: float
    change_high: float
    images: int

    @property
    def within(self) -> bool:
        """Whether a loss of at most ``MAX_LOSS`` points is in the interval."""
        return self.change_high >= -MAX_LOSS

    @property
    def sentence(self) -> str:
        """All values in words."""
        remark = "" if self.within else f" The loss is more than {MAX_LOSS:g} points."
        return (
            f"{self.score} {self.before:.2f} % before and {self.after:.2f} % after, a change of "
            f"{self.after - self.before:+.2f} points [{self.change_low:+.2f}, {self.change_high:+.2f}], on "
            f"{self.images:,} images (95 % interval over images).{remark}"
        )


def class_counts(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Numbers of correct predictions, of labels and of predictions of every class in one image, (3, C).

    Args:
        truth, guess: (n,) each; elements whose label is not a class are ignored.

    >>> class_counts(np.array([0, 1, 1, 255]), np.array([0, 0, 1, 1]), 2).tolist()
    [[1, 1], [1, 2], [2, 1]]
    """
    known = (truth >= 0) & (truth < classes)
    truth, guess = truth[known], guess[known]
    found = [np.bincount(labels, minlength=classes) for labels in (truth[truth == guess], truth, guess)]
    return np.stack(found).astype(np.int64)


def image_counts(scores: Tensor, target: Any, classes: int) -> NDArray[np.int64]:
    """`class_counts` of one image, (3, C).

    Args:
        scores: logits of the image, (classes,), or of its pixels, (classes, h, w), which are enlarged to the mask.
        target: its class, or its mask (H, W).
    """
    truth = np.asarray(target, dtype=np.int64)
    if truth.ndim == 2:
        scores = F.interpolate(scores[None], truth.shape, mode="bilinear")[0]
    return class_counts(truth.ravel(), scores.argmax(0).numpy().astype(np.int64).ravel(), classes)


def compare_accuracy(before: Counts, after: Counts, score: str, seed: int = 0) -> Accuracy:
    """Scores of all images together, and the interval of their difference.

    Args:
        before, after: of the same images in the same order.
        score: ``"top1"``: share of correct predictions; ``"miou"``: mean over classes that occur of intersection
            divided by union.
    """
    n = len(before)
    rng, shares = np.random.default_rng(seed), np.full(n, 1 / n)
    changes = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        picks = rng.multinomial(n, shares, size=AT_ONCE)
        changes.append(_scores(picks, after, score) - _scores(picks, before, score))
    low, high = np.percentile(np.concatenate(changes), [2.5, 97.5])
    once = np.ones((1, n), dtype=np.int64)
    was, now = (float(_scores(once, counts, score)[0]) for counts in (before, after))
    return Accuracy(score, was, now, float(low), float(high), n)


def _scores(picks: NDArray[np.int64], counts: Counts, score: str) -> NDArray[np.float64]:
    """The score of each resample, in percent: picks (R, N), counts (N, 3, C) → (R,)."""
    sums = picks.astype(float) @ counts.reshape(len(counts), -1).astype(float)
    right, truth, guess = np.moveaxis(sums.reshape(len(picks), 3, -1), 1, 0)
    if score == "top1":
        return np.asarray(100 * right.sum(1) / truth.sum(1))
    union = truth + guess - right
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(100 * np.nanmean(np.where(truth > 0, right / union, np.nan), axis=1))
