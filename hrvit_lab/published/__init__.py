"""Published figures, as they were printed, and what it takes to hold ours beside them.

Two tables, kept in ``hrvit_lab/data``: results that papers and releases print (``published.csv``), and the ablations of
arXiv 2111.01236 (``ablations.csv``: on HRViT-b1, costs and mIoU with a SegFormer head on Cityscapes). Printed numbers
stay decimals: their last digit says how exact they are.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources

MEGA, GIGA = Decimal(10**6), Decimal(10**9)
Columns = dict[str, float | bool | str]


@dataclass(frozen=True)
class PublishedResult:
    """A row of ``published.csv``.

    Attributes:
        source: who printed it.
        model, task, dataset, head: what was measured; ``head`` is empty for a plain classifier.
        resolution: side of the input in pixels, as the source says.
        metric, value: ``top1`` or ``miou``, in percent.
        params_m: million parameters; None where none is printed.
        gflops: what the source calls GFLOPs: multiply-accumulates, by the source's own convention.
        flops_resolution: height and width in pixels for which they are printed; None where none are.
    """

    source: str
    model: str
    task: str
    dataset: str
    head: str
    resolution: int
    metric: str
    value: Decimal
    params_m: Decimal | None
    gflops: Decimal | None
    flops_resolution: tuple[int, int] | None

    @property
    def key(self) -> str:
        """What a study file calls it: ``hrvit_b1 ade20k segformer``."""
        return " ".join(filter(None, (self.model, self.dataset, self.head)))

    @property
    def family(self) -> str:
        """Name of the architecture, a value of ``FAMILIES``."""
        return FAMILIES[self.model.partition("_")[0]]

    def columns(self, ours: Mapping[str, float]) -> Columns:
        """What a study's table says of it beside ours, given ``params``, ``macs`` and ``macs_paper`` or some of them.

        ``X_published``, ``X_difference_percent`` (ours over theirs) and ``X_agrees`` (ours, rounded to the printed
        digit, is the printed figure), in counts; ``macs_convention``, the one of both counts that the source means;
        ``accuracy_published`` in percent, and what of, on what data.
        """
        said: Columns = {
            "accuracy_published": float(self.value),
            "accuracy_metric": METRIC_LABELS[self.metric],
            "accuracy_data": self.dataset,
        }
        for printed, unit, name, keys in (
            (self.params_m, MEGA, "params", ("params",)),
            (self.gflops, GIGA, "macs", ("macs", "macs_paper")),
        ):
            if printed is None:
                continue
            said[f"{name}_published"] = float(printed * unit)
            if name == "macs":
                said["macs_convention"] = "macs_paper" if self.source == "HRViT release" else "macs"
            for key in keys:
                if key in ours:
                    said[f"{key}_difference_percent"] = 100 * (ours[key] / float(printed * unit) - 1)
                    said[f"{key}_agrees"] = rounds_to(ours[key], printed, unit)
        return said


@dataclass(frozen=True)
class PublishedAblation:
    """A row of ``ablations.csv``: what one change to HRViT-b1 did, as printed.

    Attributes:
        change: what was changed.
        params_percent, macs_paper_percent: change of cost; None where none is printed.
        cost_in_words: all that is said about cost.
        imagenet_top1, cityscapes_miou: change of accuracy in points, or the word that stands for it.
    """

    change: str
    params_percent: Decimal | None
    macs_paper_percent: Decimal | None
    cost_in_words: str
    imagenet_top1: str
    cityscapes_miou: str

    @property
    def key(self) -> str:
        """What a study file calls it: ``ablation no DES``."""
        return f"ablation {self.change}"

    def columns(self, ours: Mapping[str, float]) -> Columns:
        """What a study's table says of it; ``ours`` stands in the columns of the same names without ``_published``."""
        said: Columns = {
            "cost_published": self.cost_in_words,
            "imagenet_top1_delta_published": self.imagenet_top1,
            "cityscapes_miou_delta_published": self.cityscapes_miou,
        }
        for key, printed in (("params", self.params_percent), ("macs_paper", self.macs_paper_percent)):
            if printed is not None:
                said[f"{key}_change_percent_published"] = float(printed)
        return said


FAMILIES = {"hrvit": "HRViT", "mit": "MiT", "cswin": "CSWin", "hrformer": "HRFormer"}
"""Architectures with published results, by the first word of a model's name."""

METRIC_LABELS = {"top1": "top-1", "miou": "mIoU"}


def rounds_to(count: float, printed: Decimal, unit: Decimal = Decimal(1)) -> bool:
    """Whether a count in units of ``unit``, rounded to the digits that were printed, is the printed figure.

    >>> rounds_to(19_685_152, Decimal("19.7"), MEGA), rounds_to(35_952_172, Decimal("35.9"), MEGA)
    (True, False)
    """
    return (Decimal(count) / unit).quantize(printed) == printed


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """Every row of ``published.csv``."""
    return tuple(
        PublishedResult(
            source=row["source"],
            model=row["model"],
            task=row["task"],
            dataset=row["dataset"],
            head=row["head"],
            resolution=int(row["resolution"]),
            metric=row["metric"],
            value=Decimal(row["value"]),
            params_m=_decimal(row["params_m"]),
            gflops=_decimal(row["gflops_as_published"]),
            flops_resolution=_size(row["flops_resolution"]),
        )
        for row in _read("published.csv")
    )


@cache
def published_ablations() -> tuple[PublishedAblation, ...]:
    """Every row of ``ablations.csv``."""
    return tuple(
        PublishedAblation(
            change=row["change"],
            params_percent=_decimal(row["params_percent"]),
            macs_paper_percent=_decimal(row["macs_paper_percent"]),
            cost_in_words=row["cost_in_words"],
            imagenet_top1=row["imagenet_top1"],
            cityscapes_miou=row["cityscapes_miou"],
        )
        for row in _read("ablations.csv")
    )


@cache
def by_key() -> Mapping[str, PublishedResult | PublishedAblation]:
    """Published results and ablations under the names that study files have for them."""
    rows: list[PublishedResult | PublishedAblation] = [*published_results(), *published_ablations()]
    return {row.key: row for row in rows}


def _read(name: str) -> list[dict[str, str]]:
    text = resources.files("hrvit_lab.published").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _decimal(text: str) -> Decimal | None:
    return Decimal(text) if text else None


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    height, width = text.split("x")
    return int(height), int(width)
