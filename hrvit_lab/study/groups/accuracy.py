"""Accuracy after a short training, or after one by a recipe, on a small data set: a proxy for full training."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hrvit_lab.study.groups.group import Figures, Group, ProbeInput

if TYPE_CHECKING:
    from hrvit_lab.train.loop import Epoch

ONE_CORE = 0.9
"""CPU time of a training in one thread divided by its duration: below this, other programs used the core."""


def train(inputs: ProbeInput, on_epoch: "Callable[[Epoch], None] | None" = None) -> Figures:
    """Train from scratch with the data's number of classes. Returns the values of the last epoch and the curves.

    Args:
        on_epoch: called with each row of the curves; not with a recipe.
    """
    if inputs.recipe is not None:
        return _by_recipe(inputs)
    from hrvit_lab.network.baselines import build_network
    from hrvit_lab.network.seeding import seeded
    from hrvit_lab.train.data import load_dataset
    from hrvit_lab.train.loop import fit
    from hrvit_lab.train.options import TrainOptions

    options = TrainOptions(**inputs.train)
    where = dict(inputs.data)
    data = load_dataset(where.pop("name"), **where, train_limit=options.train_limit)
    with seeded(inputs.seed):
        model = build_network(inputs.config.replace(num_classes=data.num_classes), data.resolution)
    result = fit(model.to(inputs.device), data, options, inputs.seed, on_epoch, inputs.on_step)
    return {
        "top1": result.top1,
        "train_loss": result.curves[-1]["train_loss"],
        "val_loss": result.val_loss,
        "train_seconds": result.seconds,
        "curves": result.curves,
        "disturbed": _disturbed(inputs, options.threads, result.cpu_seconds / result.seconds),
    }


def _by_recipe(inputs: ProbeInput) -> Figures:
    """Train from scratch by the study's recipe. Returns the values of the last epoch and the curves."""
    from hrvit_lab.study.groups.by_recipe import train_by_recipe

    trained = train_by_recipe(inputs)
    last = trained.rows[-1]
    # Several processes wait for each other, so that CPU time says nothing about other programs.
    threads = inputs.recipe.run.threads if inputs.recipe and inputs.processes == 1 else None
    return {
        "top1": last["eval_top1"],
        "train_loss": last["train_loss"],
        "val_loss": last["eval_loss"],
        "train_seconds": trained.seconds,
        "curves": trained.curves,
        "disturbed": _disturbed(inputs, threads, trained.cpu_seconds / trained.seconds),
    }


def _disturbed(inputs: ProbeInput, threads: int | None, share: float) -> dict[str, list[str]]:
    """Why the duration is unreliable, if it is: the share of a CPU core that a training in one thread got."""
    if inputs.device != "cpu" or threads != 1 or share >= ONE_CORE:
        return {}
    return {"train_seconds": [f"the training got {share:.0%} of a CPU core because of other programs"]}


ACCURACY = Group(
    key="accuracy",
    label="training with one seed",
    # 2: no weight decay on position tables (of window attention and of timm models); image folders include nested
    # images, 16-bit grey images keep their range, and transparent pixels are white.
    # 3: MixCFN's halves are modules. Initial weights are the same, and gradients differ only by rounding, which a
    # training amplifies (branch_sweep, one branch, seed 0: top-1 35.6 % instead of 42.2 %).
    # 4: the weight gradient of a depthwise convolution on a map lower than its kernel is summed in another order.
    version=4,
    depends_on=("data", "train", "recipe", "seed", "device", "torch"),
    probe=train,
    shared_clock=("train_seconds",),
)
