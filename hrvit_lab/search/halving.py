"""Successive halving: trainings that do badly in early epochs are stopped, and keep their curve.

A stopped training is no trial of a study: its record is in the folder of the search. A study trains the network fully.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from hrvit_lab.files import write_atomically
from hrvit_lab.study.groups import Figures, ProbeInput
from hrvit_lab.study.groups.accuracy import train
from hrvit_lab.study.records import finite, read_record
from hrvit_lab.study.store import Store
from hrvit_lab.train.loop import Epoch

STOPPED = "stopped_epoch"
"""Value of a record: the epoch after which the training was stopped."""


class Curve(NamedTuple):
    """A learning curve: costs of its network, lower is better, and scores by epoch, higher is better."""

    costs: Sequence[float]
    scores: Mapping[int, float]


class _Stop(Exception):
    """Ends a training."""


def limits(curves: Sequence[Curve], costs: Sequence[float], epochs: Sequence[int], factor: int) -> dict[int, float]:
    """The lowest score at each of these epochs with which a training goes on.

    It is the score of the last one of the best 1/factor of the earlier trainings whose costs are all at most ``costs``;
    there is no limit while they are fewer than ``factor``.
    """
    found = {}
    for epoch in epochs:
        scores = sorted(
            (
                curve.scores[epoch]
                for curve in curves
                if epoch in curve.scores and all(a <= b for a, b in zip(curve.costs, costs, strict=True))
            ),
            reverse=True,
        )
        if len(scores) >= factor:
            found[epoch] = scores[len(scores) // factor - 1]
    return found


def train_until(inputs: ProbeInput, limits: Mapping[str, Mapping[int, float]], key: str, sign: float) -> Figures:
    """The training of an accuracy trial; stopped at an epoch with a score below its limit.

    Args:
        limits: by the id of the network's config, then by epoch.
        key: the column of the curves to compare.
        sign: 1 if higher is better, else -1.
    Returns:
        As the group's probe; of a stopped training, the values of its last epoch, and ``STOPPED``.
    """
    rows: list[Epoch] = []
    own = limits.get(inputs.config.id, {})

    def check(row: Epoch) -> None:
        rows.append(row)
        value = sign * float(row[key])  # type: ignore[literal-required]
        if value < own.get(row["epoch"], value):
            raise _Stop

    try:
        return train(inputs, check)
    except _Stop:
        last = rows[-1]
        return {
            "top1": last["val_top1"],
            "train_loss": last["train_loss"],
            "val_loss": last["val_loss"],
            "train_seconds": sum(row["seconds"] for row in rows),
            STOPPED: last["epoch"],
            "curves": rows,
        }


def store_of(folder: Path) -> "HalvedStore":
    """The trials of the search in a results folder."""
    return HalvedStore(folder.parent, folder / "search" / "stopped")


class HalvedStore(Store):
    """A study's store, beside which stopped trainings are kept in another folder.

    Args:
        out: folder of all results.
        folder: of the stopped trainings.
    """

    def __init__(self, out: Path, folder: Path) -> None:
        super().__init__(out)
        self._stopped = folder

    def absolute(self) -> Self:
        """The same store, for processes with another working folder."""
        found = super().absolute()
        found._stopped = self._stopped.absolute()
        return found

    def names(self) -> set[str]:
        """The names of all files, those of stopped trainings included."""
        with contextlib.suppress(FileNotFoundError):
            return super().names() | set(os.listdir(self._stopped))
        return super().names()

    def load(self, key: str) -> dict[str, Any] | None:
        """The outcome of a trial; of a stopped one if there is no other that is ok."""
        record = super().load(key)
        if record is None or record["status"] != "ok":
            with contextlib.suppress(OSError, ValueError):
                return read_record(self._stopped / f"{key}.json")
        return record

    def save(self, record: Mapping[str, Any]) -> None:
        """Write a record, in the folder for stopped trainings if it is one."""
        if STOPPED not in record["values"]:
            super().save(record)
            return
        self._stopped.mkdir(parents=True, exist_ok=True)
        write_atomically(self._stopped / f"{record['key']}.json", json.dumps(finite(record), allow_nan=False))
