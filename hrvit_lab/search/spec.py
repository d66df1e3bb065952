"""The schema of a search file: a space of networks, objectives, constraints and a budget."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hrvit_lab.config import MAX_BRANCHES, PER_BRANCH, ConfigError, HRViTConfig, read_text, read_yaml, suggest
from hrvit_lab.config.text import first_problem, shortened
from hrvit_lab.search.objectives import OBJECTIVES
from hrvit_lab.search.predictors import PREDICTORS
from hrvit_lab.search.predictors.choice import BatchChoice
from hrvit_lab.search.trainings import PREDICTED_LATENCY, TRAINED, Trainings
from hrvit_lab.study.axes import AXES, FIELDS, check_axis
from hrvit_lab.study.requirements import IMAGE_CHANNELS
from hrvit_lab.study.spec import Bounds, Prose, Resolution, Whole

MAX_CHOICES = 1000
MAX_END = 10**9
"""Of the ends of a range."""

Choices = Annotated[list[Any], Field(min_length=1, max_length=MAX_CHOICES)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Dimension(_Section):
    """What a search may choose for one field.

    Attributes:
        choices: the values, as a list, or as a range ``{from: 16, to: 64, step: 8}``. With ``per: branch``, a list of
            lists gives each branch its own values.
        per: ``network``: one value for all branches; ``branch``: a value for every branch; ``place``: a value for every
            stage and branch (depths only).
        when: the dimension is free only if other dimensions have one of these values; else the base's value is used.
    """

    choices: Choices
    per: Literal["network", "branch", "place"] = "network"
    when: dict[str, Choices] = Field(default_factory=dict, max_length=5)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """A list is short for ``{choices: list}``."""
        return {"choices": value} if isinstance(value, list) else value

    @field_validator("choices", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        ends = [value.get(key) for key in ("from", "to", "step")]
        numbers = [end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
        complete = set(value) == {"from", "to", "step"} and len(numbers) == 3
        if not complete or numbers[2] <= 0 or not -MAX_END <= numbers[0] <= numbers[1] <= MAX_END:
            raise ValueError(
                f"{shortened(dict(value))} is not a range; write {{from: 16, to: 64, step: 8}}, with ends of at most "
                f"{MAX_END:,}"
            )
        low, high, step = numbers
        if step > high - low:
            return [low]
        steps = (high - low) / step + 1e-9  # infinite for a tiny step
        if steps >= MAX_CHOICES:
            raise ValueError(f"{shortened(dict(value))} has too many values; use at most {MAX_CHOICES:,}")
        return [low + index * step for index in range(int(steps) + 1)]

    def of_branch(self, branch: int) -> list[Any]:
        """The values for one branch."""
        own = self.per == "branch" and isinstance(self.choices[0], list)
        return list(self.choices[branch]) if own else self.choices


class Budget(_Section):
    """How long a search runs.

    Attributes:
        evaluations: networks that each run evaluates, rounded up to whole generations.
        population: networks in a generation.
        seeds: one run of each method for every seed.
    """

    evaluations: Whole = Field(10_000, ge=10, le=10_000_000)
    population: Whole = Field(100, ge=4, le=10_000)
    seeds: tuple[Annotated[Whole, Field(ge=0, lt=2**32)], ...] = Field((0, 1, 2, 3, 4), min_length=1, max_length=100)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.population > self.evaluations:
            raise ValueError(
                f"population = {self.population} is more than evaluations = {self.evaluations}; lower population"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed occurs twice in seeds; use each once")
        return self


class SearchSpec(_Section):
    """A search: what may vary, what is better, and how long to look.

    Attributes:
        base: the config to start from: a preset's name, or ``{preset: NAME, field: value, …}``. Fields that are not in
            ``space`` keep its values.
        space: what may vary, by field or derived axis (``branches``, ``depth_scale``, ``width_scale``).
        objectives: the quantities to improve, each ``lower`` or ``higher``: costs and predictors of accuracy.
        constraints: bounds on quantities. Networks outside them are never in the result.
        predictors: the images with which predictors score networks.
        profile: file of ``hrvit-lab latency profile``, for ``predicted_latency_ms``.
        trainings: of networks, for an objective such as ``top1``; None: nothing is trained.
        resolution: input in pixels.
        budget: see `Budget`.
    """

    title: Prose = Field(min_length=1, max_length=200)
    question: Prose = Field(min_length=1, max_length=4000)
    base: dict[str, Any]
    space: dict[str, Dimension] = Field(min_length=1, max_length=40)
    objectives: dict[str, Literal["lower", "higher"]] = Field(min_length=2, max_length=4)
    constraints: dict[str, Bounds] = Field(default_factory=dict, max_length=10)
    predictors: BatchChoice = BatchChoice()
    profile: Prose | None = Field(None, min_length=1, max_length=1000)
    trainings: Trainings | None = None
    resolution: Resolution = (224, 224)
    budget: Budget = Budget()

    @field_validator("resolution", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @field_validator("base", mode="before")
    @classmethod
    def _named(cls, base: Any) -> Any:
        return {"preset": base} if isinstance(base, str) else base

    @field_validator("base")
    @classmethod
    def _valid(cls, base: dict[str, Any]) -> dict[str, Any]:
        HRViTConfig.from_dict(base)
        return base

    @field_validator("objectives", "constraints")
    @classmethod
    def _known(cls, named: dict[str, Any]) -> dict[str, Any]:
        for key in named:
            if key not in OBJECTIVES:
                raise ValueError(f"unknown objective {key!r}; {suggest(key, OBJECTIVES)}")
        return named

    @model_validator(mode="after")
    def _profile_fits(self) -> Self:
        if (PREDICTED_LATENCY in self.quantities) != (self.profile is not None):
            missing = "profile: DEVICE.json" if self.profile is None else f"{PREDICTED_LATENCY} to the objectives"
            raise ValueError(f"{PREDICTED_LATENCY} and profile need each other; add {missing}")
        return self

    @model_validator(mode="after")
    def _trainings_fit(self) -> Self:
        if bounded := next((key for key in self.constraints if key in TRAINED), None):
            raise ValueError(f"constraints: {bounded!r} is unknown before a training; make it an objective")
        if self.trained and self.trainings is None:
            raise ValueError(f"objective {self.trained[0]!r} needs trainings; add trainings: {{networks: 40}}")
        if self.trainings is not None and not self.trained:
            raise ValueError(f"trainings: no objective needs them; add one of {', '.join(TRAINED)}, or remove it")
        return self

    @model_validator(mode="after")
    def _space_is_valid(self) -> Self:
        base = self.base_config
        for name, dimension in self.space.items():
            if name not in (*AXES, *FIELDS):
                raise ValueError(f"space: unknown field {name!r}; {suggest(name, [*AXES, *FIELDS])}")
            _check_dimension(name, dimension, base)
            for other in dimension.when:
                self._check_condition(name, other)
        base.check_resolution(self.resolution)
        if self.predicted:
            base.check_resolution(self.predictors.data.resolution)
            self._check_images(base)
        elif self.predictors != BatchChoice():
            raise ValueError("predictors: none is among objectives and constraints; add one, or remove the section")
        return self

    def _check_images(self, base: HRViTConfig) -> None:
        """Check that networks can read the images of predictors, which also set their number of classes."""
        if base.in_chans != IMAGE_CHANNELS:
            raise ValueError(
                f"base: in_chans = {base.in_chans}, but images for predictors have {IMAGE_CHANNELS} channels; use "
                f"{IMAGE_CHANNELS}"
            )
        if fixed := next((name for name in ("in_chans", "num_classes") if name in self.space), None):
            raise ValueError(f"space: {fixed} can't vary with predictors, whose images set it; remove it")

    def _check_condition(self, name: str, other: str) -> None:
        if name == "branches":
            raise ValueError("space.branches.when: the number of branches can't have a condition; remove it")
        if other == name or other not in self.space:
            raise ValueError(f"space.{name}.when: {other!r} is not another dimension of this space; name one of them")
        if self.space[other].when:
            raise ValueError(f"space.{name}.when: {other!r} has a condition itself; use one without")
        if self.space[other].per not in ("network", self.space[name].per):
            raise ValueError(
                f"space.{name}.when: {other!r} has a value per {self.space[other].per}; give {name!r} one as well"
            )
        values = [value for branch in range(MAX_BRANCHES) for value in _values_of(self.space[other], branch)]
        for value in self.space[name].when[other]:
            if value not in values:
                raise ValueError(f"space.{name}.when.{other}: {value!r} is not among its choices; use one of them")

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the objectives, then those of the constraints."""
        return tuple(dict.fromkeys((*self.objectives, *self.constraints)))

    @property
    def trained(self) -> list[str]:
        """The objectives that need trainings."""
        return [key for key in self.objectives if key in TRAINED]

    @property
    def untrained(self) -> tuple[str, ...]:
        """Names of all quantities that need no training, objectives first."""
        return tuple(key for key in self.quantities if key not in TRAINED)

    @property
    def predicted(self) -> list[str]:
        """The predictors among them, for which networks are built."""
        return [key for key in self.quantities if key in PREDICTORS]

    @property
    def base_config(self) -> HRViTConfig:
        """The config to start from."""
        return HRViTConfig.from_dict(self.base)


def _values_of(dimension: Dimension, branch: int) -> list[Any]:
    own = isinstance(dimension.choices[0], list)
    return dimension.of_branch(min(branch, len(dimension.choices) - 1)) if own else dimension.choices


def _check_dimension(name: str, dimension: Dimension, base: HRViTConfig) -> None:
    if name == "topology":
        raise ValueError("space: topology can't vary; choose a base with the topology, and search each by itself")
    if name == "stem_width" and base.topology == "pyramid":
        raise ValueError("space: stem_width can't vary in a pyramid, where it equals the first width; vary widths")
    if dimension.per == "branch" and name not in PER_BRANCH:
        raise ValueError(f"space.{name}: per: branch needs a field per branch; use {', '.join(PER_BRANCH)}")
    if (dimension.per == "place") != (name == "depths"):
        raise ValueError(f"space.{name}: per: place is for depths alone, and depths need it; change per")
    if dimension.per == "branch" and any(isinstance(choice, list) for choice in dimension.choices):
        _check_own(name, dimension, base)
    for branch in range(MAX_BRANCHES):
        values = _values_of(dimension, branch)
        if len({repr(value) for value in values}) != len(values):
            raise ValueError(f"space.{name}: a choice occurs twice; give each once")
        for value in values:
            try:
                check_axis(name, [[value]] if name == "depths" else value)
            except ConfigError as error:
                raise ValueError(
                    f"space.{error}" if str(error).startswith(name) else f"space.{name}: {error}"
                ) from None


def _check_own(name: str, dimension: Dimension, base: HRViTConfig) -> None:
    if not all(isinstance(choice, list) and choice for choice in dimension.choices):
        raise ValueError(f"space.{name}: give one list of values for all branches, or a list for every branch")
    if len(dimension.choices) < base.num_branches:
        raise ValueError(
            f"space.{name}: {len(dimension.choices)} lists for {base.num_branches} branches; give one for every branch"
        )


def load_search(path: Path) -> SearchSpec:
    """Read a search file.

    Raises:
        ConfigError: one sentence with the file, the key and the remedy.
    """
    raw = read_yaml(read_text(path, "the search file"), f"search file {path}")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping with title, question, base, space and objectives; see --help")
    return search_from(raw, str(path))


def search_from(fields: Mapping[str, Any], source: str = "the search") -> SearchSpec:
    """The search with these fields.

    Raises:
        ConfigError: one sentence with the source, the key and the remedy.
    """
    try:
        return SearchSpec.model_validate(dict(fields))
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error, SearchSpec)}") from None
