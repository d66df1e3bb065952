"""A record that was changed in any way is refused or harmless; reading one never raises an exception and never
blocks."""

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrvit_lab.config import preset
from hrvit_lab.metrics import METRICS
from hrvit_lab.study.groups import GROUPS, ProbeInput
from hrvit_lab.study.records import MAX_BYTES, Record
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial

INPUTS = ProbeInput(
    preset("hrvit_nano"),
    (64, 64),
    seed=1,
    data={"name": "digits", "resolution": [32, 32], "root": None},
    train={"epochs": 2},
    latency={"batch_size": 1, "dtype": "float32"},
)
ROW = {"train_loss": 2.0, "train_top1": 30.0, "val_loss": 1.5, "val_top1": 55.5, "seconds": 0.5, "learning_rate": 0.1}


def whole(group: str = "accuracy", **fields: Any) -> dict[str, Any]:
    """A record as written by a study."""
    trial = Trial(group, INPUTS, "label", "chip", torch="2.0")
    values: dict[str, Any] = {key: 12.5 for key, metric in METRICS.items() if metric.group == group}
    return {
        **trial.head(),
        "status": "ok",
        "reason": "",
        "values": values,
        "started": 1.7e9,
        "seconds": 3.5,
        "cpu_seconds": 3.0,
        "beside": 1,
        "disturbed": {next(iter(values)): ["another trial ran meanwhile"]},
        "curves": [{"epoch": epoch, **ROW} for epoch in (1, 2)] if group == "accuracy" else [],
        "samples": {"steady": True, "conditions": {"remarks": []}, "samples_ms": [1.0, 2.0]},
        "environment": {"cpu": "chip", "versions": {"torch": "2.0"}, "cuda_devices": None},
        **fields,
    }


def stored(store: Store, record: dict[str, Any], text: str | None = None) -> Path:
    path = store.folder / f"{record['key']}.json"
    path.write_text(json.dumps(record) if text is None else text)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("out"))
    store.create()
    return store


@pytest.mark.parametrize("group", GROUPS)
def test_a_valid_record_is_read_unchanged(store: Store, group: str, caplog: pytest.LogCaptureFixture) -> None:
    record = whole(group)
    stored(store, record)
    assert store.load(record["key"]) == record
    assert caplog.messages == []


FAILURE = {"status": "failed", "reason": "ValueError: no", "values": {}}

TAMPERED: dict[str, dict[str, Any]] = {
    "text as a value": {"values": {**whole()["values"], "top1": "97"}},
    "a list as a value": {"values": {**whole()["values"], "top1": [97]}},
    "a bool as a value": {"values": {**whole()["values"], "top1": True}},
    "400 digits": {"values": {**whole()["values"], "val_loss": 10**400}},
    "a negative value": {"values": {**whole()["values"], "train_seconds": -1}},
    "more than all": {"values": {**whole()["values"], "top1": 100.1}},
    "NaN": {"values": {**whole()["values"], "val_loss": math.nan}},
    "infinity": {"seconds": math.inf},
    "a metric that is missing": {"values": {"top1": 1.0}},
    "values of another shape": {"values": [1.0]},
    "curves of another shape": {"curves": {"epoch": 1}},
    "curves without epochs": {"curves": [{"val_loss": 1.0}]},
    "curves with text": {"curves": [{"epoch": 1, "val_loss": "low"}]},
    "an epoch as a fraction": {"curves": [{"epoch": 1.5}]},
    "curves without an end": {"curves": [{"epoch": 1}] * 10_001},
    "a failure without a reason": FAILURE | {"reason": ""},
    "a failure with an empty reason": FAILURE | {"reason": "  "},
    "a reason for a success": {"reason": "ValueError"},
    "another status": {"status": "done"},
    "started as text": {"started": "yesterday"},
    "started as null": {"started": None},
    "another version's figures": {"version": 99},
    "another network": {"config_id": "0" * 12},
    "another seed": {"seed": 2},
    "other options": {"options": {**whole()["options"], "train": {"epochs": 200}}},
    "another group": {"group": "latency"},
    "no such group": {"group": "taste"},
    "an environment of another shape": {"environment": []},
    "half a surrogate pair": {"environment": {"cpu": "\ud800"}},
    "half a surrogate pair in the reason": FAILURE | {"reason": "\ud800"},
    "doubts of another shape": {"disturbed": ["latency_ms"]},
    "doubts without text": {"disturbed": {"latency_ms": [1]}},
    "a deep sample": {"samples": {"a": [[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]}},
}


@pytest.mark.parametrize("name", TAMPERED)
def test_an_invalid_record_is_treated_as_missing_and_reported_once(
    store: Store, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = stored(store, whole() | TAMPERED[name])
    reader = Store(store.folder.parent)
    assert reader.load(path.stem) is None
    assert reader.load(path.stem) is None
    [message] = caplog.messages
    assert str(path) in message and "is damaged (" in message and "\n" not in message and len(message) < 500


@pytest.mark.parametrize(("key", "value"), [("params", -1), ("macs", True), ("params", "many")])
def test_tampered_costs_are_refused(store: Store, key: str, value: Any) -> None:
    record = whole("cost")
    record["values"][key] = value
    stored(store, record)
    assert store.load(record["key"]) is None


def test_a_record_under_another_key_is_refused(store: Store) -> None:
    record = whole()
    other = store.folder / f"{'1' * 32}.json"
    other.write_text(json.dumps(record))
    assert store.load("1" * 32) is None


def test_a_path_that_is_no_record_file_is_refused_and_kept_aside(tmp_path: Path) -> None:
    record = whole()

    def plant_fifo(path: Path) -> None:
        os.mkfifo(path)

    def plant_folder(path: Path) -> None:
        (path / "inside").mkdir(parents=True)

    def plant_huge(path: Path) -> None:
        with open(path, "wb") as file:
            file.truncate(2**30)

    def plant_large(path: Path) -> None:
        path.write_text(json.dumps(record) + " " * MAX_BYTES)

    def plant_link(path: Path) -> None:
        path.symlink_to("/dev/zero")

    for plant in (plant_fifo, plant_folder, plant_huge, plant_large, plant_link):
        store = Store(tmp_path / plant.__name__)
        store.create()
        path = store.folder / f"{record['key']}.json"
        plant(path)
        assert store.load(record["key"]) is None, plant
        for _ in range(2):
            store.save(record)
            assert store.load(record["key"]) == record, plant
        assert path.with_suffix(".corrupt").is_symlink() or path.with_suffix(".corrupt").exists(), plant


def test_figures_are_not_replaced_by_a_failure(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    good = whole()
    store.save(good)
    store.save(good | FAILURE)
    assert store.load(good["key"]) == good
    better = good | {"seconds": 9.0}
    store.save(better)
    assert store.load(good["key"]) == better


def test_an_interruption_is_not_an_outcome(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    record = whole() | FAILURE | {"status": "interrupted", "attempts": 2}
    store.save(record)
    assert store.load(record["key"]) is None
    assert store.interruptions(record["key"]) == 2
    store.save(whole())
    assert (store.load(record["key"]) or {})["status"] == "ok" and store.interruptions(record["key"]) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Positions of all values in a record, at every depth."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, item in items for place in places(item, (*path, name)))]


@given(data=st.data())
def test_a_record_altered_anywhere_is_valid_or_refused(store: Store, data: st.DataObject) -> None:
    record: Any = copy.deepcopy(whole(data.draw(st.sampled_from(list(GROUPS)))))
    key = record["key"]
    *parents, last = data.draw(st.sampled_from(places(record)[1:]))
    section = record
    for name in parents:
        section = section[name]
    if data.draw(st.booleans()):
        section[last] = data.draw(JSON)
    else:
        del section[last]
    (store.folder / f"{key}.json").write_text(json.dumps(record))
    found = store.load(key)
    if found is None:
        return
    Record.model_validate(found)
    for name, value in found["values"].items():
        assert value is None or (type(value) in (int, float) and 0 <= value < math.inf), name
    assert all(type(row["epoch"]) is int for row in found["curves"]) if "curves" in found else True
    json.dumps(found, allow_nan=False).encode()
    assert Trial(found["group"], INPUTS, "", "chip", torch="2.0").key == key, "its conditions are what the key says"


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_bytes_altered_anywhere_never_raise(store: Store, noise: bytes, at: int) -> None:
    record = whole()
    text = json.dumps(record).encode()
    at %= len(text)
    (store.folder / f"{record['key']}.json").write_bytes(text[:at] + noise + text[at + len(noise) :])
    store.load(record["key"])
