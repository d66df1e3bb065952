"""Distributions of the errors of families of networks."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from hrvit_lab.charts import SERIES
from hrvit_lab.metrics import metric_label
from hrvit_lab.plots.style import STYLE, WIDTH, add_frame, si
from hrvit_lab.plots.text import shorten


@matplotlib.rc_context(STYLE)
def error_distributions(
    raw: Mapping[str, NDArray[np.float64]],
    equal: Mapping[str, NDArray[np.float64]],
    title: str,
    score: str = "top1",
    dataset: str | None = None,
) -> Figure:
    """Empirical distributions of the errors of families: as they are, and beside it at equal MACs.

    Args:
        raw: by family (at most six), (n, 2): errors ascending in percent, and the share of networks up to each one.
        equal: the same with weights that make MACs equal; empty if there are none.
        title: of the figure.
        score: the error is 100 % minus this one, ``top1`` or ``miou``.
        dataset: the data set that it was measured on.
    """
    panels = {"as they are": raw, **({"at equal MACs": equal} if equal else {})}
    fig = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = fig.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (name, families) in zip(axes, panels.items(), strict=True):
        for index, (family, steps) in enumerate(families.items()):
            errors, shares = steps.T
            ax.step(
                [errors[0], *errors], [0, *shares], where="post", color=SERIES[index], lw=1.8, label=shorten(family)
            )
        ax.set_title(name if len(panels) > 1 else "", fontsize=9, pad=4)
        ax.set_xlabel(f"100 − {metric_label(score, dataset)}, %")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    axes[0].set_ylabel("share of networks")
    caption = "Share of a family's networks with at most this error; a curve further left is better."
    add_frame(fig, title, caption, axes[0])
    return fig
