"""The ``recipe`` section of a study: train by a recipe's engine instead of the short training."""

from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hrvit_lab.config import ConfigError, suggest
from hrvit_lab.train.recipe import SECTIONS, AnyRecipe, list_recipes, load_recipe

NOT_CHANGED = ("model", "run")
"""Sections of a recipe that a study does not change: its variants are the models, and it runs the trainings itself."""
OF_NETWORKS = {
    "regularisation.drop_path": "drop_path_rate",
    "regularisation.head_drop": "drop_rate",
    "precision.gradient_checkpointing": "grad_checkpointing",
}
"""Settings of recipes that are fields of a study's networks."""

Changes = dict[str, Any]


class RecipeChoice(BaseModel):
    """A shipped recipe with changes to its settings, section by section as in a recipe's file.

    Attributes:
        name: of the recipe, from ``hrvit-lab train list``.
        root: folder with the files of the data set; None: the usual folder.
        threads: CPU threads of a process; results can differ between numbers of threads.
        processes: processes of a training, on one host; each has a share of every batch, and on GPUs one of its own.
            Results can differ between numbers of processes.
        others: changed settings of that section.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: str | None = None
    threads: int = Field(1, ge=1, le=1024)
    processes: int = Field(1, ge=1, le=64)
    data: Changes = Field(default_factory=dict, max_length=20)
    optimiser: Changes = Field(default_factory=dict, max_length=20)
    schedule: Changes = Field(default_factory=dict, max_length=20)
    augmentation: Changes = Field(default_factory=dict, max_length=20)
    regularisation: Changes = Field(default_factory=dict, max_length=20)
    precision: Changes = Field(default_factory=dict, max_length=20)
    evaluation: Changes = Field(default_factory=dict, max_length=20)

    @field_validator("name")
    @classmethod
    def _shipped(cls, name: str) -> str:
        if name not in list_recipes():
            raise ValueError(f"unknown recipe {name!r:.80}; {suggest(name, list_recipes())}")
        return name

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            recipe = self.recipe
            recipe.accumulation(self.processes)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("the command line: ")) from None
        if recipe.run.loop != "engine":
            raise ValueError(f"{self.name} is the short training itself; remove recipe, and use data and train")
        for setting, field in OF_NETWORKS.items():
            if value := recipe.settings[setting]:
                raise ValueError(
                    f"{setting} = {value} is a property of networks here; set it to 0, and {field} in base"
                )
        return self

    @cached_property
    def recipe(self) -> AnyRecipe:
        """The recipe with the changes; images are read in the process of the training."""
        changes = [
            (f"{section}.{setting}", value)
            for section in SECTIONS
            if section not in NOT_CHANGED
            for setting, value in getattr(self, section).items()
        ]
        return load_recipe(self.name, None, [*changes, ("run.workers", 0), ("run.threads", self.threads)])

    @property
    def length(self) -> str:
        """``12 epochs`` or ``300 steps of 16 images``, and the number of processes if they are several."""
        schedule = self.recipe.schedule
        processes = f" by {self.processes} processes" if self.processes > 1 else ""
        if schedule.epochs is not None:
            return f"{schedule.epochs} epoch{'s' * (schedule.epochs > 1)}{processes}"
        return f"{schedule.iterations:,} steps of {self.recipe.data.global_batch_size} images{processes}"


def conditions(recipe: AnyRecipe, processes: int = 1) -> dict[str, Any]:
    """The settings on which a training's values depend, in plain JSON."""
    fields = recipe.model_dump(mode="json", include={"task", *SECTIONS} - set(NOT_CHANGED))
    fields |= {"threads": recipe.run.threads, "initialisation": recipe.model.initialisation}
    return fields | ({"processes": processes} if processes > 1 else {})
