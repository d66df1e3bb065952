"""Run ``hrvit-lab latency``: measure, print tables, write files."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from io import FileIO
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from hrvit_lab import plots
from hrvit_lab.config import ConfigError
from hrvit_lab.environment import environment
from hrvit_lab.files import write_atomically
from hrvit_lab.latency.auto import AUTO, choose
from hrvit_lab.latency.backends import find_backend
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.conditions import load_nvml
from hrvit_lab.latency.measurement import Entry, Measurement, Setting, to_csv, to_frame
from hrvit_lab.latency.models import NamedModel, find_model
from hrvit_lab.latency.parts import PartTimes, measure_parts
from hrvit_lab.latency.race import race, race_steps
from hrvit_lab.latency.show import LEGEND, knees, live, parts_by_place, parts_table, race_table
from hrvit_lab.latency.steps import Steps
from hrvit_lab.latency.workload import OutOfDeviceMemory, device_name, find_timed_device
from hrvit_lab.network.model import HRViT

MAX_WARMUP_SECONDS = 10.0
RUN_FILES = ("latency.jsonl", "latency.csv", "parts.csv")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure at every resolution and batch size; print and write the results. Returns the exit code."""
    budget = Budget(half_width=options.precision / 100, max_seconds=options.max_seconds)
    if options.parts and options.training:
        raise ConfigError("--parts times inference only; remove --training or --parts")
    find_timed_device(options.device)
    for backend in options.backend:
        if backend != AUTO:
            find_backend(backend)
    names = list(dict.fromkeys([*([options.against] if options.against else []), *options.models]))
    nvml = load_nvml() if options.device != "cpu" else None
    done: list[Measurement] = []
    with ExitStack() as stack:
        writer = stack.enter_context(_Writer(options.json, options.out))
        try:
            for results in measure(names, options, budget, nvml, writer, console):
                done += results
                writer.tabulate(done)
                if any(result.status == "interrupted" for result in results):
                    print("interrupted; finished measurements are kept", file=sys.stderr)
                    return 130
        finally:
            if done:
                writer.draw(done)
        console.print(LEGEND, style="dim")
        for sentence in knees(done):
            console.print(sentence)
        if options.out:
            console.print(f"Wrote {', '.join(writer.written)} in {options.out}")
    return 0 if all(result.status == "ok" for result in done) else 1


def measure(
    names: Sequence[str], options: argparse.Namespace, budget: Budget, nvml: Any, writer: "_Writer", console: Console
) -> Iterator[list[Measurement]]:
    """Yield the measurements of one resolution and batch size at a time; ``--parts`` runs after each."""
    races = len(options.resolution) * len(options.batch)
    for resolution in options.resolution:
        models = [find_model(name, seed=options.seed, resolution=resolution) for name in names]
        for batch_size in options.batch:
            setting = Setting(
                resolution, batch_size, options.device, options.memory_format, options.threads, options.training
            )
            races -= 1
            yield race_at(setting, models, options, budget, nvml, writer, console, races)
            if options.parts:
                show_parts(models, setting, options, budget, nvml, writer, console)


def race_at(
    setting: Setting,
    models: Sequence[NamedModel],
    options: argparse.Namespace,
    budget: Budget,
    nvml: Any,
    writer: "_Writer",
    console: Console,
    races_later: int,
) -> list[Measurement]:
    """Measure, write and print one resolution and batch size; ``races_later`` more follow."""
    warmup_seconds = min(MAX_WARMUP_SECONDS, options.max_seconds)
    combinations = product(models, options.backend, options.dtype)
    entries = list(
        dict.fromkeys(
            resolved(Entry(*each), setting, options, budget, warmup_seconds, console) for each in combinations
        )
    )
    parts_seconds = len(models) * budget.max_seconds if options.parts else 0.0
    each = sum(race_steps(entries, setting, budget, warmup_seconds, nvml).values()) + parts_seconds
    with live(console, f"{_where(setting)}, ", parts_seconds + races_later * each) as report:
        results = race(
            entries, setting, budget, seed=options.seed, nvml=nvml, report=report, max_warmup_seconds=warmup_seconds
        )
    for result in results:
        writer.write({"kind": "latency", **result.to_dict()})
    console.print(race_table(results, console.width))
    return results


def resolved(
    entry: Entry, setting: Setting, options: argparse.Namespace, budget: Budget, warmup_seconds: float, console: Console
) -> Entry:
    """The entry with the back end that `auto` stands for; prints what it was chosen over."""
    if entry.backend != AUTO:
        return entry
    with live(console, f"back ends for {entry.model.name}, ") as report:
        choice = choose(
            entry.model, setting, entry.dtype, budget=budget, seed=options.seed, max_warmup_seconds=warmup_seconds,
            report=report,
        )  # fmt: skip
    console.print(f"{entry.model.name}, {_where(setting)}, {entry.dtype}, {choice.sentences}", soft_wrap=True)
    return replace(entry, backend=choice.backend)


def show_parts(
    models: Sequence[NamedModel],
    setting: Setting,
    options: argparse.Namespace,
    budget: Budget,
    nvml: Any,
    writer: "_Writer",
    console: Console,
) -> None:
    """Latency by part of every HRViT, eager, in the first number format."""
    dtype = options.dtype[0]
    for model in models:
        if not isinstance(model.module, HRViT):
            console.print(f"{model.name}: not timed by part; --parts supports HRViTs only.", style="dim")
            continue
        try:
            with live(console, f"{_where(setting)}, ") as report:
                steps = Steps({f"{model.name}: parts": budget.max_seconds}, report)
                steps.at(f"{model.name}: parts")
                times = measure_parts(
                    model.module, setting.resolution, batch_size=setting.batch_size, device=setting.device,
                    dtype=dtype, memory_format=setting.memory_format, threads=setting.threads, seed=options.seed,
                    budget=replace(budget, min_rounds=10), nvml=nvml,
                    on_round=partial(_report_round, steps, f"{model.name}: parts"),
                )  # fmt: skip
        except OutOfDeviceMemory as error:
            console.print(f"{model.name}: parts: {error}", style="red")
            continue
        device = device_name(find_timed_device(setting.device))
        threads = setting.threads or torch.get_num_threads()
        title = f"{model.name}, {_where(setting)}, eager, {dtype}, on {device}, {threads} thread{'s' * (threads > 1)}"
        console.print(parts_table(title, times))
        writer.write(
            {
                "kind": "parts", "model": model.name, "backend": "eager", "dtype": dtype, **asdict(setting),
                "parts": json.loads(times.frame.to_json(orient="records")), "whole_ms": times.whole_ms,
                "sum_ms": times.sum_ms, "ratio": times.ratio._asdict(), "rounds": times.rounds,
                "conditions": times.conditions, "environment": environment(),
            }
        )  # fmt: skip
        writer.draw_parts(title, times)


def _report_round(steps: Steps, name: str, rounds: int, half_width: float) -> None:
    steps.at(name, f"{name}, round {rounds}")


def _where(setting: Setting) -> str:
    height, width = setting.resolution
    return f"{height}×{width}, batch {setting.batch_size}"


class _Writer:
    """Writes measurements as they finish: to a file of JSON lines, and to a folder with the same lines, tables and
    figures.

    Lines are appended to the file of ``--json``, because each holds its time and settings. A folder holds one run
    and is never overwritten.

    Raises:
        ConfigError: if one of them cannot be written, or the folder already contains a run.
    """

    def __init__(self, json_file: Path | None, folder: Path | None) -> None:
        self.folder = folder
        self.written = ["latency.jsonl"]
        self._paths = [path for path in (json_file, folder / "latency.jsonl" if folder else None) if path]
        self._files: list[FileIO] = []
        self._parts: list[pd.DataFrame] = []

    def __enter__(self) -> "_Writer":
        if self.folder and (there := next(filter(self._holds, RUN_FILES), None)):
            raise ConfigError(
                f"{self.folder} already contains {there}, which is never overwritten; choose another folder with --out"
            )
        for path in self._paths:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._files.append(path.open("ab", buffering=0))
            except OSError as error:
                raise ConfigError(f"{path} can't be written: {error.strerror}; choose another path") from None
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one line, unbuffered."""
        line = json.dumps(record, allow_nan=False) + "\n"
        for path, file in zip(self._paths, self._files, strict=True):
            try:
                file.write(line.encode())
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None

    def tabulate(self, measurements: Sequence[Measurement]) -> None:
        """Rewrite the table, after each race."""
        if self.folder:
            self._table("latency", to_frame(measurements))

    def draw(self, measurements: Sequence[Measurement]) -> None:
        """Draw the figures at the end of the run; each takes a second."""
        if self.folder:
            frame = to_frame(measurements)
            self._note(*plots.save(plots.latency_comparison(frame), self.folder / "latency"))
            if frame["batch_size"].nunique() > 1:
                self._note(*plots.save(plots.throughput_by_batch(frame), self.folder / "throughput"))

    def draw_parts(self, title: str, times: PartTimes) -> None:
        """Write latency by part: one table of all networks so far, and a figure of this one."""
        if self.folder:
            self._parts.append(times.frame.assign(network=title))
            self._table("parts", pd.concat(self._parts))
            figure = plots.cost_breakdown(parts_by_place(times), "latency_ms", caption=f"{title}.")
            self._note(*plots.save(figure, self.folder / f"parts-{len(self._parts)}"))

    def _holds(self, name: str) -> bool:
        """Whether the folder has that file with content; a run that measured nothing leaves an empty file."""
        assert self.folder is not None
        return (self.folder / name).exists() and (self.folder / name).stat().st_size > 0

    def _table(self, stem: str, table: pd.DataFrame) -> None:
        assert self.folder is not None
        path = self.folder / f"{stem}.csv"
        write_atomically(path, to_csv(table))
        self._note(path)

    def _note(self, *paths: Path) -> None:
        self.written = list(dict.fromkeys([*self.written, *(path.name for path in paths if path.suffix != ".svg")]))
