"""Recipes: all settings of a training in one file, each with its source. This module does not import torch.

``load_recipe("imagenet_hrvit")`` reads a shipped recipe of ``hrvit_lab/train/recipes``, ``load_recipe("mine.yaml")`` a
file. The training code uses a validated, frozen `ClassificationRecipe` or `SegmentationRecipe`.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from hrvit_lab import cli
from hrvit_lab.config import (
    ConfigError,
    HRViTConfig,
    own_name,
    read_config,
    read_text,
    read_yaml,
    shipped,
    suggest,
    write_yaml,
)
from hrvit_lab.config.settings import assign
from hrvit_lab.config.text import first_problem
from hrvit_lab.parts import HEAD
from hrvit_lab.train.recipe_sections import (
    TIMM,
    ClassificationAugmentation,
    ClassificationEvaluation,
    Data,
    Model,
    Optimiser,
    Precision,
    Regularisation,
    Run,
    Schedule,
    Section,
    SegmentationAugmentation,
    SegmentationEvaluation,
    SegmentationRegularisation,
)

RECIPES = Path(__file__).parent / "recipes"
SUFFIXES = (".yaml", ".yml")
SECTIONS = (
    "data", "model", "optimiser", "schedule", "augmentation", "regularisation", "precision", "evaluation", "run",
)  # fmt: skip
OWN_KEYS = ("title", "task", "data", "optimiser", "schedule")
"""Keys that recipes have and configs of networks do not."""
Source = Literal["paper", "release", "ours"]
"""The source of a setting: the text of arXiv 2111.01236, its authors' release, or this lab."""
Note = Annotated[str, Field(min_length=1, max_length=1000)]
Changes = dict[str, dict[str, Any]]


class Recipe(Section):
    """The common settings of recipes of all tasks.

    Attributes:
        title: one line for lists.
        per_model: further models in the sources, with the settings that differ for each: ``{model: {section: {setting:
            value}}}``. `load_recipe` applies those of the selected model and empties this field.
        sources: of each setting, by ``section`` or ``section.setting``; the longer key takes precedence.
        notes: remarks for users.
    """

    title: Annotated[str, Field(min_length=1, max_length=100)]
    task: str
    data: Data
    model: Model
    optimiser: Optimiser
    schedule: Schedule
    regularisation: Regularisation = Regularisation()
    precision: Precision = Precision()
    run: Run = Run()
    per_model: Annotated[dict[str, Changes], Field(max_length=50)] = Field(default_factory=dict)
    sources: Annotated[dict[str, Source], Field(max_length=200)] = Field(default_factory=dict)
    notes: Annotated[tuple[Note, ...], Field(max_length=30)] = ()

    @field_validator("title", "notes")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        for text in (value,) if isinstance(value, str) else value:
            if cli.printable(text) != text:
                raise ValueError(f"{cli.printable(text)[:60]!r} contains a control character; remove it")
        return value

    @field_validator("per_model")
    @classmethod
    def _in_sections(cls, per_model: dict[str, Changes]) -> dict[str, Changes]:
        for model, changes in per_model.items():
            for section in changes:
                if section not in SECTIONS:
                    raise ValueError(f"{model}: unknown section {section!r:.80}; {suggest(section, SECTIONS)}")
        return per_model

    @field_validator("sources")
    @classmethod
    def _sources_of_settings(cls, sources: dict[str, Source]) -> dict[str, Source]:
        known = [*SECTIONS, *settings_of(cls)]
        for key in sources:
            if key not in known:
                raise ValueError(f"unknown setting {key!r:.80}; {suggest(key, known)}")
        return sources

    @model_validator(mode="after")
    def _normalised_by(self) -> Self:
        if self.run.loop == "engine" and self.data.mean is None:
            raise ValueError("data.mean and data.std are null, which only run.loop proxy supports; give three numbers")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, ``section.setting`` → value."""
        return {key: _value(self, key) for key in settings_of(type(self))}

    def source(self, setting: str) -> Source | None:
        """The source of a setting; None if the file does not give it."""
        return self.sources.get(setting, self.sources.get(setting.partition(".")[0]))

    def accumulation(self, processes: int) -> int:
        """Number of passes of each process whose gradients are accumulated, to reach the global batch size.

        Raises:
            ConfigError: if the global batch size is not divisible.
        """
        images, batch = self.data.batch_size_per_process * processes, self.data.global_batch_size
        if batch % images:
            raise ConfigError(
                f"data.global_batch_size = {batch} is not a multiple of {processes} processes × "
                f"{self.data.batch_size_per_process} images; change data.batch_size_per_process (-b), or "
                "data.global_batch_size and with it the learning rate"
            )
        return batch // images

    def network(self, num_classes: int) -> HRViTConfig:
        """The config of the network; not for timm models.

        Raises:
            ConfigError: for an unknown or invalid field.
        """
        fields = {
            "num_classes": num_classes,
            "drop_path_rate": self.regularisation.drop_path,
            "drop_rate": self.regularisation.head_drop,
            "grad_checkpointing": self.precision.gradient_checkpointing,
        } | ({} if self.model.head is None else {"head": self.model.head})
        if twice := sorted(fields.keys() & self.model.changes.keys()):
            raise ConfigError(f"model.changes: {twice[0]} has its own setting; remove it from model.changes")
        return read_config(self.model.name).replace(**fields, **self.model.changes)

    def to_yaml(self) -> str:
        """YAML text with every setting; `load_recipe` reads an equal recipe from it."""
        return write_yaml(self.model_dump(mode="json"), width=110)


class ClassificationRecipe(Recipe):
    """A recipe for image classification."""

    task: Literal["classification"] = "classification"
    augmentation: ClassificationAugmentation = ClassificationAugmentation()
    evaluation: ClassificationEvaluation = ClassificationEvaluation()


class SegmentationRecipe(Recipe):
    """A recipe for semantic segmentation."""

    task: Literal["segmentation"] = "segmentation"
    augmentation: SegmentationAugmentation = SegmentationAugmentation()
    regularisation: SegmentationRegularisation = SegmentationRegularisation()
    evaluation: SegmentationEvaluation = SegmentationEvaluation()


TASKS: dict[str, type[ClassificationRecipe] | type[SegmentationRecipe]] = {
    "classification": ClassificationRecipe,
    "segmentation": SegmentationRecipe,
}
AnyRecipe = ClassificationRecipe | SegmentationRecipe


def settings_of(schema: type[Recipe]) -> list[str]:
    """All ``section.setting`` names of recipes of a task, in order."""
    found = []
    for section in SECTIONS:
        annotation: Any = schema.model_fields[section].annotation
        found += [f"{section}.{name}" for name in annotation.model_fields]
    return found


def list_recipes() -> dict[str, Path]:
    """The shipped recipes by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file of a shipped recipe, or the path itself if it ends in .yaml or .yml.

    Raises:
        ConfigError: if there is no such recipe; suggests similar names.
    """
    if name.endswith(SUFFIXES):
        return Path(name)
    known = list_recipes()
    if name not in known:
        raise ConfigError(f"unknown recipe {name!r:.80}; {suggest(name, known)}")
    return known[name]


def read_recipe(path: Path) -> AnyRecipe:
    """Read a recipe file, with ``per_model``; it is validated for each of these models.

    Raises:
        ConfigError: one sentence with the file, the key and the remedy.
    """
    return _checked(_read(path), path)


def load_recipe(name: str, model: str | None = None, settings: Sequence[tuple[str, Any]] = ()) -> AnyRecipe:
    """Load a shipped recipe or a file for a model, changed by ``(section.setting, value)`` pairs.

    Args:
        name: of a shipped recipe, or a path that ends in .yaml or .yml.
        model: replaces the recipe's ``model.name``; its entry of ``per_model`` is applied before the settings. A
            trained network of this package has the entry of its preset.
    Raises:
        ConfigError: one sentence with the file (or the setting), the key and the remedy.
    """
    path = find_recipe(name)
    raw = _read(path)
    recipe = _checked(raw, path)
    chosen = recipe.model.name if model is None else own_name(model)
    if chosen != recipe.model.name and _architecture(chosen) not in recipe.per_model:
        settings = [("model.name", chosen), *settings]
    elif recipe.per_model:
        recipe = recipe_from(_for_model(raw, chosen), str(path))
    return changed(recipe, settings) if settings else recipe


def recipe_of_run(folder: Path, settings: Sequence[tuple[str, Any]] = ()) -> AnyRecipe:
    """The recipe in the folder of a training, changed by settings. The network is the folder's ``config.yaml``.

    So a folder can be moved and does not depend on other files.

    Raises:
        ConfigError: as `load_recipe`.
    """
    path = folder / "recipe.yaml"
    raw = _read(path)
    if (folder / "config.yaml").exists() and isinstance(raw.get("model"), dict):
        raw["model"] = {"name": str(folder / "config.yaml")}
    recipe = recipe_from(raw, str(path))
    return changed(recipe, settings) if settings else recipe


def changed(recipe: AnyRecipe, settings: Sequence[tuple[str, Any]]) -> AnyRecipe:
    """The recipe with ``(section.setting, value)`` pairs changed; the last pair of a setting takes precedence.

    Changed settings have the source "ours".

    Raises:
        ConfigError: one sentence with the setting, its value and the remedy.
    """
    raw = recipe.model_dump(mode="json") | {"per_model": {}}
    for key, value in settings:
        assign(raw, key, value)
    found = recipe_from(raw, "the command line")
    known = recipe.settings
    ours: dict[str, Source] = {key: "ours" for key, value in found.settings.items() if value != known.get(key, value)}
    return found.model_copy(update={"sources": recipe.sources | ours}) if recipe.sources else found


def recipe_from(fields: Mapping[str, Any], source: str) -> AnyRecipe:
    """Validate a mapping of sections.

    Raises:
        ConfigError: one sentence that starts with the source.
    """
    task = fields.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise ConfigError(f"{source}: task = {task!r:.80}: use {' or '.join(TASKS)}")
    try:
        recipe = TASKS[task].model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error, TASKS[task])}") from None
    if not recipe.model.name.startswith(TIMM):
        _check_network(recipe, source)
    elif (recipe.model.head is None) != (recipe.task == "classification"):
        raise ConfigError(
            f"{source}: model.head = {recipe.model.head!r}: for {recipe.task} with a timm model, use "
            f"{'null' if recipe.task == 'classification' else 'segformer'}"
        )
    return recipe


def _check_network(recipe: AnyRecipe, source: str) -> None:
    """Check that the network can be built and its head fits the task."""
    try:
        config = recipe.network(num_classes=2)
        for resolution in ("data.resolution_px", "evaluation.resolution_px"):
            config.check_resolution(recipe.settings.get(resolution, recipe.data.resolution_px))
    except ConfigError as error:
        raise ConfigError(f"{source}: model: {error}") from None
    whole = recipe.task == "classification"
    if not HEAD[config.head].present or HEAD[config.head].whole_image != whole:
        fitting = [name for name, head in HEAD.items() if head.present and head.whole_image == whole]
        raise ConfigError(
            f"{source}: model.head: {config.head!r} does not support {recipe.task}; use {' or '.join(fitting)}"
        )


def is_recipe(name: str) -> bool:
    """Whether the first argument of ``hrvit-lab train`` is a recipe: a shipped one, or a YAML file with such keys."""
    if not name.endswith(SUFFIXES):
        return name in list_recipes()
    try:
        raw = read_yaml(read_text(Path(name), "the file"), name)
    except ConfigError:
        return False
    return isinstance(raw, dict) and not raw.keys().isdisjoint(OWN_KEYS)


def _read(path: Path) -> dict[str, Any]:
    raw = read_yaml(read_text(path, "the recipe"), f"recipe {path}")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping with title, task and sections; see hrvit-lab train copy")
    return raw


def _checked(raw: Mapping[str, Any], path: Path) -> AnyRecipe:
    """Check the recipe for each model of ``per_model`` as well."""
    recipe = recipe_from(raw, str(path))
    for model in recipe.per_model:
        recipe_from(_for_model(raw, model), f"{path}: per_model: {model}")
    return recipe


def _for_model(raw: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The fields for a model, without ``per_model``."""
    fields = copy.deepcopy(dict(raw))
    per_model = fields.pop("per_model", None) or {}
    for section, settings in per_model.get(_architecture(model), {}).items():
        for setting, value in settings.items():
            assign(fields, f"{section}.{setting}", value)
    assign(fields, "model.name", model)
    return fields


def _architecture(model: str) -> str:
    """The preset of a trained network of this package; other names as they are."""
    return shipped()[model].architecture if model in shipped() else model


def _value(recipe: Recipe, setting: str) -> Any:
    section, _, name = setting.partition(".")
    return getattr(getattr(recipe, section), name)
