"""The section ``trainings`` of a search file: which networks are proposed, and how they are trained."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hrvit_lab.metrics import METRICS
from hrvit_lab.study.recipe_choice import RecipeChoice
from hrvit_lab.study.spec import MAX_TRIALS, DataChoice, DeviceName, Whole
from hrvit_lab.train.options import TrainOptions

PREDICTED_LATENCY = "predicted_latency_ms"
"""The objective that needs a profile."""

TRAINED = tuple(
    key for key, metric in METRICS.items() if metric.group in ("accuracy", "segmentation") and key != "train_seconds"
)
"""Objectives that need trainings."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Halving(_Section):
    """Successive halving (arXiv 1810.05934): trainings that do badly in early epochs are stopped.

    Attributes:
        first_epoch: of the first check; the next ones are at this epoch times ``factor``, ``factor``², …
        factor: a training goes on if it is among the best 1/factor of the earlier ones with costs that are not higher.
    """

    first_epoch: Whole = Field(1, ge=1, le=10_000)
    factor: Whole = Field(3, ge=2, le=100)

    def epochs(self, total: int) -> list[int]:
        """The epochs of the checks, all before the last epoch.

        >>> Halving().epochs(10)
        [1, 3, 9]
        """
        found, epoch = [], self.first_epoch
        while epoch < total:
            found.append(epoch)
            epoch *= self.factor
        return found


class Trainings(_Section):
    """How a search trains.

    Attributes:
        networks: number of networks to propose. More of them continue a search.
        sampler: of Optuna: ``tpe``, ``gp`` or ``nsga2``.
        batch: networks that are proposed together, from the outcomes of the earlier batches. They may be trained at the
            same time; the result does not depend on the number of processes.
        seed: of the sampler.
        seeds: of the trainings; objectives are means over them.
        data, train, recipe, device: of the trainings, as in a study file.
        halving: None: all trainings run to the end.
        trial_timeout_s: time limit of a training in seconds.
    """

    networks: Whole = Field(ge=4, le=10_000)
    sampler: Literal["tpe", "gp", "nsga2"] = "tpe"
    batch: Whole = Field(4, ge=1, le=1000)
    seed: Whole = Field(0, ge=0, lt=2**32)
    seeds: tuple[Annotated[Whole, Field(ge=0, lt=2**32)], ...] = Field((0,), min_length=1, max_length=100)
    data: DataChoice = DataChoice()
    train: TrainOptions = TrainOptions()
    recipe: RecipeChoice | None = None
    device: DeviceName = "cpu"
    halving: Halving | None = None
    trial_timeout_s: float = Field(1800, gt=0, le=7 * 24 * 3600)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (trials := (self.networks + 1) * len(self.seeds)) > MAX_TRIALS:
            raise ValueError(
                f"{self.networks} networks and the base with {len(self.seeds)} seeds are {trials:,} trainings; "
                f"use at most {MAX_TRIALS:,}"
            )
        if self.halving is not None and self.recipe is not None:
            raise ValueError("halving needs the short training (data and train), not a recipe; remove one of them")
        if self.halving is not None and not self.halving.epochs(self.train.epochs):
            raise ValueError(
                f"halving.first_epoch = {self.halving.first_epoch} is not before the last of {self.train.epochs} "
                "epochs; lower it"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed occurs twice in seeds; use each once")
        return self
