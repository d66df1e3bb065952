"""A worker without torch, whose import takes most of the time of a test with fake probes; and such probes."""

import os
import sys
import time
import types
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hrvit_lab.study import worker
from hrvit_lab.study.groups import ProbeInput

worker_main = worker.main
"""The real one, whatever replaces it later."""


def main(connection: Connection, probes: Mapping[str, Any], threads: int) -> None:
    """As `worker.main`; ``torch`` is a fake module that only stores a number of threads."""
    kept = [0]
    torch = types.ModuleType("torch")
    torch.set_num_threads = lambda number: kept.__setitem__(0, number)  # type: ignore[attr-defined]
    torch.get_num_threads = lambda: kept[0]  # type: ignore[attr-defined]
    sys.modules["torch"] = torch
    worker_main(connection, probes, threads)


def figure(asked: ProbeInput) -> float:
    """A number that depends on the network, the seed and the training, and is equal in every process."""
    return int(asked.config.id, 16) % 89 + asked.seed / 7 + float(asked.train.get("epochs", 0)) / 11


def memory(asked: ProbeInput) -> dict[str, Any]:
    return {"peak_memory_mib": figure(asked)}


def accuracy(asked: ProbeInput) -> dict[str, Any]:
    """Sleeps for the seconds in ``LIGHT_TRIAL_S``, and writes its process id to the folder ``LIGHT_MARKS``."""
    if folder := os.environ.get("LIGHT_MARKS"):
        (Path(folder) / str(os.getpid())).touch()
    time.sleep(float(os.environ.get("LIGHT_TRIAL_S", "0")))
    epochs = int(asked.train.get("epochs", 1))
    curves = [{"epoch": epoch, "val_loss": figure(asked) / epoch} for epoch in range(1, epochs + 1)]
    loss = figure(asked) / epochs
    return {"top1": figure(asked), "train_loss": loss, "val_loss": loss, "train_seconds": 1.0, "curves": curves}


PROBES = {"memory": memory, "accuracy": accuracy}
