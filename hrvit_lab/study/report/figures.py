"""The figures of a study's results, and the costs by part that they show."""

from collections.abc import Mapping

import pandas as pd

from hrvit_lab import plots
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.metrics import METRICS
from hrvit_lab.study.report.families import families_figures
from hrvit_lab.study.results import Results, records_of
from hrvit_lab.study.spec import EQUAL_MACS


def figures_of(results: Results) -> dict[str, plots.Figure]:
    """The study's figures by name. Costs that are not comparable, or were made equal, are not used as an axis."""
    table, spec = results.table, results.spec
    if not results.comparable:
        table = table.drop(columns=[key for key, metric in METRICS.items() if metric.group == "cost"], errors="ignore")
    if spec.match == (EQUAL_MACS,):
        table = table.drop(columns="macs", errors="ignore")  # the remaining differences in MACs mean nothing
    axes = spec.axis_names if spec.compare_to is None else ()  # with compare_to, variants have no shared axis values
    figures = plots.study_figures(table, results.curves, axes, costs_by_part(results), results.dataset, spec.tradeoff)
    figures |= families_figures(results)
    score = results.score
    if spec.compare_to is not None and f"{score}_delta" in table and table[f"{score}_delta"].notna().any():
        figures = {f"{score}_deltas": plots.deltas(table, score, spec.compare_to, results.dataset)} | figures
    return figures


def costs_by_part(results: Results) -> pd.DataFrame:
    """MACs by part in closed form (variants × parts), of at most as many variants as are drawn. Networks that are not
    HRViTs have a single part. Empty if the costs are of another network than the config's (``cost_base``)."""
    if results.spec.cost_base is not None:
        return pd.DataFrame()
    parts: dict[str, dict[str, float]] = {}
    for row in records_of(results.table):
        fields = results.configs.get(row["variant"])
        if len(parts) == plots.MAX_BARS or fields is None:
            continue
        if isinstance(fields, Mapping) and "model" in fields:
            if not pd.isna(row.get("macs")):
                parts[row["variant"]] = {"whole network": row["macs"]}
            continue
        try:
            counts = count(HRViTConfig.from_dict(fields), results.spec.resolution_of(row["variant"]))
        except ConfigError:
            continue  # configs.json was edited
        by_part = counts.table("part")
        parts[row["variant"]] = dict(zip(by_part["part"], by_part["macs"], strict=True))
    return pd.DataFrame.from_dict(parts, orient="index")
