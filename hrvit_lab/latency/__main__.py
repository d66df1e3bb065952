"""``python -m hrvit_lab.latency MODEL…``: time networks so that the difference can be believed."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, TextIO, TypeVar

import pandas as pd
from rich.console import Console

from hrvit_lab import plots
from hrvit_lab.config import ConfigError
from hrvit_lab.environment import environment
from hrvit_lab.latency.backends import BACKENDS, find_backend
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.conditions import load_nvml
from hrvit_lab.latency.measurement import Entry, Measurement, Setting, to_frame
from hrvit_lab.latency.models import NamedModel, find_model
from hrvit_lab.latency.parts import PartTimes, measure_parts
from hrvit_lab.latency.race import race
from hrvit_lab.latency.show import LEGEND, PLAIN_WIDTH, knees, parts_by_place, parts_table, race_table
from hrvit_lab.latency.workload import DTYPES, MEMORY_FORMATS, OutOfDeviceMemory, find_device
from hrvit_lab.network.model import HRViT

EXAMPLES = """\
examples:
  python -m hrvit_lab.latency hrvit_b1:deploy --against hrvit_b1 --resolution 224,512 --threads 1
  python -m hrvit_lab.latency hrvit_b1 timm:resnet50 --device cuda --batch 1,64 --dtype fp32,bf16 \\
      --backend eager,cuda_graph,compile --out results/latency
  python -m hrvit_lab.latency hrvit_b1 --batch 1,2,4,8,16 --json sweep.jsonl
  python -m hrvit_lab.latency hrvit_b1 --parts
  python -m hrvit_lab.latency hrvit_b1 --training --batch 8 --dtype fp32,bf16
  python -m hrvit_lab.latency.suite        the whole table of a GPU: 7 networks, 6 ways each, resumable

MODEL is a preset, a config's YAML file (either with :deploy behind it, for the form for inference), or timm:NAME.
Weights are random, BatchNorms too. All of one resolution and batch race against the first (or --against) with the
first back end and number format: in every round each runs once, in random order, and the first twice (A/A control).
Ctrl-C ends the race and keeps it. Exit code: 0 all are timed, 1 some are not (and say why), 2 the request can't be
met, 130 interrupted.
"""

MAX_WARMUP_SECONDS = 10.0
ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = parser().parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    try:
        return run(options, console)
    except ValueError as error:  # ConfigError and its kin: what was asked can't be had
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished measurements are kept", file=sys.stderr)
        return 130


def run(options: argparse.Namespace, console: Console) -> int:
    """Race at every resolution and batch, show and keep what comes out."""
    budget = Budget(half_width=options.precision / 100, max_seconds=options.max_seconds)
    if options.parts and options.training:
        raise ConfigError("--parts times inference; leave out --training, or --parts")
    find_device(options.device)
    for backend in options.backend:
        find_backend(backend)
    names = list(dict.fromkeys([*([options.against] if options.against else []), *options.models]))
    nvml = load_nvml() if options.device != "cpu" else None
    done: list[Measurement] = []
    with ExitStack() as stack:
        keep = stack.enter_context(_Keeper(options.json, options.out))
        for resolution in options.resolution:
            models = [find_model(name, seed=options.seed, resolution=resolution) for name in names]
            for batch_size in options.batch:
                setting = Setting(
                    resolution, batch_size, options.device, options.memory_format, options.threads, options.training
                )
                results = race_at(setting, models, options, budget, nvml, keep, console)
                done += results
                keep.draw(done)
                if any(result.status == "interrupted" for result in results):
                    print("interrupted; what was measured is kept", file=sys.stderr)
                    return 130
                if options.parts:
                    show_parts(models, setting, options, budget, nvml, keep, console)
        console.print(LEGEND, style="dim")
        for sentence in knees(done):
            console.print(sentence)
        if options.out:
            console.print(f"Wrote {', '.join(keep.written)} in {options.out}")
    return 0 if all(result.status == "ok" for result in done) else 1


def race_at(
    setting: Setting,
    models: Sequence[NamedModel],
    options: argparse.Namespace,
    budget: Budget,
    nvml: Any,
    keep: "_Keeper",
    console: Console,
) -> list[Measurement]:
    """One race, written down and shown."""
    entries = [Entry(*combination) for combination in product(models, options.backend, options.dtype)]
    with console.status("starting") as status:
        results = race(
            entries, setting, budget, seed=options.seed, nvml=nvml, report=status.update,
            max_warmup_seconds=min(MAX_WARMUP_SECONDS, options.max_seconds),
        )  # fmt: skip
    for result in results:
        keep.write({"kind": "latency", **result.to_dict()})
    console.print(race_table(results, console.width))
    return results


def show_parts(
    models: Sequence[NamedModel],
    setting: Setting,
    options: argparse.Namespace,
    budget: Budget,
    nvml: Any,
    keep: "_Keeper",
    console: Console,
) -> None:
    """Latency by part of every HRViT, eager, in the first number format."""
    dtype = options.dtype[0]
    for model in models:
        if not isinstance(model.module, HRViT):
            console.print(f"{model.name}: parts are known of HRViTs only.", style="dim")
            continue
        try:
            with console.status(f"{model.name}: parts"):
                times = measure_parts(
                    model.module, setting.resolution, batch_size=setting.batch_size, device=setting.device,
                    dtype=dtype, memory_format=setting.memory_format, threads=setting.threads, seed=options.seed,
                    budget=replace(budget, min_rounds=10), nvml=nvml,
                )  # fmt: skip
        except OutOfDeviceMemory as error:
            console.print(f"{model.name}: parts: {error}", style="red")
            continue
        console.print(parts_table(model.name, times))
        keep.write(
            {
                "kind": "parts", "model": model.name, "backend": "eager", "dtype": dtype, **asdict(setting),
                "parts": json.loads(times.frame.to_json(orient="records")), "whole_ms": times.whole_ms,
                "sum_ms": times.sum_ms, "ratio": times.ratio._asdict(), "rounds": times.rounds,
                "conditions": times.conditions, "environment": environment(),
            }
        )  # fmt: skip
        height, width = setting.resolution
        keep.draw_parts(f"{model.name}, {height}×{width}, batch {setting.batch_size}", times)


class _Keeper:
    """Where measurements go as they come: a file of JSON lines, and a folder with the same, tables and figures.

    Lines are added to what the files hold, for each tells when and how it was measured; tables and figures are of
    this run.

    Raises:
        ConfigError: if one of them cannot be written.
    """

    def __init__(self, json_file: Path | None, folder: Path | None) -> None:
        self.folder = folder
        self.written = ["latency.jsonl"]
        self._paths = [path for path in (json_file, folder / "latency.jsonl" if folder else None) if path]
        self._files: list[TextIO] = []
        self._parts: list[pd.DataFrame] = []

    def __enter__(self) -> "_Keeper":
        for path in self._paths:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._files.append(path.open("a", encoding="utf-8"))
            except OSError as error:
                raise ConfigError(f"{path} can't be written: {error.strerror}; choose another place") from None
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Add one line, at once on disk."""
        for file in self._files:
            file.write(json.dumps(record, allow_nan=False) + "\n")
            file.flush()

    def draw(self, measurements: Sequence[Measurement]) -> None:
        """Bring table and figures up to date."""
        if self.folder:
            frame = to_frame(measurements)
            self._table("latency", frame)
            self._note(*plots.save(plots.latency_comparison(frame), self.folder / "latency"))
            if frame["batch_size"].nunique() > 1:
                self._note(*plots.save(plots.throughput_by_batch(frame), self.folder / "throughput"))

    def draw_parts(self, title: str, times: PartTimes) -> None:
        """Latency by part: one table of all networks so far, and a figure of this one."""
        if self.folder:
            self._parts.append(times.frame.assign(network=title))
            self._table("parts", pd.concat(self._parts))
            figure = plots.cost_breakdown(parts_by_place(times), "latency_ms", caption=f"{title}.")
            self._note(*plots.save(figure, self.folder / f"parts-{len(self._parts)}"))

    def _table(self, stem: str, table: pd.DataFrame) -> None:
        assert self.folder is not None
        path = self.folder / f"{stem}.csv"
        table.to_csv(path, index=False, lineterminator="\n")
        self._note(path)

    def _note(self, *paths: Path) -> None:
        self.written = list(dict.fromkeys([*self.written, *(path.name for path in paths if path.suffix != ".svg")]))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hrvit_lab.latency",
        description="Time networks against each other: numerics first, interleaved, with intervals.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="hrvit_b1, hrvit_b1:deploy, my.yaml, timm:resnet50")
    parser.add_argument("--against", metavar="MODEL", help="the reference; default: the first MODEL")
    parser.add_argument(
        "--resolution", type=_listed(_resolution), default=[(224, 224)], metavar="N|HxW,…", help="in pixels (224)"
    )
    parser.add_argument("--batch", type=_listed(_positive), default=[1], metavar="N,…", help="images a call (1)")
    parser.add_argument(
        "--dtype", type=_listed(_dtype), default=["float32"], metavar="A,…",
        help=f"{', '.join(DTYPES)}, or fp32, bf16, fp16 (float32, without TF32)",
    )  # fmt: skip
    parser.add_argument(
        "--backend", type=_listed(str), default=["eager"], metavar="A,…", help=f"{', '.join(BACKENDS)} (eager)"
    )
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda[:N]", help="where (cpu)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="CPU threads; default: as many as torch takes")
    parser.add_argument("--memory-format", choices=tuple(MEMORY_FORMATS), default="contiguous", help="of the input")
    parser.add_argument(
        "--training", action="store_true",
        help="time a training step: forward, mean square of the outputs, backward; no optimiser",
    )  # fmt: skip
    parser.add_argument("--parts", action="store_true", help="also latency by part: HRViTs, eager, first number format")
    parser.add_argument(
        "--precision", type=float, default=1.0, metavar="PERCENT", help="stop at this half-width of all intervals (1)"
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="for a race of at least 7 rounds; also for a warm-up, if under 10 (60)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, input and order (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add a line a measurement, raw samples included")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the same lines, tables (CSV) and figures")
    return parser


def _listed(parse: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Comma-separated values, each once."""

    def parse_list(text: str) -> list[T]:
        return list(dict.fromkeys(_each(text, parse)))

    parse_list.__name__ = parse.__name__.strip("_").replace("str", "name")  # argparse says "invalid resolution value"
    return parse_list


def _each(text: str, parse: Callable[[str], T]) -> Iterator[T]:
    for part in text.split(","):
        yield parse(part.strip())


def _resolution(text: str) -> tuple[int, int]:
    sides = [_positive(side) for side in text.split("x")]
    if len(sides) not in (1, 2):
        raise ValueError
    return sides[0], sides[-1]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 up")
    return number


def _dtype(text: str) -> str:
    name = ALIASES.get(text, text)
    if name not in DTYPES:
        raise argparse.ArgumentTypeError(f"{text} is unknown; use {', '.join([*DTYPES, *ALIASES])}")
    return name


if __name__ == "__main__":
    sys.exit(main())
