"""Run ``hrvit-lab train MODEL``: train one network for a few epochs and write its curves and weights."""

import argparse
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, own_name, read_config, shipped
from hrvit_lab.config.text import one_sentence
from hrvit_lab.devices import find_device
from hrvit_lab.environment import environment
from hrvit_lab.errors import is_out_of_memory
from hrvit_lab.network.build import build
from hrvit_lab.network.seeding import seeded
from hrvit_lab.train.data import ImageData, load_dataset
from hrvit_lab.train.data.image_folders import describe_skipped
from hrvit_lab.train.datasets import IN_MEMORY
from hrvit_lab.train.flags import RunOptions
from hrvit_lab.train.loop import Epoch, TrainingDiverged, check_trainable, fit
from hrvit_lab.train.memory import free_bytes, least_bytes, too_large
from hrvit_lab.train.options import TrainOptions
from hrvit_lab.train.proxy import proxy_options
from hrvit_lab.train.recipe import Recipe
from hrvit_lab.train.run import Run, check_unused, new_folder

OUT_OF_MEMORY = "out of memory"


class RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} steps/s" if task.speed else "")


def train(options: argparse.Namespace) -> int:
    """Load, build, train and save with the options of the command line."""
    given = {name: getattr(options, name) for name in TrainOptions.model_fields}
    try:
        train_options = TrainOptions(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(one_sentence(error, TrainOptions.model_fields)) from None
    return train_shortly(options, train_options)


def train_proxy(recipe: Recipe, where: RunOptions) -> int:
    """The same with the settings of a recipe with ``run.loop: proxy``."""
    train_options = proxy_options(recipe)
    if where.resume is not None or where.download:
        raise ConfigError("the short training (run.loop proxy) does not support --resume or --download; remove them")
    arguments = argparse.Namespace(
        model=recipe.model.name, data=recipe.data.name, resolution=recipe.data.resolution_px, seed=recipe.run.seed,
        root=where.root, out=where.out, device=where.device or "cpu",
    )  # fmt: skip
    return train_shortly(arguments, train_options)


def train_shortly(options: argparse.Namespace, train_options: TrainOptions) -> int:
    """Load, build, train and save; returns the exit code.

    Args:
        options: of the command line: model, data, root, resolution, seed, device and out.
    """
    console = cli.console(soft_wrap=True)
    if options.out is not None:
        check_unused(options.out)
    device = find_device(options.device)
    config = read_config(options.model)
    if (network := shipped().get(own_name(str(options.model)))) is not None:
        raise ConfigError(
            f"the short training starts from random weights, not from the trained ones of {network.name}; use "
            f"hrvit-lab train {network.dataset} --model {network.name}, or the model {network.architecture}"
        )
    if config.in_chans != 3:
        raise ConfigError(f"in_chans = {config.in_chans}, but training images have 3 channels; set in_chans to 3")
    config.check_resolution(options.resolution)
    data = load_dataset(
        options.data, resolution=options.resolution, root=options.root, train_limit=train_options.train_limit
    )
    config = config.replace(num_classes=data.num_classes)
    num_images = len(data.train_labels)
    step_images = math.ceil(num_images / math.ceil(num_images / train_options.batch_size))
    free = free_bytes(device)
    if least_bytes(config, data.resolution, step_images) > free:
        raise ConfigError(too_large(config, data.resolution, step_images, free))
    with seeded(options.seed):
        model = build(config).to(device)
    check_trainable(model, data, train_options)
    label = f"top-1 on {IN_MEMORY[data.name].label} (proxy)"
    about = {
        "label": label,
        "model": config.name or config.id,
        "config_id": config.id,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "data": describe(data),
        "train": train_options.model_dump(),
        "seed": options.seed,
        "device": options.device,
        "environment": environment(),
    }
    run = Run(new_folder(options.out, f"{about['model']}-{data.name}-seed{options.seed}"), model, config, about)
    console.print(
        f"{about['model']}, {about['params']:,} parameters, on {data.source} at "
        f"{cli.show_size(data.resolution)}: {num_images:,} images to train on, "
        f"{len(data.val_labels):,} to validate"
    )
    if data.skipped:
        console.print(f"Image folder: {describe_skipped(data.skipped)}")
    status, code = follow(run, data, train_options, options.seed, console)
    run.save_result(status)
    if status == OUT_OF_MEMORY:
        cli.complain(f"error: {too_large(config, data.resolution, step_images, free)}")
    if run.curves:
        last = run.curves[-1]
        console.print(
            Text.assemble(
                (f"{label}: {last['val_top1']:.2f} %", "bold"),
                f" after {len(run.curves)} epochs, seed {options.seed}; always predicting the most frequent class "
                f"gives {data.majority_top1:.2f} %",
            )
        )
        console.print("Compare this value only with networks trained on the same data set with the same options.")
        console.print(f"Wrote curves.csv, result.json, model.safetensors and config.yaml in {run.folder}")
        console.print(f"To load it in Python:\n{how_to_load(run.folder)}")
    return code


def follow(run: Run, data: ImageData, train_options: TrainOptions, seed: int, console: Console) -> tuple[str, int]:
    """Train with a progress bar and one line per epoch; returns the status and the exit code."""
    columns = (
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), RateColumn(), TextColumn("time left"),
        TimeLeftColumn(elapsed_when_finished=True),
    )  # fmt: skip
    console.print("epoch  train loss  train top-1  val loss  val top-1  seconds", style="bold")
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    bar = progress.add_task("training", total=None)

    def on_step(step: int, total: int) -> None:
        progress.update(bar, completed=step, total=total)

    def on_epoch(row: Epoch) -> None:
        run.add(row)
        progress.console.print(
            f"{row['epoch']:>5}  {row['train_loss']:>10.4f}  {row['train_top1']:>9.2f} %  "
            f"{row['val_loss']:>8.4f}  {row['val_top1']:>7.2f} %  {row['seconds']:>7.1f}"
        )

    try:
        with progress:
            result = fit(run.model, data, train_options, seed, on_epoch, on_step)
    except KeyboardInterrupt:
        cli.complain(f"interrupted; finished epochs kept: {len(run.curves)}")
        return "interrupted", 130
    except TrainingDiverged as error:
        cli.complain(f"error: {error}")
        return f"diverged: {error}", 1
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return OUT_OF_MEMORY, 1
    run.about |= {"seconds": result.seconds, "cpu_seconds": result.cpu_seconds}
    return "complete", 0


def how_to_load(folder: Path) -> str:
    """Python code that loads the results of a run."""
    return "\n".join(
        [
            "  from hrvit_lab import create_model, load_checkpoint",
            f"  model = create_model({str(folder / 'config.yaml')!r})",
            f"  load_checkpoint(model, {str(folder / 'model.safetensors')!r})",
        ]
    )


def describe(data: ImageData) -> dict[str, Any]:
    """The description of the data for ``result.json``."""
    return {
        "name": data.name,
        "source": data.source,
        "resolution": data.resolution,
        "num_classes": data.num_classes,
        "class_names": data.class_names,
        "train_images": len(data.train_labels),
        "val_images": len(data.val_labels),
        "mean": data.mean,
        "std": data.std,
        "majority_top1": data.majority_top1,
        "skipped": dict(data.skipped),
    }
