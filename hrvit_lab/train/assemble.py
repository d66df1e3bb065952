"""Build the components of a training from a recipe: model, transforms, loss, optimizer, plan."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hrvit_lab.config import shipped
from hrvit_lab.errors import ConfigError
from hrvit_lab.files import user_path
from hrvit_lab.network.baselines import NetworkConfig, TimmConfig, build_network
from hrvit_lab.network.checkpoints import LoadReport, load_checkpoint
from hrvit_lab.network.seeding import seeded
from hrvit_lab.train.batches import trains_on_one_image
from hrvit_lab.train.data.limited import Limited
from hrvit_lab.train.data.order import seeded_sample
from hrvit_lab.train.data.samples import Samples, open_samples
from hrvit_lab.train.distributed import OtherProcessFailed, Ranks
from hrvit_lab.train.engine import Engine, EngineOptions
from hrvit_lab.train.inference import InferenceOptions
from hrvit_lab.train.loader import Batch, Transform, evaluation_batches, steps_per_epoch
from hrvit_lab.train.optim import make_optimizer, parameter_groups, rates
from hrvit_lab.train.recipe import AnyRecipe, ClassificationRecipe, SegmentationRecipe
from hrvit_lab.train.recipe_sections import TIMM
from hrvit_lab.train.tasks import TASKS, Evaluation, Seen
from hrvit_lab.train.training import Plan
from hrvit_lab.train.transforms import classify, segment

IMAGES_AT_ONCE = 16
MIXING = 1
"""Combined with the seed, so that mixing and augmentation draw different random numbers."""


def make_model(recipe: AnyRecipe, num_classes: int) -> tuple[nn.Module, LoadReport | None]:
    """The network with its initial weights, on the CPU, and a report on the loaded checkpoint, if any.

    Raises:
        ConfigError: for invalid fields, or a checkpoint or timm model that does not fit.
    """
    name = recipe.model.name
    model = (
        _timm_model(recipe, num_classes) if name.startswith(TIMM) else new_model(recipe, recipe.network(num_classes))
    )
    if recipe.model.initial_weights is not None:
        weights = user_path(recipe.model.initial_weights)
    elif name in shipped():
        weights = shipped()[name].weights
    else:
        return model, None
    return model, load_checkpoint(model, weights, strict=False, adapt=True)


def timm_network(recipe: AnyRecipe, num_classes: int) -> TimmConfig:
    """The config of a recipe's timm model, with the recipe's stochastic depth and dropout.

    Raises:
        ConfigError: for an unknown model, or a field that it does not have.
    """
    fields = {"num_classes": num_classes, "head": recipe.model.head}
    if twice := sorted(fields.keys() & recipe.model.changes.keys()):
        raise ConfigError(f"model.changes: {twice[0]} has its own setting; remove it from model.changes")
    config = TimmConfig(recipe.model.name).replace(**fields, **recipe.model.changes)
    rates = _drop_rates(recipe)
    if twice := sorted(rates.keys() & config.options.keys()):
        raise ConfigError(f"model.changes: options.{twice[0]} has its own setting; remove it from model.changes")
    return config.replace(options={**config.options, **rates})


def _timm_model(recipe: AnyRecipe, num_classes: int) -> nn.Module:
    """The timm model of a recipe with random weights.

    Raises:
        ConfigError: if it does not support a setting of the recipe.
    """
    config, rates = timm_network(recipe, num_classes), _drop_rates(recipe)
    try:
        model: Any = new_model(recipe, config)
    except ConfigError as error:
        if not rates:
            raise
        raise ConfigError(
            f"{error}; drop_path_rate is regularisation.drop_path, and drop_rate is regularisation.head_drop: set to 0 "
            "what the model does not have"
        ) from error
    if recipe.precision.gradient_checkpointing:
        try:
            model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            raise ConfigError(
                f"precision.gradient_checkpointing: {config.model} does not support it; set it to false"
            ) from None
    return model


def _drop_rates(recipe: AnyRecipe) -> dict[str, float]:
    """Arguments of a timm model for the recipe's stochastic depth and dropout; without those that are 0."""
    given = {"drop_path_rate": recipe.regularisation.drop_path, "drop_rate": recipe.regularisation.head_drop}
    return {name: rate for name, rate in given.items() if rate}


def new_model(recipe: AnyRecipe, config: NetworkConfig) -> nn.Module:
    """The network of a config with the recipe's random weights, on the CPU."""
    with seeded(recipe.run.seed):
        model = build_network(config, recipe.data.resolution_px)
        if recipe.model.initialisation == "truncated_normal":
            initialise(model)
    return model


def initialise(model: nn.Module) -> None:
    """Initialize linear weights from a normal distribution with std 0.02, truncated at ± 2, and their biases with 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def make_engine(recipe: AnyRecipe, model: nn.Module, plan: Plan, ranks: Ranks) -> Engine:
    """The engine for a model on its device.

    Raises:
        ConfigError: for batch sizes that the network or the number of processes does not support, or an invalid
            optimizer.
    """
    passes = number_of_passes(recipe, plan, ranks)
    _check_passes(recipe, model, plan, ranks, passes)
    optimiser, precision = recipe.optimiser, recipe.precision
    groups = parameter_groups(
        model, optimiser.weight_decay, layer_decay=optimiser.layer_decay, head_rate=optimiser.head_rate_multiple
    )
    given = {"betas": optimiser.betas, "eps": optimiser.epsilon, "momentum": optimiser.momentum}
    options = {key: value for key, value in given.items() if value is not None}
    auxiliary = recipe.regularisation.auxiliary_loss_weight if isinstance(recipe, SegmentationRecipe) else 0.0
    return Engine(
        model,
        TASKS[recipe.task].make_loss(recipe.regularisation.label_smoothing, auxiliary),
        make_optimizer(optimiser.name, groups, optimiser.learning_rate, options),
        make_rate(recipe, plan),
        EngineOptions(
            dtype=precision.dtype,
            accumulate=passes,
            clip=optimiser.clip_gradients,
            clip_mode=optimiser.clip_mode,
            ema_decay=recipe.regularisation.ema_decay if recipe.regularisation.ema else None,
            sync_batch_norm=precision.sync_batch_norm,
            channels_last=precision.channels_last,
            compile=precision.compile,
        ),
        seed=recipe.run.seed,
        ranks=ranks,
    )


def number_of_passes(recipe: AnyRecipe, plan: Plan, ranks: Ranks) -> int:
    """Number of passes of a step, equal in all processes. A data set smaller than the global batch needs fewer ones.

    Raises:
        ConfigError: if the global batch size is not divisible, or a process has fewer images than passes.
    """
    recipe.accumulation(ranks.size)  # refuses a global batch that processes and passes do not divide
    smallest, largest = plan.global_batch // ranks.size, math.ceil(plan.global_batch / ranks.size)
    passes = math.ceil(largest / recipe.data.batch_size_per_process)
    if 0 < smallest < passes:
        raise ConfigError(
            f"{plan.global_batch} training images over {ranks.size} processes give {smallest} or {largest} images per "
            f"process, but data.batch_size_per_process = {recipe.data.batch_size_per_process} needs {passes} passes in "
            "each; raise it (-b), or change the number of processes"
        )
    return passes


def _check_passes(recipe: AnyRecipe, model: nn.Module, plan: Plan, ranks: Ranks, passes: int) -> None:
    """Check that the network can train on the smallest pass."""
    if plan.global_batch // ranks.size // passes != 1 or (recipe.precision.sync_batch_norm and ranks.size > 1):
        return
    height, width = recipe.data.resolution_px
    if not trains_on_one_image(model, torch.zeros(1, 3, height, width, device=next(model.parameters()).device)):
        raise ConfigError(
            f"{plan.global_batch} images per step in {passes} passes of {ranks.size} processes give a pass of one "
            f"image, where a BatchNorm of this network has a single value per channel at {height}×{width} pixels; use "
            "at least 2 images per pass, as by a higher data.batch_size_per_process (-b)"
        )


def open_split(recipe: AnyRecipe, split: str, root: Path | None) -> Samples:
    """A split of the recipe's data set.

    Raises:
        ConfigError: for missing files, or a data set of another task.
    """
    samples = open_samples(recipe.data.name, split, root, **recipe.data.options)
    if samples.task != recipe.task:
        raise ConfigError(
            f"data.name = {recipe.data.name!r} is for {samples.task}, but the recipe's task is "
            f"{recipe.task}; use a data set for it, see hrvit-lab data list"
        )
    if split == "train" and recipe.data.train_limit is not None:
        return Limited(samples, recipe.data.train_limit)
    return samples


def score(recipe: AnyRecipe, model: nn.Module, samples: Samples, ranks: Ranks, seen: Seen | None = None) -> Evaluation:
    """Scores of a model in evaluation mode, the same in every process.

    Args:
        seen: called with every batch of this process.
    Raises:
        ConfigError: if an image cannot be read, in any process.
    """
    # For segmentation, the batch size counts windows of one image. Images of equal size are read together.
    batch_size = recipe.evaluation.batch_size if isinstance(recipe, ClassificationRecipe) else IMAGES_AT_ONCE
    batches = evaluation_batches(
        samples, make_transforms(recipe)[1], batch_size=batch_size, ranks=ranks, workers=recipe.run.workers
    )
    failures: list[Exception] = []
    if ranks.size > 1:
        batches = _until_failure(batches, failures)
    found = TASKS[recipe.task].evaluate(
        model, batches, len(samples.class_names), ranks, inference_options(recipe), seen
    )
    if ranks.any(bool(failures), next(model.parameters()).device):
        raise failures[0] if failures else OtherProcessFailed
    return found


def _until_failure(batches: Iterator[Batch], failures: list[Exception]) -> Iterator[Batch]:
    """The batches up to an error, which is kept: this process still takes part in the sums that others wait for."""
    try:
        yield from batches
    except Exception as error:
        failures.append(error)


def make_plan(recipe: AnyRecipe, num_images: int) -> Plan:
    """The number of steps and evaluations for that many images."""
    schedule, batch = recipe.schedule, recipe.data.global_batch_size
    per_epoch = steps_per_epoch(num_images, batch)
    if isinstance(recipe, ClassificationRecipe):
        every = recipe.evaluation.every_epochs * per_epoch
    else:
        every = recipe.evaluation.every_iterations
    epochs = (schedule.epochs or 0) + schedule.cooldown_epochs
    return Plan(
        total_steps=schedule.iterations or epochs * per_epoch,
        steps_per_epoch=per_epoch,
        evaluate_every=every,
        save_every_s=recipe.run.save_every_s,
        global_batch=min(batch, num_images),
        best=recipe.evaluation.best,
    )


def make_rate(recipe: AnyRecipe, plan: Plan) -> Callable[[int], float]:
    """The learning rate as a function of the number of finished steps."""
    schedule, peak = recipe.schedule, recipe.optimiser.learning_rate
    shared: dict[str, Any] = {
        "peak": peak, "warmup_start": schedule.warmup_start_rate, "minimum": schedule.min_rate,
        "power": schedule.poly_power,
    }  # fmt: skip
    if schedule.update == "epoch":
        assert schedule.epochs is not None
        by_epoch = rates(schedule.curve, total=schedule.epochs, warmup=math.ceil(schedule.warmup_epochs), **shared)
        return lambda done: by_epoch(done // plan.steps_per_epoch)
    warmup = schedule.warmup_iterations or round(schedule.warmup_epochs * plan.steps_per_epoch)
    total = schedule.iterations or (schedule.epochs or 0) * plan.steps_per_epoch
    return rates(schedule.curve, total=total, warmup=warmup, **shared)


def make_transforms(recipe: AnyRecipe) -> tuple[Transform, Transform]:
    """The transforms of training and validation images: (image, target) → tensors."""
    data = recipe.data
    assert data.mean is not None and data.std is not None  # validated for recipes with run.loop engine
    colour: dict[str, Any] = {"mean": data.mean, "std": data.std}
    if isinstance(recipe, SegmentationRecipe):
        change = recipe.augmentation
        return (
            segment.train_transform(
                data.resolution_px, base_size=change.base_size_px, scale=change.resize_ratio,
                max_class_share=change.cat_max_ratio, tries=change.crop_tries,
                flip_probability=change.flip_probability, photometric=change.photometric_distortion, **colour,
            ),
            segment.test_transform(recipe.evaluation.base_size_px, **colour),
        )  # fmt: skip
    changes, evaluation = recipe.augmentation, recipe.evaluation
    return (
        OfImage(classify.train_transform(
            data.resolution_px, crop=changes.crop, scale=changes.crop_area, ratio=changes.crop_aspect,
            padding=changes.padding_px, flip_probability=changes.flip_probability, auto_augment=changes.auto_augment,
            color_jitter=changes.color_jitter, erasing_probability=changes.erasing_probability,
            erasing_mode=changes.erasing_mode, interpolation=changes.interpolation, **colour,
        )),
        OfImage(classify.test_transform(
            evaluation.resolution_px, crop_fraction=evaluation.crop_fraction, interpolation=evaluation.interpolation,
            **colour,
        )),
    )  # fmt: skip


class OfImage:
    """A transform of an image with a class, which is not changed. (A class, so that it can be pickled for workers.)"""

    def __init__(self, transform: classify.Transform) -> None:
        self.transform = transform

    def __call__(self, image: Any, target: Any) -> tuple[torch.Tensor, Any]:
        return self.transform(image), target


def make_mixing(recipe: AnyRecipe, num_classes: int, plan: Plan, ranks: Ranks) -> Callable[[Batch, int], Batch] | None:
    """timm's mixup and cutmix for the images of one process; None if the recipe has none.

    Raises:
        ConfigError: if a process's part of a batch has an odd number of images, because timm mixes pairs.
    """
    if not isinstance(recipe, ClassificationRecipe):
        return None
    changes = recipe.augmentation
    if not (changes.mixup_alpha or changes.cutmix_alpha):
        return None
    if plan.global_batch % (2 * ranks.size):
        raise ConfigError(
            f"data.global_batch_size = {plan.global_batch} over {ranks.size} processes gives an odd number of images "
            "per process, but mixup needs pairs; use a multiple of 2 per process, or set mixup_alpha and cutmix_alpha "
            "to 0"
        )
    from timm.data import Mixup

    mixer = Mixup(
        mixup_alpha=changes.mixup_alpha, cutmix_alpha=changes.cutmix_alpha, prob=changes.mix_probability,
        switch_prob=changes.mix_switch_probability, label_smoothing=recipe.regularisation.label_smoothing,
        num_classes=num_classes,
    )  # fmt: skip

    def mix(batch: Batch, step: int) -> Batch:
        with seeded_sample(recipe.run.seed + (MIXING << 32), step, ranks.rank):
            images, targets = mixer(batch.images, batch.targets)
        return batch._replace(images=images, targets=targets)

    return mix


def inference_options(recipe: AnyRecipe) -> InferenceOptions:
    """The inference options for validation images."""
    if not isinstance(recipe, SegmentationRecipe):
        return InferenceOptions()
    chosen = recipe.evaluation
    return InferenceOptions(chosen.crop_px, chosen.stride_px, chosen.scales, chosen.flip, chosen.batch_size)
