"""Flags of ``hrvit-lab train RECIPE``, named as in the release and timm; each sets a setting of the recipe.

This module does not import torch. `RunOptions` are the options that are not part of the recipe: files and device.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvit_lab import cli
from hrvit_lab.config import read_yaml
from hrvit_lab.config.settings import parse_settings
from hrvit_lab.train.recipe import AnyRecipe, changed, find_recipe, load_recipe
from hrvit_lab.train.trackers import TRACKERS, check_trackers

EXAMPLES = """\
examples:
  hrvit-lab train fashion_mnist
  hrvit-lab train imagenet_hrvit --data DIR --model hrvit_b2 -b 64 --amp
  hrvit-lab train mine.yaml --set schedule.epochs=20,run.seed=1
  torchrun --nproc-per-node 8 -m hrvit_lab.train imagenet_hrvit --data DIR --amp

Run 'hrvit-lab train show RECIPE' for all settings. See docs/train.md for Slurm scripts.
"""

NUMBERS = {
    ("-b", "--batch-size"): ("data.batch_size_per_process", "images per forward pass of each process"),
    ("--lr",): ("optimiser.learning_rate", "peak learning rate, for the global batch size"),
    ("--weight-decay",): ("optimiser.weight_decay", "weight decay"),
    ("--epochs",): ("schedule.epochs", "passes over the training images, without the cool-down"),
    ("--warmup-epochs",): ("schedule.warmup_epochs", "epochs of linear warm-up"),
    ("--drop-path",): ("regularisation.drop_path", "stochastic depth of the last block"),
    ("--head-drop",): ("regularisation.head_drop", "dropout before the classifier"),
    ("--clip-grad",): ("optimiser.clip_gradients", "gradient clipping limit, by value or norm as set in the recipe"),
    ("--seed",): ("run.seed", "seed of weights, order and augmentation"),
    ("-j", "--workers"): ("run.workers", "processes that read images, for each training process"),
}
"""Flags with a value: names → (setting, help)."""

SWITCHES = {
    "--sync-bn": ("precision.sync_batch_norm", "BatchNorm over the batches of all processes"),
    "--with-cp": (
        "precision.gradient_checkpointing",
        "gradient checkpointing: recompute activations in the backward pass",
    ),
    "--model-ema": ("regularisation.ema", "score and keep a moving average of the weights too"),
}
"""Flags that switch a setting on."""

RELEASED_NAMES = {f"HRViT_{size}_224": f"hrvit_{size}" for size in ("b1", "b2", "b3")}
"""The release's names of the presets."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that do not affect the result of the training.

    Attributes:
        recipe: the recipe's name, or its file name without suffix.
        root: folder with the files of the data set; None: the usual folder.
        out: folder of the results; None: a new one in ``runs``.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; None: the GPU of this process, or the CPU if there is none.
        resume: a checkpoint, or ``auto`` for the newest in ``out``; None: a new training.
        download: download the files of the data set, if torchvision can.
        track: names of `hrvit_lab.train.trackers.TRACKERS` that also show the training.
    """

    recipe: str
    root: Path | None = None
    out: Path | None = None
    device: str | None = None
    resume: str | None = None
    download: bool = False
    track: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> tuple[AnyRecipe, RunOptions]:
    """Parse a command line whose first argument is a recipe: the recipe with changes, and the options of the run.

    Raises:
        ConfigError: one sentence with the flag or setting, its value and the remedy.
    """
    given = parser().parse_args(arguments)
    model = RELEASED_NAMES.get(given.model, given.model)
    recipe = load_recipe(given.recipe, model)
    recipe = changed(recipe, _settings(given, recipe))
    check_trackers(given.track)
    name = find_recipe(given.recipe).stem
    return recipe, RunOptions(name, given.data, given.out, given.device, given.resume, given.download, given.track)


def parser() -> cli.Parser:
    """The command line of ``hrvit-lab train`` if the first argument is a recipe."""
    parser = cli.Parser("hrvit-lab train RECIPE", "Train a network by a recipe.", EXAMPLES)
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe of hrvit-lab train list, or a YAML file")
    where = "(default: the usual folder of the data set)"
    parser.add_argument("--data", type=cli.path, metavar="DIR", help=f"folder with the files of the data set {where}")
    parser.add_argument("--download", action="store_true", help="download the data set, if torchvision can")
    parser.add_argument(
        "--out", type=cli.path, metavar="DIR", help="folder of the results (default: a new folder in runs)"
    )
    parser.add_argument("--resume", metavar="PATH|auto", help="checkpoint to resume from (default: none)")
    parser.add_argument(
        "--device", type=cli.device, metavar="D",
        help="cpu, cuda, cuda:N or mps (default: the GPU of the process, or cpu if there is none)",
    )  # fmt: skip
    parser.add_argument(
        "--track", type=lambda text: tuple(text.split(",")), default=(), metavar="NAME,…",
        help=f"also show the training in these: {', '.join(TRACKERS)} (default: none)",
    )  # fmt: skip
    group = parser.add_argument_group("changes to the recipe")
    kept = "(default: the recipe's)"
    group.add_argument("--model", metavar="NAME", help=f"a preset, timm:NAME, or the YAML file of a config {kept}")
    group.add_argument("--img-size", type=cli.size, metavar="N|HxW", help=f"input size in pixels {kept}")
    for names, (setting, text) in NUMBERS.items():
        group.add_argument(*names, dest=setting, metavar="X", help=f"{text} {kept}")
    group.add_argument("--amp", action="store_true", help="mixed precision: the recipe's dtype, or float16")
    for name, (setting, text) in SWITCHES.items():
        group.add_argument(name, dest=setting, action="store_true", help=text)
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE,…",
        help="change any setting: dotted keys, YAML values (schedule.epochs=5); can be repeated",
    )  # fmt: skip
    return parser


def _settings(given: argparse.Namespace, recipe: AnyRecipe) -> list[tuple[str, Any]]:
    """Changes to the recipe; those of ``--set`` come last."""
    settings: list[tuple[str, Any]] = []
    for names, (setting, _) in NUMBERS.items():
        if (text := getattr(given, setting)) is not None:
            settings.append((setting, read_yaml(text, f"the value of {names[-1]}")))
    settings += [(setting, True) for setting, _ in SWITCHES.values() if getattr(given, setting)]
    if given.amp and recipe.precision.dtype == "float32":
        settings.append(("precision.dtype", "float16"))
    if given.img_size is not None:
        sizes = ("data.resolution_px", "evaluation.resolution_px")
        settings += [(size, list(given.img_size)) for size in sizes if size in recipe.settings]
    return settings + [setting for text in given.set for setting in parse_settings(text)]
