"""Run ``hrvit-lab insight items``: attention on the item under a token, over many scenes, against random weights."""

import argparse
import contextlib
import copy
import glob
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.environment import environment
from hrvit_lab.files import Lock, try_lock, write_atomically, write_csv
from hrvit_lab.insight.attention import block_attention
from hrvit_lab.insight.command import check_same
from hrvit_lab.insight.kept_scenes import Shares, has_scenes, keep_scene, read_scenes
from hrvit_lab.insight.on_item import attention_on_item
from hrvit_lab.insight.places import BlockPlace
from hrvit_lab.network.build import build
from hrvit_lab.network.digest import digest
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.named import NamedNetwork, open_network
from hrvit_lab.network.seeding import seeded
from hrvit_lab.plots.on_item import ItemShares, on_item
from hrvit_lab.plots.style import save
from hrvit_lab.study.statistics import Paired, paired
from hrvit_lab.train.data.composites import open_composites
from hrvit_lab.train.run import numbered_folder, plain_name
from hrvit_lab.train.transforms.normalise import Normalise

FOLDER = Path("results") / "insight"
TABLE, SUMMARY, FIGURE = "items.csv", "items.json", "items"
SCENES = "scenes.jsonl"
"""What was measured so far; removed at the end."""
LOCK = "writing.lock"
USUAL_PX = 128


@dataclass(frozen=True)
class Found:
    """Shares of attention on the item under a token, (scenes, blocks): with trained weights, random ones, and equal
    attention. NaN where no token of a block lies on an item."""

    places: tuple[BlockPlace, ...]
    trained: np.ndarray
    random: np.ndarray
    chance: np.ndarray


@dataclass(frozen=True)
class Scenes:
    """The test scenes for a network.

    Attributes:
        places: of the network's blocks with attention.
        shares: those of a scene, by its number.
        digest: of weights and first scene; scenes of other digests are never mixed.
    """

    places: tuple[BlockPlace, ...]
    shares: Callable[[int], Shares]
    digest: str


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
    scenes = _open_scenes(network, size, options.root, options.seed)
    folder, lock = _folder(options, network, about, scenes)
    try:
        found = measure(scenes, options.scenes, folder / SCENES, console)
        said = _said(found)
        about |= {**said, "environment": environment()}
        _write(found, about, folder, network.name)
        (folder / SCENES).unlink(missing_ok=True)
    except KeyboardInterrupt:
        if (folder / SCENES).exists():
            console.print(f"The scenes so far are kept in {folder}; the same command continues.")
        raise
    finally:
        lock.release(unlink=True)
        with contextlib.suppress(OSError):  # it has files
            folder.rmdir()
    console.print(said["finding"])
    console.print(f"Wrote {TABLE}, {SUMMARY}, {FIGURE}.png and {FIGURE}.svg in {folder}")
    return 0


def _write(found: Found, about: Mapping[str, Any], folder: Path, name: str) -> None:
    """The table, the summary and the figure."""
    means = zip(*(_mean(values, 0).tolist() for values in (found.trained, found.random, found.chance)), strict=True)
    rows = [ItemShares(place.stage, place.branch, *shares) for place, shares in zip(found.places, means, strict=True)]
    lines = [[place.name, *row] for place, row in zip(found.places, rows, strict=True)]
    write_csv(folder / TABLE, [["block", "stage", "branch", "trained", "random", "equal_attention"], *lines])
    write_atomically(folder / SUMMARY, json.dumps(about, indent=2, default=str) + "\n")
    side = about["size_px"]
    note = f"{about['scenes']:,} test scenes of composites, {side} × {side} px. {about['finding']}"
    save(on_item(rows, name, note), folder / FIGURE)


def _folder(
    options: argparse.Namespace, network: NamedNetwork, about: Mapping[str, Any], scenes: Scenes
) -> tuple[Path, Lock]:
    """The folder of the results, and its lock: the given one, one that an interrupted command with the same network and
    scenes left, or a new one.

    Raises:
        ConfigError: if the given one has results of other inputs, or another process writes it.
    """
    if options.out is None:
        name = plain_name(f"{network.name}-items")
        for path in sorted(FOLDER.glob(f"{glob.escape(name)}*/{SCENES}")):
            if has_scenes(path, scenes.digest) and (lock := try_lock(path.with_name(LOCK))) is not None:
                return path.parent, lock
        folder = numbered_folder(FOLDER, name)
    else:
        folder = options.out
        check_same(folder, about, SUMMARY)
        if (folder / SCENES).exists() and not has_scenes(folder / SCENES, scenes.digest):
            raise ConfigError(
                f"{folder} has unfinished results of another network or other scenes; choose another folder with --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / LOCK)
    if lock is None:
        raise ConfigError(f"another process writes {folder}; wait for it, or choose another folder with --out")
    return folder, lock


def _open_scenes(network: NamedNetwork, size: int, root: Path | None, seed: int) -> Scenes:
    """The test scenes, to be measured with the network's weights and with random ones.

    Raises:
        ConfigError: if Fashion-MNIST is missing, or the network has no attention.
    """
    assert isinstance(network.model, HRViT)
    with seeded(seed):
        other = build(copy.deepcopy(network.model.config)).eval()
    samples = open_composites("val", root, size=size)
    normalise = Normalise(network.mean, network.std)

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

    image, _, items = samples.drawn(0)
    places = tuple(one.place for one in block_attention(network.model, normalise(image)[None]))
    content = {"scene": normalise(image), "items": torch.from_numpy(items.astype(np.int64))}
    states = {"trained": network.model.state_dict(), "random": other.state_dict()}
    weights = {f"{which} {name}": tensor for which, state in states.items() for name, tensor in state.items()}
    return Scenes(places, shares, digest({**content, **weights}))


def measure(scenes: Scenes, number: int, kept: Path, console: Console) -> Found:
    """The shares in the first ``number`` scenes.

    Args:
        kept: file of the scenes that were measured before; new ones are added.
    """
    known = read_scenes(kept, scenes.digest, len(scenes.places))
    for index in _counted([index for index in range(number) if index not in known], console):
        known[index] = scenes.shares(index)
        keep_scene(kept, scenes.digest, index, known[index])
    trained, random, chance = (np.array([known[index][which] for index in range(number)]) for which in range(3))
    return Found(scenes.places, trained, random, chance)


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
