"""Accuracy by a short training on a small data set: a proxy, comparable only with itself."""

from typing import Any

from hrvit_lab.measure.probes import ProbeInput, build_seeded
from hrvit_lab.train import TrainOptions, fit, load_dataset


def accuracy_probe(asked: ProbeInput) -> dict[str, Any]:
    """Train from scratch with as many classes as the data has; figures of the last epoch, and the curves."""
    options = TrainOptions(**asked.train)
    where = dict(asked.data)
    data = load_dataset(where.pop("name"), **where, train_limit=options.train_limit)
    config = asked.config.replace(num_classes=data.num_classes)
    model = build_seeded(config, asked.seed, data.resolution).to(asked.device)
    result = fit(model, data, options, asked.seed)
    return {
        "top1": result.top1,
        "train_loss": result.curves[-1]["train_loss"],
        "val_loss": result.val_loss,
        "train_seconds": result.seconds,
        "curves": result.curves,
    }
