"""Quantities: metrics with the conditions under which their values were obtained.

Values are comparable only under equal conditions. For example, latencies on two machines are not comparable, nor are
MACs at two input sizes, nor a proxy's accuracy and a published accuracy. Under different conditions, a metric is
therefore several quantities.
"""

from dataclasses import dataclass
from typing import Literal

from hrvit_lab.cli import show_size
from hrvit_lab.metrics import METRICS, PROXY
from hrvit_lab.study.results import Results

UNCONDITIONAL = ("params", "weight_mib")
"""Costs that are independent of the input size."""


@dataclass(frozen=True)
class Quantity:
    """A metric with the conditions of its values.

    Attributes:
        metric: its key, as in `METRICS`; for scores of full trainings, a key of `SCORES`.
        label: name of the metric.
        conditions: device, input size, data set and so on; empty if there are none.
        unit: of the values; empty for counts.
        better: the direction of an improvement.
    """

    metric: str
    label: str
    conditions: str
    unit: str
    better: Literal["higher", "lower"]

    @property
    def key(self) -> str:
        """Its unique name in tables: ``macs [224×224]``."""
        return f"{self.metric} [{self.conditions}]" if self.conditions else self.metric

    @property
    def title(self) -> str:
        """Metric and unit, as on an axis: ``latency, ms``."""
        return self.label + (f", {self.unit}" if self.unit else "")

    def __str__(self) -> str:
        return f"{self.label} ({self.conditions})" if self.conditions else self.label


def measured(key: str, results: Results, resolution: str | None = None) -> Quantity:
    """The quantity of a metric in the results of a study.

    Args:
        key: of `METRICS`.
        resolution: input size of the row, if the rows have different ones.
    """
    metric, spec = METRICS[key], results.spec
    size = (resolution or show_size(spec.resolution)) + " px"
    match metric.group:
        case "cost":
            conditions = "" if key in UNCONDITIONAL else size
        case "latency" | "memory":
            parts = [spec.device, f"batch {spec.latency.batch_size}", spec.latency.dtype, size]
            if metric.group == "latency":
                parts += [threads(spec.latency.threads)] if spec.device == "cpu" else []
                parts.append(machine(results, metric.group))
            conditions = ", ".join(filter(None, parts))
        case _:
            conditions = ", ".join(
                filter(None, [budget(results), machine(results, "accuracy") if key == "train_seconds" else ""])
            )
    return of_metric(key, conditions)


def of_metric(key: str, conditions: str) -> Quantity:
    """The quantity of a metric of `METRICS` under conditions."""
    metric = METRICS[key]
    return Quantity(key, metric.label.removesuffix(PROXY), conditions, metric.unit, metric.better)


def budget(results: Results) -> str:
    """Data and length of a study's trainings; scores of another budget are not comparable."""
    spec, recipe = results.spec, results.spec.recipe
    if recipe is None:
        return short_training(spec.dataset, str(spec.train.epochs), spec.train.train_limit, spec.train_resolution)
    images = _images(recipe.recipe.data.train_limit)
    return f"{spec.dataset}, recipe {recipe.name}, {recipe.length}, {images}, {show_size(spec.train_resolution)} px"


def short_training(dataset: str, epochs: str, train_limit: int | None, resolution: tuple[int, int]) -> str:
    """Data and length of a short training, as in ``digits, 2 epochs of all images, 64×64 px``.

    Args:
        epochs: their number; for an unfinished training, such as ``1 of 2``.
        train_limit: at most so many training images; None for all.
    """
    word = "epoch" if epochs == "1" else "epochs"
    return f"{dataset}, {epochs} {word} of {_images(train_limit)}, {show_size(resolution)} px"


def _images(limit: int | None) -> str:
    return f"{limit:,} images" if limit else "all images"


def threads(number: int | None) -> str:
    """CPU threads of a latency; None for one of each core."""
    return f"{number} thread{'s' * (number > 1)}" if number else "one thread per core"


def machine(results: Results, group: str) -> str:
    """The hardware on which a group of metrics was measured; empty if unknown."""
    places = {
        str(each.get("hardware", ""))
        for each in results.measured_in
        if isinstance(each.get("trials"), dict) and group in each["trials"]
    }
    return places.pop().partition(" (")[0] if len(places) == 1 else "several machines" if places else ""
