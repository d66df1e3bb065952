"""Latency predicted from the latencies of parts: ``predict(config, profile, resolution)``.

A profile holds networks that were timed by part on one device, in one form, number format and batch size. The speed of
a machine drifts, so a reference network runs in the same rounds, and all latencies are those at the reference's median.
The latency of a network is the sum over its parts, times the median ratio of whole networks to their sums. The interval
is that of networks which the fit has not seen, by cross-validation over the profile's networks.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.config.plan import Part, Size, plan
from hrvit_lab.config.text import first_problem
from hrvit_lab.files import MIB, read_bounded, write_atomically
from hrvit_lab.latency.estimate import Estimate
from hrvit_lab.latency.fit import Table, fit
from hrvit_lab.latency.units import LABELS, inside, parts_of

VERSION = 2
"""Of the parts and their order; profiles of other versions are refused."""
MAX_BYTES = 256 * MIB
FOLDS = 5
PERCENT = (2.5, 97.5)
FEWEST = FOLDS
"""Smallest number of networks in a profile that predicts."""

Positive = Annotated[float, Field(ge=1e-9, le=1e9)]
Side = Annotated[int, Field(ge=1, le=65_536)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Reference(_Section):
    """The network that runs in all rounds of a profile: its fields, and its input size in pixels."""

    config: dict[str, Any]
    resolution: tuple[Side, Side]


class Conditions(_Section):
    """The conditions of the measurements, for which a profile predicts.

    Attributes:
        hardware: the processor or GPU, from ``hrvit_lab.environment.hardware``.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        form: ``"eager"``: as trained; ``"served"``: deployed, for inference.
        reference: the network that tells how fast the device was.
        dtype, batch_size, memory_format, threads: as in ``measure_latency``.
    """

    hardware: str = Field(min_length=1, max_length=1000)
    reference: Reference
    device: str = Field("cpu", max_length=20)
    form: Literal["eager", "served"] = "eager"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(1, ge=1, le=65_536)
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    threads: int = Field(1, ge=1, le=1024)

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else ""
        return f"{self.hardware}{threads}, {self.form}, {self.dtype}, batch {self.batch_size}"


class TimedNetwork(_Section):
    """A network that was timed by part.

    Attributes:
        config: its fields.
        resolution: input in pixels.
        whole_ms: median latency of the whole network.
        parts_ms: latency of one call of every part, in the order of `parts_of`.
        reference_ms: median latency of the reference in the same rounds.
        control: the ratio of the whole network to itself in the same rounds: value, low, high.
        remarks: what disturbed the measurement.
    """

    config: dict[str, Any]
    resolution: tuple[Side, Side]
    whole_ms: Positive
    parts_ms: tuple[Annotated[float, Field(ge=0, le=1e9)], ...] = Field(max_length=10_000)
    reference_ms: Annotated[float, Field(ge=1e-6, le=1e9)]
    control: tuple[Positive, Positive, Positive]
    remarks: tuple[str, ...] = ()

    def at_speed(self, reference_ms: float) -> "TimedNetwork":
        """The same on a device that takes this time for the reference."""
        ratio = reference_ms / self.reference_ms
        return self.model_copy(
            update={
                "whole_ms": self.whole_ms * ratio, "reference_ms": reference_ms,
                "parts_ms": tuple(ms * ratio for ms in self.parts_ms),
            }
        )  # fmt: skip


class _File(_Section):
    version: Literal[2]
    conditions: Conditions
    space: str = Field(max_length=200)
    seed: int
    networks: tuple[TimedNetwork, ...] = Field(max_length=100_000)
    environment: dict[str, Any] = {}


@dataclass(frozen=True)
class Profile:
    """Timed networks of one device.

    Attributes:
        space: digest of the space and resolutions that they are drawn from.
        seed: of the draws.
        environment: of the first measurement: versions, machine, commit.
    """

    conditions: Conditions
    space: str
    seed: int
    networks: tuple[TimedNetwork, ...]
    environment: Mapping[str, Any]

    @cached_property
    def reference_ms(self) -> float:
        """Median latency of the reference: the speed for which the profile predicts."""
        return float(np.median([network.reference_ms for network in self.networks]))

    @cached_property
    def at_one_speed(self) -> tuple[TimedNetwork, ...]:
        """The networks at the median speed of the device."""
        return tuple(network.at_speed(self.reference_ms) for network in self.networks)

    @cached_property
    def table(self) -> Table:
        """The latencies of parts."""
        return fit(timed_parts(self.at_one_speed))

    @cached_property
    def whole_by_sum(self) -> float:
        """Median over networks of the whole latency divided by the sum over parts."""
        return _whole_by_sum(self.at_one_speed)

    @cached_property
    def errors(self) -> tuple[float, float]:
        """The 95 % interval of measured divided by predicted latency, of networks that the fit has not seen."""
        ratios = []
        for fold in range(FOLDS):
            others = [network for index, network in enumerate(self.at_one_speed) if index % FOLDS != fold]
            table, factor = fit(timed_parts(others)), _whole_by_sum(others)
            for network in self.at_one_speed[fold::FOLDS]:
                try:
                    predicted = factor * _sum_ms(table, parts_of(_config(network), network.resolution))
                except ConfigError:
                    continue  # a part that no other network has
                ratios.append(network.whole_ms / predicted)
        low, high = np.percentile(ratios, PERCENT) if ratios else (0.0, np.inf)
        return float(low), float(high)


def predict(config: HRViTConfig, profile: Profile, resolution: int | Size, hardware: str | None = None) -> Estimate:
    """The latency of a batch in milliseconds, with the interval of 95 % of networks that were not timed.

    Args:
        resolution: input in pixels.
        hardware: the device to predict for; None: that of the profile.
    Raises:
        ConfigError: if the profile is of another device, or has no part like one of the network's.
    """
    if hardware is not None and hardware != profile.conditions.hardware:
        raise ConfigError(
            f"the profile is of {profile.conditions.hardware!r}, not of {hardware!r}; measure one there with "
            "'hrvit-lab latency profile'"
        )
    ms = profile.whole_by_sum * _sum_ms(profile.table, parts_of(config, resolution))
    low, high = profile.errors
    return Estimate(ms, ms * min(low, 1.0), ms * max(high, 1.0))


class PartLatency(NamedTuple):
    """The predicted latency of the parts of one kind in a branch of a stage.

    Attributes:
        stage: a number, ``"stem"`` or ``"head"``.
        branch: None for a part that processes all branches.
        part: its label: its kind, or what `LABELS` has for it; ``"residual"`` for the sums of blocks.
    """

    stage: int | str
    branch: int | None
    part: str
    latency_ms: float


def predict_parts(config: HRViTConfig, profile: Profile, resolution: int | Size) -> list[PartLatency]:
    """Where the predicted latency of a batch is spent; the sum is that of `predict`.

    Raises:
        ConfigError: if the profile has no part like one of the network's.
    """
    found: defaultdict[tuple[int | str, int | None, str], float] = defaultdict(float)
    for step in plan(config, resolution).steps():
        for part in inside(step.part):
            ms = profile.whole_by_sum * step.repeats * profile.table.latency_ms(part)
            found[step.stage, step.branch, LABELS.get(part.kind, part.kind)] += ms
    return [PartLatency(*place, ms) for place, ms in found.items()]


def timed_parts(networks: Sequence[TimedNetwork]) -> list[tuple[Part, float]]:
    """All timed parts with the latency of a call."""
    found: list[tuple[Part, float]] = []
    for network in networks:
        parts = [part for part, _ in parts_of(_config(network), network.resolution)]
        found += zip(parts, network.parts_ms, strict=True)
    return found


def load_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        ConfigError: one sentence with the file and the remedy.
    """
    profile = read_profile(path)
    if profile is None:
        raise ConfigError(f"profile {path} not found; measure one with 'hrvit-lab latency profile'")
    if len(profile.networks) < FEWEST:
        raise ConfigError(f"{path} has {len(profile.networks)} networks; measure at least {FEWEST}")
    return profile


def read_profile(path: Path) -> Profile | None:
    """Read a profile that may be unfinished; None if there is no file.

    Raises:
        ConfigError: if it is damaged, or of another version.
    """
    try:
        raw = json.loads(read_bounded(path, MAX_BYTES))
        if isinstance(raw, dict) and raw.get("version") != VERSION:
            raise ConfigError(f"{path} is a profile of another version; measure it again with another --out")
        file = _File.model_validate(raw)
        _check_reference(file.conditions.reference, path)
        for network in file.networks:
            _check(network, path)
    except FileNotFoundError:
        return None
    except ConfigError:
        raise
    except ValidationError as error:
        raise ConfigError(f"{path} is not a profile: {first_problem(error, _File)}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise ConfigError(f"{path} can't be read: {reason}; choose another file") from None
    return Profile(file.conditions, file.space, file.seed, file.networks, file.environment)


def _check_reference(reference: Reference, path: Path) -> None:
    """Check that the reference is a network.

    Raises:
        ConfigError: one sentence with the file and the remedy.
    """
    try:
        HRViTConfig.from_dict(reference.config).check_resolution(reference.resolution)
    except ConfigError as error:
        raise ConfigError(f"{path}: the reference is invalid ({error}); measure it again with another --out") from None


def _check(network: TimedNetwork, path: Path) -> None:
    """Check that a network of a profile has a config and a latency for each of its parts.

    Raises:
        ConfigError: one sentence with the file and the remedy.
    """
    remedy = "measure it again with another --out"
    try:
        config = _config(network)
        config.check_resolution(network.resolution)
        parts = sum(1 for _ in parts_of(config, network.resolution))
    except ConfigError as error:
        raise ConfigError(f"{path}: a network is invalid ({error}); {remedy}") from None
    if not any(network.parts_ms):
        raise ConfigError(f"{path}: no part of a network has a latency; {remedy}")
    if len(network.parts_ms) != parts:
        raise ConfigError(f"{path}: a network has another number of parts; {remedy}")


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile, replacing the file in one step."""
    file = _File(
        version=VERSION, conditions=profile.conditions, space=profile.space, seed=profile.seed,
        networks=profile.networks, environment=dict(profile.environment),
    )  # fmt: skip
    write_atomically(path, json.dumps(file.model_dump(mode="json")))


def _config(network: TimedNetwork) -> HRViTConfig:
    return HRViTConfig.from_dict(network.config)


def _sum_ms(table: Table, parts: Any) -> float:
    return sum(calls * table.latency_ms(part) for part, calls in parts)


def _whole_by_sum(networks: Sequence[TimedNetwork]) -> float:
    ratios = []
    for network in networks:
        calls = [number for _, number in parts_of(_config(network), network.resolution)]
        ratios.append(network.whole_ms / sum(n * ms for n, ms in zip(calls, network.parts_ms, strict=True)))
    return float(np.median(ratios))
