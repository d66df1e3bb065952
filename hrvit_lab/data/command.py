"""The work of ``hrvit-lab data``."""

import argparse
from collections.abc import Mapping
from typing import get_args

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hrvit_lab import cli
from hrvit_lab.train.data.check import Report, check_samples
from hrvit_lab.train.data.download import download
from hrvit_lab.train.data.image_folders import show_skipped
from hrvit_lab.train.data.layout import recognise
from hrvit_lab.train.data.samples import SPLITS, Samples, Split, open_samples
from hrvit_lab.train.datasets import DATASETS, Task

MAX_CLASSES = 50
MAX_BROKEN = 20
BROKEN = 1


def show_list() -> int:
    """Print a row for each data set, by task; returns the exit code."""
    console = cli.console()
    for task in get_args(Task):
        table = cli.table(task.capitalize())
        table.add_column("name", no_wrap=True)
        table.add_column("classes", justify="right")
        table.add_column("images, and their files")
        for key, about in DATASETS.items():
            if about.task == task:
                classes = "any" if about.num_classes is None else str(about.num_classes)
                fetched = " (--download fetches them)" if about.torchvision else ""
                table.add_row(key, classes, f"{about.source}\n{about.files}{fetched}", end_section=True)
        console.print(table)
    console.print("ROOT is the folder that --data and --root name.", soft_wrap=True)
    return 0


def check(options: argparse.Namespace) -> int:
    """Read a whole data set and print a summary; returns 0, or 1 if a file is broken.

    Raises:
        ConfigError: an unknown data set, or missing files.
    """
    key, root = options.data, options.root
    if key not in DATASETS:
        root = cli.path(key)
        key = recognise(root)
    if options.download:
        download(key, root)
    samples = {split: open_samples(key, split, root) for split in SPLITS}
    console = cli.console()
    reports = {split: _read(console, split, own, options.workers) for split, own in samples.items()}
    console.print(f"{DATASETS[key].label}, {DATASETS[key].task}, from {root or DATASETS[key].source}", soft_wrap=True)
    show_skipped(console, samples.values())
    _show_splits(console, samples, reports)
    _show_classes(console, samples["train"], reports)
    broken = [sentence for report in reports.values() for sentence in report.broken]
    for sentence in broken[:MAX_BROKEN]:
        console.print(sentence, soft_wrap=True)
    if len(broken) > MAX_BROKEN:
        console.print(f"… and {len(broken) - MAX_BROKEN:,} more broken samples")
    total = sum(map(len, samples.values()))
    console.print(f"{len(broken):,} of {total:,} samples are broken", style="bold red" if broken else "bold")
    return BROKEN if broken else 0


def _read(console: Console, split: str, samples: Samples, workers: int) -> Report:
    columns = (TextColumn(f"reading {split}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(split, total=len(samples))
        return check_samples(samples, workers=workers, on_progress=lambda done: progress.update(bar, completed=done))


def _show_splits(console: Console, samples: Mapping[Split, Samples], reports: Mapping[Split, Report]) -> None:
    """Samples, broken ones, sizes and the first name of each split."""
    table = cli.table("Splits")
    for heading in ("split", "samples", "broken", "smallest", "largest", "first sample"):
        table.add_column(heading, justify="left" if heading in ("split", "first sample") else "right", overflow="fold")
    for split, report in reports.items():
        ordered = sorted(report.sizes, key=lambda size: size[0] * size[1])
        sizes = [f"{width}×{height}" for width, height in (ordered[:1] + ordered[-1:])] or ["", ""]
        table.add_row(split, f"{report.samples:,}", f"{len(report.broken):,}", *sizes, samples[split].name(0))
    console.print(table)


def _show_classes(console: Console, samples: Samples, reports: Mapping[Split, Report]) -> None:
    """Images of each class, or its share of the pixels that are not ignored; see ``shown`` for the classes."""
    names, dense = samples.class_names, samples.task == "segmentation"
    table = cli.table("Share of pixels (%)" if dense else "Images")
    table.add_column("label", justify="right")
    table.add_column("class", overflow="fold")
    for split in reports:
        table.add_column(split, justify="right")
    counts = np.array([report.counts[: len(names)] for report in reports.values()])
    for label in shown(counts[0]):
        table.add_row(str(label), names[label], *(_figure(row, label, dense) for row in counts))
    if dense:
        table.add_section()
        every = [report.ignored() + int(row.sum()) for report, row in zip(reports.values(), counts, strict=True)]
        ignored = zip(reports.values(), every, strict=True)
        table.add_row("255", "ignored, of all", *(f"{100 * report.ignored() / max(n, 1):.2f}" for report, n in ignored))
    console.print(table)
    if len(names) > MAX_CLASSES:
        console.print(
            f"Shown are the most and the least frequent of {len(names):,} classes in train; "
            f"{int((counts[0] == 0).sum()):,} classes have no sample in train.",
            soft_wrap=True,
        )


def shown(counts: np.ndarray) -> list[int]:
    """The labels to show: all, or of more than ``MAX_CLASSES`` the ten most frequent and the ten rarest."""
    if len(counts) <= MAX_CLASSES:
        return list(range(len(counts)))
    order = np.argsort(-counts, kind="stable").tolist()
    return [*order[:10], *order[-10:]]


def _figure(counts: np.ndarray, label: int, dense: bool) -> str:
    return f"{100 * counts[label] / max(counts.sum(), 1):.2f}" if dense else f"{counts[label]:,}"
