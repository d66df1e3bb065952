"""Points of trainings: by a recipe, or the short ones of ``hrvit-lab train MODEL``."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hrvit_lab.config import ConfigError, HRViTConfig, as_size
from hrvit_lab.files import read_bounded
from hrvit_lab.metrics import SCORES
from hrvit_lab.study.point_rows import BASELINE, HRVIT, MAX_BYTES, properties, put, put_costs
from hrvit_lab.study.quantities import Quantity, of_metric, short_training


class Trained(NamedTuple):
    """What ``result.json`` says of a training.

    Attributes:
        network: its name.
        size: height and width of its images in pixels.
        scores: by quantity; only those that are known so far.
    """

    network: str
    size: tuple[int, int]
    scores: Mapping[Quantity, float]


def training_point(folder: Path, source: str, quantities: dict[str, Quantity]) -> dict[str, Any]:
    """The last scores of a training, and the costs of its network; new quantities are added to ``quantities``.

    Args:
        source: name of the training.
    Raises:
        ConfigError: if ``result.json`` is not that of a training, or its config is invalid.
        OSError: if a file cannot be read.
    """
    try:
        result = json.loads(read_bounded(folder / "result.json", MAX_BYTES))
        trained = by_recipe(result) if "recipe" in result else shortly(result)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ConfigError("result.json is not the result of hrvit-lab train") from None
    values: dict[str, Any] = {}
    config = None
    if (folder / "config.yaml").exists():
        config = HRViTConfig.from_yaml(read_bounded(folder / "config.yaml", MAX_BYTES).decode("utf-8", "replace"))
        put_costs(values, quantities, config, trained.size)
    for quantity, value in trained.scores.items():
        if math.isfinite(value):
            put(values, quantities, quantity, value)
    fields = config.to_dict() if config is not None else None
    return {
        "name": trained.network, "source": source, "kind": BASELINE if config is None else HRVIT,
        "config_id": config.id if config is not None else None, "config": fields, **properties(fields), **values,
    }  # fmt: skip


def by_recipe(result: Mapping[str, Any]) -> Trained:
    """The result of a training by a recipe.

    Raises:
        ValueError, KeyError, TypeError: if it is another object.
    """
    recipe, last = result["recipe"], result["last"]
    where = f"{recipe['data.name']}, {float(last['epoch']):g} epochs of a recipe"
    scores = {
        Quantity(key, SCORES[key], where, "%", "higher"): float(last[f"eval_{key}"])
        for key in SCORES
        if f"eval_{key}" in last
    }
    return Trained(str(recipe["model.name"]), _size(recipe["data.resolution_px"]), scores)


def shortly(result: Mapping[str, Any]) -> Trained:
    """The result of a short training. Its scores share a quantity with studies that train as long on the same data.

    Raises:
        ValueError, KeyError, TypeError: if it is another object.
    """
    data, options = result["data"], result["train"]
    size, done, planned = _size(data["resolution"]), int(result["epochs_done"]), int(options["epochs"])
    epochs = str(planned) if done == planned else f"{done} of {planned}"
    limit = None if options["train_limit"] is None else int(options["train_limit"])
    where = short_training(str(data["name"]), epochs, limit, size)
    scores = {
        of_metric(key, where): float(result[key]) for key in ("top1", "val_loss") if result[key] is not None
    }  # fmt: skip
    return Trained(str(result["model"]), size, scores)


def _size(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return as_size(value)
    height, width = value
    return as_size((int(height), int(width)))
