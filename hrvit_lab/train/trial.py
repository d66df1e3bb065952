"""Train a network by a recipe without a folder, as a trial of a study: from the start to the end."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from hrvit_lab.network.baselines import NetworkConfig
from hrvit_lab.train import assemble, training
from hrvit_lab.train.data.samples import SPLITS
from hrvit_lab.train.distributed import Ranks
from hrvit_lab.train.loader import Batch, training_batches
from hrvit_lab.train.recipe import AnyRecipe


class Trained(NamedTuple):
    """Attributes:
    rows: of the evaluations, in timm's column names.
    curves: rows by epoch, ``{"epoch": …, "train_loss": …, "val_miou": …}``. An evaluation within an epoch counts for
        that epoch; of several, the last one is kept.
    seconds, cpu_seconds: duration, and CPU time of this process.
    """

    rows: list[dict[str, float]]
    curves: list[dict[str, float]]
    seconds: float
    cpu_seconds: float


def train_network(
    recipe: AnyRecipe,
    config: NetworkConfig,
    *,
    device: torch.device,
    root: Path | None,
    ranks: Ranks,
    on_step: Callable[[int, int], None],
) -> Trained:
    """Train a network with the data's number of classes. The result depends on the arguments only.

    Args:
        recipe: its ``model`` gives the kind of initialisation only.
        root: folder with the files of the data set; None: the usual folder.
        ranks: the processes of the training, of which this is one.
        on_step: called with (steps done, total steps), in the first process.
    Raises:
        ConfigError: for missing or broken data, or a network whose output does not fit the task.
        TrainingDiverged: if a loss is not finite.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    train_samples, val_samples = (assemble.open_split(recipe, split, root) for split in SPLITS)
    num_classes = len(train_samples.class_names)
    plan = assemble.make_plan(recipe, len(train_samples))
    model = assemble.new_model(recipe, config.replace(num_classes=num_classes))
    engine = assemble.make_engine(recipe, model.to(device), plan, ranks)
    transform, _ = assemble.make_transforms(recipe)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        return training_batches(
            train_samples, transform, batch_size=plan.global_batch, seed=recipe.run.seed, start=start, stop=stop,
            ranks=ranks, workers=recipe.run.workers,
        )  # fmt: skip

    def evaluate(network: nn.Module) -> dict[str, float]:
        was_training = network.training
        found = assemble.score(recipe, network.eval(), val_samples, ranks)
        network.train(was_training)
        return found.scores | {"n_seen": found.n_seen}

    listener = training.Listener(
        step=lambda step, loss, rate, seconds: on_step(step, plan.total_steps),
        row=lambda row, better: None,
        save=lambda engine, progress: None,  # a trial is run again from its start
    )
    mix = assemble.make_mixing(recipe, num_classes, plan, ranks)
    progress = training.Progress()
    training.train(engine, batches, evaluate, plan, progress, listener, mix, catch_signals=False)
    curves = {}
    for row in progress.rows:
        epoch = math.ceil(row["step"] / plan.steps_per_epoch)
        scores = {f"val_{key}": row[f"eval_{key}"] for key in (plan.best, "loss") if f"eval_{key}" in row}
        curves[epoch] = {"epoch": epoch, "train_loss": row["train_loss"], **scores}
    return Trained(progress.rows, list(curves.values()), time.perf_counter() - began, time.process_time() - cpu_began)
