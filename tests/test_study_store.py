"""Records on disk are complete or absent, with one writer at a time, for any process that is killed."""

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest

from hrvit_lab.study.executors.host import timing_lock
from hrvit_lab.study.records import finite
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import key_of

HEAD = {
    "group": "accuracy",
    "version": 1,
    "config_id": "0123456789ab",
    "config": {"preset": "hrvit_nano"},
    "seed": 0,
    "device": "cpu",
    "data": {"name": "digits"},
    "options": {"train": {"epochs": 1}, "torch": "2.0"},
}
KEY = key_of(HEAD)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.create()
    return store


def record(**fields: Any) -> dict[str, Any]:
    values = {"top1": 97.5, "val_loss": 0.1, "train_seconds": 2.0, **fields.pop("values", {})}
    outcome = {"key": KEY, "status": "ok", "reason": "", "values": values, "started": 1.0, "seconds": 2.0}
    return HEAD | outcome | fields


def test_a_record_is_read_back_as_it_was_saved(store: Store) -> None:
    assert store.load(KEY) is None
    saved = record(values={"top1": 0.1 + 0.2, "macs": 2**60 + 1}, curves=[{"epoch": 1, "val_loss": 1e-300}])
    store.save(saved)
    assert store.load(KEY) == saved
    assert store.load_all({KEY, "1" * 32}) == {KEY: saved}


def test_a_diverged_loss_is_written_as_valid_json(store: Store) -> None:
    store.save(record(curves=[{"epoch": 1, "val_loss": math.nan, "train_loss": math.inf}]))
    text = (store.folder / f"{KEY}.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    loaded = store.load(KEY)
    assert loaded is not None
    assert loaded["curves"] == [{"epoch": 1, "val_loss": None, "train_loss": None}]
    assert finite((1.5, {"a": -math.inf})) == [1.5, {"a": None}]


def test_a_record_truncated_at_any_length_is_missing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.save(record())
    path = store.folder / f"{KEY}.json"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with caplog.at_level(logging.ERROR):
            assert store.load(KEY) is None, whole[:length]


@pytest.mark.parametrize("text", ["[]", "null", '{"key": "other"}', "\x00\xff", "[" * 100_000])
def test_a_damaged_record_is_kept_when_its_trial_is_repeated(
    store: Store, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = store.folder / f"{KEY}.json"
    path.write_text(text, encoding="latin-1")
    assert store.load(KEY) is None
    assert [message for message in caplog.messages if "damaged" in message and "\n" not in message]
    store.save(record())
    assert store.load(KEY) == record()
    assert path.with_suffix(".corrupt").read_text(encoding="latin-1") == text


def test_latency_trials_wait_for_other_trials_to_end() -> None:
    one = timing_lock(exclusive=False)
    two = timing_lock(exclusive=False)
    assert one and two
    assert timing_lock(exclusive=True) is None
    one.release()
    two.release()
    clocks = timing_lock(exclusive=True)
    assert clocks
    assert timing_lock(exclusive=False) is None
    clocks.release()


def test_create_removes_leftover_files_of_killed_processes(store: Store) -> None:
    (store.folder / f"{KEY}.json.tmp").write_text("half a rec")
    (store.folder / f"{KEY}.claim").write_text("as damaged as can be")
    os.utime(store.folder / f"{KEY}.claim", (1, 1))
    held = store.claim("1" * 32)
    (store.folder / f"{'1' * 32}.json.tmp").write_text("being written")
    store.create()
    assert sorted(path.name for path in store.folder.iterdir()) == ["1" * 32 + ".claim", "1" * 32 + ".json.tmp"]
    assert held
    held.release()


def test_after_a_save_only_the_record_exists(store: Store) -> None:
    claim = store.claim(KEY)
    assert claim
    store.save(record())
    store.release(claim)
    assert [path.name for path in store.folder.iterdir()] == [f"{KEY}.json"]


def test_the_journal_has_one_line_per_event(store: Store) -> None:
    store.note("started", KEY)
    store.note("finished", KEY)
    lines = [json.loads(line) for line in (store.folder / "journal.jsonl").read_text().splitlines()]
    assert [(line["event"], line["key"], line["pid"]) for line in lines] == [
        ("started", KEY, os.getpid()),
        ("finished", KEY, os.getpid()),
    ]


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        Store(tmp_path / "file").create()
