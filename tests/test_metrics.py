"""The tables of metrics and probes are complete, consistent, and agree with the results of the probes."""

import json
import math
import pickle
from functools import cache
from typing import Any

import pytest
import torch

from hrvit_lab.config import preset
from hrvit_lab.cost.count import count
from hrvit_lab.latency.memory import measure_peak_memory
from hrvit_lab.latency.models import build_measurable
from hrvit_lab.metrics import METRICS, SPREAD, Metric, format_value, si_scale
from hrvit_lab.network.build import create_model
from hrvit_lab.study.groups import ATTACHMENTS, GROUPS, PROBES, ProbeInput
from hrvit_lab.train.data import load_dataset
from hrvit_lab.train.loop import fit
from hrvit_lab.train.options import TrainOptions
from hrvit_lab.train.recipe import load_recipe

CONFIG = preset("hrvit_nano")
ASKED = ProbeInput(
    config=CONFIG,
    resolution=(32, 48),
    seed=3,
    data={"name": "digits", "resolution": [32, 32], "root": None},
    train={"epochs": 2, "train_limit": 48, "batch_size": 16},
    latency={"batch_size": 2, "min_runs": 12, "max_runs": 12, "max_seconds": 1e4},  # however busy the machine is
)

SEGMENTING = ProbeInput(
    config=preset("hrvit_nano").replace(head="segformer", segformer_width=8),
    resolution=(32, 32),
    recipe=load_recipe(
        "textures", None,
        [("data.options", {"size": 32, "number": 3}), ("data.resolution_px", 32), ("data.global_batch_size", 3),
         ("data.batch_size_per_process", 3), ("schedule.iterations", 1), ("schedule.warmup_iterations", 0),
         ("run.workers", 0), ("run.threads", 1)],
    ),
)  # fmt: skip


@cache
def measured(group: str) -> dict[str, Any]:
    """Values of one trial, shared by many tests."""
    return PROBES[group](SEGMENTING if group == "segmentation" else ASKED)


@pytest.fixture(params=PROBES)
def probed(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, measured(request.param)


def test_a_probe_returns_its_groups_metrics_as_numbers(probed: tuple[str, dict[str, Any]]) -> None:
    group, values = probed
    for key in (key for key, metric in METRICS.items() if metric.group == group):
        value = values[key]
        assert isinstance(value, int | float) and math.isfinite(value), key
    json.dumps(values, allow_nan=False)


def test_a_probes_other_keys_are_spreads_and_attachments(probed: tuple[str, dict[str, Any]]) -> None:
    """Any other key would be a column without a label."""
    group, values = probed
    own = {key for key, metric in METRICS.items() if metric.group == group}
    spreads = {f"{key}_{end}" for key in own for end in SPREAD}
    assert values.keys() - own - spreads <= {"train_loss", *ATTACHMENTS}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_metric_is_described(metric: Metric) -> None:
    assert METRICS[metric.key] is metric
    assert metric in GROUPS[metric.group].metrics
    assert metric.label and metric.doc.endswith(".")
    assert metric.better in ("higher", "lower")
    for unit, suffix in (("ms", "_ms"), ("MiB", "_mib"), ("s", "_seconds"), ("img/s", "_img_s")):
        assert (metric.unit == unit) is metric.key.endswith(suffix), "a unit is part of the name"
    assert metric.measured is (metric.group != "cost")
    assert metric.per_seed is (metric.group in ("accuracy", "segmentation"))


def test_metrics_of_one_group_agree_on_seeds() -> None:
    """A trial is one call of a probe, so its group runs either for every seed or once."""
    for group in PROBES:
        assert len({metric.per_seed for metric in METRICS.values() if metric.group == group}) <= 1


def test_accuracy_is_called_a_proxy() -> None:
    assert all("(proxy)" in METRICS[key].label for key in ("top1", "val_loss", "miou", "boundary_iou"))


def test_costs_equal_those_of_the_network() -> None:
    values = measured("cost")
    counts = count(create_model("hrvit_nano"), (32, 48))
    assert values["params"] == sum(p.numel() for p in create_model("hrvit_nano").parameters())
    assert (values["macs"], values["activations"]) == (counts.macs, counts.activations)
    assert values["macs_paper"] < values["macs"] <= values["macs_padded"]


def test_latency_options_are_passed_to_the_measurement() -> None:
    values = measured("latency")
    samples = values["samples"]
    assert (samples["batch_size"], samples["resolution"], samples["runs"]) == (2, (32, 48), 12)
    assert values["latency_ms_min"] <= values["latency_ms_p10"] <= values["latency_ms"] <= values["latency_ms_p90"]
    assert values["latency_ms_low"] <= values["latency_ms"] <= values["latency_ms_high"]
    assert values["latency_ms_p90"] <= values["latency_ms_p99"] <= max(samples["samples_ms"])
    assert values["throughput_img_s"] == pytest.approx(2 / (values["latency_ms"] / 1e3))


def test_memory_is_measured_for_the_batch_that_is_timed() -> None:
    expected = measure_peak_memory(create_model("hrvit_nano"), (32, 48), batch_size=2)
    assert measured("memory") == {"peak_memory_mib": expected}


def test_accuracy_equals_that_of_a_training_with_the_seed() -> None:
    values = measured("accuracy")
    data = load_dataset("digits", resolution=(32, 32), train_limit=48)
    torch.manual_seed(3)
    model = create_model("hrvit_nano", num_classes=10)
    expected = fit(model, data, TrainOptions(epochs=2, batch_size=16), seed=3)
    assert (values["top1"], values["val_loss"]) == (expected.top1, expected.val_loss)
    assert values["train_loss"] == expected.curves[-1]["train_loss"]
    assert [row["epoch"] for row in values["curves"]] == [1, 2]


def test_weights_depend_only_on_the_seed_and_the_global_generator_continues() -> None:
    state = torch.get_rng_state()
    first, again, other = (build_measurable(CONFIG, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_input_of_a_probe_can_be_pickled() -> None:
    for asked in (ASKED, SEGMENTING):
        assert pickle.loads(pickle.dumps(asked)) == asked


@pytest.mark.parametrize(
    ("key", "value", "spread", "text"),
    [
        ("params", 13_500_000, None, "13.5 M"),
        ("params", 32_486_408, None, "32.5 M"),
        ("params", 999, None, "999"),
        ("params", 0, None, "0"),
        ("params", 999_999, None, "1.00 M"),
        ("macs", 2_775_573_440, None, "2.78 G"),
        ("macs", 412_300, None, "412 k"),
        ("latency_ms", 12.345, None, "12.3 ms"),
        ("latency_ms", 0.98765, None, "0.988 ms"),
        ("latency_ms", 9.999, None, "10.0 ms"),
        ("throughput_img_s", 12_345.6, None, "12346 img/s"),
        ("peak_memory_mib", 81.494, None, "81.5 MiB"),
        ("top1", 96.4375, 0.31, "96.4 ± 0.3 %"),
        ("top1", 100.0, 0.0, "100.0 ± 0.0 %"),
        ("top1", 9.0, 1.26, "9.0 ± 1.3 %"),
        ("val_loss", 0.12345, 0.0123, "0.123 ± 0.012 nats"),
        ("top1", 96.4, math.nan, "96.4 %"),
        ("latency_ms", math.nan, None, "–"),
    ],
)
def test_values_are_formatted_for_people(key: str, value: float, spread: float | None, text: str) -> None:
    assert format_value(METRICS[key], value, spread) == text


@pytest.mark.parametrize(
    ("value", "scale", "prefix"),
    [
        (12, 1, ""),
        (1000, 1e3, "k"),
        (999.6, 1e3, "k"),
        (2.5e9, 1e9, "G"),
        (3e15, 1e12, "T"),
        (-5e6, 1e6, "M"),
    ],
)
def test_si_prefixes(value: float, scale: float, prefix: str) -> None:
    assert si_scale(value) == (scale, prefix)
