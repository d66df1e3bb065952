"""Run ``hrvit-lab insight items``: attention on the item under a token, over many scenes, against random weights."""

import argparse
import contextlib
import copy
import glob
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.environment import environment
from hrvit_lab.files import write_atomically, write_csv
from hrvit_lab.insight.attention import block_attention
from hrvit_lab.insight.command import check_same
from hrvit_lab.insight.kept_scenes import Shares, keep_scene, read_scenes
from hrvit_lab.insight.on_item import attention_on_item
from hrvit_lab.insight.places import BlockPlace
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
SCENES = "scenes.jsonl"
"""What was measured so far; removed at the end."""
USUAL_PX = 128


@dataclass(frozen=True)
class Found:
    """Shares of attention on the item under a token, (scenes, blocks): with trained weights, random ones, and equal
    attention. NaN where no token of a block lies on an item."""

    places: tuple[BlockPlace, ...]
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
    folder = _folder(options, network, about)
    if not (folder / SUMMARY).exists():
        write_atomically(folder / SUMMARY, _as_json(about))
    try:
        found = measure(network, size, options.scenes, options.root, options.seed, folder / SCENES, console)
        said = _said(found)
    except KeyboardInterrupt:
        console.print(f"The scenes so far are kept in {folder}; the same command continues.")
        raise
    except Exception:
        _remove_unfinished(folder)
        raise
    about |= {**said, "environment": environment()}
    means = zip(*(_mean(values, 0).tolist() for values in (found.trained, found.random, found.chance)), strict=True)
    rows = [ItemShares(place.stage, place.branch, *shares) for place, shares in zip(found.places, means, strict=True)]
    lines = [[place.name, *row] for place, row in zip(found.places, rows, strict=True)]
    write_csv(folder / TABLE, [["block", "stage", "branch", "trained", "random", "equal_attention"], *lines])
    write_atomically(folder / SUMMARY, _as_json(about))
    note = f"{options.scenes:,} test scenes of composites, {size} × {size} px. {said['finding']}"
    figure = on_item(rows, network.name, note)
    save(figure, folder / FIGURE)
    (folder / SCENES).unlink(missing_ok=True)
    console.print(said["finding"])
    console.print(f"Wrote {TABLE}, {SUMMARY}, {FIGURE}.png and {FIGURE}.svg in {folder}")
    return 0


def _folder(options: argparse.Namespace, network: NamedNetwork, about: Mapping[str, Any]) -> Path:
    """The folder of the results: the given one, one that an interrupted run of the same inputs left, or a new one.

    Raises:
        ConfigError: if the given one has results of other inputs.
    """
    name = f"{network.name}-items"
    if options.out is None:
        for path in sorted(FOLDER.glob(f"{glob.escape(name)}*/{SCENES}")):
            with contextlib.suppress(ConfigError):
                check_same(path.parent, about, SUMMARY)
                return path.parent
    else:
        check_same(options.out, about, SUMMARY)
    folder: Path = options.out or numbered_folder(FOLDER, name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove_unfinished(folder: Path) -> None:
    """Remove what a run that failed wrote, and its folder if it has no other files."""
    if not (folder / TABLE).exists():
        for name in (SCENES, SUMMARY):
            (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _as_json(about: Mapping[str, Any]) -> str:
    return json.dumps(about, indent=2, default=str) + "\n"


def measure(
    network: NamedNetwork, size: int, scenes: int, root: Path | None, seed: int, kept: Path, console: Console
) -> Found:  # fmt: skip
    """The shares in the first ``scenes`` test scenes, with the network's weights and with random ones.

    Args:
        kept: file of the scenes that were measured before; new ones are added.
    Raises:
        ConfigError: if Fashion-MNIST is missing, or the network has no attention.
    """
    assert isinstance(network.model, HRViT)
    with seeded(seed):
        other = build(copy.deepcopy(network.model.config)).eval()
    samples = open_composites("val", root, size=size)
    normalise = Normalise(network.mean, network.std)
    first = block_attention(network.model, normalise(samples.drawn(0)[0])[None])
    known = read_scenes(kept, len(first))

    def shares(number: int) -> Shares:
        image_HWC, _, items_HW = samples.drawn(number)
        ours, theirs = (
            [attention_on_item(one, items_HW) for one in block_attention(model, normalise(image_HWC)[None])]
            for model in (network.model, other)
        )
        return (
            tuple(one.attended for one in ours), tuple(one.attended for one in theirs),
            tuple(one.chance for one in ours),
        )  # fmt: skip

    for number in _counted([number for number in range(scenes) if number not in known], console):
        known[number] = shares(number)
        keep_scene(kept, number, known[number])
    trained, random, chance = (np.array([known[number][which] for number in range(scenes)]) for which in range(3))
    return Found(tuple(one.place for one in first), trained, random, chance)


def _size(options: argparse.Namespace, network: NamedNetwork) -> int:
    """Side of the scenes in pixels."""
    size: int = options.size or max(network.resolution_px or (USUAL_PX,))
    assert isinstance(network.model, HRViT)
    network.model.config.check_resolution((size, size))
    if (channels := network.model.config.in_chans) != 3:
        raise ConfigError(f"{network.name} has in_chans = {channels}, but scenes have 3; choose another network")
    return size


def _counted(numbers: Sequence[int], console: Console) -> Iterator[int]:
    """The numbers of scenes, with a bar; with lines if the output is no terminal."""
    scenes = len(numbers)
    columns = (TextColumn("scenes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, began = bar.add_task("scenes", total=scenes), time.monotonic()
        for done, number in enumerate(numbers, 1):
            yield number
            bar.update(task, advance=1)
            if not console.is_terminal and 10 * done // scenes > 10 * (done - 1) // scenes:
                left = (time.monotonic() - began) / done * (scenes - done)
                console.print(f"{done} of {scenes} scenes · {cli.rough_duration(left)} left")


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
