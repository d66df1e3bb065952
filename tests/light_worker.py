"""A study's worker without torch, whose import takes most of the time of a test with fake probes."""

import sys
import types
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from hrvit_lab.study import worker


def main(connection: Connection, probes: Mapping[str, Any], threads: int) -> None:
    """As `worker.main`; ``torch`` is a module that keeps a number of threads, and nothing else."""
    kept = [0]
    torch = types.ModuleType("torch")
    torch.set_num_threads = lambda number: kept.__setitem__(0, number)  # type: ignore[attr-defined]
    torch.get_num_threads = lambda: kept[0]  # type: ignore[attr-defined]
    sys.modules["torch"] = torch
    worker.main(connection, probes, threads)
