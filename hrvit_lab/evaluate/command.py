"""Evaluate a checkpoint with the settings of a recipe; writes scores, predictions and overlays."""

import argparse
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from hrvit_lab import cli
from hrvit_lab.config import own_name, shipped
from hrvit_lab.config.settings import parse_settings
from hrvit_lab.config.shipped import FOLDER as WEIGHTS_OF_PACKAGE
from hrvit_lab.devices import find_device
from hrvit_lab.environment import environment
from hrvit_lab.errors import ConfigError
from hrvit_lab.files import write_atomically, write_csv
from hrvit_lab.network.checkpoints import load_checkpoint
from hrvit_lab.network.weight_files import RUN_WEIGHTS
from hrvit_lab.train import assemble
from hrvit_lab.train.data.samples import Samples
from hrvit_lab.train.distributed import joined
from hrvit_lab.train.overlays import Overlay, page
from hrvit_lab.train.recipe import AnyRecipe, load_recipe, recipe_of_run
from hrvit_lab.train.run import check_unused, numbered_folder
from hrvit_lab.train.run_folder import FOLDER as RUNS
from hrvit_lab.train.run_folder import as_json
from hrvit_lab.train.tasks import Evaluation

MAX_OVERLAYS = 24
LABEL_MAPS = "predictions"
"""Folder of the predicted label maps."""
COLUMNS = {"classification": ("index", "name", "truth", "prediction"), "segmentation": ("index", "name", "file")}
"""Columns of ``predictions.csv`` by task."""
FILES = ("scores.json", "per_class.csv", "confusion_matrix.csv", "predictions.csv", "overlays.html")


def evaluate(options: argparse.Namespace) -> int:
    """Run the evaluation and return the exit code.

    Raises:
        ConfigError: for an invalid file, recipe, model or data set, or a folder that contains results, before anything
            is computed.
    """
    weights, recipe = found(options)
    if options.out is not None:
        check_unused(options.out, FILES)
    device = find_device(options.device)
    with joined(device) as ranks:
        samples = assemble.open_split(recipe, "val", options.data)
        model, _ = assemble.make_model(recipe, len(samples.class_names))
        report = load_checkpoint(model, weights, ema=options.ema)
        model = model.to(device).eval()
        console = cli.console(soft_wrap=True, quiet=not ranks.first)
        console.print(f"{weights}: {report}; {len(samples):,} images of {recipe.data.name} on {device}")
        own = (len(samples) - ranks.rank + ranks.size - 1) // ranks.size
        columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        task = bar.add_task("evaluating", total=own)

        with results_folder(options, weights) if ranks.first else nullcontext() as out:
            [folder] = ranks.gathered([] if out is None else [out])
            kept = Kept(recipe, samples, folder)

            def seen(images: Tensor, targets: Tensor, predictions: Tensor, indices: Tensor) -> None:
                kept.add(images, targets, predictions, indices)
                bar.advance(task, len(indices))

            with bar:
                result = assemble.score(recipe, model, samples, ranks, seen)
            kept.predictions = sorted(ranks.gathered(kept.predictions))
            if out is not None:
                show(result, samples, console)
                write(out, result, kept, recipe, weights, device)
                console.print(f"Results in {out}")
    return 0


def found(options: argparse.Namespace) -> tuple[Path, AnyRecipe]:
    """The file with the weights, and the recipe with the command line's changes.

    Raises:
        ConfigError: if there is no checkpoint, or no recipe.
    """
    path: Path = options.checkpoint
    settings = [setting for text in options.set for setting in parse_settings(text)]
    if not path.exists():
        network = shipped().get(own_name(str(path)))
        if network is None:
            raise ConfigError(
                f"{path} does not exist; give a folder written by hrvit-lab train, a checkpoint, or a trained network "
                f"({', '.join(shipped())})"
            )
        recipe = load_recipe(options.recipe or network.dataset, options.model or network.name, settings)
        return network.weights, without_weights(recipe)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        weights = next((folder / name for name in RUN_WEIGHTS if (folder / name).exists()), None)
        if weights is None:
            raise ConfigError(
                f"{folder} contains no {' or '.join(RUN_WEIGHTS)}; give a folder written by hrvit-lab train RECIPE"
            )
        path = weights
    if options.recipe is not None:
        recipe = load_recipe(options.recipe, options.model, settings)
    elif (folder / "recipe.yaml").exists():
        named = [] if options.model is None else [("model.name", options.model)]
        recipe = recipe_of_run(folder, [*named, *settings])
    else:
        raise ConfigError(
            f"{path} has no recipe.yaml next to it; give a recipe for the preprocessing, such as --recipe "
            "imagenet_hrvit"
        )
    return path, without_weights(recipe)


@contextmanager
def results_folder(options: argparse.Namespace, weights: Path) -> Iterator[Path]:
    """Context: the folder of the results. It is made before the evaluation, and removed if nothing is written to it.

    By default, it is next to the weights; for a trained network of the package, in ``runs/NAME``.

    Raises:
        ConfigError: if it cannot be made.
    """
    checkpoint: Path = options.checkpoint
    if weights.parent == WEIGHTS_OF_PACKAGE:
        parent = RUNS / weights.stem
    else:
        parent = checkpoint if checkpoint.is_dir() else weights.parent
    try:
        if options.out is None:
            out = numbered_folder(parent, "evaluation")
        else:
            out = options.out
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or parent}: {error.strerror}; choose another folder for the results with --out"
        ) from None
    try:
        yield out
    finally:
        with suppress(OSError):
            out.rmdir()  # only succeeds for an empty folder


def without_weights(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe without initial weights, which the checkpoint replaces.

    Raises:
        ConfigError: for a recipe of the short training.
    """
    if recipe.run.loop != "engine":
        raise ConfigError(
            "the recipe is for the short training (run.loop proxy), which can't be evaluated; use a recipe with "
            "run.loop engine"
        )
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"initial_weights": None})})


class Kept:
    """Predictions of all images (of this process, until they are gathered), and the first images for overlays.

    Attributes:
        predictions: rows of ``predictions.csv``. A label map is a file in ``LABEL_MAPS`` of the folder of the results,
            which is written when it is added.
    """

    def __init__(self, recipe: AnyRecipe, samples: Samples, folder: Path) -> None:
        self.recipe, self.samples, self.folder = recipe, samples, folder
        self.predictions: list[tuple[Any, ...]] = []
        self.overlays: list[Overlay] = []

    def add(self, images: Tensor, targets: Tensor, predictions: Tensor, indices: Tensor) -> None:
        """Add the predictions of one batch."""
        if self.recipe.task == "classification":
            names = self.samples.class_names
            for index, truth, guess in zip(indices.tolist(), targets.tolist(), predictions.tolist(), strict=True):
                self.predictions.append((index, self.samples.name(index), names[truth], names[guess]))
            return
        for guess, index in zip(predictions, indices.tolist(), strict=True):
            file = f"{LABEL_MAPS}/{index:06d}.png"  # an image's name may be no name of a file
            write_label_map(self.folder / file, guess.numpy())
            self.predictions.append((index, self.samples.name(index), file))
        room = MAX_OVERLAYS - len(self.overlays)
        for x_CHW, truth, guess, index in zip(images[:room], targets, predictions, indices.tolist(), strict=False):
            shown = self._pixels(x_CHW, (truth.shape[0], truth.shape[1]))
            self.overlays.append(Overlay(self.samples.name(index), shown, truth.numpy(), guess.numpy()))

    def _pixels(self, x_CHW: Tensor, size: tuple[int, int]) -> np.ndarray:
        """The network's input image, uint8 (H, W, 3), at the size of its mask."""
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (self.recipe.data.mean, self.recipe.data.std))
        image = F.interpolate((x_CHW * std + mean)[None], size, mode="bilinear", antialias=True)[0]
        return (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def write_label_map(path: Path, labels_HW: np.ndarray) -> None:
    """Write the labels, 0 … 254, as the pixels of a grey PNG."""
    content = io.BytesIO()
    Image.fromarray(labels_HW.astype(np.uint8)).save(content, "PNG")
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, content.getvalue())


def write(out: Path, result: Evaluation, kept: Kept, recipe: AnyRecipe, weights: Path, device: torch.device) -> None:
    """Write the files of an evaluation."""
    names = kept.samples.class_names
    write_atomically(
        out / "scores.json",
        as_json(
            {
                **result.scores,
                "n_seen": result.n_seen,
                "checkpoint": str(weights),
                "recipe": recipe.settings,
                "environment": environment(str(device)),
            }
        ),
    )  # fmt: skip
    columns = list(result.per_class)
    rows: list[Iterable[Any]] = [("class", *columns)]
    rows += zip(names, *(result.per_class[column] for column in columns), strict=True)
    write_csv(out / "per_class.csv", rows)
    if matrix := result.matrix_rows(names):
        write_csv(out / "confusion_matrix.csv", matrix)
    write_csv(out / "predictions.csv", [COLUMNS[recipe.task], *kept.predictions])
    if recipe.task == "segmentation":
        network = weights.parent.name if weights.name in RUN_WEIGHTS else weights.name
        title = f"{network} on {recipe.data.name}: mIoU {result.scores['miou']:.2f} %"
        write_atomically(out / "overlays.html", page(title, kept.overlays, names))


def show(result: Evaluation, samples: Samples, console: Any) -> None:
    """Print the scores, also by class."""
    for name, value in result.scores.items():
        console.print(f"{name:<14}{value:.4f} nats" if name == "loss" else f"{name:<14}{value:.2f} %")
    console.print(f"{'n_seen':<14}{result.n_seen:,}")
    table = cli.table("by class, %")
    table.add_column("class")
    for column in result.per_class:
        table.add_column(column, justify="right")
    for name, *values in zip(samples.class_names, *result.per_class.values(), strict=True):
        table.add_row(name, *(f"{value:.1f}" if value == value else "–" for value in values))
    console.print(table)
