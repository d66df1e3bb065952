"""What a study's results say, in sentences that claim no more than their spreads allow."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.study.columns import is_disturbed
from hrvit_lab.study.results import Results, records_of
from hrvit_lab.study.show import costed
from hrvit_lab.study.spec import EQUAL_MACS, Spec
from hrvit_lab.study.statistics import LEVEL
from hrvit_lab.study.tables import DISTURBED, NOT_BUILT, PARTIAL

MAX_NAMED = 8
"""Variants that a sentence names."""

UNTESTED = "The table has no tests over seeds: they take two seeds or more, and a table of this version"


def summary(table: pd.DataFrame, dataset: str, compare_to: str | None = None) -> list[str]:
    """What the table says. Differences are claimed at the 5 % level for all of a study's comparisons together."""
    rows = records_of(table)
    distinct: dict[Any, Mapping[str, Any]] = {}
    for place, row in enumerate(rows):
        distinct.setdefault(place if pd.isna(row.get("config_id")) else row["config_id"], row)
    networks = list(distinct.values())  # one network may stand twice, as it is and matched
    changed = [row for row in networks if not pd.isna(row.get("top1_delta"))]
    if compare_to is not None and changed:
        return _delta_summary(changed, dataset, compare_to)
    trained = [row for row in networks if not pd.isna(row.get("top1"))]
    if not trained:
        return _agreement(table) or _cost_summary(table)
    return _ranking(sorted(trained, key=lambda row: -row["top1"]), f"top-1 on {dataset} (a proxy)")


def _ranking(ranked: Sequence[Mapping[str, Any]], label: str) -> list[str]:
    """Which networks can be told from the best one, best first."""
    best, *others = ranked
    if not others:
        return [f"Only {best['variant']} was trained: {_text(best, 'top1')} {label}; there is nothing to compare."]
    said = [f"Highest mean {label}: {best['variant']}, {_text(best, 'top1')}."]
    if all(math.isnan(row.get("top1_below_best_p", math.nan)) for row in others):
        return [*said, f"{UNTESTED}, so the order is not settled."]
    below = [row for row in others if row.get("top1_below_best_p", math.nan) < LEVEL]
    tied = [row for row in ranked if row not in below]
    pairs = len(ranked) * (len(ranked) - 1) // 2
    tested = "Compared seed by seed" + (f" and corrected for all {pairs} pairs" if pairs > 1 else "")
    if len(tied) == 1:
        gap = f"{others[0]['top1_below_best']:.1f} points"
        every = f"each of the {len(others)} other networks" if len(others) > 1 else "the other network"
        said.append(
            f"{tested}, it is above {every} at the 5 % level; the next, {others[0]['variant']}, is {gap} lower."
        )
        return said
    named = f": {', '.join(str(row['variant']) for row in below[:MAX_NAMED])}" if below else ""
    more = f" and {len(below) - MAX_NAMED} more" if len(below) > MAX_NAMED else ""
    said.append(
        f"{tested}, it is above {len(below) or 'none'} of {_counted(len(others), 'other network')} at the 5 % level"
        f"{named}{more}. The order among {'the other' if below else 'these'} {len(tied)} is not settled."
    )
    cheapest = min(tied, key=lambda row: row.get("macs", math.inf))
    if cheapest.get("macs"):
        said.append(
            f"It is also the cheapest of them, at {_text(best, 'macs')} MACs."
            if cheapest is best
            else f"The cheapest of them is {cheapest['variant']}: {_text(cheapest, 'top1')} at "
            f"{_text(cheapest, 'macs')} MACs, {cheapest['macs'] / best['macs']:.2f} of what {best['variant']} takes."
        )
    return said


def unfinished(frame: pd.DataFrame) -> str | None:
    """How many variants lack a trial, and what to do about it; None if all are finished."""
    partial = int((frame["status"] == PARTIAL).sum())
    if not partial:
        return None
    are = "is" if partial == 1 else "are"
    return (
        f"{partial} of {len(frame)} variants {are} not finished: fronts and differences are provisional. Run the "
        "study again to complete them."
    )


def notes(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """(variants, note) of every different note, and of every different reason to distrust a figure."""
    said: dict[str, list[str]] = {}
    columns = {"note": "{}"}
    columns |= {f"{key}_{DISTURBED}": f"{metric.label} is disturbed: {{}}" for key, metric in METRICS.items()}
    for column in (name for name in columns if name in frame):
        for variant, text in zip(frame["variant"], frame[column], strict=True):
            if isinstance(text, str):
                said.setdefault(columns[column].format(text), []).append(variant)
    return [(", ".join(variants), note) for note, variants in said.items()]


def remarks(results: Results) -> list[tuple[str, str]]:
    """(variants, what about them) of everything that is missing, failed, disturbed or not as asked."""
    said = []
    for row in records_of(results.table):
        noted = row["status"] == NOT_BUILT and isinstance(row.get("note"), str)
        if row["status"] != "ok" and not noted:
            said.append((row["variant"], "not finished" if row["status"] == PARTIAL else row["status"]))
    said += notes(results.table)
    said += [(name, f"not measured: {reason}") for name, reason in results.dropped.items()]
    return said + [("files", fault) for fault in results.faults]


def protocol(spec: Spec) -> list[tuple[str, str]]:
    """How it was measured: (what, how)."""
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
    if "accuracy" in groups:
        trained = "×".join(map(str, spec.data.resolution))
        said += [
            ("Data set", f"{spec.data.name} at {trained} pixels"),
            ("Seeds", ", ".join(map(str, spec.seeds))),
            ("Training budget", _options(spec.train.model_dump(exclude_none=True))),
        ]
    if groups & {"latency", "memory"}:
        said.append(("Clocks", _options(spec.latency.model_dump(exclude_none=True))))
    if spec.constraints:
        said.append(("Constraints", _options(spec.constraints)))
    return said


def _text(row: Mapping[str, Any], key: str) -> str:
    return format_value(METRICS[key], row[key], row.get(f"{key}_std"))


def _cost_summary(table: pd.DataFrame) -> list[str]:
    """Nothing was trained: how far the costs reach."""
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
    return (
        [*said, "Nothing was trained, so this says nothing about accuracy."] if said else ["No values were measured."]
    )


def _delta_summary(changed: Sequence[Mapping[str, Any]], dataset: str, reference: str) -> list[str]:
    """Which differences to the reference are more than chance."""
    rows = [row for row in changed if not math.isnan(row.get("top1_delta_p", math.nan))]
    against = f"Against {reference!r}, each seed against itself,"
    if not rows:
        return [f"{against} no change of top-1 on {dataset} (a proxy) is told from zero. {UNTESTED}."]
    moved = [row for row in rows if row["top1_delta_p"] < LEVEL]
    corrected = f", corrected for {len(rows)} comparisons (Holm)" if len(rows) > 1 else ""
    said = [
        f"{against} {len(moved)} of {_counted(len(rows), 'change')} {'moves' if len(moved) == 1 else 'move'} top-1 on "
        f"{dataset} (a proxy) at the 5 % level{corrected}{_named_deltas(moved)}."
    ]
    if len(moved) < len(rows):
        said.append(
            f"The effect of the other{'s' * (len(rows) - len(moved) > 1)} is not told from zero at this budget."
            if moved
            else "None is told from zero at this budget."
        )
    alone = [row for row in rows if row not in moved and not row["top1_delta_low"] <= 0 <= row["top1_delta_high"]]
    if alone:
        chance = min(100.0, 100 * LEVEL * len(rows))
        said.append(
            f"Taken alone, {len(alone)} of these {'has' if len(alone) == 1 else 'have'} a 95 % interval that leaves "
            f"out 0{_named_deltas(alone)}. Even if no change had an effect, up to {chance:.0f} % of such studies would "
            "have one like that."
        )
    return said


def _named_deltas(rows: Sequence[Mapping[str, Any]]) -> str:
    named = [f"{row['variant']} ({row['top1_delta']:+.1f} points)" for row in rows[:MAX_NAMED]]
    more = f" and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
    return f": {', '.join(named)}{more}" if rows else ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _agreement(table: pd.DataFrame) -> list[str]:
    """How many published figures ours meet to the printed digit, MACs in the convention of each row's source."""
    compared = {"parameters": ["params"] * len(table)}
    if "macs_convention" in table:
        compared["FLOPs, each in its source's convention"] = list(table["macs_convention"])
    said = []
    for figures, keys in compared.items():
        rows = [
            (str(row[f"{key}_agrees"]) == "True", abs(row[f"{key}_difference_percent"]))
            for (_, row), key in zip(table.iterrows(), keys, strict=True)
            if isinstance(key, str) and pd.notna(row.get(f"{key}_difference_percent"))
        ]
        if rows:
            said.append(
                f"Published {figures}: ours meet {sum(met for met, _ in rows)} of {len(rows)} to the printed digit; "
                f"the farthest is {max(off for _, off in rows):.1f} % off."
            )
    return said


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"
        for key, value in options.items()
    )
