"""Trial records on disk: one JSON file a trial, whole or absent, claimed by one process at a time.

A claim is a file lock: it ends with the process that holds it, so a killed study leaves nothing locked.
"""

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hrvit_lab.files import Lock, check_locks, try_lock, write_atomically

STATUSES = ("ok", "failed", "timeout", "out_of_memory")

log = logging.getLogger(__name__)


class Store:
    """The trials under ``out/trials``."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "trials"

    def create(self) -> None:
        """Make the folder, prove that trials can be claimed in it, and remove what killed processes left.

        Raises:
            OSError: if it can't be written, or its file system knows no locks.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        check_locks(self.folder)
        for path in self.folder.glob("*.lock"):
            if claim := try_lock(path):
                self._record(path.stem).with_suffix(".json.tmp").unlink(missing_ok=True)
                self.release(claim)

    def load(self, key: str) -> dict[str, Any] | None:
        """The record of that key; None if there is none, or (with a warning) if its file is damaged."""
        path = self._record(key)
        if not path.exists():
            return None
        if (record := _read(path)) is None:
            log.warning("%s is damaged: that trial counts as missing", path)
        return record

    def load_all(self, keys: Mapping[str, Any] | set[str]) -> dict[str, dict[str, Any]]:
        """The records that exist, by key."""
        return {key: record for key in keys if (record := self.load(key)) is not None}

    def claim(self, key: str) -> Lock | None:
        """The right to run and save that trial; None while another process has it. Release it by ``release``."""
        return try_lock(self.folder / f"{key}.lock")

    def save(self, record: Mapping[str, Any]) -> None:
        """Write a record, atomically. The caller holds the claim on its key; a damaged file is kept as ``.corrupt``."""
        path = self._record(record["key"])
        if path.exists() and _read(path) is None:
            os.replace(path, path.with_suffix(".corrupt"))
        write_atomically(path, json.dumps(finite(record), indent=1, allow_nan=False))

    def release(self, claim: Lock) -> None:
        """End a claim; its lock file goes too."""
        claim.release(unlink=True)

    def note(self, event: str, key: str) -> None:
        """Append one line to ``journal.jsonl``: what was started and finished, when, by which process."""
        line = json.dumps({"event": event, "key": key, "pid": os.getpid(), "time": time.time()}) + "\n"
        descriptor = os.open(self.folder / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def _record(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def finite(value: Any) -> Any:
    """The same with every NaN and infinity (a diverged training's loss) as None: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _read(path: Path) -> dict[str, Any] | None:
    """A whole record of the key that names the file, or None."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        whole = record["key"] == path.stem and record["status"] in STATUSES and "started" in record
        return record if whole and isinstance(record["values"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
