"""Run ``hrvit-lab insight items``: attention on the item under a token, over many scenes, against random weights."""

import argparse
import contextlib
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.environment import environment
from hrvit_lab.files import write_atomically, write_csv
from hrvit_lab.insight.attention import block_attention
from hrvit_lab.insight.command import check_same
from hrvit_lab.insight.on_item import OnItem, attention_on_item
from hrvit_lab.network.build import build
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.named import NamedNetwork, open_network
from hrvit_lab.network.seeding import seeded
from hrvit_lab.plots.on_item import ItemShares, on_item
from hrvit_lab.plots.style import save
from hrvit_lab.study.statistics import Paired, paired
from hrvit_lab.train.data.composites import open_composites
from hrvit_lab.train.run import numbered_folder
from hrvit_lab.train.transforms.normalise import Normalise

FOLDER = Path("results") / "insight"
TABLE, SUMMARY, FIGURE = "items.csv", "items.json", "items"
USUAL_PX = 128


@dataclass(frozen=True)
class Found:
    """Shares of attention on the item under a token, (scenes, blocks): with trained weights, random ones, and equal
    attention. NaN where no token of a block lies on an item."""

    places: tuple[OnItem, ...]
    trained: np.ndarray
    random: np.ndarray
    chance: np.ndarray


def items(options: argparse.Namespace) -> int:
    """Measure, print and write. Returns the exit code.

    Raises:
        ConfigError: for a network without trained weights or without attention, or scenes that do not fit it.
    """
    console = cli.console(soft_wrap=True)
    network = open_network(options.model, seed=options.seed)
    if not network.trained or not isinstance(network.model, HRViT):
        what = "random weights" if isinstance(network.model, HRViT) else "no config of an HRViT"
        raise ConfigError(
            f"{network.name} has {what}; give an HRViT with trained weights, such as the folder of a training"
        )
    size = _size(options, network)
    about = {
        "model": options.model, "weights": network.weights, "scenes": options.scenes, "size_px": size,
        "seed_of_random_weights": options.seed,
    }  # fmt: skip
    if options.out is not None:
        check_same(options.out, about, SUMMARY)
    folder: Path = options.out or numbered_folder(FOLDER, f"{network.name}-items")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = measure(network, size, options.scenes, options.root, options.seed, console)
        said = _said(found)
    except BaseException:
        with contextlib.suppress(OSError):  # it has other files
            folder.rmdir()
        raise
    about |= {**said, "environment": environment()}
    means = zip(*(_mean(values, 0).tolist() for values in (found.trained, found.random, found.chance)), strict=True)
    places = [one.place for one in found.places]
    rows = [ItemShares(place.stage, place.branch, *shares) for place, shares in zip(places, means, strict=True)]
    lines = [[place.name, *row] for place, row in zip(places, rows, strict=True)]
    write_csv(folder / TABLE, [["block", "stage", "branch", "trained", "random", "equal_attention"], *lines])
    write_atomically(folder / SUMMARY, json.dumps(about, indent=2, default=str) + "\n")
    note = f"{options.scenes:,} test scenes of composites, {size} × {size} px. {said['finding']}"
    figure = on_item(rows, network.name, note)
    save(figure, folder / FIGURE)
    console.print(said["finding"])
    console.print(f"Wrote {TABLE}, {SUMMARY}, {FIGURE}.png and {FIGURE}.svg in {folder}")
    return 0


def measure(
    network: NamedNetwork, size: int, scenes: int, root: Path | None, seed: int, console: Console
) -> Found:  # fmt: skip
    """The shares in the first ``scenes`` test scenes, with the network's weights and with random ones.

    Raises:
        ConfigError: if Fashion-MNIST is missing, or the network has no attention.
    """
    assert isinstance(network.model, HRViT)
    with seeded(seed):
        other = build(copy.deepcopy(network.model.config)).eval()
    samples = open_composites("val", root, size=size)
    normalise = Normalise(network.mean, network.std)
    shares: list[list[tuple[OnItem, ...]]] = []
    for number in _counted(scenes, console):
        image_HWC, _, items_HW = samples.drawn(number)
        image = normalise(image_HWC)[None]
        shares.append([_shares(model, image, items_HW) for model in (network.model, other)])
    trained, random, chance = (
        np.array([[getattr(one, name) for one in scene[which]] for scene in shares])
        for which, name in ((0, "attended"), (1, "attended"), (0, "chance"))
    )
    return Found(shares[0][0], trained, random, chance)


def _shares(model: nn.Module, image_1CHW: Tensor, items_HW: np.ndarray) -> tuple[OnItem, ...]:
    return tuple(attention_on_item(one, items_HW) for one in block_attention(model, image_1CHW))


def _size(options: argparse.Namespace, network: NamedNetwork) -> int:
    """Side of the scenes in pixels."""
    size: int = options.size or max(network.resolution_px or (USUAL_PX,))
    assert isinstance(network.model, HRViT)
    network.model.config.check_resolution((size, size))
    if (channels := network.model.config.in_chans) != 3:
        raise ConfigError(f"{network.name} has in_chans = {channels}, but scenes have 3; choose another network")
    return size


def _counted(scenes: int, console: Console) -> Iterator[int]:
    """Numbers of scenes, with a bar; with lines if the output is no terminal."""
    columns = (TextColumn("scenes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, began = bar.add_task("scenes", total=scenes), time.monotonic()
        for number in range(scenes):
            yield number
            bar.update(task, advance=1)
            if not console.is_terminal and 10 * (number + 1) // scenes > 10 * number // scenes:
                left = (time.monotonic() - began) / (number + 1) * (scenes - number - 1)
                console.print(f"{number + 1} of {scenes} scenes · {cli.rough_duration(left)} left")


def _said(found: Found) -> dict[str, Any]:
    """The numbers over all blocks, None for unknown ones, and the finding in words.

    Raises:
        ConfigError: if tokens lie on items in fewer than two scenes.
    """
    trained, random, chance = (_mean(values, 1) for values in (found.trained, found.random, found.chance))
    if (number := int(np.isfinite(trained).sum())) < 2:
        raise ConfigError(f"tokens lie on items in {number} of {len(trained)} scenes; use more with --scenes")
    over_random, over_chance = (_paired(trained, other) for other in (random, chance))
    means = {
        name: float(_mean(values))
        for name, values in (("trained", trained), ("random", random), ("equal_attention", chance))
    }
    words = "more" if over_random.low > 0 else "less" if over_random.high < 0 else "not measurably more"
    finding = (
        f"A token gives {100 * means['trained']:.1f} % of its attention to the item under it; with random weights "
        f"{100 * means['random']:.1f} %, with equal attention {100 * means['equal_attention']:.1f} %. Trained minus "
        f"random: {_points(over_random)} points: {words}."
    )
    differences = {"over_random": over_random, "over_equal_attention": over_chance}
    numbers = {
        name: {key: number if math.isfinite(number) else None for key, number in value._asdict().items()}
        for name, value in differences.items()
    }
    return {**means, **numbers, "finding": finding}


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """The mean of the values that are numbers; NaN where there are none."""
    known = np.isfinite(values)
    sums, numbers = np.where(known, values, 0).sum(axis), known.sum(axis)
    return np.where(numbers > 0, sums / np.maximum(numbers, 1), np.nan)


def _paired(ours: np.ndarray, theirs: np.ndarray) -> Paired:
    """Differences by scene; scenes without a token on an item are left out."""
    a, b = ({n: float(x) for n, x in enumerate(values) if math.isfinite(x)} for values in (ours, theirs))
    return paired(a, b)


def _points(found: Paired) -> str:
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
