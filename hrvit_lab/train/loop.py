"""Short, seeded training for the accuracy proxy. ``fit`` does not change global state."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.config import ConfigError
from hrvit_lab.devices import check_threads
from hrvit_lab.network.seeding import seeded
from hrvit_lab.train.batches import steps_per_epoch
from hrvit_lab.train.data import ImageData
from hrvit_lab.train.options import TrainOptions

EVAL_BATCH_SIZE = 128
EVAL_PIXELS = 128 * 256 * 256
"""Maximum number of pixels of an evaluation batch; larger images are evaluated in smaller batches."""


class Epoch(TypedDict):
    """A row of the training curves.

    Both losses are mean cross-entropies without label smoothing, so they are comparable; top-1 is in percent. The
    training values are computed during the epoch, on augmented images.
    """

    epoch: int
    learning_rate: float  # of its last step
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    seconds: float  # wall time, validation included


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        curves: one row for each epoch.
        top1: validation top-1 in percent after the *last* epoch. Selecting the best epoch on the validation set would
            bias the result in favour of noisy curves and long runs.
        val_loss: mean cross-entropy over the validation images after the last epoch.
        train_images, val_images: number of images.
        seconds: wall time of all epochs.
        cpu_seconds: CPU time of this process, over all threads. With one thread it is nearly ``seconds``, unless other
            programs use the core.
    """

    curves: list[Epoch]
    top1: float
    val_loss: float
    train_images: int
    val_images: int
    seconds: float
    cpu_seconds: float


class TrainingDiverged(RuntimeError):
    """The loss is not finite."""


def fit(
    model: nn.Module,
    data: ImageData,
    options: TrainOptions,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> TrainResult:
    """Train ``model`` in place on its device; it is in evaluation mode afterwards.

    Equal weights, data, options and seed give equal results, bit by bit on a CPU. Initial weights are reproducible if
    the model is built with the seed::

        with seeded(seed):
            model = build(config)
        result = fit(model, data, TrainOptions(), seed)

    Args:
        model: (B, 3, H, W) to logits (B, data.num_classes).
        on_epoch: called with each row of the curves.
        on_step: called after each step with (finished steps, total steps).
    Raises:
        TrainingDiverged: if a loss is not finite; names epoch and step.
        ConfigError: before the first step, if the model has another number of classes than the data, or cannot train on
            one image and ``batch_size`` is 1.
    """
    data = data.limited(options.train_limit)
    device = next(model.parameters()).device
    num_images = len(data.train_labels)
    steps = check_trainable(model, data, options)
    total_steps = steps * options.epochs
    warmup_steps = round(steps * options.warmup_epochs)
    optimizer = make_optimizer(model, options)
    generator = torch.Generator().manual_seed(seed)  # for order and shifts; independent of the network
    curves: list[Epoch] = []
    cpu_seconds = 0.0
    with seeded(seed, device), _deterministic(options.threads):
        for epoch in range(1, options.epochs + 1):
            start, cpu_start = time.perf_counter(), time.process_time()
            model.train()
            loss_sum, correct, rate = 0.0, 0, 0.0
            # Parts of nearly equal size: every image is used, and there is no small last batch for BatchNorm.
            parts = torch.randperm(num_images, generator=generator).tensor_split(steps)
            for step, index in enumerate(parts, start=(epoch - 1) * steps + 1):
                rate = learning_rate(step, total_steps, warmup_steps, options.learning_rate)
                x_BCHW = data.inputs(data.train_images[index].to(device))
                x_BCHW = random_shift(x_BCHW, options.max_shift, generator)
                labels = data.train_labels[index].to(device)
                logits = model(x_BCHW)
                _check_logits(logits, data)
                loss = F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
                if not math.isfinite(loss.item()):
                    raise TrainingDiverged(_diverged("training", epoch, step, options))
                _update(model, optimizer, loss, rate, options.grad_clip_value)
                loss_sum += F.cross_entropy(logits.detach(), labels, reduction="sum").item()
                correct += int((logits.argmax(1) == labels).sum())
                if on_step is not None:
                    on_step(step, total_steps)
            val_loss, val_top1 = evaluate(model, data)
            if not math.isfinite(val_loss):
                raise TrainingDiverged(_diverged("validation", epoch, epoch * steps, options))
            row: Epoch = {
                "epoch": epoch,
                "learning_rate": rate,
                "train_loss": loss_sum / num_images,
                "train_top1": 100.0 * correct / num_images,
                "val_loss": val_loss,
                "val_top1": val_top1,
                "seconds": time.perf_counter() - start,
            }
            cpu_seconds += time.process_time() - cpu_start
            curves.append(row)
            if on_epoch is not None:
                on_epoch(row)
    model.eval()
    return TrainResult(
        curves=curves,
        top1=curves[-1]["val_top1"],
        val_loss=curves[-1]["val_loss"],
        train_images=num_images,
        val_images=len(data.val_labels),
        seconds=sum(row["seconds"] for row in curves),
        cpu_seconds=cpu_seconds,
    )


def check_trainable(model: nn.Module, data: ImageData, options: TrainOptions) -> int:
    """Check that the model can be trained on this data; returns the number of steps per epoch. The model is not
    changed.

    Raises:
        ConfigError: as in `fit`.
    """
    data = data.limited(options.train_limit)
    image_1CHW = data.inputs(data.train_images[:1].to(next(model.parameters()).device))
    was_training = model.training
    with torch.no_grad():
        logits = model.eval()(image_1CHW)
    model.train(was_training)
    _check_logits(logits, data)
    return steps_per_epoch(model, image_1CHW, len(data.train_labels), options.batch_size)


@torch.no_grad()
def evaluate(model: nn.Module, data: ImageData) -> tuple[float, float]:
    """Mean cross-entropy and top-1 in percent over all validation images, in evaluation mode.

    The model's mode is restored. Sums are over images, so a smaller last batch has the correct weight.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    loss_sum, correct = 0.0, 0
    batch_size = max(1, min(EVAL_BATCH_SIZE, EVAL_PIXELS // math.prod(data.resolution)))
    for images, labels in zip(data.val_images.split(batch_size), data.val_labels.split(batch_size), strict=True):
        logits = model(data.inputs(images.to(device)))
        _check_logits(logits, data)
        loss_sum += F.cross_entropy(logits, labels.to(device), reduction="sum").item()
        correct += int((logits.argmax(1) == labels.to(device)).sum())
    model.train(was_training)
    num_images = len(data.val_labels)
    return loss_sum / num_images, 100.0 * correct / num_images


def learning_rate(step: int, total_steps: int, warmup_steps: int, peak: float) -> float:
    """The learning rate of a step from 1 to ``total_steps``.

    Linear up to ``peak`` at the last warm-up step, then a cosine that reaches 1 % of it at the last step.
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and kernels, but not on norms, biases and ``model.no_weight_decay()``.

    That method is timm's convention: it returns names of parameters, for example position tables. It is optional.
    """
    from timm.optim import param_groups_weight_decay  # imported here because it is as slow as torch

    exempt: set[str] = getattr(model, "no_weight_decay", set)()
    return torch.optim.AdamW(
        param_groups_weight_decay(model, options.weight_decay, no_weight_decay_list=exempt),
        lr=options.learning_rate,
        fused=True,  # faster for networks with many small tensors
    )


def random_shift(x_BCHW: Tensor, max_shift: float, generator: torch.Generator) -> Tensor:
    """Shift each image by a random integer number of pixels, with replication padding.

    Args:
        x_BCHW: images, (B, C, H, W).
        max_shift: maximum shift in each direction, as a share of the side.
        generator: on the CPU.
    Returns:
        (B, C, H, W); a new tensor, unless the maximum shift is below half a pixel.
    """
    batch, channels, height, width = x_BCHW.shape
    reach_y, reach_x = round(max_shift * height), round(max_shift * width)
    if reach_y == reach_x == 0:
        return x_BCHW
    shift_y = torch.randint(-reach_y, reach_y + 1, (batch, 1), generator=generator)
    shift_x = torch.randint(-reach_x, reach_x + 1, (batch, 1), generator=generator)
    rows = (torch.arange(height) + shift_y).clamp(0, height - 1).to(x_BCHW.device)
    columns = (torch.arange(width) + shift_x).clamp(0, width - 1).to(x_BCHW.device)
    shifted = x_BCHW.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
    return shifted.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


@contextlib.contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    check_threads(threads)
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic = before[1]


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, clip_value: float | None
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    if clip_value is not None:
        nn.utils.clip_grad_value_(model.parameters(), clip_value)
    optimizer.step()


def _check_logits(logits: object, data: ImageData) -> None:
    if not isinstance(logits, Tensor) or logits.ndim > 2:
        raise ConfigError(
            "head: the model returns feature maps, and training needs logits of shape (B, classes); build it with "
            "head='classifier', 'pool' or 'norm_pool'"
        )
    if logits.ndim != 2 or logits.shape[1] != data.num_classes:
        raise ConfigError(
            f"num_classes: the model gives logits of shape {tuple(logits.shape)} but {data.name} has "
            f"{data.num_classes} classes; build it with num_classes={data.num_classes}"
        )


def _diverged(which: str, epoch: int, step: int, options: TrainOptions) -> str:
    return (
        f"the {which} loss is not finite in epoch {epoch}, step {step}; "
        f"lower learning_rate ({options.learning_rate:g}) or raise warmup_epochs ({options.warmup_epochs:g})"
    )
