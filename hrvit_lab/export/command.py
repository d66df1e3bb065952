"""Run ``hrvit-lab export``: write the file, race it, and leave it with its card."""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hrvit_lab import cli
from hrvit_lab.config import SEGMENTERS, ConfigError
from hrvit_lab.export.card import CARD, CONFIG, RECORD, as_markdown, latency_sentences, record
from hrvit_lab.export.data_command import measure_accuracy, open_images
from hrvit_lab.export.folder import check_new, finish, unfinished
from hrvit_lab.export.formats import FORMATS, check_request, find_format
from hrvit_lab.export.graph import served_form, side_step
from hrvit_lab.export.request import Request
from hrvit_lab.export.write import Exported, ExportedFile, export_network
from hrvit_lab.files import user_path, write_atomically
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.measurement import Entry, Measurement, Setting
from hrvit_lab.latency.models import NamedModel, randomize_norms
from hrvit_lab.latency.race import race, race_steps
from hrvit_lab.latency.show import live
from hrvit_lab.network.inputs import input_channels
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.named import NamedNetwork, open_network
from hrvit_lab.network.seeding import seeded
from hrvit_lab.train.run import plain_name

FOLDER = Path("results") / "export"
CALIBRATION_IMAGES, TEST_IMAGES, MAX_SECONDS = 256, 2000, 10.0
"""Defaults, which the help names. Options have none, so that a given one without an effect is refused."""
MAX_WARMUP_SECONDS = 10.0
AGAINST = "the deployed network in PyTorch, eager, float32"


def export(options: argparse.Namespace) -> int:
    """Write what the command line asks for and return the exit code.

    Raises:
        ConfigError: for an invalid request, a network that cannot be exported, or a file with wrong outputs.
        OSError: if the files cannot be written.
    """
    console = cli.console(soft_wrap=True)
    find_format(options.format)
    check_used(options)
    if options.out is not None:
        check_new(options.out)
    network = open_network(options.model, seed=options.seed, resolution=options.resolution)
    if not network.trained:
        with seeded(options.seed):
            randomize_norms(network.model)
    request, tests = make_request(options, network), None
    check_request(request, network.model, network.name, images_follow=options.data is not None)
    if options.data is not None:
        with cli.working(console) as begins:
            begins("reading images for calibration")
            images, tests = open_images(
                options.data, network, request, options.calibration_images or CALIBRATION_IMAGES,
                options.test_images or TEST_IMAGES, options.seed,
            )  # fmt: skip
        request = replace(request, calibration=images)
    place = options.out or FOLDER / plain_name(f"{network.name}-{options.format}")
    with unfinished(place.parent) as folder:
        with cli.working(console) as begins:
            exported = export_network(
                network.model, request, folder, name=network.name, seed=options.seed, begins=begins
            )
        runtime = FORMATS[request.format].runtime
        console.print(f"{network.name} ({network.weights}) as {exported.path.name}, loaded by {runtime}:")
        for check in exported.checks:
            verdict = "agrees" if check.agrees else "differs"
            console.print(
                f"  {check.images}, {'×'.join(map(str, check.shape))}: {verdict} ({check.relative_error:.2g})"
            )
        accuracy = None
        if tests is not None:
            file = ExportedFile(network.model, exported)
            columns = (TextColumn("testing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
                task = bar.add_task("testing", total=len(tests.indices))
                accuracy = measure_accuracy(
                    network.model.eval(), file, tests, request, options.seed, partial(bar.advance, task)
                )
            console.print(accuracy.sentence)
        latency = None if options.no_race else as_facts(race_file(network, exported, options, console))
        for sentence in latency_sentences(latency):
            console.print(sentence)
        about = record(network, exported, latency, accuracy)
        write_atomically(folder / RECORD, json.dumps(about, indent=2, allow_nan=False) + "\n")
        write_atomically(folder / CARD, as_markdown(about))
        if isinstance(network.model, HRViT):
            write_atomically(folder / CONFIG, network.model.config.to_yaml())
        written = sorted(path.name for path in folder.iterdir())
        place = finish(folder, place)
    if options.out is not None and place != options.out:
        console.print(f"{options.out} was written by another program meanwhile, so the folder has another name.")
    console.print(f"Wrote {', '.join(written)} in {place}")
    return 0


def check_used(options: argparse.Namespace) -> None:
    """Check that every given option has an effect.

    Raises:
        ConfigError: naming one that has none.
    """
    if options.data is not None and options.dtype != "int8":
        raise ConfigError(f"--data calibrates int8, but --dtype is {options.dtype}; remove --data, or use --dtype int8")
    for name in ("calibration_images", "test_images"):
        if getattr(options, name) is not None and options.data is None:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} is a number of images of --data, which is not given; remove {option}")
    if options.test_images is not None and user_path(options.data).is_dir():
        raise ConfigError(
            f"--test-images is for images with labels, but --data {options.data} is a folder; remove --test-images, or "
            "give a recipe"
        )
    for name in ("threads", "max_seconds"):
        if getattr(options, name) is not None and options.no_race:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} is for the race, but --no-race is given; remove one of them")


def make_request(options: argparse.Namespace, network: NamedNetwork) -> Request:
    """The request of a command line; the default size is that of the network's training."""
    usual = (512, 512) if network.name in SEGMENTERS else (224, 224)
    return Request(
        options.format,
        options.resolution or network.resolution_px or usual,
        options.batch_size,
        tuple(options.dynamic),
        options.dtype,
        input_channels(network.model),
        side_step(network.model),
    )


def race_file(network: NamedNetwork, exported: Exported, options: argparse.Namespace, console: Console) -> Measurement:
    """Time the file against the deployed network in PyTorch, eager and in float32.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
    """
    request = exported.request
    plain = network.model
    file = NamedModel(f"the file {exported.path.name}", plain, ExportedFile(plain, exported))
    dtype = request.dtype
    if dtype == "int8":  # it agrees on images from calibration, which those of the race are not
        file, dtype = NamedModel(file.name, file.module, file.module), "float32"
    entries = [Entry(NamedModel(network.name, plain, served_form(plain))), Entry(file, dtype=dtype)]
    setting = Setting(request.resolution, request.batch_size, threads=options.threads)
    seconds = MAX_SECONDS if options.max_seconds is None else options.max_seconds
    budget, warmup = Budget(max_seconds=seconds), min(MAX_WARMUP_SECONDS, seconds)
    with live(console, "race, ", sum(race_steps(entries, setting, budget, warmup).values())) as report:
        _, result = race(entries, setting, budget, seed=options.seed, max_warmup_seconds=warmup, report=report)
    if result.status == "interrupted":
        raise KeyboardInterrupt
    return result


def as_facts(result: Measurement) -> dict[str, Any]:
    """The latency of a file, as JSON types."""

    def values(estimate: Any) -> dict[str, float] | None:
        return None if estimate is None else dict(estimate._asdict())

    return {
        "latency_ms": values(result.latency),
        "reason": result.reason,
        "ratio": values(result.ratio),
        "against": AGAINST,
        "control": values(result.control),
        "verdict": result.verdict,
        "batch_size": result.batch_size,
        "threads": result.threads,
        "device_name": result.device_name,
        "rounds": result.statistics()["rounds"],
        "disturbed": list(result.disturbed),
        "conditions": result.conditions,
        "samples_ms": list(result.samples_ms),
    }
