"""Scores of classification and segmentation as sums of integers: top-1/5, mIoU, accuracies, boundary IoU.

Every accumulator has ``counts``, an int64 tensor. Sums of ``counts`` over batches, processes or parts of a data set are
exact in any order, so scores can be computed from sums over parts. Each score is divided once, in float64.

Shapes: C classes, B images or logits, H × W pixels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvit_lab.errors import ConfigError

IGNORED = 255
"""Label of pixels without a class; they are not counted."""
MAX_CLASSES = 4096  # 128 MiB of counts; ImageNet-21k needs `TopK` and `Recall`, not a matrix
PIXELS_AT_ONCE = 2**20


class ConfusionMatrix:
    """Pixels (or images) by true and predicted class.

    Args:
        num_classes: C.
        ignored: the label that is not counted; None to count all labels.

    Attributes:
        counts: int64 (C, C) on the CPU; row = true class, column = predicted class.

    Raises:
        ConfigError: if ``num_classes`` is out of range, or ``ignored`` is one of the classes.

    >>> matrix = ConfusionMatrix(2)
    >>> matrix.update(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 255]))
    >>> matrix.counts.tolist()
    [[1, 1], [0, 1]]
    """

    def __init__(self, num_classes: int, ignored: int | None = IGNORED) -> None:
        _check_classes(num_classes, ignored)
        self.num_classes, self.ignored = num_classes, ignored
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add predictions and true labels: two integer tensors of one shape, on any device.

        The working memory does not grow with the number of pixels.

        Raises:
            ConfigError: for other shapes or dtypes, or a label out of range; then nothing is added. Predictions at
                ignored pixels are not read.
        """
        _check_maps(prediction, target)
        size = self.num_classes
        added = torch.zeros_like(self.counts)
        chunks = (labels.reshape(-1).split(PIXELS_AT_ONCE) for labels in (prediction, target))
        for guess, truth in zip(*chunks, strict=True):
            truth = truth.to(guess.device, torch.int64)
            scored = _scored(truth, self.ignored)
            guess, truth = guess[scored].long(), truth[scored]
            _check_labels(guess, truth, size, self.ignored)
            added += torch.bincount(truth * size + guess, minlength=size**2).view(size, size).to(added.device)
        self.counts += added


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of a confusion matrix, as fractions from 0 to 1. NaN for 0 / 0.

    Attributes:
        miou: mean of ``per_class_iou`` over the classes that occur in truth or prediction.
        aacc: correct pixels / all pixels.
        macc: mean of ``per_class_recall`` over the classes that occur in the truth.
        per_class_iou: TP / (TP + FP + FN) of every class; NaN for one that occurs in neither truth nor prediction.
        per_class_recall: TP / (TP + FN) of every class; NaN for one that does not occur in the truth.
        n_pixels: pixels that were counted, without ignored ones.
    """

    miou: float
    aacc: float
    macc: float
    per_class_iou: tuple[float, ...]
    per_class_recall: tuple[float, ...]
    n_pixels: int


def scores(matrix: ConfusionMatrix) -> SegmentationScores:
    """Scores over all pixels of the data set, not averaged over images.

    >>> matrix = ConfusionMatrix(3)
    >>> matrix.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]))
    >>> result = scores(matrix)
    >>> result.per_class_iou, result.aacc
    ((0.5, 0.6666666666666666, nan), 0.75)
    """
    correct = matrix.counts.diagonal().tolist()
    true, predicted = matrix.counts.sum(1).tolist(), matrix.counts.sum(0).tolist()
    recall = tuple(map(_fraction, correct, true))
    iou = tuple(_fraction(tp, t + p - tp) for tp, t, p in zip(correct, true, predicted, strict=True))
    total = sum(true)
    return SegmentationScores(_mean(iou), _fraction(sum(correct), total), _mean(recall), iou, recall, total)


class BoundaryIoU:
    """IoU of the boundary regions of every class (Cheng et al., arXiv 2103.16562), over all images of a set.

    The boundary region of class c in a label map contains the pixels of class c that have a pixel of another class or
    the image's border within Chebyshev distance d. This equals the published definition, the pixels removed by d
    erosions with a 3 × 3 square after padding with background. Here d = max(1, round(``width`` · √(H² + W²))) pixels,
    where H × W is the size of the label map.

    With T_c and P_c the boundary regions in truth and prediction, the score of class c is Σ |T_c ∩ P_c| / Σ |T_c ∪ P_c|
    with both sums over all images. (The paper scores single objects; here, the measure is applied to the classes of a
    data set.)

    Ignored pixels are in no region and create no boundary: they are removed from truth and prediction before the
    regions are computed.

    Args:
        num_classes: C.
        width: width of the boundary as a fraction of the image's diagonal, above 0 and at most 1.
        ignored: as in `ConfusionMatrix`.

    Attributes:
        counts: int64 (2, C) on the CPU: pixels in the intersections, pixels in the unions.

    Raises:
        ConfigError: if an argument is out of range.
    """

    def __init__(self, num_classes: int, width: float = 0.02, ignored: int | None = IGNORED) -> None:
        _check_classes(num_classes, ignored)
        if not 0 < width <= 1:
            raise ConfigError(f"width = {width} is out of range; use a fraction of the diagonal, such as 0.02")
        self.num_classes, self.width, self.ignored = num_classes, width, ignored
        self.counts = torch.zeros(2, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add integer label maps, (H, W) or (B, H, W), on any device; one image is processed at a time.

        Raises:
            ConfigError: as `ConfusionMatrix.update`, or another number of dimensions; then nothing is added.
        """
        _check_maps(prediction, target)
        if target.ndim not in (2, 3):
            raise ConfigError(f"target has shape {tuple(target.shape)}; give (H, W) or (B, H, W)")
        height, width = target.shape[-2:]
        distance = max(1, round(self.width * math.hypot(height, width)))
        added = torch.zeros_like(self.counts)
        maps = ((prediction, target),) if target.ndim == 2 else zip(prediction, target, strict=True)
        for guess_HW, truth_HW in maps:
            guess_HW, truth_HW = guess_HW.long(), truth_HW.to(guess_HW.device, torch.int64)
            scored_HW = _scored(truth_HW, self.ignored)
            _check_labels(guess_HW[scored_HW], truth_HW[scored_HW], self.num_classes, self.ignored)
            in_guess_HW = _find_boundary(guess_HW, scored_HW, distance, self.num_classes)
            in_truth_HW = _find_boundary(truth_HW, scored_HW, distance, self.num_classes)
            in_both_HW = in_guess_HW & in_truth_HW & (guess_HW == truth_HW)
            guessed, true, both = (
                torch.bincount(labels, minlength=self.num_classes).to(added.device)
                for labels in (guess_HW[in_guess_HW], truth_HW[in_truth_HW], truth_HW[in_both_HW])
            )
            added += torch.stack([both, guessed + true - both])
        self.counts += added

    @property
    def per_class_iou(self) -> tuple[float, ...]:
        """Boundary IoU of every class, 0 to 1; NaN for a class without a boundary in truth and prediction."""
        return tuple(map(_fraction, *self.counts.tolist()))

    @property
    def miou(self) -> float:
        """Mean of ``per_class_iou`` over the classes that have one; NaN if none has."""
        return _mean(self.per_class_iou)


class TopK:
    """Top-1 and top-5 accuracy: counts of images with the true class among the 1 and the 5 largest logits.

    The true class is among the k largest if fewer than k classes rank before it: classes with a larger logit, and
    classes with an equal logit and a lower index. So counts are equal on all devices, a network with constant logits
    has the accuracy of always predicting class 0, and NaN is never correct.

    Attributes:
        counts: int64 (3,) on the CPU: correct in top-1, correct in top-5, images seen.

    >>> top = TopK()
    >>> top.update(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]), torch.tensor([1, 2]))
    >>> top.top1, top.top5, top.n_seen
    (50.0, 100.0, 2)
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(3, dtype=torch.int64)

    def update(self, logits_BC: Tensor, target_B: Tensor) -> None:
        """Add logits (B, C) and true classes, an integer tensor (B,), on any device.

        Raises:
            ConfigError: for other shapes or dtypes, or a class out of range; then nothing is added.
        """
        if logits_BC.ndim != 2 or target_B.shape != logits_BC.shape[:1] or not _is_integer(target_B):
            raise ConfigError(
                f"logits of shape {tuple(logits_BC.shape)} and target of shape {tuple(target_B.shape)}, "
                f"{target_B.dtype}, cannot be scored; give (B, classes) and integers (B,)"
            )
        target_B1 = target_B.to(logits_BC.device, torch.int64)[:, None]
        _check_range("target", target_B1, logits_BC.shape[1], None)
        true_B1 = logits_BC.gather(1, target_B1)
        index_C = torch.arange(logits_BC.shape[1], device=logits_BC.device)
        # "Not smaller" instead of "larger": comparisons with NaN are false, so NaN ranks before every number.
        ahead_BC = torch.where(index_C < target_B1, ~(logits_BC < true_B1), ~(logits_BC <= true_B1))
        known_B, ahead_B = ~true_B1[:, 0].isnan(), ahead_BC.sum(1)
        hits = [int((known_B & (ahead_B < k)).sum()) for k in (1, 5)]
        self.counts += torch.tensor([*hits, len(target_B)], device=self.counts.device)

    @property
    def top1(self) -> float:
        """Top-1 in percent; NaN before the first image."""
        return _fraction(100 * int(self.counts[0]), self.n_seen)

    @property
    def top5(self) -> float:
        """Top-5 in percent; 100 for at most 5 classes, NaN before the first image."""
        return _fraction(100 * int(self.counts[1]), self.n_seen)

    @property
    def n_seen(self) -> int:
        """Number of counted images."""
        return int(self.counts[2])


class Recall:
    """Images by their true class: all, and those that were predicted correctly. For any number of classes.

    Args:
        num_classes: C.

    Attributes:
        counts: int64 (2, C) on the CPU: correct images, all images.

    >>> recall = Recall(3)
    >>> recall.update(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    >>> recall.per_class
    (0.5, 1.0, nan)
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(2, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add predictions and true labels: two integer tensors of one shape, on any device.

        Raises:
            ConfigError: as `ConfusionMatrix.update`; then nothing is added.
        """
        _check_maps(prediction, target)
        truth = target.to(prediction.device, torch.int64)
        _check_labels(prediction, truth, self.num_classes, None)
        for row, labels in zip(self.counts, (truth[prediction == truth], truth), strict=True):
            row += torch.bincount(labels, minlength=self.num_classes).to(row.device)

    @property
    def per_class(self) -> tuple[float, ...]:
        """Share of correct images of every class, 0 to 1; NaN for a class without images."""
        return tuple(map(_fraction, *self.counts.tolist()))


def _find_boundary(labels_HW: Tensor, scored_HW: Tensor, distance: int, num_classes: int) -> Tensor:
    """Scored pixels with another class or the border within Chebyshev distance ``distance``, bool (H, W).

    All classes are computed at once: a pixel is in the interior if its label is both the largest and the smallest of
    the scored labels in the square around it. Labels are int64 in 0 … C − 1 where they are scored.
    """
    high_HW = labels_HW.where(scored_HW, -1).to(torch.int16)
    low_HW = labels_HW.where(scored_HW, num_classes).to(torch.int16)
    largest_HW = _window_max(high_HW, distance, outside=num_classes)
    smallest_HW = -_window_max(-low_HW, distance, outside=-num_classes)
    return scored_HW & ((largest_HW != high_HW) | (smallest_HW != low_HW))


def _window_max(x_HW: Tensor, radius: int, outside: int) -> Tensor:
    """The largest value in the square of side 2 · radius + 1 around each pixel, with ``outside`` beyond the border.

    Rows, then columns; the radius triples with every pass of three taps: 4 passes of one axis for a radius of 40.
    """
    for _ in range(2):
        size, reached = x_HW.shape[-1], 0
        while reached < radius:
            step = min(2 * reached + 1, radius - reached)
            padded = F.pad(x_HW, (step, step), value=outside)
            x_HW = torch.maximum(x_HW, torch.maximum(padded[:, :size], padded[:, 2 * step :]))
            reached += step
        x_HW = x_HW.T
    return x_HW


def _scored(truth: Tensor, ignored: int | None) -> Tensor:
    return torch.ones_like(truth, dtype=torch.bool) if ignored is None else truth != ignored


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


def _is_integer(labels: Tensor) -> bool:
    return not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)


def _check_classes(num_classes: int, ignored: int | None) -> None:
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ConfigError(f"num_classes = {num_classes} is out of range; use 1 to {MAX_CLASSES}")
    if ignored is not None and 0 <= ignored < num_classes:
        raise ConfigError(
            f"ignored = {ignored} is one of the {num_classes} classes; use another label, or None to count every pixel"
        )


def _check_maps(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ConfigError(
            f"prediction has shape {tuple(prediction.shape)} and target {tuple(target.shape)}; give one label for each "
            "pixel, at the size of the target"
        )
    for name, labels in (("prediction", prediction), ("target", target)):
        if not _is_integer(labels):
            raise ConfigError(f"{name} has dtype {labels.dtype}; give integer labels, such as logits.argmax(1)")


def _check_labels(guess: Tensor, truth: Tensor, num_classes: int, ignored: int | None) -> None:
    _check_range("target", truth, num_classes, ignored)
    _check_range("prediction", guess, num_classes, None)


def _check_range(name: str, labels: Tensor, num_classes: int, ignored: int | None) -> None:
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.numel():
        remedy = f"use 0 to {num_classes - 1}" + ("" if ignored is None else f", or {ignored} for ignored pixels")
        raise ConfigError(f"{name}: label {int(wrong[0])} is out of range for {num_classes} classes; {remedy}")
