"""What a study's results say, in sentences that claim no more than their spreads allow."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hrvit_lab import plots
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.study.columns import NOT_BUILT
from hrvit_lab.study.results import Results, records_of
from hrvit_lab.study.show import costed
from hrvit_lab.study.spec import EQUAL_MACS, Spec


def summary(table: pd.DataFrame, dataset: str, compare_to: str | None = None) -> list[str]:
    """What the table says, in sentences that claim no more than its spreads allow."""
    if compare_to is not None and "top1_delta" in table and table["top1_delta_se"].notna().any():
        return _delta_summary(table[table["top1_delta_se"].notna()], dataset, compare_to)
    networks = table.drop_duplicates("config_id") if "config_id" in table else table  # one network may stand twice
    trained = [row for row in records_of(networks) if not pd.isna(row.get("top1"))]
    if not trained:
        return _agreement(table) or _cost_summary(table)
    ranked = sorted(trained, key=lambda row: -row["top1"])
    best, label = ranked[0], f"top-1 on {dataset} (a proxy)"
    if len(ranked) == 1:
        return [f"Only {best['variant']} was trained: {_text(best, 'top1')} {label}; there is nothing to compare."]
    said = [f"Highest mean {label}: {best['variant']}, {_text(best, 'top1')}."]
    stds = [row.get("top1_std", math.nan) for row in ranked]
    if any(math.isnan(std) for std in stds):
        return [*said, "For some variants one seed is all there is: no spread is known and the order is not settled."]
    tied = [row for row, std in zip(ranked, stds, strict=True) if row["top1"] + std >= best["top1"] - stds[0]]
    if len(tied) == 1:
        gap = format_value(METRICS["top1"], best["top1"] - ranked[1]["top1"]).removesuffix(" %")
        return [
            *said,
            "No other variant's spread (mean ± 1 std over seeds) reaches it; the next, "
            f"{ranked[1]['variant']}, is {gap} points lower. So few seeds indicate an order, they don't prove it.",
        ]
    overlapping = "of 1 other network overlaps" if len(tied) == 2 else f"of {len(tied) - 1} other networks overlaps"
    said.append(
        f"The spread (mean ± 1 std over seeds) {overlapping} with its own, so the order among these {len(tied)} is "
        "not settled."
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


def remarks(results: Results) -> list[tuple[str, str]]:
    """(variant, what about it) of everything that is missing, failed or not as asked."""
    said = []
    for row in records_of(results.table):
        status = str(row.get("status", "ok"))
        note = row["note"] if isinstance(row.get("note"), str) else ""
        if status != "ok" and not (status == NOT_BUILT and note):
            said.append((str(row["variant"]), "not finished; run the study again" if status == "partial" else status))
        if note:
            said.append((str(row["variant"]), note))
    return said + [(name, f"not measured: {reason}") for name, reason in results.dropped.items()]


def protocol(spec: Spec) -> list[tuple[str, str]]:
    """How it was measured: (what, how)."""
    groups = {METRICS[key].group for key in spec.metrics}
    matched = " and ".join("at equal MACs" if matching == EQUAL_MACS else matching for matching in spec.match)
    said = [("Networks", f"{spec.num_points}, {matched}, from {_options(spec.base)}")]
    own = sorted({spec.resolution_of(entry.name) for entry in spec.variants or ()} - {spec.resolution})
    sizes = [f"{height} × {width}" for height, width in (spec.resolution, *own)]
    said.append(("Costs and clocks at", f"{' and '.join(sizes)} pixels on {spec.device}"))
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
        bounds = {key: f"{bound.min:g} to {bound.max:g}" for key, bound in spec.constraints.items()}
        said.append(("Constraints", _options(bounds)))
    return said


def _text(row: Mapping[str, Any], key: str) -> str:
    return format_value(METRICS[key], row[key], row.get(f"{key}_std"))


def _cost_summary(table: pd.DataFrame) -> list[str]:
    """Nothing was trained: how far the costs reach."""
    said = []
    for key in ("macs", "params", "latency_ms"):
        known = [row for row in records_of(table) if not pd.isna(row.get(key))]
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


def _delta_summary(table: pd.DataFrame, dataset: str, reference: str) -> list[str]:
    """Which paired differences are more than noise. Rows have a standard error, so two seeds at least."""
    rows = records_of(table)
    widths = plots.half_width_95(table, "top1")
    clear = [row for row, width in zip(rows, widths, strict=True) if abs(row["top1_delta"]) > width]
    named = ", ".join(f"{row['variant']} ({row['top1_delta']:+.1f} points)" for row in clear)
    said = [
        f"Against {reference!r}, each seed against itself, {len(clear)} of {len(rows)} changes "
        f"{'moves' if len(clear) == 1 else 'move'} top-1 on {dataset} (a proxy) by more than the 95 % interval of the "
        f"mean{': ' + named if clear else ''}."
    ]
    if len(clear) < len(rows):
        said.append(f"{'The others' if clear else 'They'} can't be told from noise at this budget.")
    chance = 1 - 0.95 ** len(rows)
    return [
        *said,
        f"Had none of the {len(rows)} an effect, at least one would seem to in {100 * chance:.0f} % of such studies.",
    ]


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
