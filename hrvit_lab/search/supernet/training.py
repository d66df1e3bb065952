"""Train a supernet, and score networks that inherit its weights. All random numbers depend on (seed, step)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.config import HRViTConfig
from hrvit_lab.network.seeding import seeded
from hrvit_lab.search.supernet.family import Family
from hrvit_lab.search.supernet.model import Supernet, calibrate
from hrvit_lab.train.batches import steps_per_epoch
from hrvit_lab.train.data import ImageData
from hrvit_lab.train.data.order import epoch_order, mixed
from hrvit_lab.train.distributed import Ranks
from hrvit_lab.train.engine import Engine, EngineOptions
from hrvit_lab.train.loader import Batch
from hrvit_lab.train.loop import evaluate, learning_rate, random_shift
from hrvit_lab.train.optim import make_optimizer, parameter_groups
from hrvit_lab.train.options import TrainOptions
from hrvit_lab.train.training import Listener, Plan, Progress, train

CALIBRATION_IMAGES = 2048
CALIBRATION_BATCH = 128
EVALUATIONS = 10
"""Evaluations of the largest network during a training."""
SAVE_EVERY_S = 60.0


class Training(NamedTuple):
    """A supernet in training.

    Attributes:
        engine: updates the shared weights.
        plan: the length of the training.
    """

    supernet: Supernet
    data: ImageData
    options: TrainOptions
    engine: Engine
    plan: Plan


def begin(family: Family, data: ImageData, options: TrainOptions, seed: int) -> Training:
    """A supernet before its first step.

    Args:
        data: with the training images in use.
        options: those of a separate training, with another number of epochs.
        seed: of initial weights, the order of images, and drawn networks.
    Raises:
        ConfigError: if a larger batch is needed.
    """
    with seeded(seed):
        supernet = Supernet(family)
    steps = steps_per_epoch(
        supernet.largest, data.inputs(data.train_images[:1]), len(data.train_labels), options.batch_size
    )
    total, warmup, peak = steps * options.epochs, round(steps * options.warmup_epochs), options.learning_rate
    engine = Engine(
        supernet,
        lambda logits, labels: summed_loss(logits, labels, options.label_smoothing),
        make_optimizer("adamw", parameter_groups(supernet.largest, options.weight_decay), peak, {}),
        lambda done: learning_rate(done + 1, total, warmup, peak),
        EngineOptions(clip=options.grad_clip_value),
        seed=seed,
        ranks=Ranks(),
    )
    every = steps * max(1, options.epochs // EVALUATIONS)
    return Training(
        supernet, data, options, engine, Plan(total, steps, every, SAVE_EVERY_S, options.batch_size, "top1")
    )


def proceed(training: Training, progress: Progress, listener: Listener) -> None:
    """Train to the end. Rows of the progress have the scores of the largest network.

    Raises:
        Interrupted: after a signal; the state is saved.
        TrainingDiverged: if a loss is not finite.
    """

    def evaluated(_: nn.Module) -> dict[str, float]:
        return score(training, training.supernet.family.largest)

    def stream(start: int, stop: int) -> Iterator[Batch]:
        return batches(training, start, stop)

    train(training.engine, stream, evaluated, training.plan, progress, listener)


def summed_loss(logits_NBC: Tensor, labels_B: Tensor, label_smoothing: float) -> Tensor:
    """The sum over networks of their mean cross-entropies."""
    losses = [F.cross_entropy(logits_BC, labels_B, label_smoothing=label_smoothing) for logits_BC in logits_NBC]
    return torch.stack(losses).sum()


def batches(training: Training, start: int, stop: int) -> Iterator[Batch]:
    """The batches of steps ``start`` to ``stop`` − 1: parts of nearly equal size of each epoch's order."""
    data, seed, steps = training.data, training.engine.seed, training.plan.steps_per_epoch
    parts: Sequence[Tensor] = ()
    known = -1
    for step in range(start, stop):
        epoch, part = divmod(step, steps)
        if epoch != known:
            parts, known = epoch_order(len(data.train_labels), seed, epoch).tensor_split(steps), epoch
        index = parts[part]
        generator = torch.Generator().manual_seed(mixed(seed, step))
        x_BCHW = random_shift(data.inputs(data.train_images[index]), training.options.max_shift, generator)
        yield Batch(x_BCHW, data.train_labels[index], index)


def score(training: Training, config: HRViTConfig) -> dict[str, float]:
    """``top1`` in percent and ``loss`` on the validation images, of a network with the shared weights.

    The statistics of its BatchNorms are computed from training images.
    """
    data = training.data
    network = training.supernet.extract(config)
    chosen = epoch_order(len(data.train_labels), training.engine.seed, 0)[:CALIBRATION_IMAGES]
    calibrate(network, [data.inputs(data.train_images[index]) for index in chosen.split(CALIBRATION_BATCH)])
    loss, top1 = evaluate(network, data)
    return {"top1": top1, "loss": loss}
