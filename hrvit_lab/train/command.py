"""What ``hrvit-lab train`` does: train one network briefly and keep its curves and weights."""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.text import Text
from safetensors.torch import save
from torch import nn

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, HRViTConfig, read_config
from hrvit_lab.config.text import one_sentence
from hrvit_lab.environment import environment
from hrvit_lab.network.build import build
from hrvit_lab.network.seeding import seeded
from hrvit_lab.train.data import ImageData, load_dataset
from hrvit_lab.train.datasets import DATASETS
from hrvit_lab.train.image_folders import describe_skipped
from hrvit_lab.train.loop import Epoch, TrainingDiverged, fit
from hrvit_lab.train.options import TrainOptions


class RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} steps/s" if task.speed else "")


class Run:
    """What a training leaves in its folder: brought up to date after each epoch, each file whole at any time.

    ``config.yaml`` rebuilds the network, ``model.safetensors`` holds its weights, ``curves.csv`` has a row an
    epoch, and ``result.json`` the figures with all that they depend on.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, model: nn.Module, config: HRViTConfig, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.model = model
        self.about = about
        self.curves: list[Epoch] = []
        folder.mkdir(parents=True, exist_ok=True)
        for stale in ("curves.csv", "model.safetensors"):
            (folder / stale).unlink(missing_ok=True)
        self._write("config.yaml", config.to_yaml())
        self.save_result("running")

    def add(self, row: Epoch) -> None:
        """Keep an epoch: its row, the weights after it, and the result so far."""
        self.curves.append(row)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        self._write("model.safetensors", save(weights))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.curves)
        self._write("curves.csv", text.getvalue())
        self.save_result("running")

    def save_result(self, status: str) -> None:
        """Write ``result.json``; status is running (or killed), complete, interrupted, or what went wrong."""
        last = self.curves[-1] if self.curves else None
        result = {
            "status": status,
            "epochs_done": len(self.curves),
            "top1": last["val_top1"] if last else None,
            "val_loss": last["val_loss"] if last else None,
            **self.about,
        }
        self._write("result.json", json.dumps(result, indent=2) + "\n")

    def _write(self, name: str, content: str | bytes) -> None:
        temporary = self.folder / f"{name}.tmp"
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / name)


def train(options: argparse.Namespace) -> int:
    """Load, build, train and save as the command line says."""
    console = cli.console(soft_wrap=True)
    given = {name: getattr(options, name) for name in TrainOptions.model_fields}
    try:
        train_options = TrainOptions(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(one_sentence(error, TrainOptions.model_fields)) from None
    config = read_config(options.model)
    if config.in_chans != 3:
        raise ConfigError(f"in_chans = {config.in_chans}: images have 3 channels here; set in_chans to 3")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = cuda: torch finds no CUDA device; use --device cpu")
    config.check_resolution(options.resolution)
    data = load_dataset(
        options.data, resolution=options.resolution, root=options.root, train_limit=train_options.train_limit
    )
    config = config.replace(num_classes=data.num_classes)
    with seeded(options.seed):
        model = build(config).to(options.device)
    label = f"top-1 on {DATASETS[data.name].label} (proxy)"
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
    default = Path("results") / "train" / f"{about['model']}-{data.name}-seed{options.seed}"
    run = Run(options.out or default, model, config, about)
    console.print(
        f"{about['model']}, {about['params']:,} parameters, on {data.source} at "
        f"{data.resolution[0]}×{data.resolution[1]}: {len(data.train_labels):,} images to train on, "
        f"{len(data.val_labels):,} to validate"
    )
    if data.skipped:
        console.print(f"Of the image folder {describe_skipped(data.skipped)}")
    status, code = follow(run, data, train_options, options.seed, console)
    run.save_result(status)
    if run.curves:
        last = run.curves[-1]
        console.print(
            Text.assemble(
                (f"{label}: {last['val_top1']:.2f} %", "bold"),
                f" after {len(run.curves)} epochs, seed {options.seed}; the most frequent class alone gives "
                f"{data.majority_top1:.2f} %",
            )
        )
        console.print("A figure for comparing networks on this data set and budget; it says nothing about ImageNet.")
        console.print(f"Wrote curves.csv, result.json, model.safetensors and config.yaml in {run.folder}")
    return code


def follow(run: Run, data: ImageData, train_options: TrainOptions, seed: int, console: Console) -> tuple[str, int]:
    """Train with a progress bar and a line an epoch; returns how it ended and the exit code."""
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
            fit(run.model, data, train_options, seed, on_epoch, on_step)
    except KeyboardInterrupt:
        print(f"interrupted; finished epochs kept: {len(run.curves)}", file=sys.stderr)
        return "interrupted", 130
    except TrainingDiverged as error:
        print(f"error: {error}", file=sys.stderr)
        return f"diverged: {error}", 1
    except torch.OutOfMemoryError:
        print("error: out of device memory; lower --batch-size or --resolution", file=sys.stderr)
        return "out of memory", 1
    return "complete", 0


def describe(data: ImageData) -> dict[str, Any]:
    """What was trained on, for ``result.json``."""
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
