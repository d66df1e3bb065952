"""The figures of a study."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hrvit_lab.metrics import METRICS, score_of
from hrvit_lab.plots.along import axis_curve
from hrvit_lab.plots.cost import cost_breakdown
from hrvit_lab.plots.tradeoff import tradeoff
from hrvit_lab.plots.training import training_curves


def study_figures(
    table: pd.DataFrame,
    curves: pd.DataFrame | None = None,
    axis_names: Sequence[str] = (),
    costs: pd.DataFrame | None = None,
    dataset: str | None = None,
    pair: tuple[str, str] | None = None,
) -> dict[str, Figure]:
    """The figures of a study by file name, as far as its table has values for them.

    Args:
        table: the study's `table.csv`, one row per variant.
        curves: the study's `curves.csv`, or None.
        axis_names: the study's axes, columns of `table`.
        costs: MACs, variants × parts, for `cost_breakdown`, or None.
        dataset: the data set that accuracy was measured on.
        pair: the two metrics (x, y) of the study's trade-off figure, in addition to the default ones.
    """

    def has(key: str) -> bool:
        return key in METRICS and key in table and bool(np.isfinite(table[key].to_numpy(dtype=float)).any())

    y = next((key for key in ("miou", "top1", "latency_ms", "params") if has(key)), None)
    figures: dict[str, Figure] = {}
    if y is None and pair is None:
        return figures
    pairs = [*([pair] if pair else ()), *((x, y) for x in ("macs", "params", "latency_ms") if y and x != y)]
    for across, up in dict.fromkeys(pairs):
        if has(across) and has(up):
            figures[f"{up}_against_{across}"] = tradeoff(table, across, up, dataset=dataset)
    for axis in axis_names:
        if y and axis in table and table[axis].nunique() > 1:
            figures[f"{y}_along_{axis}"] = axis_curve(
                table, axis, y, [name for name in axis_names if name != axis], dataset
            )
    if costs is not None and not costs.empty:
        figures["macs_by_part"] = cost_breakdown(costs)
    if curves is not None and not curves.empty:
        figures["training_curves"] = training_curves(curves, score_of(table), dataset)
    return figures
