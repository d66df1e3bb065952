"""The table of metrics: names, definitions, and formatting.

Tables, plots, app and docs read label, unit and direction from here alone.
"""

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Literal

SI_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Metric:
    """One column of the results.

    Attributes:
        key: name of the column and of the value in a trial's record; units other than counts are part of it.
        label: what an axis or a table's head says.
        unit: of the stored value, shown beside it; empty for a count, which is shown with an SI prefix.
        better: which direction is an improvement.
        group: what is measured together with it, a key of ``study.groups.GROUPS``.
        doc: one sentence of definition.
        per_seed: whether it differs between seeds: tables then show mean and spread over them.
        measured: whether it depends on the machine, so that a device and a method belong beside it.
        needs_gpu: whether it exists on a GPU only.
    """

    key: str
    label: str
    unit: str
    better: Literal["higher", "lower"]
    group: str
    doc: str
    per_seed: bool = False
    measured: bool = False
    needs_gpu: bool = False


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("params", "parameters", "", "lower", "cost", "Learned parameters, buffers left out."),
        Metric(
            "macs", "MACs", "", "lower", "cost",
            "Multiply-accumulates of convolutions, linears and both attention products for one image, none "
            "for padding; FLOPs are twice as many.",
        ),
        Metric(
            "macs_padded", "MACs, padded windows", "", "lower", "cost",
            "MACs with every attention window padded to full size, as the published release runs them.",
        ),
        Metric(
            "macs_paper", "MACs, the paper's count", "", "lower", "cost",
            "Convolutions, linears and half of the padded attention products: the FLOPs of arXiv 2111.01236.",
        ),
        Metric(
            "activations", "activations", "", "lower", "cost",
            "Elements in the outputs of convolutions, linears and attention products for one image.",
        ),
        Metric("weight_mib", "weights", "MiB", "lower", "cost", "Parameters and running statistics as float32."),
        Metric(
            "moved_mib", "moved memory", "MiB", "lower", "cost",
            "Maps and weights that convolutions, linears and fused attention read and write for one image, each once "
            "an operator, as float32: the floor of a roofline.",
        ),
        Metric(
            "latency_ms", "latency", "ms", "lower", "latency",
            "Median wall time of one batch's forward pass, warmed up until steady.", measured=True,
        ),
        Metric(
            "throughput_img_s", "throughput", "img/s", "higher", "latency",
            "Batch size divided by median latency.", measured=True,
        ),
        Metric(
            "peak_memory_mib", "peak memory", "MiB", "lower", "memory",
            "Maximum memory of weights, input and live tensors during inference.",
            measured=True,
        ),
        Metric(
            "top1", "top-1 (proxy)", "%", "higher", "accuracy",
            "Share of validation images classified correctly after a short training from scratch on a small data set.",
            per_seed=True, measured=True,
        ),
        Metric(
            "val_loss", "validation loss (proxy)", "nats", "lower", "accuracy",
            "Mean cross-entropy on the validation images after that training.", per_seed=True, measured=True,
        ),
        Metric(
            "train_seconds", "training time", "s", "lower", "accuracy",
            "Wall time of that training, validation included.", per_seed=True, measured=True,
        ),
        Metric(
            "miou", "mIoU (proxy)", "%", "higher", "segmentation",
            "Intersection over union, mean over classes, on validation images after a training by a recipe from "
            "scratch on a small data set.", per_seed=True, measured=True,
        ),
        Metric(
            "boundary_iou", "boundary IoU (proxy)", "%", "higher", "segmentation",
            "The same for the pixels near the boundaries of classes.", per_seed=True, measured=True,
        ),
    )
}  # fmt: skip
"""Every metric by its key, in the order of columns."""

SPREAD = ("min", "p10", "p90", "p99", "low", "high")
"""What may stand behind a metric's key, as in ``latency_ms_p90``: the spread of repeated runs, and the ends of the 95 %
interval of their median."""


PROXY = " (proxy)"  # how the labels of `METRICS` mark accuracy on a small data set


SCORES: Mapping[str, str] = {
    "top1": "top-1",
    "top5": "top-5",
    "miou": "mIoU",
    "aacc": "pixel accuracy",
    "macc": "mean class accuracy",
    "boundary_iou": "boundary IoU",
}
"""Names of the scores of trainings by recipes, which are in percent."""


def score_of(columns: Container[str]) -> str:
    """The score by which trained networks are compared: ``miou`` if it is among a table's columns, else ``top1``."""
    return "miou" if "miou" in columns else "top1"


def metric_label(key: str, dataset: str | None = None) -> str:
    """The metric's label without its unit; a proxy says on which data set.

    >>> metric_label("top1", "digits")
    'top-1 on digits (proxy)'
    """
    label = METRICS[key].label
    return label.replace(PROXY, f" on {dataset}{PROXY}") if dataset else label


def axis_label(key: str, dataset: str | None = None) -> str:
    """The metric's label and unit, as on an axis.

    >>> axis_label("top1", "digits"), axis_label("latency_ms")
    ('top-1 on digits (proxy), %', 'latency, ms')
    """
    unit = METRICS[key].unit
    return metric_label(key, dataset) + (f", {unit}" if unit else "")


def format_value(metric: Metric, value: float, spread: float | None = None) -> str:
    """A stored value for reading: three significant digits (percentages: one decimal) and the unit.

    Args:
        metric: what it is a value of.
        value: in the metric's unit; a missing one (NaN) gives a dash.
        spread: in the same unit, shown to the value's last digit.

    Example:
        >>> macs = Metric("macs", "MACs", "", "lower", "cost", "")
        >>> top1 = Metric("top1", "top-1 (proxy)", "%", "higher", "accuracy", "", per_seed=True)
        >>> format_value(macs, 2_775_573_440), format_value(top1, 96.4375, 0.31)
        ('2.78 G', '96.4 ± 0.3 %')
    """
    if math.isnan(value):
        return "–"
    scale, suffix = (1.0, metric.unit) if metric.unit else si_scale(value)
    decimals = 1 if metric.unit == "%" else 0 if not suffix else _decimals(value / scale)
    number = f"{value / scale:.{decimals}f}"
    if spread is not None and not math.isnan(spread):
        number += f" ± {spread / scale:.{decimals}f}"
    return f"{number} {suffix}".rstrip()


def si_scale(value: float) -> tuple[float, str]:
    """Divisor and prefix that bring a count below a thousand, as it reads when rounded to three digits.

    Example:
        >>> si_scale(13_500_000), si_scale(999_999), si_scale(12)
        ((1000000.0, 'M'), (1000000.0, 'M'), (1.0, ''))
    """
    rounded = float(f"{abs(value):.3g}")
    return next(((scale, prefix) for scale, prefix in SI_PREFIXES if rounded >= scale), (1.0, ""))


def _decimals(value: float) -> int:
    """Decimals that make three significant digits, by the size that the value has once rounded to them."""
    rounded = abs(float(f"{value:.3g}"))
    return max(0, 2 - math.floor(math.log10(rounded))) if rounded else 0
