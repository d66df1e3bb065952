"""Sentences that summarize a study's results; differences are claimed only if they are significant."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hrvit_lab.metrics import METRICS, SCORES, format_value, score_of
from hrvit_lab.study.columns import is_disturbed
from hrvit_lab.study.results import Results, records_of
from hrvit_lab.study.show import costed
from hrvit_lab.study.spec import EQUAL_MACS, Spec
from hrvit_lab.study.statistics import LEVEL
from hrvit_lab.study.tables import DISTURBED, NOT_BUILT, PARTIAL
from hrvit_lab.train.recipe import SECTIONS

MAX_NAMED = 8
"""Maximum number of variants that a sentence names."""

UNTESTED = "Differences were not tested; tests need at least two seeds and a table written by this version."


def summary(table: pd.DataFrame, dataset: str, compare_to: str | None = None) -> list[str]:
    """Summarize a study's table. Differences are claimed at the 5 % level for all comparisons of the study together."""
    rows = records_of(table)
    distinct: dict[Any, Mapping[str, Any]] = {}
    for place, row in enumerate(rows):
        distinct.setdefault(place if pd.isna(row.get("config_id")) else row["config_id"], row)
    networks = list(distinct.values())  # a network can occur twice: as is, and matched
    score = score_of(table)
    label = f"{SCORES[score]} on {dataset} (a proxy)"
    changed = [row for row in networks if not pd.isna(row.get(f"{score}_delta"))]
    if compare_to is not None and changed:
        return _delta_summary(changed, score, label, compare_to)
    trained = [row for row in networks if not pd.isna(row.get(score))]
    if not trained:
        return _agreement(table) or _cost_summary(table)
    return _ranking(sorted(trained, key=lambda row: -row[score]), score, label)


def _ranking(ranked: Sequence[Mapping[str, Any]], score: str, label: str) -> list[str]:
    """The best network, and which others are significantly worse; ``ranked`` has the best first."""
    best, *others = ranked
    if not others:
        return [f"Only {best['variant']} was trained: {_text(best, score)} {label}; there is no comparison."]
    said = [f"Highest mean {label}: {best['variant']}, {_text(best, score)}."]
    if all(math.isnan(row.get(f"{score}_below_best_p", math.nan)) for row in others):
        return [*said, UNTESTED]
    below = [row for row in others if row.get(f"{score}_below_best_p", math.nan) < LEVEL]
    tied = [row for row in ranked if row not in below]
    pairs = len(ranked) * (len(ranked) - 1) // 2
    tested = "In paired t-tests over seeds" + (f", corrected for all {pairs} pairs" if pairs > 1 else "")
    if len(tied) == 1:
        gap = f"{others[0][f'{score}_below_best']:.1f} points"
        every = f"each of the {len(others)} other networks" if len(others) > 1 else "the other network"
        said.append(
            f"{tested}, it is significantly better than {every} (5 % level). The second best, {others[0]['variant']}, "
            f"is {gap} lower."
        )
        return said
    named = f": {', '.join(str(row['variant']) for row in below[:MAX_NAMED])}" if below else ""
    more = f" and {len(below) - MAX_NAMED} more" if len(below) > MAX_NAMED else ""
    rest = len(tied) - 1
    said.append(
        f"{tested}, it is significantly better than {len(below) or 'none'} of {_counted(len(others), 'other network')} "
        f"(5 % level){named}{more}."
    )
    if below:
        differences = "Its difference to the other one is" if rest == 1 else f"Its differences to the other {rest} are"
        said.append(f"{differences} not significant.")
    cheapest = min(tied, key=lambda row: row.get("macs", math.inf))
    if cheapest.get("macs"):
        said.append(
            f"Of these {len(tied)} networks, it also has the fewest MACs: {_text(best, 'macs')}."
            if cheapest is best
            else (
                f"Of these {len(tied)} networks, {cheapest['variant']} has the fewest MACs: "
                f"{_text(cheapest, score)} at {_text(cheapest, 'macs')} MACs, "
                f"{cheapest['macs'] / best['macs']:.2f} times those of {best['variant']}."
            )
        )
    return said


def unfinished(frame: pd.DataFrame) -> str | None:
    """A sentence on the number of variants with missing trials; None if all are finished."""
    partial = int((frame["status"] == PARTIAL).sum())
    if not partial:
        return None
    are = "is" if partial == 1 else "are"
    return (
        f"{partial} of {len(frame)} variants {are} not finished, so Pareto fronts and differences are provisional. Run "
        "the study again to complete them."
    )


def notes(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Distinct notes, and distinct reasons why values are unreliable, each as (variants, text)."""
    said: dict[str, list[str]] = {}
    columns = {"note": "{}"}
    columns |= {f"{key}_{DISTURBED}": f"{metric.label} is unreliable: {{}}" for key, metric in METRICS.items()}
    for column in (name for name in columns if name in frame):
        for variant, text in zip(frame["variant"], frame[column], strict=True):
            if isinstance(text, str):
                said.setdefault(columns[column].format(text), []).append(variant)
    return [(", ".join(variants), note) for note, variants in said.items()]


def remarks(results: Results) -> list[tuple[str, str]]:
    """Everything that is missing, failed, unreliable or excluded, each as (variants, text)."""
    said = []
    for row in records_of(results.table):
        noted = row["status"] == NOT_BUILT and isinstance(row.get("note"), str)
        if row["status"] != "ok" and not noted:
            said.append((row["variant"], "not finished" if row["status"] == PARTIAL else row["status"]))
    said += notes(results.table)
    said += [(name, f"not measured: {reason}") for name, reason in results.dropped.items()]
    return said + [("files", fault) for fault in results.faults]


def protocol(spec: Spec) -> list[tuple[str, str]]:
    """The settings of the measurements, as (name, value)."""
    groups = {METRICS[key].group for key in spec.metrics}
    matched = " and ".join("at equal MACs" if matching == EQUAL_MACS else matching for matching in spec.match)
    said = [("Networks", f"{spec.num_points}, {matched}, from {_options(spec.base)}")]
    own = sorted({spec.resolution_of(entry.name) for entry in spec.variants or ()} - {spec.resolution})
    sizes = [f"{height} × {width}" for height, width in (spec.resolution, *own)]
    said.append(("Costs and latency at", f"{' and '.join(sizes)} pixels on {spec.device}"))
    if spec.cost_base is not None:
        said.append(("Costs are of", f"{costed(spec)}, with the same changes; accuracy is of the network above"))
    if spec.compare_to is not None:
        said.append(("Compared with", spec.compare_to))
    if any(METRICS[key].per_seed for key in spec.metrics):
        trained = "×".join(map(str, spec.train_resolution))
        said += [
            ("Data set", f"{spec.dataset} at {trained} pixels"),
            ("Seeds", ", ".join(map(str, spec.seeds))),
            ("Training budget", _budget(spec)),
        ]
    if groups & {"latency", "memory"}:
        said.append(("Latency settings", _options(spec.latency.model_dump(exclude_none=True))))
    if spec.constraints:
        said.append(("Constraints", _options(spec.constraints)))
    return said


def _budget(spec: Spec) -> str:
    """The settings of the trainings."""
    if spec.recipe is None:
        return _options(spec.train.model_dump(exclude_none=True))
    changes = [
        f"{section}.{setting} {value}"
        for section, settings in spec.recipe.model_dump(include=set(SECTIONS)).items()
        for setting, value in settings.items()
    ]
    changed = f" with {', '.join(changes)}" if changes else ""
    return f"recipe {spec.recipe.name}{changed}: {spec.recipe.length}"


def _text(row: Mapping[str, Any], key: str) -> str:
    return format_value(METRICS[key], row[key], row.get(f"{key}_std"))


def _cost_summary(table: pd.DataFrame) -> list[str]:
    """The ranges of costs and latency, for studies without training."""
    said = []
    for key in ("macs", "params", "latency_ms"):
        known = [row for row in records_of(table) if not pd.isna(row.get(key)) and not is_disturbed(row, key)]
        if known:
            low, high = (pick(known, key=lambda row: row[key]) for pick in (min, max))
            label = METRICS[key].label
            said.append(
                f"{label[:1].upper()}{label[1:]}: from {_text(low, key)} ({low['variant']}) to {_text(high, key)} "
                f"({high['variant']})."
            )
    return [*said, "No network was trained, so there are no accuracies."] if said else ["No values were measured."]


def _delta_summary(changed: Sequence[Mapping[str, Any]], score: str, label: str, reference: str) -> list[str]:
    """The significant differences to the reference."""
    rows = [row for row in changed if not math.isnan(row.get(f"{score}_delta_p", math.nan))]
    if not rows:
        return [f"No significant change of {label} against {reference!r}. {UNTESTED}"]
    moved = [row for row in rows if row[f"{score}_delta_p"] < LEVEL]
    corrected = f", corrected for {len(rows)} comparisons (Holm)" if len(rows) > 1 else ""
    said = [
        f"In paired t-tests over seeds against {reference!r}{corrected}, {len(moved)} of "
        f"{_counted(len(rows), 'variant')} {'differs' if len(moved) == 1 else 'differ'} significantly in "
        f"{label} at the 5 % level{_named_deltas(moved, score)}."
    ]
    if len(moved) < len(rows):
        said.append(
            f"No effect of the other{'s' * (len(rows) - len(moved) > 1)} was detected at this training budget."
            if moved
            else "No effect was detected at this training budget."
        )
    alone = [
        row for row in rows if row not in moved and not row[f"{score}_delta_low"] <= 0 <= row[f"{score}_delta_high"]
    ]
    if alone:
        chance = min(100.0, 100 * LEVEL * len(rows))
        said.append(
            f"Without this correction, {len(alone)} of these {'has' if len(alone) == 1 else 'have'} a 95 % interval "
            f"that excludes 0{_named_deltas(alone, score)}. Even if no variant had an effect, up to {chance:.0f} % of "
            "such studies would have at least one such interval."
        )
    return said


def _named_deltas(rows: Sequence[Mapping[str, Any]], score: str) -> str:
    named = [f"{row['variant']} ({row[f'{score}_delta']:+.1f} points)" for row in rows[:MAX_NAMED]]
    more = f" and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
    return f": {', '.join(named)}{more}" if rows else ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _agreement(table: pd.DataFrame) -> list[str]:
    """How many published values ours equal, rounded to the published digits; MACs by the convention of each source."""
    compared = {"parameters": ["params"] * len(table)}
    if "macs_convention" in table:
        compared["FLOPs, counted by the convention of each source"] = list(table["macs_convention"])
    said = []
    for figures, keys in compared.items():
        rows = [
            (str(row[f"{key}_agrees"]) == "True", abs(row[f"{key}_difference_percent"]))
            for (_, row), key in zip(table.iterrows(), keys, strict=True)
            if isinstance(key, str) and pd.notna(row.get(f"{key}_difference_percent"))
        ]
        if rows:
            said.append(
                f"Published {figures}: our values equal {sum(met for met, _ in rows)} of {len(rows)} when rounded to "
                f"the published digits; the largest difference is {max(off for _, off in rows):.1f} %."
            )
    return said


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"
        for key, value in options.items()
    )
