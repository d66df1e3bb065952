"""Trial records on disk: one JSON file per trial, written atomically and claimed by one process at a time.

Claims need no file locks, and a killed study's claims are void, see `claims`.
"""

import contextlib
import copy
import heapq
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from hrvit_lab.files import write_atomically
from hrvit_lab.study.claims import Claim, Owner, read_claim, remove_leftovers, try_claim
from hrvit_lab.study.records import INTERRUPTED, finite, read_record

log = logging.getLogger(__name__)

JOURNAL = "journal.jsonl"
"""Starts and ends of trials, one line each."""


class Store:
    """The trials under ``out/trials``."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "trials"
        self._warned: set[Path] = set()

    def absolute(self) -> Self:
        """The same store, for processes with another working folder."""
        found = copy.copy(self)
        found.folder = self.folder.absolute()
        return found

    def create(self) -> None:
        """Create the folder, and remove leftover files of killed processes.

        Raises:
            OSError: if it can't be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.claim"):
            if claim := self.claim(path.stem):
                self._record(path.stem).with_suffix(".json.tmp").unlink(missing_ok=True)
                claim.release()
        remove_leftovers(self.folder)

    def load(self, key: str) -> dict[str, Any] | None:
        """The outcome of a trial; None if there is none yet, or (with one warning) if its file is damaged."""
        record = self._read(key)
        return None if record is None or record["status"] == INTERRUPTED else record

    def interruptions(self, key: str) -> int:
        """How often the trial was interrupted since its last outcome."""
        record = self._read(key)
        return record.get("attempts", 0) if record is not None and record["status"] == INTERRUPTED else 0

    def load_all(self, keys: Mapping[str, Any] | set[str]) -> dict[str, dict[str, Any]]:
        """The existing records, by key."""
        return {key: record for key in keys if (record := self.load(key)) is not None}

    def names(self) -> set[str]:
        """The names of all files: ``KEY.json`` and ``KEY.claim``, a quick look at a folder of many trials. Records may
        be invalid, and claims void."""
        with contextlib.suppress(FileNotFoundError):
            return set(os.listdir(self.folder))
        return set()

    def is_empty(self) -> bool:
        """Whether there are no records."""
        return next(self.folder.glob("*.json"), None) is None

    def recent(self, most: int = 100) -> list[dict[str, Any]]:
        """The newest outcomes of all studies that share the store; damaged files are ignored."""
        found = []
        for path in heapq.nlargest(most, self.folder.glob("*.json"), key=_changed):
            with contextlib.suppress(FileNotFoundError, ValueError):
                found.append(read_record(path))
        return [record for record in found if record["status"] != INTERRUPTED]

    def claim(self, key: str) -> Claim | None:
        """Acquire the right to run and save a trial; None if another process holds it. Release it with ``release``."""
        return try_claim(self._claim(key))

    def owner(self, key: str) -> Owner | None:
        """The process that has claimed a trial; None if none has."""
        return read_claim(self._claim(key))

    def save(self, record: Mapping[str, Any]) -> None:
        """Write a record, atomically. The caller holds the claim on its key.

        A failure never replaces measured values: if a repeated trial fails, its earlier record is kept. A damaged file
        is kept as ``.corrupt``.
        """
        path = self._record(record["key"])
        before = self._read(record["key"])
        if before is not None and before["status"] == "ok" != record["status"]:
            return
        if before is None and path.exists():
            aside = path.with_suffix(".corrupt")
            os.replace(path, aside if not aside.is_dir() else path.with_name(f"{path.stem}.{time.time_ns()}.corrupt"))
        write_atomically(path, json.dumps(finite(record), indent=1, allow_nan=False))

    def release(self, claim: Claim) -> None:
        """Release a claim and remove its file."""
        claim.release()

    def note(self, event: str, key: str) -> None:
        """Append a line to ``journal.jsonl``: the event, the trial, the time and the process."""
        line = json.dumps({"event": event, "key": key, "pid": os.getpid(), "time": time.time()}) + "\n"
        path = self.folder / JOURNAL
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        except OSError as error:  # the error of a full disk does not name the file
            raise OSError(error.errno, error.strerror, str(path)) from None
        finally:
            os.close(descriptor)

    def _claim(self, key: str) -> Path:
        return self.folder / f"{key}.claim"

    def _record(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _read(self, key: str) -> dict[str, Any] | None:
        path = self._record(key)
        try:
            return read_record(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            if path not in self._warned:
                log.warning("%s is damaged (%s); its trial is measured again", path, error)
            self._warned.add(path)
            return None


def _changed(path: Path) -> float:
    """The modification time of a file; 0 if it no longer exists."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
