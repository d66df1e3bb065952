"""What a measured number is called, what it means, and how it is shown to people."""

import math
from dataclasses import dataclass
from typing import Literal

SI_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Metric:
    """One column of the results.

    Attributes:
        key: name of the column and of the value in a probe's record; units other than counts are part of it.
        label: what an axis or a table's head says.
        unit: of the stored value, shown beside it; empty for a count, which is shown with an SI prefix.
        better: which direction is an improvement.
        group: the probe that yields it, a key of ``PROBES``.
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
