"""What differs: the effects of a study's changes, as a table and in sentences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from hrvit_lab.config import ConfigError
from hrvit_lab.metrics import METRICS, SCORES
from hrvit_lab.study.effects import (
    POWER,
    effects,
    half_width,
    pareto_probability,
    seed_values,
    seeds_for_effect,
    seeds_for_width,
)
from hrvit_lab.study.results import Results, records_of
from hrvit_lab.study.statistics import LEVEL

MAX_VARIANTS = 100
"""Maximum number of variants with this section: the number of comparisons grows with the square of it."""
MAX_ROWS = 20
MAX_NAMED = 6
WANTED = 0.3
"""The difference, in points, for which the required number of seeds is given."""
LIKELY = 0.05
"""Networks that are on the front with a smaller probability are not named."""
INTERVAL = 3.92
"""Width of a 95 % interval of a normal distribution, in standard errors."""


class Differences(NamedTuple):
    """The effects of a study's changes.

    Attributes:
        head: heads of the columns after that of the change.
        reference: the variant with which all others are compared; None if changes on axes are compared.
        rows: the change, the mean difference with its 95 % interval, …; the smallest p-values first.
        sentences: one for each finding, then on the number of seeds and on the Pareto front.
    """

    head: tuple[str, ...]
    reference: str | None
    rows: list[tuple[str, ...]]
    sentences: list[str]


def differences(results: Results) -> Differences | None:
    """The effects of a study's changes; None if nothing was compared with at least two seeds."""
    table, score = results.table, results.score
    if len(table) > MAX_VARIANTS or f"val_{score}" not in results.curves:
        return None
    axes = [axis for axis in (*results.spec.axis_names, "matching", "resolution") if axis in table]
    reference = reference_of(results)
    try:
        found = effects(table, results.curves, axes, reference)
    except ConfigError:  # a table without the reference
        return None
    found = found[found["n"] >= 2]
    if found.empty:
        return None
    rows = records_of(found.assign(size=-found["delta"].abs()).sort_values(["p_holm", "size"], kind="stable"))
    costs = [(name, label) for name, label in (("macs", "MACs"), ("latency", "latency"))]
    costs = [(name, label) for name, label in costs if results.comparable and found[f"{name}_ratio"].notna().any()]
    values = {str(row["variant"]): row for row in records_of(table)}
    lines = [
        (
            str(row["after"])
            if reference
            else change_of(row["change"], values[row["before"]], values[row["after"]], axes),
            f"{row['delta']:+z.2f}" + ("" if math.isnan(row["low"]) else f" [{row['low']:+z.2f}, {row['high']:+z.2f}]"),
            p_text(row["p_holm"]),
            "–" if math.isnan(row["effect_size"]) else f"{row['effect_size']:+z.1f}",
            *(_ratio_text(row, name) for name, _ in costs),
        )
        for row in rows[:MAX_ROWS]
    ]
    labels = [label for _, label in costs]
    sentences = [*_findings(rows, lines, SCORES[score], labels), *_power(found), *_front(results)]
    return Differences((f"Δ {SCORES[score]}, points", "p (Holm)", "effect size", *labels), reference, lines, sentences)


def reference_of(results: Results) -> str | None:
    """The variant with which all others are compared; None if changes on axes are compared.

    It is ``compare_to``, or for variants with names the base, else the first one.
    """
    spec = results.spec
    if spec.compare_to is not None or not spec.variants:
        return spec.compare_to
    rows = records_of(results.table)
    base = spec.base_config.id
    return str(next((row["variant"] for row in rows if row["config_id"] == base), rows[0]["variant"]))


def change_of(axis: str, before: Mapping[str, Any], after: Mapping[str, Any], axes: Sequence[str]) -> str:
    """``fusion dense → sparse, branches 3``: the change, and the values on the other axes."""
    others = [other for other in axes if other != axis and not pd.isna(after[other])]
    rest = [str(after[other]) if other == "matching" else f"{other} {after[other]}" for other in others]
    return ", ".join([f"{axis} {before[axis]} → {after[axis]}", *rest]).replace("_", " ")


def p_text(p: float) -> str:
    """A p-value with one or two significant digits."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _ratio_text(row: Mapping[str, Any], name: str) -> str:
    """``× 0.89 [0.87, 0.91]``: a ratio of costs with its interval, if there is one."""
    ratio, low, high = (row.get(f"{name}_{end}", math.nan) for end in ("ratio", "low", "high"))
    return "–" if math.isnan(ratio) else f"× {ratio:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def _findings(
    rows: Sequence[Mapping[str, Any]], lines: Sequence[Sequence[str]], score: str, costs: Sequence[str]
) -> list[str]:
    """One sentence for each difference that is significant."""
    tested = sum(row["p_holm"] == row["p_holm"] for row in rows)
    certain = sum(row["p_holm"] < LEVEL for row in rows)
    if not tested:
        return ["No difference could be tested, because the differences of all seeds are equal."]
    corrected = f"Holm's correction for {tested} comparisons" if tested > 1 else "a paired t-test"
    if not certain:
        return [f"No change of {score} differs from zero at the 5 % level after {corrected}."]
    said = []
    for line in lines[: min(certain, MAX_NAMED)]:
        change, delta, p, _, *ratios = line
        at = " and ".join(f"{cost} {ratio}" for ratio, cost in zip(ratios, costs, strict=True) if ratio != "–")
        said.append(
            f"{change}: {delta} points of {score}, p {p if p.startswith('<') else f'= {p}'} "
            f"after {corrected}{f'; {at}' if at else ''}."
        )
    if certain > len(said):
        said.append(f"{certain - len(said)} more changes of {score} differ from zero.")
    return said


def _power(found: pd.DataFrame) -> list[str]:
    """The number of seeds for a difference of ``WANTED`` points, at the median spread of this study's differences."""
    std = float(found["std"].median())
    seeds = int(found["n"].max())
    if not std > 0:
        return []
    try:
        enough, narrow = seeds_for_effect(std, WANTED), seeds_for_width(std, WANTED)
    except ConfigError:
        return [
            f"More than 100,000 seeds are needed to detect a difference of {WANTED} points: the median standard "
            f"deviation of a paired difference is {std:.1f} points."
        ]
    return [
        f"{enough:,} seeds are needed to detect a difference of {WANTED} points (power {100 * POWER:.0f} %), and "
        f"{narrow:,} for an interval of ± {WANTED} points: the median standard deviation of a paired difference is "
        f"{std:.2f} points. With {seeds} seeds, an interval is ± {half_width(std, seeds):.2f} points."
    ]


def _front(results: Results) -> list[str]:
    """Probabilities of being on the Pareto front."""
    (x, y), table = results.spec.axes_of_tradeoff, results.table
    if not results.comparable or y != results.score or x not in table or METRICS[x].better != "lower":
        return []
    known = table[table[x].notna()]
    width = known.get(f"{x}_high", known[x]) - known.get(f"{x}_low", known[x])
    names = [str(name) for name in known["variant"]]
    cost = dict(zip(names, known[x].astype(float), strict=True))
    likely = pareto_probability(
        seed_values(results.curves, f"val_{y}"), cost,
        dict(zip(names, (width.fillna(0) / INTERVAL).astype(float), strict=True)), draws=2_000,
    )  # fmt: skip
    if len(likely) < 2:
        return []
    shown = sorted(((share, name) for name, share in likely.items() if share >= LIKELY), reverse=True)
    named = ", ".join(f"{name} {100 * share:.0f} %" for share, name in shown[:MAX_NAMED])
    more = f" and {len(shown) - MAX_NAMED} more" if len(shown) > MAX_NAMED else ""
    source = "the spread over seeds"
    if (width > 0).any():
        source += f" and the interval of the {METRICS[x].label}"
    return [
        f"Probability of being on the Pareto front of {METRICS[x].label} and {SCORES[y]}, from {source}: {named}{more}."
    ]
