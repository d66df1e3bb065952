"""The work of ``hrvit-lab latency profile`` and ``hrvit-lab latency check``."""

import argparse
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.config.plan import Size
from hrvit_lab.environment import environment, hardware
from hrvit_lab.files import MIB, read_bounded, try_lock, write_atomically
from hrvit_lab.latency.predict import (
    MAX_BYTES,
    Conditions,
    Profile,
    Reference,
    TimedNetwork,
    load_profile,
    read_profile,
    write_profile,
)
from hrvit_lab.latency.profile import (
    Checked,
    Twice,
    check_network,
    covered,
    extend,
    measure_network,
    measure_twice,
    quality,
)
from hrvit_lab.latency.workload import find_timed_device
from hrvit_lab.search.files import find_search
from hrvit_lab.search.genome import Space
from hrvit_lab.search.pace import Watch
from hrvit_lab.search.spec import load_search
from hrvit_lab.study.executors.host import in_turn
from hrvit_lab.study.run import load_results

CHECK_STREAM = 1
"""Distinguishes the draws of a check from those of its profile, which has the stream 0."""


def profile(options: argparse.Namespace) -> int:
    """Measure what is missing of a profile. Returns the exit code.

    Raises:
        ConfigError: if the file is a profile of other conditions or of another space.
    """
    console = cli.console()
    space = Space(load_search(find_search(options.search)))
    asked = _empty(options, space)
    with _only_writer(options.out):
        found = read_profile(options.out) or asked
        for what, ours, theirs in (
            ("conditions", str(asked.conditions), str(found.conditions)),
            ("space, resolutions or seed", (asked.space, asked.seed), (found.space, found.seed)),
        ):
            if ours != theirs:
                raise ConfigError(f"{options.out} is a profile of other {what}; choose another file with --out")

        def measure(config: HRViTConfig, resolution: Size, conditions: Conditions) -> TimedNetwork:
            with alone(console):
                return measure_network(config, resolution, conditions)

        def save(so_far: Profile) -> None:
            write_profile(options.out, so_far)
            say(len(so_far.networks))

        with Watch(console) as watch:
            say = watch.of("networks", "measured", options.networks)
            say(len(found.networks))
            measured = extend(found, _draws(space, options, 0), options.networks, measure, save)
    _describe(measured, options.out, console)
    return 0


def check(options: argparse.Namespace) -> int:
    """Predict and measure networks that are not in the profile; print the errors of predictions. Returns the exit code.

    Raises:
        ConfigError: if the profile is of another device, the file of the check is of another profile, or another
            process writes it.
    """
    console = cli.console()
    found = load_profile(options.profile)
    digest = hashlib.sha256(read_bounded(options.profile, MAX_BYTES)).hexdigest()
    path: Path = options.out or options.profile.with_suffix(".check.json")
    here = hardware(found.conditions.device)
    rows: list[Checked] = []
    with _only_writer(path), Watch(console) as watch:
        known = _read_measured(path, digest)
        networks = list(_networks_to_check(options))
        say = watch.of("networks", "checked", len(networks))
        done = sum(_key(*network) in known for network in networks)
        say(done)
        for config, resolution in networks:
            key = _key(config, resolution)
            if key not in known:
                with alone(console):
                    known[key] = measure_twice(found, config, resolution, here)
                write_atomically(path, json.dumps({"profile": digest, "networks": known}))
                done += 1
                say(done)
            rows.append(check_network(found, config, resolution, known[key]))
    for line in said(found, rows):
        console.print(line)
    console.print(f"{'check':<12} {path}", soft_wrap=True)
    return 0


def _key(config: HRViTConfig, resolution: Size) -> str:
    """The name of a network and its input size in the file of a check."""
    return f"{config.id} {resolution[0]}x{resolution[1]}"


@contextmanager
def alone(console: Console) -> Iterator[None]:
    """Context: no trial of a study, no search and no training of a supernet runs on this host; they wait until it ends,
    see `in_turn`. It begins when those that run now have ended. Other commands, such as ``hrvit-lab train`` and
    ``hrvit-lab latency NAME``, do not wait."""
    with in_turn(exclusive=True, say=console.print):
        yield


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Context: no other process measures into this file.

    Raises:
        ConfigError: if one does.
    """
    lock = try_lock(path.with_name(f"{path.name}.lock"))
    if lock is None:
        raise ConfigError(f"another process measures {path}; wait for it, or choose another file with --out")
    try:
        yield
    finally:
        lock.release(unlink=True)


def said(found: Profile, rows: Sequence[Checked]) -> Sequence[Any]:
    """A table of the quality of predictions, and a sentence on the intervals."""
    table = cli.table(f"Predicted latency of {len(rows)} networks on {found.conditions}")
    for head in ("predicted by", "within ±5 %", "within ±10 %", "RMSPE", "Kendall's τ"):
        table.add_column(head, justify="left" if head == "predicted by" else "right", overflow="fold")
    for name, worth in quality(rows).items():
        table.add_row(
            name, f"{worth.within_5:.0f} %", f"{worth.within_10:.0f} %", f"{worth.rmspe:.1f} %", f"{worth.tau:.3f}"
        )
    return table, f"{covered(rows):.0f} % of the latencies are within the predicted intervals; 95 % are intended."


def _empty(options: argparse.Namespace, space: Space) -> Profile:
    import torch  # imported here: the threads that torch would use

    find_timed_device(options.device)
    conditions = Conditions(
        hardware=hardware(options.device), device=options.device, form=options.form, dtype=options.dtype,
        batch_size=options.batch_size, threads=options.threads or torch.get_num_threads(),
        reference=Reference(config=space.base.to_dict(), resolution=options.resolution[0]),
    )  # fmt: skip
    fields = [space.spec.model_dump(mode="json", include={"base", "space"}), options.resolution]
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
    return Profile(conditions, digest, options.seed, (), environment(options.device))


def _draws(space: Space, options: argparse.Namespace, stream: int) -> Any:
    def draw(index: int, candidate: int) -> tuple[HRViTConfig, Size]:
        rng = np.random.default_rng([options.seed, stream, index, candidate])
        return space.config(space.random(rng)), options.resolution[(index + candidate) % len(options.resolution)]

    return draw


def _networks_to_check(options: argparse.Namespace) -> Iterator[tuple[HRViTConfig, Size]]:
    if options.study is not None and options.search is not None:
        raise ConfigError("--search and --study exclude each other; give one of them")
    if options.study is not None:
        results = load_results(options.study)
        known = [results.configs.get(variant) for variant in results.table["variant"]]
        ours = [fields for fields in known if isinstance(fields, dict) and "model" not in fields]
        # In random order, so that the first ones stand for all of them.
        for index in np.random.default_rng([options.seed, CHECK_STREAM]).permutation(len(ours))[: options.networks]:
            yield HRViTConfig.from_dict(ours[index]), results.spec.resolution
        return
    if options.search is None:
        raise ConfigError(
            "nothing to check; give --search NAME for random networks, or --study DIR for those of results"
        )
    draw = _draws(Space(load_search(find_search(options.search))), options, CHECK_STREAM)
    for index in range(options.networks):
        yield draw(index, 0)


def _read_measured(path: Path, digest: str) -> dict[str, Twice]:
    """The networks that were measured for the profile of this digest, by id and size; empty if there is no file.

    An older file has predictions and MACs, too. They are ignored, because the code that predicts may have changed.

    Raises:
        ConfigError: if the file is damaged, or of another profile.
    """
    try:
        raw = json.loads(read_bounded(path, 16 * MIB))
        if raw["profile"] != digest:
            raise ConfigError(
                f"{path} is the check of another profile; remove it to check again, or choose another file with --out"
            )
        found = {}
        for key, row in raw["networks"].items():
            measured, again = map(float, row[3:5] if len(row) == len(Checked._fields) else row)
            if not all(0 < ms < math.inf for ms in (measured, again)):
                raise ValueError(f"{key} has an invalid latency")
            found[str(key)] = Twice(measured, again)
        return found
    except FileNotFoundError:
        return {}
    except ConfigError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ConfigError(
            f"{path} can't be read; remove it to check again, or choose another file with --out"
        ) from None


def _describe(found: Profile, path: Path, console: Console) -> None:
    low, high = found.errors
    disturbed = sum(bool(network.remarks) for network in found.networks)
    if disturbed:
        console.print(
            f"{disturbed} of {len(found.networks)} measurements were disturbed by other programs; measure again on an "
            "idle machine.",
            soft_wrap=True,
        )
    console.print(
        f"{len(found.networks)} networks on {found.conditions}. The latency of networks that the fit has not seen "
        f"differs from the prediction by {100 * (low - 1):+.1f} % to {100 * (high - 1):+.1f} % (95 % interval).",
        soft_wrap=True,
    )
    console.print(f"{'profile':<12} {path}", soft_wrap=True)
