"""A worker process: imports torch once, then runs one trial after another as they come through a pipe."""

import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from hrvit_lab.errors import is_out_of_memory
from hrvit_lab.study.groups import ATTACHMENTS

Probe = Callable[[Any], Mapping[str, Any]]
"""Takes a trial's input; gives ``{metric: number}``, and under ``ATTACHMENTS`` what else is to be kept."""


def main(connection: Connection, probes: Mapping[str, Probe], threads: int) -> None:
    """Serve ``(group, inputs)`` tasks with outcomes until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone answers Ctrl-C
    tasks: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    import torch  # here, not above: the parent can make a worker without it

    torch.set_num_threads(threads)
    connection.send("ready")
    while True:
        group, inputs = tasks.get()
        connection.send(attempt(probes[group], inputs))


def _listen(connection: Connection, tasks: "queue.SimpleQueue[tuple[str, Any]]") -> None:
    """Pass tasks on; when the pipe ends the parent is dead, however it died, and nobody wants the result."""
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def attempt(probe: Probe, inputs: Any) -> dict[str, Any]:
    """Run a probe; a failure is an outcome too, with its reason in one line."""
    started, began = time.time(), time.perf_counter()
    outcome: dict[str, Any] = {"status": "ok", "reason": "", "values": {}}
    try:
        found = dict(probe(inputs))
        outcome |= {name: found.pop(name) for name in ATTACHMENTS if name in found}
        outcome["values"] = found
    except Exception as error:
        text = str(error).strip().splitlines()
        outcome["status"] = "out_of_memory" if is_out_of_memory(error) else "failed"
        outcome["reason"] = f"{type(error).__name__}: {text[0] if text else 'no message'}"[:500]
        outcome["traceback"] = traceback.format_exc()[-8000:]
    return outcome | {"started": started, "seconds": time.perf_counter() - began}
