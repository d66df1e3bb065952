"""The schema of a study file."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from hrvit_lab import cli
from hrvit_lab.config import ConfigError, preset, suggest, write_yaml
from hrvit_lab.config.text import shortened
from hrvit_lab.metrics import METRICS
from hrvit_lab.network.baselines import TIMM, NetworkConfig, network_from_dict
from hrvit_lab.published import by_key
from hrvit_lab.study.axes import STARTS, check_axis
from hrvit_lab.study.recipe_choice import RecipeChoice
from hrvit_lab.train.datasets import IN_MEMORY
from hrvit_lab.train.options import TrainOptions

MAX_TRIALS = 10_000


Whole = Annotated[int, Field(strict=True)]
"""A whole number; true is none."""


Matching = Literal["as is", "equal macs"]


AS_IS: Matching = "as is"


EQUAL_MACS: Matching = "equal macs"


Side = Annotated[int, Field(ge=4, le=4096)]


Resolution = tuple[Side, Side]


AxisValues = Annotated[list[Any], Field(min_length=1, max_length=MAX_TRIALS)]


Axes = Annotated[dict[str, AxisValues], Field(min_length=1, max_length=10)]


def _both_sides(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


def _without_control(text: str) -> str:
    """Reject control characters, except tabs and line breaks."""
    shown = cli.printable(text.replace("\t", " "))
    if shown != text.replace("\t", " "):
        raise ValueError(f"{shortened(shown)} contains a control character; remove it")
    return text


Prose = Annotated[str, AfterValidator(_without_control)]


def _known_device(device: str) -> str:
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,2})?", device):
        raise ValueError(f"{device!r} is not a device; use cpu, cuda, cuda:N or mps")
    return device


DeviceName = Annotated[str, AfterValidator(_known_device)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataChoice(_Section):
    """The training data: a name of ``IN_MEMORY``, the input resolution in pixels, and the folder of the files."""

    name: str = "digits"
    resolution: Resolution = (32, 32)
    root: str | None = None

    _square = field_validator("resolution", mode="before")(_both_sides)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in IN_MEMORY:
            raise ValueError(f"unknown data set; {suggest(name, IN_MEMORY)}")
        return name


class LatencyOptions(_Section):
    """Latency settings: arguments of ``measure_latency``."""

    batch_size: int = Field(1, ge=1, le=65_536)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    threads: int | None = Field(None, ge=1, le=1024)
    min_runs: int = Field(10, ge=3, le=100_000)
    max_runs: int = Field(200, ge=3, le=100_000)
    max_seconds: float = Field(5.0, gt=0, le=3600)
    max_warmup_seconds: float = Field(5.0, gt=0, le=3600)
    half_width: float = Field(0.01, gt=0, lt=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_runs > self.max_runs:
            raise ValueError(f"min_runs = {self.min_runs} is more than max_runs = {self.max_runs}; lower min_runs")
        return self


class Bounds(_Section):
    """Inclusive limits on a cost; None for no limit."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min:g} is more than max = {self.max:g}; lower min")
        return self

    def __str__(self) -> str:
        """``at least 1``, ``at most 5``, or both."""
        ends = (("at least", self.min), ("at most", self.max))
        return " and ".join(f"{words} {end:g}" for words, end in ends if end is not None) or "no limit"


class NamedChange(_Section):
    """One entry of ``variants``.

    Attributes:
        set: changes to the base; ``preset: NAME`` or ``model: timm:NAME`` starts from another network. With null, no
            network is built and the row has only published values.
        resolution: input in pixels for costs and latency, if different from the study's.
        published: key of a row of ``hrvit_lab.published`` to compare with.
        note: a note on the row.
    """

    name: Prose = Field(min_length=1, max_length=100)
    set: dict[str, Any] | None = Field(default_factory=dict, max_length=30)
    resolution: Resolution | None = None
    published: str | None = None
    note: Prose = Field("", max_length=500)

    _square = field_validator("resolution", mode="before")(_both_sides)

    @field_validator("published")
    @classmethod
    def _known(cls, key: str | None) -> str | None:
        if key is not None and key not in by_key():
            raise ValueError(f"no published row {key!r}; {suggest(key, by_key())}")
        return key


def _check_changes(changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if name == "model":
            network_from_dict({"model": value})
        elif name == "preset":
            preset(value)
        else:
            check_axis(name, value)


class Spec(_Section):
    """A study: a question, the networks to compare, and the metrics to measure.

    Exactly one of ``grid`` (all combinations), ``one_at_a_time`` (the base and single changes) and ``variants`` (a
    list) defines the networks.

    Attributes:
        base: ``{preset: NAME, field: value, …}``, or ``{model: timm:NAME}``; a bare name is short for either, and in
            Python a config is taken as well.
        cost_base: base of the network for costs, if it is not the trained one; the same changes are applied to it.
        compare_to: the variant to which all others are compared in table and report: costs in percent, accuracy in
            points, paired by seed.
        match: "as is", "equal macs" (widths scaled until MACs equal the base's), or both.
        constraints: bounds on costs; networks outside them are dropped and listed with the reason.
        metrics: keys of ``METRICS``.
        seeds: of trainings.
        resolution: input in pixels for costs and latency.
        recipe: of the trainings; replaces ``data`` and ``train``, which describe the short training.
        tradeoff: the two metrics (x, y) of the Pareto front and of the trade-off figure.
        trial_timeout_s: time limit of a trial in seconds.
    """

    title: Prose = Field(min_length=1, max_length=200)
    question: Prose = Field(min_length=1, max_length=4000)
    base: dict[str, Any]
    cost_base: dict[str, Any] | None = None
    grid: Axes | None = None
    one_at_a_time: Axes | None = None
    variants: Annotated[list[NamedChange], Field(min_length=1, max_length=MAX_TRIALS)] | None = None
    compare_to: str | None = None
    match: tuple[Matching, ...] = Field((AS_IS,), min_length=1, max_length=2)
    constraints: dict[str, Bounds] = Field(default_factory=dict, max_length=20)
    metrics: tuple[str, ...] = Field(("params", "macs"), min_length=1, max_length=50)
    tradeoff: tuple[str, str] | None = None
    seeds: tuple[Annotated[Whole, Field(ge=0, lt=2**32)], ...] = Field((0,), min_length=1, max_length=1000)
    resolution: Resolution = (224, 224)
    device: DeviceName = "cpu"
    data: DataChoice = DataChoice()
    train: TrainOptions = TrainOptions()
    recipe: RecipeChoice | None = None
    latency: LatencyOptions = LatencyOptions()
    trial_timeout_s: float = Field(1800, gt=0, le=7 * 24 * 3600)

    _square = field_validator("resolution", mode="before")(_both_sides)

    @field_validator("base", "cost_base", mode="before")
    @classmethod
    def _named(cls, base: Any) -> Any:
        if isinstance(base, NetworkConfig):
            return base.to_dict()
        if not isinstance(base, str):
            return base
        return {"model" if base.startswith(TIMM) else "preset": base}

    @field_validator("base", "cost_base")
    @classmethod
    def _valid_base(cls, base: dict[str, Any] | None) -> dict[str, Any] | None:
        if base is not None:
            network_from_dict(base)
        return base

    @field_validator("match", mode="before")
    @classmethod
    def _matchings(cls, match: Any) -> Any:
        """Accept ``{macs: base}`` for "equal macs", and a single matching without a list."""
        items = match if isinstance(match, list | tuple) else [match]
        return tuple(EQUAL_MACS if item == {"macs": "base"} else item for item in items)

    @field_validator("match", "metrics", "seeds")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(values))

    @field_validator("metrics", "tradeoff")
    @classmethod
    def _known_metrics(cls, keys: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for key in keys or ():
            if key not in METRICS:
                raise ValueError(f"unknown metric {key!r}; {suggest(key, METRICS)}")
        return keys

    @field_validator("constraints")
    @classmethod
    def _costs_only(cls, constraints: dict[str, Bounds]) -> dict[str, Bounds]:
        costs = [key for key, metric in METRICS.items() if metric.group == "cost"]
        for key in constraints:
            if key not in costs:
                raise ValueError(f"{key!r} is not a cost; {suggest(key, costs)}")
        return constraints

    @field_validator("grid", "one_at_a_time")
    @classmethod
    def _axes(cls, axes: dict[str, list[Any]] | None) -> dict[str, list[Any]] | None:
        for name, values in (axes or {}).items():
            for value in values:
                check_axis(name, value)
        return axes

    @field_validator("variants")
    @classmethod
    def _changes(cls, variants: list[NamedChange] | None) -> list[NamedChange] | None:
        names = Counter(variant.name for variant in variants or ())
        if twice := next((name for name, count in names.items() if count > 1), None):
            raise ValueError(f"two variants have the name {twice!r}; use unique names")
        for variant in variants or ():
            try:
                _check_changes(variant.set or {})
            except ConfigError as error:
                raise ValueError(f"{variant.name!r}: {error}") from None
        if variants and all(variant.set is None for variant in variants):
            raise ValueError("set is null in all variants, so no network is built; give set in at least one")
        return variants

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in ("grid", "one_at_a_time", "variants") if getattr(self, name)]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of grid, one_at_a_time and variants (here: {said})")
        if (trials := self.num_points * len(self.match) * len(self.seeds)) > MAX_TRIALS:
            raise ValueError(
                f"{self.num_points} variants × {len(self.match)} matchings × {len(self.seeds)} seeds are {trials} "
                f"trials, more than {MAX_TRIALS}; take fewer values"
            )
        if self.match != (AS_IS,) and (self.cost_base or any(variant.resolution for variant in self.variants or ())):
            raise ValueError(
                "match can't be combined with cost_base or with resolutions of single variants; remove one of them"
            )
        unmeasured = [key for key in self.tradeoff or () if key not in self.metrics]
        if unmeasured:
            raise ValueError(f"tradeoff: {unmeasured[0]!r} is not measured; add it to metrics, or give another metric")
        if self.tradeoff and len(set(self.tradeoff)) == 1:
            raise ValueError(f"tradeoff: {self.tradeoff[0]!r} is given twice; give two different metrics")
        if gpu := [key for key in self.metrics if METRICS[key].needs_gpu and self.device == "cpu"]:
            raise ValueError(f"metric {gpu[0]!r} needs a GPU; remove it, or use --device cuda")
        return self

    @model_validator(mode="after")
    def _task(self) -> Self:
        if self.recipe is None:
            if segments := [key for key in self.metrics if METRICS[key].group == "segmentation"]:
                raise ValueError(
                    f"metric {segments[0]!r} needs a recipe for segmentation; add recipe: {{name: composites}}"
                )
            return self
        task = self.recipe.recipe.task
        other = "segmentation" if task == "classification" else "accuracy"
        if wrong := [key for key in self.metrics if METRICS[key].group == other]:
            raise ValueError(
                f"metric {wrong[0]!r} can't be measured with recipe {self.recipe.name!r}, which is for {task}; remove "
                "the metric, or use another recipe"
            )
        return self

    def __repr__(self) -> str:
        return f"Spec({self.title!r}, {self.num_points} networks, {', '.join(self.metrics)}, {len(self.seeds)} seeds)"

    @property
    def num_points(self) -> int:
        """Number of networks before matching and constraints."""
        if self.grid:
            return math.prod(map(len, self.grid.values()))
        if self.one_at_a_time:
            return 1 + sum(map(len, self.one_at_a_time.values()))
        return len(self.variants or ())

    @property
    def task(self) -> str:
        """What networks are trained for: ``classification`` or ``segmentation``."""
        return "classification" if self.recipe is None else self.recipe.recipe.task

    @property
    def processes(self) -> int:
        """Processes of a training."""
        return 1 if self.recipe is None else self.recipe.processes

    @property
    def dataset(self) -> str:
        """Name of the training data."""
        return self.data.name if self.recipe is None else self.recipe.recipe.data.name

    @property
    def data_root(self) -> str | None:
        """Folder of its files; None: the usual one, or none."""
        return self.data.root if self.recipe is None else self.recipe.root

    @property
    def train_resolution(self) -> tuple[int, int]:
        """Input of trainings in pixels."""
        return self.data.resolution if self.recipe is None else self.recipe.recipe.data.resolution_px

    @property
    def base_config(self) -> NetworkConfig:
        """The config of the base."""
        return network_from_dict(self.base)

    @property
    def unbuilt(self) -> list[NamedChange]:
        """Entries of ``variants`` for which no network is built."""
        return [variant for variant in self.variants or () if variant.set is None]

    @property
    def axis_names(self) -> list[str]:
        """Names of the axes, in the file's order."""
        if self.variants:
            names = (name for variant in self.variants for name in variant.set or () if name not in STARTS)
            return list(dict.fromkeys(names))
        return list(self.grid or self.one_at_a_time or {})

    def resolution_of(self, variant: str) -> tuple[int, int]:
        """Input in pixels for costs and latency of that variant."""
        return self._own_resolutions.get(variant, self.resolution)

    @cached_property
    def _own_resolutions(self) -> dict[str, tuple[int, int]]:
        return {entry.name: entry.resolution for entry in self.variants or () if entry.resolution}

    @property
    def axes_of_tradeoff(self) -> tuple[str, str]:
        """The two metrics (x, y) of the trade-off."""
        scores = (key for key in self.metrics if METRICS[key].per_seed and METRICS[key].better == "higher")
        return self.tradeoff or ("macs", next(scores, "latency_ms"))

    def to_yaml(self) -> str:
        """The resolved study file, with all defaults."""
        fields = self.model_dump(mode="json")
        fields["constraints"] = {key: bounds.model_dump(exclude_none=True) for key, bounds in self.constraints.items()}
        return write_yaml(fields, width=110)
