"""Scores on disk, so that no network is scored twice: one line for each network, shared by all runs of a search."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from hrvit_lab.search.predictors.choice import BatchChoice

VERSION = 1
"""Of the predictors: scores of other versions are not read."""


class KeptScores:
    """Scores by network. Other processes may add to the same file.

    Args:
        folder: of the file; None: nothing is written.
        choice: scores of other images or another seed are in another file.
    """

    def __init__(self, folder: Path | None, choice: BatchChoice) -> None:
        digest = hashlib.sha256(json.dumps([VERSION, choice.model_dump(mode="json")]).encode()).hexdigest()[:12]
        self._path = None if folder is None else folder / f"scores-{digest}.jsonl"
        self._known: dict[str, dict[str, float]] = {}
        self._read_bytes = 0

    def find(self, config_id: str) -> Mapping[str, float]:
        """The known scores of a network, by predictor."""
        if config_id not in self._known:
            self._read()
        return self._known.get(config_id, {})

    def add(self, config_id: str, scores: Mapping[str, float]) -> None:
        """Keep scores of a network."""
        self._known.setdefault(config_id, {}).update(scores)
        if self._path is None:
            return
        line = json.dumps([config_id, dict(scores)]) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def _read(self) -> None:
        """Read the lines that were added since the last time. A line of a killed process is ignored."""
        if self._path is None or not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._read_bytes += len(line)
            try:
                config_id, scores = json.loads(line)
                found = {str(key): float(value) for key, value in scores.items()}
            except (ValueError, TypeError, AttributeError, RecursionError):
                continue
            self._known.setdefault(str(config_id), {}).update(found)
