"""Measure a profile: networks of a space, timed by part, and then those about which the profile is least certain."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hrvit_lab.config import HRViTConfig
from hrvit_lab.config.plan import Part, Size, plan
from hrvit_lab.cost.count import count
from hrvit_lab.latency.beside import relative_latency
from hrvit_lab.latency.compare import CONTROL, FEWEST_ROUNDS, Budget
from hrvit_lab.latency.models import build_measurable
from hrvit_lab.latency.parts import PartTimes, measure_parts
from hrvit_lab.latency.predict import Conditions, Profile, TimedNetwork, predict
from hrvit_lab.latency.timing import Clock
from hrvit_lab.latency.units import LABELS, inside, parts_of
from hrvit_lab.latency.workload import Workload
from hrvit_lab.latency.workload import prepare as ready
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.model import HRViT

POOL = 40
"""Random networks from which the least certain one is chosen."""
AT_RANDOM = 0.5
"""Share of the networks that are drawn at random; the others are chosen."""

CALM = math.log(1.1)
"""A measurement is kept at once if no end of its A/A control's interval is off by more than a factor of 1.1."""
ATTEMPTS = 3
"""Measurements of a network, of which the one with the calmest control is kept."""

Draw = Callable[[int, int], tuple[HRViTConfig, Size]]
"""(index, candidate) → a network and its input size in pixels; the same ones every time."""
Measure = Callable[[HRViTConfig, Size, Conditions], TimedNetwork]


def extend(profile: Profile, draw: Draw, number: int, measure: Measure, save: Callable[[Profile], object]) -> Profile:
    """Measure networks until the profile has ``number`` of them.

    Args:
        save: called with the profile after every network; measuring continues from there after an interruption.
    """
    while (index := len(profile.networks)) < number:
        config, resolution = choose(profile, draw, index, number)
        timed = _calmest(partial(measure, config, resolution, profile.conditions))
        profile = replace(profile, networks=(*profile.networks, timed))
        save(profile)
    return profile


def _calmest(measure: Callable[[], TimedNetwork]) -> TimedNetwork:
    """Measure until the A/A control is calm, at most `ATTEMPTS` times; the calmest measurement."""
    tried: list[TimedNetwork] = []
    while len(tried) < ATTEMPTS and (not tried or unrest(tried[-1]) > CALM):
        tried.append(measure())
    return min(tried, key=unrest)


def unrest(timed: TimedNetwork) -> float:
    """How far from 1 the interval of the A/A control reaches, as a logarithm."""
    _, low, high = timed.control
    return max(abs(math.log(low)), abs(math.log(high)))


def choose(profile: Profile, draw: Draw, index: int, number: int) -> tuple[HRViTConfig, Size]:
    """The network to measure next: at random, or of 40 random ones the one with the largest doubt."""
    if index < AT_RANDOM * number:
        return draw(index, 0)
    candidates = [draw(index, candidate) for candidate in range(POOL)]
    return max(candidates, key=lambda candidate: doubt(profile, *candidate))


def doubt(profile: Profile, config: HRViTConfig, resolution: Size) -> float:
    """The relative error to expect of a network: that of its parts, weighted by their latencies."""
    total = doubtful = 0.0
    for part, calls in parts_of(config, resolution):
        uncertain = profile.table.doubt(part)
        ms = calls * (profile.table.latency_ms(part) if uncertain < 1 else 1.0)
        total += ms
        doubtful += ms * uncertain
    return doubtful / total


def measure_network(
    config: HRViTConfig,
    resolution: Size,
    conditions: Conditions,
    *,
    budget: Budget | None = None,
    clock: Clock = time.perf_counter,
    prepare: Callable[[HRViT], Any] = lambda model: None,
) -> TimedNetwork:
    """Time a network by part.

    Args:
        budget: of the rounds; None: at most 4 seconds.
        prepare: called with the network and with the reference before they are timed.
    """
    model = _build(config, conditions)
    prepare(model)
    times = measure_parts(
        model, resolution, batch_size=conditions.batch_size, device=conditions.device, dtype=conditions.dtype,
        memory_format=conditions.memory_format, threads=conditions.threads, clock=clock,
        reference=_reference(conditions, prepare),
        budget=budget or Budget(half_width=0.005, min_rounds=10, max_seconds=4.0),
    )  # fmt: skip
    assert times.reference_ms is not None
    return TimedNetwork(
        config={key: value for key, value in config.to_dict().items() if key != "name"},
        resolution=resolution,
        whole_ms=times.whole_ms,
        parts_ms=tuple(by_call(config, resolution, times)),
        reference_ms=times.reference_ms,
        control=tuple(times.control),
        remarks=tuple(times.conditions.get("remarks", ())),
    )


def _build(config: HRViTConfig, conditions: Conditions) -> HRViT:
    """The network in the form of the profile, with random weights."""
    model = build_measurable(config)
    assert isinstance(model, HRViT)
    return deploy(model) if conditions.form == "served" else model


def _reference(conditions: Conditions, prepare: Callable[[HRViT], Any]) -> Workload:
    """The reference, ready to run."""
    config = HRViTConfig.from_dict(conditions.reference.config)
    return _workload(config, conditions.reference.resolution, conditions, prepare)


def _workload(
    config: HRViTConfig, resolution: Size, conditions: Conditions, prepare: Callable[[HRViT], Any]
) -> Workload:
    model = _build(config, conditions)
    prepare(model)
    return ready(
        model, resolution, batch_size=conditions.batch_size, device=conditions.device, dtype=conditions.dtype,
        memory_format=conditions.memory_format,
    )  # fmt: skip


def by_call(config: HRViTConfig, resolution: Size, times: PartTimes) -> list[float]:
    """The latency of one call of every part, in the order of `parts_of`.

    ``measure_parts`` sums over the parts of a kind in a branch and stage; calls of a sum count equally.
    """
    rows: dict[tuple[Any, ...], float] = {
        (row["stage"], None if pd.isna(row["branch"]) else row["branch"], row["part"]): row["latency_ms"] / row["calls"]
        for row in times.frame.to_dict("records")
    }
    found: list[float] = []
    for step in plan(config, resolution).steps():
        branch = None if isinstance(step.stage, str) else step.branch
        found += [rows[step.stage, branch, _label(part)] for part in inside(step.part)]
    return found


def _label(part: Part) -> str:
    return LABELS.get(part.kind, part.kind)


# -- errors of predictions ---------------------------------------------------------------------------------------------


MEAN = "profile (mean of both)"
"""Name of the quality of predictions for the mean of both measurements."""


class Twice(NamedTuple):
    """Two separate measurements of a network, the A/A control; both at the speed of a profile, by its reference in the
    same rounds."""

    measured_ms: float
    again_ms: float


class Checked(NamedTuple):
    """A network that was predicted and measured.

    Attributes:
        predicted_ms, low_ms, high_ms: from the profile.
        measured_ms, again_ms: as in `Twice`.
        macs: for a comparison with MACs alone.
    """

    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    again_ms: float
    macs: int


def measure_twice(
    profile: Profile,
    config: HRViTConfig,
    resolution: Size,
    hardware: str,
    *,
    clock: Clock = time.perf_counter,
    prepare: Callable[[HRViT], Any] = lambda model: None,
) -> Twice:
    """Measure a network that is to be predicted.

    Raises:
        ConfigError: if the profile is of other hardware, or does not support the network.
    """
    predict(config, profile, resolution, hardware)
    conditions = profile.conditions
    times = []
    for _ in range(2):
        ratio = relative_latency(
            _workload(config, resolution, conditions, prepare), _reference(conditions, prepare),
            threads=conditions.threads, budget=Budget(min_rounds=FEWEST_ROUNDS, max_seconds=2.0), clock=clock,
        )  # fmt: skip
        times.append(ratio.value * profile.reference_ms)
    return Twice(*times)


def check_network(profile: Profile, config: HRViTConfig, resolution: Size, measured: Twice) -> Checked:
    """Predict a measured network.

    Raises:
        ConfigError: if the profile does not support it.
    """
    return Checked(*predict(config, profile, resolution), *measured, count(config, resolution).macs)


@dataclass(frozen=True)
class Quality:
    """How well one quantity predicts measured latencies.

    Attributes:
        within_5, within_10: shares of networks, in percent, whose error is at most 5 and 10 % of the latency.
        rmspe: root mean square of the relative errors, in percent.
        tau: Kendall's τ of predicted and measured latencies.
    """

    within_5: float
    within_10: float
    rmspe: float
    tau: float


def quality(checked: Sequence[Checked]) -> dict[str, Quality]:
    """Of the profile; of a second measurement, whose error is the noise of both; of MACs times a constant; and of the
    profile for the mean of both measurements, which has less noise than one.

    A perfect prediction has the noise of one measurement only, so it would be closer than the second measurement. The
    constant is the median of latency divided by MACs of these networks: the best that MACs alone can do.
    """
    measured = np.array([each.measured_ms for each in checked])
    macs = np.array([each.macs for each in checked], dtype=float)
    predictions = {
        "profile": np.array([each.predicted_ms for each in checked]),
        CONTROL: np.array([each.again_ms for each in checked]),
        "MACs alone": macs * float(np.median(measured / macs)),
    }
    found = {name: _quality(predicted, measured) for name, predicted in predictions.items()}
    both = np.sqrt(measured * np.array([each.again_ms for each in checked]))
    return found | {MEAN: _quality(predictions["profile"], both)}


def covered(checked: Sequence[Checked]) -> float:
    """The share of networks, in percent, whose latency is within the predicted interval; 95 is intended."""
    return 100 * float(np.mean([each.low_ms <= each.measured_ms <= each.high_ms for each in checked]))


def _quality(predicted: Any, measured: Any) -> Quality:
    from scipy.stats import kendalltau  # imported here because it takes a second

    errors = np.abs(predicted / measured - 1)
    tau = float(kendalltau(predicted, measured).statistic)
    return Quality(
        100 * float((errors <= 0.05).mean()), 100 * float((errors <= 0.1).mean()),
        100 * float(np.sqrt((errors**2).mean())), tau,
    )  # fmt: skip
