"""Figures show the values of the table: positions, spreads, fronts and sums compared with plain arithmetic; nothing
overlaps."""

import doctest
import itertools
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from PIL import Image

from hrvit_lab import plots
from hrvit_lab.metrics import METRICS
from hrvit_lab.plots import style
from hrvit_lab.plots.style import WIDTH

HOSTILE = "</text><script>alert(1)</script> $\\frac{1}{ & " + "long " * 30


def make_table(rows: int = 5, seed: int = 0) -> pd.DataFrame:
    """Artificial values in the columns of a study."""
    rng = np.random.default_rng(seed)
    macs = np.sort(rng.uniform(2e6, 9e6, rows))
    return pd.DataFrame(
        {
            "variant": [f"branches={index}" for index in range(rows)],
            "branches": range(rows),
            "params": (macs / 90).astype(int),
            "macs": macs.astype(int),
            "latency_ms": macs / 1e6 + 2,
            "latency_ms_p10": macs / 1e6 + 1.5,
            "latency_ms_p90": macs / 1e6 + 4,
            "top1": 80 + 8 * np.log10(macs / 1e6) + rng.normal(size=rows),
            "top1_std": rng.uniform(0.1, 0.6, rows),
            "top1_n": 3,
        }
    )


def make_curves(variants: list[str], epochs: int = 4, seeds: int = 3) -> pd.DataFrame:
    """Artificial training curves."""
    rng = np.random.default_rng(1)
    places = list(itertools.product(variants, range(seeds), range(epochs)))
    frame = pd.DataFrame(places, columns=["variant", "seed", "epoch"])
    for column in ("train_loss", "val_loss", "train_top1", "val_top1"):
        frame[column] = rng.uniform(0, 100, len(frame))
    return frame


def only_axes(fig: Figure) -> Axes:
    [ax] = fig.axes
    return ax


def all_text(fig: Figure) -> str:
    return " ".join(text.get_text() for text in fig.findobj(lambda artist: hasattr(artist, "get_text")))  # type: ignore[attr-defined]


def points_of(ax: Axes) -> set[tuple[float, float]]:
    """Positions of all markers, in all groups."""
    marked = [line for line in ax.lines if line.get_marker() not in ("", "None", None)]
    return {(float(x), float(y)) for line in marked for x, y in np.asarray(line.get_xydata())}


def test_a_name_in_a_figure_is_one_line() -> None:
    assert plots.shorten("a\tb\r\nc  d") == "a b c d"
    assert plots.shorten("x" * 50) == "x" * 15 + "…" + "x" * 14
    assert plots.shorten("网\x1b") == r"\u7f51\x1b"


def test_docstring_examples() -> None:
    assert doctest.testmod(style).attempted > 0
    assert doctest.testmod(style).failed == 0


@pytest.mark.parametrize("seed", range(20))
def test_pareto_front_equals_that_of_a_naive_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.integers(0, 5, (12, 2)).astype(float), columns=["macs", "top1"])  # many ties
    table.loc[rng.integers(0, 12, 2), "top1"] = np.nan
    expected = []
    for _, a in table.iterrows():
        beaten = math.isnan(a["top1"])
        for _, b in table.iterrows():
            as_good = b["macs"] <= a["macs"] and b["top1"] >= a["top1"]
            beaten |= as_good and (b["macs"] < a["macs"] or b["top1"] > a["top1"])
        expected.append(not beaten)
    assert plots.pareto_front(table, "macs", "top1").tolist() == expected


def test_tradeoff_draws_every_complete_row_at_its_values() -> None:
    table = make_table(6)
    table.loc[[1, 4], "top1"] = np.nan
    fig = plots.tradeoff(table, dataset="digits")
    complete = table.dropna(subset=["top1"])
    assert points_of(only_axes(fig)) == set(zip(complete["macs"].astype(float), complete["top1"], strict=True))
    assert (
        "2 of 6 variants are not shown, because they have no value for MACs or top-1 on digits (proxy), %."
        in all_text(fig).replace("\n", " ")
    )


def test_error_bars_show_the_spreads() -> None:
    table = make_table(4)
    ax = only_axes(plots.tradeoff(table, "latency_ms", "top1"))
    horizontal, vertical = (np.asarray(line.get_xydata(), dtype=float).reshape(4, 3, 2)[:, :2] for line in ax.lines[:2])
    assert horizontal[:, :, 0] == pytest.approx(table[["latency_ms_p10", "latency_ms_p90"]].to_numpy())
    assert horizontal[:, :, 1] == pytest.approx(table[["top1", "top1"]].to_numpy())
    ends = np.stack([table["top1"] - table["top1_std"], table["top1"] + table["top1_std"]], axis=1)
    assert vertical[:, :, 1] == pytest.approx(ends)
    assert vertical[:, :, 0] == pytest.approx(table[["latency_ms", "latency_ms"]].to_numpy())


def test_thousands_of_points_are_rasterized_in_an_svg() -> None:
    """As paths they would take megabytes; up to `MAX_VECTOR` points are drawn as paths."""
    few, many = (plots.svg_markup(plots.tradeoff(make_table(n * plots.MAX_VECTOR))) for n in (1, 4))
    assert "<image" not in few and "<image" in many
    assert len(many) < 2 * len(few)


@pytest.mark.parametrize(("factor", "scale"), [(10.0, "linear"), (10.5, "log")])
def test_x_is_logarithmic_beyond_a_factor_of_ten(factor: float, scale: str) -> None:
    table = make_table(3).assign(macs=[1e6, 2e6, factor * 1e6])
    assert only_axes(plots.tradeoff(table)).get_xscale() == scale


def test_labels_and_units_come_from_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, label, unit in (("macs", "blue things", "bt"), ("top1", "red things", "rt")):
        changed = type(METRICS[key])(key, label, unit, METRICS[key].better, METRICS[key].group, "")
        monkeypatch.setitem(METRICS, key, changed)
    ax = only_axes(plots.tradeoff(make_table()))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("blue things, bt", "red things, rt")


def label_boxes(fig: Figure) -> list[Bbox]:
    renderer = FigureCanvasAgg(fig).get_renderer()
    return [text.get_window_extent(renderer) for text in only_axes(fig).texts if isinstance(text, Annotation)]


@pytest.mark.parametrize("rows", [1, 2, 10, 25, 200])
def test_point_labels_overlap_nothing(rows: int) -> None:
    table = make_table(rows)
    fig = plots.tradeoff(table)
    boxes = label_boxes(fig)
    ax = only_axes(fig)
    assert len(boxes) >= min(rows, 3)
    for a, b in itertools.combinations(boxes, 2):
        assert not a.overlaps(b)
    pixels = ax.transData.transform(table[["macs", "top1"]].to_numpy(dtype=float))
    for box in boxes:
        assert not any(box.contains(x, y) for x, y in pixels)
        assert ax.get_window_extent().padded(3).containsx(box.x0) and ax.get_window_extent().padded(3).containsx(box.x1)


def test_names_of_crowded_points_are_placed_apart_with_lines() -> None:
    """Crossing error bars: eight networks with equal latency and accuracy, as in a study of feed-forward networks."""
    table = make_table(8).assign(
        variant=[f"a kind of network {index}" for index in range(8)],
        latency_ms=[21.1, 21.1, 22.5, 19.9, 18.8, 18.4, 22.2, 17.3],
        latency_ms_p10=[20.4, 20.4, 21.3, 18.9, 17.9, 17.8, 20.2, 16.8],
        latency_ms_p90=[23.5, 25.3, 28.3, 25.9, 22.9, 19.1, 23.6, 17.8],
        top1=[96.8, 96.3, 96.4, 96.3, 96.6, 96.3, 95.6, 96.3],
        top1_std=[0.7, 0.6, 1.2, 0.4, 2.0, 0.7, 1.0, 1.1],
    )
    fig = plots.tradeoff(table, "latency_ms", "top1")
    ax = only_axes(fig)
    assert {text.get_text() for text in ax.texts} == set(table["variant"])
    leaders = [line for line in ax.lines if line.get_color() == plots.MUTED]
    points = table[["latency_ms", "top1"]].to_numpy(dtype=float)
    boxes = label_boxes(fig)
    assert leaders
    for line in leaders:
        near, far = np.asarray(line.get_xydata())
        assert np.isclose(points, near).all(axis=1).any()
        x, y = ax.transData.transform(far)
        assert any(box.padded(2).contains(x, y) for box in boxes)


def test_with_many_points_only_those_on_the_front_are_named() -> None:
    table = make_table(200)
    named = {text.get_text() for text in only_axes(plots.tradeoff(table)).texts}
    front = set(table["variant"][plots.pareto_front(table, "macs", "top1")])
    assert named and named <= front


def test_axis_curve_connects_variants_that_differ_only_in_that_axis() -> None:
    """One at a time: the base and two changes on each axis; changes on the other axis are not connected."""
    points = [(2, 1.0), (1, 1.0), (3, 1.0), (2, 0.5), (2, 2.0)]
    table = make_table(5).assign(branches=[b for b, _ in points], width_scale=[w for _, w in points])
    ax = only_axes(plots.axis_curve(table, "branches", "top1", ["width_scale"]))
    [line] = ax.lines
    order = [1, 0, 2]
    assert line.get_xdata() == pytest.approx([1, 2, 3])
    assert line.get_ydata() == pytest.approx(table["top1"][order].to_numpy())
    band = ax.collections[0].get_paths()[0].vertices
    for index in order:  # the band's edges are one standard deviation away
        x, mean, std = table["branches"][index], table["top1"][index], table["top1_std"][index]
        edges = {round(float(y), 9) for at, y in np.asarray(band) if at == x}
        assert {round(mean - std, 9), round(mean + std, 9)} <= edges


def test_axis_curve_has_a_line_for_each_matching() -> None:
    table = pd.concat([make_table(4, seed).assign(matching=name) for seed, name in enumerate(("as is", "equal macs"))])
    ax = only_axes(plots.axis_curve(table, "branches", "top1"))
    assert {line.get_label() for line in ax.lines} == {"as is", "equal macs"}
    assert all(len(line.get_xydata()) == 4 for line in ax.lines)  # type: ignore[arg-type]


def test_axis_curve_places_words_in_order_of_appearance() -> None:
    table = make_table(3).assign(window=["7-7", "1-2", "3-3"])
    ax = only_axes(plots.axis_curve(table, "window", "top1"))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["7-7", "1-2", "3-3"]
    assert ax.lines[0].get_ydata() == pytest.approx(table["top1"].to_numpy())


def test_training_curves_show_the_mean_over_seeds() -> None:
    curves = make_curves(["a", "b"])
    fig = plots.training_curves(curves)
    for ax, name in zip(fig.axes, ("a", "b"), strict=True):
        own = curves[curves["variant"] == name]
        expected = [own[own["epoch"] == epoch]["val_top1"].sum() / 3 for epoch in range(4)]
        drawn = [line.get_ydata() for line in ax.lines if line.get_linewidth() == 2]
        assert np.asarray(drawn) == pytest.approx(np.asarray([expected]))


def test_training_curves_report_omitted_variants() -> None:
    fig = plots.training_curves(make_curves([f"v{index}" for index in range(15)], epochs=2))
    assert sum(ax.get_visible() for ax in fig.axes) == 12
    assert "The first 12 of 15 variants." in all_text(fig)


def test_deltas_draw_the_intervals_of_the_table() -> None:
    """Thin bars are the interval, thick bars a standard error; without both there is only a dot."""
    table = pd.DataFrame(
        {
            "variant": ["a", "b", "c"],
            "top1_delta": [-1.0, 2.0, 3.0],
            "top1_delta_se": [0.5, 0.25, np.nan],
            "top1_delta_low": [-3.2, 1.5, np.nan],
            "top1_delta_high": [1.2, 2.5, np.nan],
            "top1_delta_n": [3, 9, 1],
        }
    )
    thin, thick = (np.array(each.get_segments()) for each in only_axes(plots.deltas(table, "top1", "x")).collections)  # type: ignore[attr-defined]
    assert thin[:, :, 0] == pytest.approx(np.array([[-3.2, 1.2], [1.5, 2.5], [3, 3]]))
    assert thick[:, :, 0] == pytest.approx(np.array([[-1.5, -0.5], [1.75, 2.25], [3, 3]]))


def test_cost_breakdown_stacks_to_the_totals() -> None:
    costs = pd.DataFrame({"ffn": [3e6, 1e6], "head": [2e6, 5e6], "norm": [0, 0]}, index=["a", "b"])
    ax = only_axes(plots.cost_breakdown(costs))
    ends: dict[float, float] = {}
    for bar in ax.patches:
        y = round(bar.get_y(), 6)  # type: ignore[attr-defined]
        assert bar.get_x() == pytest.approx(ends.get(y, 0))  # type: ignore[attr-defined]
        ends[y] = bar.get_x() + bar.get_width()  # type: ignore[attr-defined]
    assert list(ends.values()) == pytest.approx([5e6, 6e6])
    assert len(ax.patches) == 4  # a part without cost is not drawn
    assert "FFN" in all_text(ax.figure)  # type: ignore[arg-type]


def test_parts_keep_their_colors() -> None:
    every = plots.part_colors(plots.PARTS)
    assert len(set(every.values())) == len(plots.PARTS)
    assert plots.part_colors(["head", "ffn"]) == {"ffn": every["ffn"], "head": every["head"]}
    assert plots.part_colors(["something new"]) == {"something new": plots.MUTED}


@pytest.mark.parametrize(
    ("study", "x"),
    [
        ("heterogeneous_branches", "latency_ms"),
        ("heterogeneous_branches", "params"),
        ("baselines", "macs"),
        ("baselines", "latency_ms"),
    ],
)
def test_every_name_is_closest_to_its_own_point_or_has_a_line(study: str, x: str) -> None:
    """On measured tables with crowded points: a name is closest to its own point, or a line connects them."""
    table = pd.read_csv(Path(__file__).parents[1] / "studies" / "measured" / study / "table.csv")
    ax = only_axes(plots.tradeoff(table, x, "top1"))
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    assert {text.get_text() for text in ax.texts} == set(map(plots.shorten, table["variant"]))
    points = ax.transData.transform(table[[x, "top1"]].to_numpy())
    lines = [line.get_xydata() for line in ax.lines if line.get_linewidth() == 0.6]
    led_to = {tuple(np.round(np.asarray(line)[0], 3)) for line in lines}
    for text in ax.texts:
        box = text.get_window_extent()
        gaps = np.hypot(*(points - points.clip(box.min, box.max)).T)
        own = list(map(plots.shorten, table["variant"])).index(text.get_text())
        assert gaps.argmin() == own or tuple(np.round(table[[x, "top1"]].to_numpy()[own], 3)) in led_to, text


def test_a_network_with_two_rows_is_named_once() -> None:
    table = pd.read_csv(Path(__file__).parents[1] / "studies" / "measured" / "branch_sweep" / "table.csv")
    # Apart from the other points, where there is room for names.
    table.loc[table["variant"] == "branches=3, equal macs", "top1"] = 75.0
    names = [text.get_text() for text in only_axes(plots.tradeoff(table)).texts]
    assert (names.count("branches=4"), names.count("branches=3")) == (1, 2)


def test_a_single_epoch_has_a_single_tick() -> None:
    curves = make_curves(["a", "b"])
    fig = plots.training_curves(curves[curves["epoch"] == curves["epoch"].min()])
    assert [list(ax.get_xticks()) for ax in fig.axes] == [[curves["epoch"].min()]] * 2


def test_study_figures_are_those_with_values() -> None:
    table, curves = make_table(), make_curves(["branches=0"])
    costs = pd.DataFrame({"ffn": [1e6]}, index=["branches=0"])
    assert set(plots.study_figures(table, curves, ["branches"], costs, "digits")) == {
        "top1_against_macs", "top1_against_params", "top1_against_latency_ms", "top1_along_branches",
        "macs_by_part", "training_curves",
    }  # fmt: skip
    untrained = table.assign(top1=np.nan)
    assert set(plots.study_figures(untrained, curves.iloc[:0])) == {
        "latency_ms_against_macs",
        "latency_ms_against_params",
    }
    assert plots.study_figures(table[["variant"]]) == {}


def test_the_trade_off_pair_of_a_study_is_drawn_first() -> None:
    table = make_table()
    figures = plots.study_figures(table, pair=("macs", "latency_ms"))
    assert next(iter(figures)) == "latency_ms_against_macs" and "top1_against_macs" in figures
    (line,) = [line for line in only_axes(figures["latency_ms_against_macs"]).lines if line.get_alpha() == 0.55]
    # Both metrics grow together, so only the smallest network is on the front.
    assert set(np.asarray(line.get_xdata())) == {table["macs"].min()}
    costs = pd.DataFrame({"variant": ["a", "b"], "macs": [1e6, 2e6], "activations": [2e4, 1e4]})
    assert list(plots.study_figures(costs)) == []
    assert list(plots.study_figures(costs, pair=("macs", "activations"))) == ["activations_against_macs"]


@pytest.mark.parametrize("rows", [0, 1, 200])
def test_every_figure_is_drawn_for_any_size_and_hostile_names(rows: int, tmp_path: Path) -> None:
    table = make_table(rows)
    table["variant"] = [f"{HOSTILE} {index}" for index in range(rows)]
    table["matching"] = [("as is", HOSTILE)[index % 2] for index in range(rows)]
    figures = plots.study_figures(table, make_curves(list(table["variant"][:15])), ["branches"])
    figures["empty"] = plots.tradeoff(table.assign(top1=np.nan))
    for name, figure in figures.items():
        markup = plots.svg_markup(figure)
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(markup).iter()}
        assert "script" not in tags, name
        assert "text" in tags, name  # text is kept as text
    assert "No values to show." in all_text(figures["empty"])


def test_save_writes_equal_bytes_each_time(tmp_path: Path) -> None:
    written = [plots.save(plots.tradeoff(make_table(5)), tmp_path / run / "figure.of") for run in ("a", "b")]
    assert [path.name for path in written[0]] == ["figure.of.png", "figure.of.svg"]
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes()
    with Image.open(written[0][0]) as image:
        assert image.width == round(WIDTH * 200)
    assert "date" not in written[0][1].read_text(encoding="utf-8").lower()


def luminance(color: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("name", "least"), [("ink", 7.0), ("muted", 4.5)])
def test_text_has_contrast(name: str, least: float) -> None:
    assert (luminance(plots.PAPER) + 0.05) / (luminance(plots.COLORS[name]) + 0.05) >= least


def test_drawing_changes_no_global_state() -> None:
    before = {key: matplotlib.rcParams[key] for key in plots.STYLE}
    plots.svg_markup(plots.tradeoff(make_table()))
    assert {key: matplotlib.rcParams[key] for key in plots.STYLE} == before != plots.STYLE
