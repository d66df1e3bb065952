"""``python -m hrvit_lab.latency.suite``: measure the latency table of a GPU.

Each network is compared with itself in eager float32, in all back ends and number formats. Networks are loaded one at a
time, so that an out-of-memory error concerns that network alone. Rows that the folder's table already holds are not
measured again: an interrupted run can be resumed.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

from hrvit_lab import cli
from hrvit_lab.config import ConfigError
from hrvit_lab.files import unguarded, write_atomically
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.conditions import NoNvml, load_nvml
from hrvit_lab.latency.measurement import Entry, Setting, to_csv, to_frame
from hrvit_lab.latency.models import find_model
from hrvit_lab.latency.race import race
from hrvit_lab.latency.show import LEGEND, live, race_table

KEY = ["model", "height", "width", "batch_size"]


@dataclass(frozen=True)
class Suite:
    """What to measure: every combination of these."""

    models: tuple[str, ...]
    resolutions: tuple[tuple[int, int], ...]
    batch_sizes: tuple[int, ...]
    backends: tuple[str, ...]
    dtypes: tuple[str, ...]
    device: str = "cuda"


GPU = Suite(
    models=(
        "hrvit_b1", "hrvit_b2", "hrvit_b3",
        "timm:resnet50", "timm:convnext_tiny", "timm:pvt_v2_b2", "timm:hrnet_w18",
    ),
    resolutions=((224, 224), (512, 512)),
    batch_sizes=(1, 64),
    backends=("eager", "cuda_graph", "compile"),
    dtypes=("float32", "bfloat16"),
)  # fmt: skip
"""The published networks and four baselines of similar size that take any resolution."""


def run_suite(suite: Suite, folder: Path, budget: Budget, console: Console) -> None:
    """Measure the rows that the folder's table lacks; files are updated after every network.

    Raises:
        KeyboardInterrupt: on Ctrl-C; the unfinished comparison is not kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "latency.csv"
    table = _known(path)
    nvml = load_nvml()
    for resolution, batch_size, name in product(suite.resolutions, suite.batch_sizes, suite.models):
        if (name, *resolution, batch_size) in set(table[KEY].itertuples(index=False, name=None)):
            continue
        model = find_model(name, resolution=resolution)
        entries = [Entry(model, *combination) for combination in product(suite.backends, suite.dtypes)]
        setting = Setting(resolution, batch_size, suite.device)
        with live(console, f"{name}, {resolution[0]}×{resolution[1]}, batch {batch_size}: ") as report:
            results = race(entries, setting, budget, nvml=nvml, report=report)
        if any(result.status == "interrupted" for result in results):
            raise KeyboardInterrupt
        console.print(race_table(results, console.width))
        with (folder / "latency.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"kind": "latency", **m.to_dict()}, allow_nan=False) + "\n" for m in results)
        frame = to_frame(results)
        table = pd.concat([table, frame], ignore_index=True) if len(table) else frame
        write_atomically(path, to_csv(table))


def _known(path: Path) -> pd.DataFrame:
    """The table of earlier runs; empty if there is none.

    Raises:
        ConfigError: if the file is not a table of this suite.
    """
    if not path.is_file():
        return pd.DataFrame(columns=KEY)
    try:
        table = pd.read_csv(path).map(unguarded)
        table[KEY]
    except (ValueError, KeyError):  # pandas' parser errors are ValueErrors
        raise ConfigError(f"{path} is not a table of this suite; choose another folder with --out") from None
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    interrupted = "interrupted; finished measurements are kept; run the same command again to resume"
    return cli.run(lambda: run(arguments), interrupted=interrupted)


def run(arguments: Sequence[str] | None) -> int:
    """Measure what the folder lacks, and print the folder."""
    options = parser().parse_args(arguments)
    if not torch.cuda.is_available():
        raise ConfigError("torch finds no CUDA device; run the suite on a machine with an NVIDIA GPU")
    if isinstance(nvml := load_nvml(), NoNvml):
        cli.complain(f"energy, clock rates and temperatures are not measured: {nvml.reason}")
    console = cli.console()
    run_suite(GPU, options.out, Budget(max_seconds=options.max_seconds), console)
    console.print(LEGEND, style="dim")
    console.print(f"Wrote latency.jsonl (raw samples) and latency.csv (the table) in {options.out}")
    return 0


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(
        "python -m hrvit_lab.latency.suite",
        f"Measure the latency of {', '.join(GPU.models)} on a CUDA device: at "
        f"{_listing(map(cli.show_size, GPU.resolutions))} pixels, batch size {_listing(GPU.batch_sizes)}, with the "
        f"back ends {_listing(GPU.backends)}, in {_listing(GPU.dtypes)}. Run it again after an interruption: it "
        "measures what is missing.",
    )
    parser.add_argument(
        "--out", type=cli.path, default=Path("results/gpu_latency"), metavar="DIR",
        help="folder of the results (default: results/gpu_latency)",
    )  # fmt: skip
    parser.add_argument(
        "--max-seconds", type=cli.number(0, 3600), default=20.0, metavar="S",
        help="stop the rounds of one comparison after this time, but not before 7 rounds (default: 20)",
    )  # fmt: skip
    return parser


def _listing(items: Iterable[object]) -> str:
    return " and ".join(map(str, items))


if __name__ == "__main__":
    sys.exit(main())
