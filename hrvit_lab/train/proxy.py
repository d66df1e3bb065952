"""Convert a recipe with ``run.loop: proxy`` to options of the short training. This module does not import torch."""

import math
from typing import Any

from pydantic import ValidationError

from hrvit_lab.config import ConfigError
from hrvit_lab.config.text import one_sentence
from hrvit_lab.train.options import TrainOptions
from hrvit_lab.train.recipe import Recipe, load_recipe

SETTINGS = {
    "epochs": "schedule.epochs",
    "batch_size": "data.batch_size_per_process",
    "learning_rate": "optimiser.learning_rate",
    "weight_decay": "optimiser.weight_decay",
    "warmup_epochs": "schedule.warmup_epochs",
    "label_smoothing": "regularisation.label_smoothing",
    "grad_clip_value": "optimiser.clip_gradients",
    "train_limit": "data.train_limit",
    "threads": "run.threads",
}
"""Fields of `TrainOptions` and the corresponding settings of a recipe; no setting corresponds to ``max_shift`` (0)."""

ELSEWHERE = ("model.name", "data.name", "data.resolution_px", "run.seed")
"""Settings that are passed as separate arguments."""

LAST_SHARE = 0.01
"""The learning rate of the last step, as a share of the peak; see `hrvit_lab.train.loop.learning_rate`."""


def proxy_options(recipe: Recipe) -> TrainOptions:
    """The training options of a recipe.

    Raises:
        ConfigError: if the recipe has settings that the short training does not support.
    """
    if recipe.task != "classification":
        raise ConfigError(
            f"task = {recipe.task}: the short training (run.loop proxy) supports classification only; set run.loop to "
            "engine"
        )
    settings = recipe.settings
    free = {*SETTINGS.values(), *ELSEWHERE}
    expected = {key: value for key, value in load_recipe("proxy").settings.items() if key not in free}
    expected |= {
        "data.global_batch_size": settings["data.batch_size_per_process"],
        "evaluation.resolution_px": settings["data.resolution_px"],
        "schedule.min_rate": LAST_SHARE * settings["optimiser.learning_rate"],
    }
    for key, value in settings.items():
        if key not in free and not _equal(value, expected[key]):
            raise ConfigError(
                f"{key} = {value!r:.80}: the short training (run.loop proxy) supports only {expected[key]!r:.80}; "
                "use that, or set run.loop to engine"
            )
    try:
        return TrainOptions(**{field: settings[key] for field, key in SETTINGS.items()}, max_shift=0.0)
    except ValidationError as error:
        raise ConfigError(one_sentence(error, TrainOptions.model_fields)) from None


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(value, float) and isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=1e-9)
    return bool(value == expected)
