"""Tasks of networks: loss, scores, and required output shape. One entry per task."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.distributed import Ranks
from hrvit_lab.train.inference import InferenceOptions, predict
from hrvit_lab.train.loader import Batch
from hrvit_lab.train.scores import IGNORED, MAX_CLASSES, BoundaryIoU, ConfusionMatrix, Recall, TopK, scores

LOSS_UNITS = 2.0**20

Seen = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""Callback for every evaluated batch: images, targets, predicted labels, indices."""


@dataclass(frozen=True)
class Evaluation:
    """Attributes: scores: by name: ``top1``, ``top5`` and ``loss``; or ``miou``, ``aacc``, ``macc``, ``boundary_iou``
    in percent. n_seen: number of scored images. matrix: confusion matrix, int64 (C, C): row = truth; None for more
    classes than `ConfusionMatrix` supports. per_class: by name of the score, one value per class in percent; NaN for
    classes without pixels.
    """

    scores: dict[str, float]
    n_seen: int
    matrix: Tensor | None
    per_class: dict[str, tuple[float, ...]]

    def matrix_rows(self, class_names: Sequence[str]) -> list[tuple[Any, ...]]:
        """The confusion matrix with headers, as rows of a table: one row per true class; no rows without a matrix."""
        if self.matrix is None:
            return []
        rows = zip(class_names, self.matrix.tolist(), strict=True)
        return [("truth", *class_names), *((name, *row) for name, row in rows)]


@dataclass(frozen=True)
class Task:
    """Attributes:
    key: its name.
    make_loss: (label smoothing, weight of an auxiliary head's loss) → loss(output, targets).
    evaluate: (model, batches, class names, ranks, inference options, seen) → scores.
    """

    key: Literal["classification", "segmentation"]
    make_loss: Callable[[float, float], Callable[[Any, Tensor], Tensor]]
    evaluate: Callable[
        [nn.Module, Iterable[Batch], int, Ranks, InferenceOptions, Seen | None],
        Evaluation,
    ]


# -- losses ------------------------------------------------------------------------------------------------------------


def classification_loss(smoothing: float, auxiliary_weight: float = 0.0) -> Callable[[Any, Tensor], Tensor]:
    """Cross-entropy, mean over images; targets are int64 (B,), or soft targets (B, C), to which smoothing was already
    applied."""

    def loss(logits: Any, targets: Tensor) -> Tensor:
        _check_logits(logits, 2)
        return F.cross_entropy(
            logits.float(), targets, label_smoothing=0.0 if targets.is_floating_point() else smoothing
        )

    return loss


def segmentation_loss(smoothing: float, auxiliary_weight: float = 0.4) -> Callable[[Any, Tensor], Tensor]:
    """Cross-entropy of logits upsampled to the masks, int64 (B, H, W), plus that of an auxiliary head.

    The sum over pixels is divided by the number of all pixels, including ignored ones, as in mmsegmentation. So each
    image has the same weight in any division of a batch.
    """

    def one(logits: Tensor, targets: Tensor) -> Tensor:
        logits = F.interpolate(logits.float(), targets.shape[-2:], mode="bilinear", align_corners=False)
        return (
            F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)
            / targets.numel()
        )

    def loss(output: Any, targets: Tensor) -> Tensor:
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        _check_logits(logits, 4)
        total = one(logits, targets)
        for extra in auxiliary:
            total = total + auxiliary_weight * one(extra, targets)
        return total

    return loss


# -- scores ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate_classification(
    model: nn.Module,
    batches: Iterable[Batch],
    num_classes: int,
    ranks: Ranks,
    options: InferenceOptions,
    seen: Seen | None = None,
) -> Evaluation:
    """Top-1, top-5 and mean cross-entropy over the images of all processes."""
    device = next(model.parameters()).device
    top, recall = TopK(), Recall(num_classes)
    matrix = ConfusionMatrix(num_classes, ignored=None) if num_classes <= MAX_CLASSES else None
    # Losses are rounded to 2⁻²⁰ nats: sums of integers do not depend on the number of processes. The number of losses
    # that are not finite is summed too.
    loss_sum = torch.zeros(2, dtype=torch.int64)
    for images, targets, indices in batches:
        x_BCHW, y_B = images.to(device), targets.to(device)
        logits = model(x_BCHW)
        _check_logits(logits, 2, num_classes)
        top.update(logits, y_B)
        recall.update(logits.argmax(1), y_B)
        if matrix is not None:
            matrix.update(logits.argmax(1), y_B)
        losses = F.cross_entropy(logits.double(), y_B, reduction="none")
        finite = losses.isfinite()
        loss_sum[0] += (losses[finite] * LOSS_UNITS).round().long().sum().cpu()
        loss_sum[1] += (~finite).sum().cpu()
        if seen is not None:
            seen(images, targets, logits.argmax(1).cpu(), indices)
    for counts in (top.counts, recall.counts, loss_sum, *(() if matrix is None else (matrix.counts,))):
        counts.copy_(_summed(counts, ranks, device))
    loss = float("nan") if loss_sum[1] or not top.n_seen else float(loss_sum[0]) / LOSS_UNITS / top.n_seen
    return Evaluation(
        {"top1": top.top1, "top5": top.top5, "loss": loss},
        top.n_seen,
        None if matrix is None else matrix.counts,
        {"recall": tuple(100 * value for value in recall.per_class)},
    )


@torch.no_grad()
def evaluate_segmentation(
    model: nn.Module,
    batches: Iterable[Batch],
    num_classes: int,
    ranks: Ranks,
    options: InferenceOptions,
    seen: Seen | None = None,
) -> Evaluation:
    """mIoU, aAcc, mAcc and boundary IoU over the pixels of all images of all processes, at the masks' size."""
    device = next(model.parameters()).device
    matrix, boundary = ConfusionMatrix(num_classes), BoundaryIoU(num_classes)
    n_seen = torch.zeros(1, dtype=torch.int64)
    for images, masks, indices in batches:
        for x_CHW, mask_HW, index in zip(images, masks, indices, strict=True):
            output_1CHW = predict(model, x_CHW[None].to(device), (mask_HW.shape[0], mask_HW.shape[1]), options)
            _check_logits(output_1CHW, 4, num_classes)
            labels_HW = output_1CHW.argmax(1)[0]
            matrix.update(labels_HW, mask_HW.to(device))
            boundary.update(labels_HW, mask_HW.to(device))
            n_seen += 1
            if seen is not None:
                seen(x_CHW[None], mask_HW[None], labels_HW[None].cpu(), index[None])
    for counts in (matrix.counts, boundary.counts, n_seen):
        counts.copy_(_summed(counts, ranks, device))
    found = scores(matrix)
    return Evaluation(
        {
            "miou": 100 * found.miou,
            "aacc": 100 * found.aacc,
            "macc": 100 * found.macc,
            "boundary_iou": 100 * boundary.miou,
        },
        int(n_seen),
        matrix.counts,
        {
            "iou": tuple(100 * value for value in found.per_class_iou),
            "recall": tuple(100 * value for value in found.per_class_recall),
            "boundary_iou": tuple(100 * value for value in boundary.per_class_iou),
        },
    )


TASKS: dict[str, Task] = {
    task.key: task
    for task in (
        Task("classification", classification_loss, evaluate_classification),
        Task("segmentation", segmentation_loss, evaluate_segmentation),
    )
}


def _summed(counts: Tensor, ranks: Ranks, device: torch.device) -> Tensor:
    """The sum over all processes; NCCL requires the tensor on its device."""
    return ranks.summed(counts.to(device)).cpu()


def _check_logits(logits: object, ndim: int, num_classes: int | None = None) -> None:
    heads = {2: "'classifier', 'pool' or 'norm_pool'", 4: "'segformer' or 'upernet'"}[ndim]
    if not isinstance(logits, Tensor) or logits.ndim != ndim:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(f"head: the model's output is {shape}, not logits with {ndim} axes; use head={heads}")
    if num_classes is not None and logits.shape[1] != num_classes:
        raise ConfigError(
            f"num_classes: the model has {logits.shape[1]} classes and the data {num_classes}; build it with "
            f"num_classes={num_classes}"
        )
