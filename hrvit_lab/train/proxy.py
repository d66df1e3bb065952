"""A recipe with ``run.loop: proxy`` as options of the short training. Nothing here needs torch."""

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
"""Fields of `TrainOptions` and the settings of a recipe that give them. None shifts images: ``max_shift`` is 0."""

ELSEWHERE = ("model.name", "data.name", "data.resolution_px", "run.seed")
"""Settings that are arguments of their own."""

LAST_SHARE = 0.01
"""The learning rate of the last step, as a share of the peak; see `hrvit_lab.train.loop.learning_rate`."""


def proxy_options(recipe: Recipe) -> TrainOptions:
    """The options that a recipe's settings are.

    Raises:
        ConfigError: if the recipe asks for something that the short training does not do.
    """
    if recipe.task != "classification":
        raise ConfigError(f"task = {recipe.task}: the short training (run.loop proxy) only classifies; use engine")
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
                f"{key} = {value!r:.80}: the short training (run.loop proxy) only has {expected[key]!r:.80} there; "
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
