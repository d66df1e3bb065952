"""Figures: pure functions from tables to `matplotlib.figure.Figure`; labels come from `METRICS`."""

from matplotlib.figure import Figure

from hrvit_lab.charts import (
    COLORS,
    GRID,
    INK,
    MUTED,
    PAPER,
    PARTS,
    SERIES,
    TIMED_AS,
    counted,
    is_disturbed,
    pareto_front,
    part_colors,
    part_label,
    spread,
)
from hrvit_lab.plots.along import axis_curve
from hrvit_lab.plots.cost import cost_breakdown
from hrvit_lab.plots.deltas import deltas
from hrvit_lab.plots.diagram import diagram
from hrvit_lab.plots.families import error_distributions
from hrvit_lab.plots.latency import latency_comparison, throughput_by_batch
from hrvit_lab.plots.run import run_curves
from hrvit_lab.plots.study import study_figures
from hrvit_lab.plots.style import (
    MARKERS,
    MAX_BARS,
    MAX_LABELLED,
    MAX_LINES,
    MAX_PANELS,
    MAX_VECTOR,
    STYLE,
    Drawing,
    draw,
    save,
    si,
    svg_markup,
)
from hrvit_lab.plots.text import drawable, shorten
from hrvit_lab.plots.tradeoff import tradeoff
from hrvit_lab.plots.training import training_curves

__all__ = [
    "COLORS",
    "GRID",
    "INK",
    "MARKERS",
    "MAX_BARS",
    "MAX_LABELLED",
    "MAX_LINES",
    "MAX_PANELS",
    "MAX_VECTOR",
    "MUTED",
    "PAPER",
    "PARTS",
    "SERIES",
    "STYLE",
    "TIMED_AS",
    "Drawing",
    "Figure",
    "axis_curve",
    "cost_breakdown",
    "counted",
    "deltas",
    "diagram",
    "draw",
    "drawable",
    "error_distributions",
    "is_disturbed",
    "latency_comparison",
    "pareto_front",
    "part_colors",
    "part_label",
    "run_curves",
    "save",
    "shorten",
    "si",
    "spread",
    "study_figures",
    "svg_markup",
    "throughput_by_batch",
    "tradeoff",
    "training_curves",
]
