"""Run ``hrvit-lab export sensitivity``: quantize one part after the other, and show what each costs."""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from hrvit_lab import cli
from hrvit_lab.charts import part_label
from hrvit_lab.config import ConfigError
from hrvit_lab.environment import environment, package_version
from hrvit_lab.export.data_command import TESTS, drawn, in_memory, open_images, resized
from hrvit_lab.export.formats import check_request
from hrvit_lab.export.graph import served_form
from hrvit_lab.export.int8 import RANGES
from hrvit_lab.export.request import Request
from hrvit_lab.export.sensitivity import Cost, Images, Piece, Sensitivity, pieces
from hrvit_lab.export.write import refusals
from hrvit_lab.files import MIB, append_line, read_bounded, try_lock, write_atomically, write_csv
from hrvit_lab.network.digest import digest
from hrvit_lab.network.inputs import input_channels
from hrvit_lab.network.named import NamedNetwork, open_network
from hrvit_lab.network.quiet import quiet
from hrvit_lab.plots.sensitivity import PieceError, sensitivity_figure
from hrvit_lab.plots.style import save
from hrvit_lab.train.run import plain_name

FOLDER = Path("results") / "export"
SETTINGS, ROWS, TABLE, FIGURE = "settings.json", "rows.jsonl", "sensitivity.csv", "sensitivity"
WORK = ".unfinished"
"""Folder of the files of a run, inside of the results; it is removed at the end."""
EVERYTHING = "everything"
USUAL_PX = (224, 224)
"""Input size of a network that is trained at an unknown one."""
SHOWN = 12
"""Parts in the printed table, those with the largest errors."""


@dataclass(frozen=True)
class Row:
    """A piece, and what quantizing it alone costs. The part of the first row is ``EVERYTHING``."""

    stage: int | str | None
    branch: int | None
    part: str
    products: int
    cost: Cost


ROW = TypeAdapter(Row)
Key = tuple[int | str | None, int | None, str]
"""Stage, branch and part of a row."""
Settings = dict[str, str | int | float | None]


def show_sensitivity(options: argparse.Namespace) -> int:
    """Measure what is missing, and print and write the table. Returns the exit code.

    Raises:
        ConfigError: for images that do not fit the network, or a folder with results of other settings.
    """
    console = cli.console(soft_wrap=True)
    network = open_network(options.model, seed=options.seed, resolution=options.resolution)
    if not network.trained:
        raise ConfigError(
            f"{network.name} has random weights, whose sensitivity says nothing; give a network with trained weights, "
            "such as hrvit_micro.fashion_mnist or the folder of a training"
        )
    size = options.resolution or network.resolution_px or USUAL_PX
    request = Request("onnx", size, options.batch_size, dtype="int8", channels=input_channels(network.model))
    check_request(request, network.model, network.name, images_follow=True)
    calibration, tests = open_images(
        options.data, network, request, options.calibration_images, options.test_images, options.seed
    )
    request = replace(request, calibration=calibration)
    if tests is None:
        images = Images(calibration[list(drawn(len(calibration), options.test_images, options.seed))])
    else:
        pairs = (tests.transform(*tests.samples[index]) for index in tests.indices)
        targets: list[Any] = []

        def pixels() -> Iterator[Tensor]:
            for image, target in pairs:
                targets.append(target)
                yield resized(image, request)

        found = in_memory(pixels(), len(tests.indices), request, TESTS)
        images = Images(found, tuple(targets), tests.score, len(tests.samples.class_names))
    folder: Path = options.out or FOLDER / plain_name(f"{network.name}-sensitivity")
    folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / "writing.lock")
    if lock is None:
        raise ConfigError(f"another process writes {folder}; wait for it, or choose another folder with --out")
    try:
        rows = _measure(network, request, images, folder, _settings(options, network, request, images), console)
        _write(rows, network, images, folder)
    finally:
        lock.release(unlink=True)
    _print(rows, network, images, console)
    console.print(f"Wrote {TABLE}, {FIGURE}.png and {FIGURE}.svg in {folder}")
    return 0


def _measure(
    network: NamedNetwork, request: Request, images: Images, folder: Path, settings: Settings, console: Console
) -> tuple[Row, ...]:
    """All rows: those of the folder, and the missing ones, which are added to it one by one."""
    work = folder / WORK
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir()
    try:
        return _measure_missing(network, request, images, folder, settings, console)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _measure_missing(
    network: NamedNetwork, request: Request, images: Images, folder: Path, settings: Settings, console: Console
) -> tuple[Row, ...]:
    reported = partial(refusals, network.model, request, folder, cli.printable(network.name))
    with quiet():
        with reported():
            subject = Sensitivity(served_form(network.model), request, images, folder / WORK)
        _check_settings(folder, settings | {"graph": subject.graph})
        kept = _read_rows(folder / ROWS, bool(images.targets))
        found = [Piece(None, None, EVERYTHING, ()), *pieces(subject.source, network.model)]
        missing = [piece for piece in found if piece.key not in kept]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task, began = bar.add_task("int8", total=len(missing)), time.monotonic()
            for number, piece in enumerate(missing, 1):
                with reported():
                    row = Row(*piece.key, len(piece.nodes), subject.cost(piece.nodes))
                kept[piece.key] = row
                append_line(folder / ROWS, json.dumps(asdict(row)))
                bar.update(task, advance=1, description=f"int8: {_named(row)}")
                if not console.is_terminal:
                    left = (time.monotonic() - began) / number * (len(missing) - number)
                    console.print(f"{number} of {len(missing)} · {_named(row)} · {cli.rough_duration(left)} left")
    return tuple(kept[piece.key] for piece in found)


def _settings(options: argparse.Namespace, network: NamedNetwork, request: Request, images: Images) -> Settings:
    return {
        "network": network.name,
        "weights": digest(network.model.state_dict()),
        "data": str(options.data),
        "resolution": cli.show_size(request.resolution),
        "batch size": request.batch_size,
        "calibration images": 0 if request.calibration is None else len(request.calibration),
        "test images": len(images.pixels),
        "content of the images": digest({"calibration": request.calibration, "test": images.pixels}),
        "seed": options.seed,
        "choice of ranges": RANGES,
        "version of ONNX Runtime": package_version("onnxruntime"),
    }


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Check that the rows of a folder were measured with these settings; write them to a new one.

    Raises:
        ConfigError: if they were not.
    """
    path = folder / SETTINGS
    try:
        known = json.loads(read_bounded(path, MIB))["settings"]
        differing = [key for key in settings if known.get(key) != settings[key]]
    except FileNotFoundError:
        if (folder / ROWS).exists():
            raise ConfigError(
                f"{folder} has {ROWS} without {SETTINGS}, so its settings are unknown; choose a new folder with --out"
            ) from None
        about = environment()
        write_atomically(path, json.dumps({"settings": dict(settings), "environment": about}, indent=2) + "\n")
        return
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ConfigError(f"{path} can't be read; choose a new folder with --out") from None
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{folder} has results of another {key} ({cli.printable(known.get(key))}, not {settings[key]}); choose a "
            "new folder with --out"
        )


def _read_rows(path: Path, with_accuracy: bool) -> dict[Key, Row]:
    """Rows by stage, branch and part. A line that is not a row is ignored, and its piece is measured again.

    Args:
        with_accuracy: whether rows have an accuracy.
    """
    found: dict[Key, Row] = {}
    for line in read_bounded(path, MIB).splitlines() if path.exists() else []:
        try:
            row = ROW.validate_json(line, strict=True)
        except ValueError:
            continue
        accuracy = row.cost.accuracy
        numbers = [row.cost.relative_error]
        if accuracy is not None:
            numbers += [accuracy.before, accuracy.after, accuracy.change_low, accuracy.change_high]
        if all(map(math.isfinite, numbers)) and (accuracy is not None) == with_accuracy:
            found[row.stage, row.branch, row.part] = row
    return found


def _write(rows: Sequence[Row], network: NamedNetwork, images: Images, folder: Path) -> None:
    head = ["stage", "branch", "part", "products", "weights", "relative_error"]
    score = images.score
    scores = [f"{score}_before", f"{score}_after", "change_low", "change_high", "images"] if images.targets else []
    lines: list[list[Any]] = [[*head, *scores]]
    for row in rows:
        found = row.cost.accuracy
        values = [found.before, found.after, found.change_low, found.change_high, found.images] if found else []
        lines.append(
            [row.stage, row.branch, row.part, row.products, row.cost.weights, row.cost.relative_error, *values]
        )
    write_csv(folder / TABLE, lines)
    everything, *alone = rows
    points = [PieceError(row.stage, row.branch, row.part, row.cost.relative_error) for row in alone]
    note = f"{len(images.pixels):,} images. ONNX Runtime, weights and inputs of products in int8."
    save(sensitivity_figure(points, everything.cost.relative_error, network.name, note), folder / FIGURE)


def _print(rows: Sequence[Row], network: NamedNetwork, images: Images, console: Console) -> None:
    everything, *alone = rows
    order = sorted(alone, key=lambda row: row.cost.relative_error, reverse=True)
    table = cli.table(f"{network.name}, one part in int8: the {min(SHOWN, len(order))} largest errors of {len(order)}")
    table.add_column("part", overflow="fold")
    heads = ("weights", "relative error", *((f"{images.score}, points",) if images.targets else ()))
    for head in heads:
        table.add_column(head, justify="right", overflow="fold")
    for row in order[:SHOWN]:
        table.add_row(_named(row), f"{row.cost.weights:,}", f"{row.cost.relative_error:.2g}", *_change(row.cost))
    console.print(table)
    independent = math.sqrt(sum(row.cost.relative_error**2 for row in alone))
    console.print(
        f"Everything in int8: relative error {everything.cost.relative_error:.2g}. If the errors of the "
        f"{len(alone)} parts were independent, it would be {independent:.2g}."
    )
    if everything.cost.accuracy is not None:
        console.print(everything.cost.accuracy.sentence)


def _change(cost: Cost) -> tuple[str, ...]:
    found = cost.accuracy
    if found is None:
        return ()
    return (f"{found.after - found.before:+.2f} [{found.change_low:+.2f}, {found.change_high:+.2f}]",)


def _named(row: Row) -> str:
    """The part, with its stage and branch."""
    if row.stage is None or isinstance(row.stage, str):
        return cli.printable(part_label(row.part))
    branch = "" if row.branch is None else f", branch {row.branch}"
    return f"{part_label(row.part)}, stage {row.stage}{branch}"
