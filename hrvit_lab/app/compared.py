"""What the page "Compare" computes: costs, where their difference comes from, and accuracy. No network is built."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, HRViTConfig, read_yaml
from hrvit_lab.cost.count import Counts, UncountedOperator, count
from hrvit_lab.cost.tools import predictions
from hrvit_lab.metrics import METRICS, SCORES, format_value
from hrvit_lab.network.baselines import TIMM, NetworkConfig, TimmConfig, network_from_dict
from hrvit_lab.plots import part_label
from hrvit_lab.study.effects import effects
from hrvit_lab.study.quantities import budget
from hrvit_lab.study.results import Results, read_results, records_of

BASELINES = tuple(
    f"{TIMM}{name}"
    for name in (
        "resnet18", "resnet50", "hrnet_w18_small", "hrnet_w18", "swin_tiny_patch4_window7_224", "pvt_v2_b0",
        "pvt_v2_b1", "convnext_atto", "convnext_tiny", "mobilevit_xxs", "efficientnet_b0", "deit_small_patch16_224",
    )
)  # fmt: skip
"""Models of timm that are offered."""

COSTS = tuple(key for key, metric in METRICS.items() if metric.group == "cost")
SIZES = (224, 64, 128, 256, 384, 512, 768, 1024)
"""Sides of the input in pixels, the first one for a first visit."""

MAX_MODELS = 4
PAIRED = {"part": "part", "stage": "stage", "branch": "branch", "stage and part": "stage and part"}
OPERATOR = "operator"
"""The grouping of a pair with a model of timm, whose rows have other parts."""

MAX_STUDIES = 100
MAX_STEPS = 14


def offered(opened: Mapping[str, str]) -> dict[str, NetworkConfig]:
    """The models to choose from, by label: configs that this session has opened, presets, models of timm.

    Args:
        opened: configs as YAML or JSON, by id.
    """
    configs = [network_from_dict(read_yaml(text, "the config")) for text in opened.values()]
    found: dict[str, NetworkConfig] = {label_of(config): config for config in configs}
    found |= {**PRESETS, **SEGMENTERS}
    return found | {name: TimmConfig(name) for name in BASELINES}


def label_of(config: NetworkConfig) -> str:
    """The label of a config that is neither a preset nor an offered model of timm; unique."""
    name = config.name or (config.model if isinstance(config, TimmConfig) else "config")
    return f"{name} · {config.id}"


class Model(NamedTuple):
    """A model with its costs."""

    name: str
    config: NetworkConfig
    counts: Counts

    @property
    def has_ledger(self) -> bool:
        """Whether its rows have stages, branches and parts."""
        return isinstance(self.config, HRViTConfig)


def counted(name: str, config: NetworkConfig, side: int) -> Model:
    """A model with its costs at an input of ``side`` × ``side`` pixels.

    Raises:
        ConfigError: if it does not accept that size.
    """
    try:
        return Model(name, config, count(config, side))
    except UncountedOperator as error:
        raise ConfigError(f"{name} can't be counted: {error}") from None


def cost_rows(models: Sequence[Model]) -> pd.DataFrame:
    """A row for each model and cost: ``model``, ``cost``, ``value``, ``text``, ``ratio`` to the first model.

    Costs that are 0 in the first model have no ratio.
    """
    rows = []
    for key in COSTS:
        first = float(getattr(models[0].counts, key))
        for model in models:
            value = float(getattr(model.counts, key))
            rows.append(
                {
                    "model": model.name, "key": key, "cost": METRICS[key].label, "value": value,
                    "text": format_value(METRICS[key], value), "ratio": value / first if first else float("nan"),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def groupings(first: Model, second: Model) -> list[str]:
    """How the costs of two models can be split so that the groups correspond."""
    return [*PAIRED] if first.has_ledger and second.has_ledger else [OPERATOR]


def ledgers(first: Model, second: Model, by: str, key: str) -> pd.DataFrame:
    """The ledgers of two models beside each other: ``group``, ``first``, ``second``, ``difference``.

    Groups are in the order of the network. A group that one of them lacks has 0 there.

    Args:
        by: one of ``groupings``.
        key: a column of numbers of the ledger, such as ``macs``.
    """
    sums = [_grouped(model.counts, by, key) for model in (first, second)]
    groups = _merged([list(each) for each in sums])
    table = pd.DataFrame(
        {"group": groups, "first": [sums[0].get(g, 0) for g in groups], "second": [sums[1].get(g, 0) for g in groups]}
    )
    table["difference"] = table["second"] - table["first"]
    return table[(table[["first", "second"]] != 0).any(axis=1)].reset_index(drop=True)


def _grouped(counts: Counts, by: str, key: str) -> dict[str, int]:
    frame = counts.frame()
    match by:
        case "part":
            names = frame["part"].map(part_label)
        case "operator":
            names = frame["operator"].str.replace("_", " ")
        case "stage":
            names = frame["stage"].map(_stage)
        case "branch":
            names = frame["branch"].map(lambda branch: f"branch {branch + 1}")
        case _:
            names = frame["stage"].map(_stage) + ", " + frame["part"].map(part_label)
    sums = frame.groupby(names, sort=False)[key].sum()
    return dict(zip(map(str, sums.index), map(int, sums.to_numpy()), strict=True))


def _stage(stage: int | str) -> str:
    return f"stage {stage + 1}" if isinstance(stage, int) else stage


def _merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """All names, each order kept: a name that only the second has comes after the one before it there.

    >>> _merged([["stem", "a", "head"], ["stem", "b", "head"]])
    ['stem', 'b', 'a', 'head']
    """
    first, second = orders
    merged, place = list(first), 0
    for name in second:
        if name in merged:
            place = merged.index(name) + 1
        else:
            merged.insert(place, name)
            place += 1
    return merged


def waterfall(table: pd.DataFrame, names: tuple[str, str], key: str) -> pd.DataFrame:
    """The bars from the first total to the second: ``label``, ``start``, ``end``, ``kind``, ``text``.

    ``kind`` is ``total``, ``more`` or ``less``. Groups without a difference are left out. The largest differences
    are kept if there are many; the others are one bar.
    """
    changes = table[table["difference"] != 0]
    largest = changes["difference"].abs().nlargest(MAX_STEPS).index
    rest = changes.drop(largest)["difference"].sum()
    kept = changes.loc[changes.index.isin(largest)]
    steps = list(zip(kept["group"].tolist(), kept["difference"].tolist(), strict=True))
    steps += [("others", int(rest))] if rest else []
    level = int(table["first"].sum())
    rows = [{"label": names[0], "start": 0, "end": level, "kind": "total", "text": _value(key, level)}]
    for label, change in steps:
        kind = "more" if change > 0 else "less"
        text = ("+" if change > 0 else "−") + _value(key, abs(change))
        rows.append({"label": label, "start": level, "end": level + change, "kind": kind, "text": text})
        level += change
    rows.append({"label": names[1], "start": 0, "end": level, "kind": "total", "text": _value(key, level)})
    return pd.DataFrame(rows)


def _value(key: str, value: float) -> str:
    return format_value(METRICS[key], value)


# -- other counters --------------------------------------------------------------------------------------------


def other_counts(models: Sequence[Model]) -> pd.DataFrame:
    """What fvcore, ptflops and torch would say of each HRViT, in closed form: ``model``, ``counter``, ``attention``,
    ``MACs``, ``ratio`` to our count, ``why``."""
    rows = []
    for model in models:
        if not model.has_ledger:
            continue
        for found in predictions(row.cost for row in model.counts.rows):
            rows.append(
                {
                    "model": model.name, "counter": f"{found.tool.package}, {found.tool.backend}",
                    "attention": found.attention, "MACs": format_value(METRICS["macs"], found.macs),
                    "of our count": f"{found.macs / model.counts.macs:.1%}", "why": found.tool.note,
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "counter", "attention", "MACs", "of our count", "why"])


# -- accuracy --------------------------------------------------------------------------------------------------


class Accuracy(NamedTuple):
    """The scores of some of the models in one study.

    Attributes:
        study: its title.
        where: data and length of the trainings.
        score: name of the score.
        means: ``model``, ``mean``, ``std``, ``n`` seeds.
        effects: ``model`` (compared with ``reference``), ``delta``, ``low``, ``high`` in points, ``n``, ``p``; empty if
            the results of single seeds are not known.
        reference: the first of the models.
    """

    study: str
    where: str
    score: str
    means: pd.DataFrame
    effects: pd.DataFrame
    reference: str


def accuracies(models: Sequence[Model], folders: Sequence[Path]) -> list[Accuracy]:
    """The studies that have scores of at least two of the models. A folder that can't be read is left out."""
    keys = {identity(model.config): model.name for model in reversed(models)}
    found = []
    for folder in folders[:MAX_STUDIES]:
        try:
            one = _accuracy(keys, [model.name for model in models], read_results(folder))
        except (ConfigError, OSError):
            continue
        if one is not None:
            found.append(one)
    return found


def identity(config: NetworkConfig) -> str:
    """Equal for networks that differ in name and number of classes only."""
    return config.replace(name="", num_classes=1000).id


def _accuracy(keys: Mapping[str, str], order: Sequence[str], results: Results) -> Accuracy | None:
    score = results.score
    if f"{score}_n" not in results.table and score not in results.table:
        return None
    rows = {str(row["variant"]): row for row in records_of(results.table) if row.get(score) == row.get(score)}
    variants: dict[str, str] = {}
    for variant, fields in results.configs.items():
        try:
            name = keys.get(identity(network_from_dict(fields)))
        except (ConfigError, TypeError, AttributeError):
            continue
        if name is not None and variant in rows:
            variants.setdefault(name, variant)
    names = [name for name in order if name in variants]
    if len(names) < 2:
        return None
    means = pd.DataFrame(
        {
            "model": names,
            "mean": [float(rows[variants[name]][score]) for name in names],
            "std": [float(rows[variants[name]].get(f"{score}_std", float("nan"))) for name in names],
            "n": [int(rows[variants[name]].get(f"{score}_n") or 1) for name in names],
        }
    )
    label = {variant: name for name, variant in variants.items()}
    chosen = results.table[results.table["variant"].isin(list(label))]
    compared = pd.DataFrame(columns=["model", "delta", "low", "high", "n", "p"])
    if f"val_{score}" in results.curves:
        paired = effects(chosen, results.curves, [], variants[names[0]])
        compared = paired.assign(model=paired["after"].map(label), p=paired["p_holm"])[list(compared.columns)]
    return Accuracy(results.spec.title, budget(results), SCORES[score], means, compared, names[0])
