"""Faults of edited fields: the nearest valid values are valid and nearest, by trying all values."""

import random
from typing import Any

import pytest
from random_configs import random_config, random_fields

from hrvit_lab.config import PRESETS, TABLES, ConfigError, HRViTConfig, preset
from hrvit_lab.config.repair import Change, Fault, changed, find_fault


def valid(fields: dict[str, Any]) -> bool:
    try:
        HRViTConfig(**fields)
    except ConfigError:
        return False
    return True


def fault_of(name: str, *changes: Change) -> tuple[dict[str, Any], Fault]:
    fields = preset(name).model_dump()
    for change in changes:
        fields = changed(fields, change)
    fault = find_fault(fields)
    assert fault is not None
    return fields, fault


@pytest.mark.parametrize("name", PRESETS)
def test_a_valid_config_has_no_fault(name: str) -> None:
    assert find_fault(preset(name).model_dump()) is None


@pytest.mark.parametrize(
    ("name", "change", "remedies"),
    [
        (
            "hrvit_b1", Change("widths", (2,), 130),
            {("widths", (2,), 128), ("widths", (2,), 192)},
        ),
        ("hrvit_b1", Change("widths", (0,), 4096), set()),
        ("hrvit_b1", Change("stem_width", (), 63), {("stem_width", (), 62), ("stem_width", (), 64)}),
        ("hrvit_b1", Change("drop_rate", (), 1.0), {("drop_rate", (), 0.95)}),
        ("hrvit_b1", Change("norm_eps", (), 0.0), {("norm_eps", (), 1e-6)}),
        ("hrvit_b1", Change("mlp_ratios", (1,), 0.0), {("mlp_ratios", (1,), 0.25)}),
        ("hrvit_b1", Change("depths", (2, 1), 0), {("depths", (2, 1), 1)}),
        (
            "hrvit_b1", Change("depths", (4,), (1, 1)),
            {("depths", (), ((1,), (1, 1), (1, 1, 6), (1, 1, 6), (1, 1, 1), (1, 1, 2, 2)))},
        ),
        (
            "mit_b0", Change("widths", (0,), 33),
            {("widths", (0,), 32), ("widths", (0,), 64), ("head_dims", (0,), 11), ("head_dims", (0,), 33)},
        ),
    ],
)  # fmt: skip
def test_remedies_of_known_faults(name: str, change: Change, remedies: set[Any]) -> None:
    fields = changed(preset(name).model_dump(), change)
    fault = find_fault(fields)
    if not remedies:
        assert fault is None
        return
    assert fault is not None and fault.field == change.field
    assert set(fault.remedies) == remedies
    for remedy in fault.remedies:
        after = find_fault(changed(fields, remedy))
        assert after is None or (after.field, after.place) != (fault.field, fault.place)


def test_remedies_are_the_nearest_valid_values() -> None:
    """Of random networks with one spoiled width: every value in reach is tried, one by one."""
    draw, seen = random.Random(5), 0
    while seen < 12:
        fields = random_config(draw).model_dump()
        branch = draw.randrange(len(fields["widths"]))
        fields = changed(fields, Change("widths", (branch,), draw.randint(1, 150)))
        fault = find_fault(fields)
        if fault is None:
            continue
        if fault.field == "stem_width":
            continue  # a pyramid's stem
        seen += 1
        assert (fault.field, fault.place) == ("widths", (branch,))
        width = fields["widths"][branch]
        works = [v for v in range(1, width + 256) if valid(changed(fields, Change("widths", (branch,), v)))]
        expected = {max((v for v in works if v < width), default=0), min((v for v in works if v > width), default=0)}
        assert {r.value for r in fault.remedies if r.field == "widths"} == expected - {0}
        assert all(valid(changed(fields, remedy)) for remedy in fault.remedies)


def test_stages_of_a_pyramid_become_one() -> None:
    _, fault = fault_of("hrvit_b1", Change("topology", (), "pyramid"))
    assert fault.field == "depths" and fault.remedies == (Change("depths", (), ((6, 5, 20, 4),)),)


def test_two_faults_are_repaired_one_after_the_other() -> None:
    fields, fault = fault_of("hrvit_b1", Change("widths", (1,), 33), Change("widths", (3,), 257))
    assert fault.place == (1,)
    fields = changed(fields, fault.remedies[0])
    second = find_fault(fields)
    assert second is not None and second.place == (3,)
    assert valid(changed(fields, second.remedies[0]))


def test_random_changes_end_in_a_valid_config() -> None:
    """Whatever is changed, pressing the offered buttons leads to a valid config, if one is offered."""
    draw = random.Random(7)
    for _ in range(100):
        fields = random_config(draw).model_dump()
        other = random_fields(draw)
        for field in draw.sample(["attention", "ffn", "head_dims", "mlp_ratios", "shortcut", "stem"], 3):
            if field in TABLES and isinstance(other[field], str):
                fields = changed(fields, Change(field, (), other[field]))
            else:
                fields = changed(fields, Change(field, (0,), other[field][0]))
        for _ in range(20):
            fault = find_fault(fields)
            if fault is None or not fault.remedies:
                break
            fields = changed(fields, fault.remedies[-1])
        assert find_fault(fields) is None


def test_a_pyramids_stem_follows_its_first_scale() -> None:
    fields = preset("mit_b0").model_dump()
    assert changed(fields, Change("widths", (0,), 64))["stem_width"] == 64
    assert changed(fields, Change("stem_width", (), 64))["widths"] == (64, 64, 160, 256)
    assert changed(preset("hrvit_b1").model_dump(), Change("widths", (0,), 64))["stem_width"] == 64  # unchanged
    fault = find_fault(fields | {"stem_width": 64})
    assert fault is not None and fault.remedies == (Change("stem_width", (), 32),)
