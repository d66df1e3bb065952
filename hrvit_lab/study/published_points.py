"""Points of published networks. Their accuracies and MACs are quantities of their own: sources count differently."""

from collections.abc import Iterator
from typing import Any

from hrvit_lab.cli import show_size
from hrvit_lab.config import PRESETS, SEGMENTERS, HRViTConfig
from hrvit_lab.published import FAMILIES, METRIC_LABELS, PublishedResult, published_results
from hrvit_lab.study.point_rows import PUBLISHED, properties, put
from hrvit_lab.study.quantities import Quantity, of_metric

NUM_CLASSES = {"imagenet-1k": 1000, "ade20k": 150, "cityscapes": 19}
MEGA, GIGA = 1e6, 1e9
AS_DATA, AS_PUBLISHED = ", published", ", as published"
"""Ends of the conditions of printed scores and costs."""


def published_points(quantities: dict[str, Quantity]) -> Iterator[dict[str, Any]]:
    """The networks of ``published.csv``; new quantities are added to ``quantities``."""
    for result in published_results():
        values: dict[str, Any] = {}
        for quantity, value in _values(result):
            put(values, quantities, quantity, value)
        config = config_of(result)
        fields = config.to_dict() if config is not None else None
        yield {
            "name": " ".join(filter(None, (result.model, result.head if result.task == "segmentation" else ""))),
            "source": result.source, "kind": PUBLISHED, "config_id": config.id if config is not None else None,
            "config": fields, **properties(fields), "family": result.family, **values,
        }  # fmt: skip


def config_of(result: PublishedResult) -> HRViTConfig | None:
    """The config of a published network, with the head and classes of the result; None if no preset has its layout."""
    preset = PRESETS.get(result.model)
    if preset is None or result.task == "classification":
        return preset
    named = SEGMENTERS.get(f"{result.model}_{result.head}_{result.dataset}")
    return named or preset.replace(head=result.head, num_classes=NUM_CLASSES[result.dataset])


def _values(result: PublishedResult) -> Iterator[tuple[Quantity, float]]:
    data = f"{result.dataset}{AS_DATA}"
    yield Quantity(result.metric, METRIC_LABELS[result.metric], data, "%", "higher"), float(result.value)
    if result.params_m is not None:
        yield of_metric("params", ""), float(result.params_m) * MEGA
    if result.gflops is not None and result.flops_resolution is not None:
        yield of_metric("macs", f"{show_size(result.flops_resolution)} px{AS_PUBLISHED}"), float(result.gflops) * GIGA


def absent(score: Quantity, cost: Quantity) -> list[str]:
    """The architectures without a point in a chart of a printed score against a printed cost, each with the reason."""
    found = []
    for family in FAMILIES.values():
        known = {result: dict(_values(result)) for result in published_results() if result.family == family}
        scored = {result: values for result, values in known.items() if score in values}
        if any(cost in values for values in scored.values()):
            continue
        others = dict.fromkeys(
            other.conditions.removesuffix(AS_PUBLISHED)
            for values in scored.values()
            for other in values
            if other.metric == cost.metric
        )
        if not scored:
            reason = f"no {score.label} on {score.conditions.removesuffix(AS_DATA)} is known"
        elif others:
            reason = f"its {cost.label} are printed for {' and '.join(others)}"
        else:
            sources = " and ".join(sorted({result.source for result in scored}))
            reason = f"no printed {cost.label} are known for these accuracies of the {sources}"
        found.append(f"{family}: {reason}")
    return found
