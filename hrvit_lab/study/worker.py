"""A worker process: imports torch once, then runs one trial after another as they come through a pipe."""

import dataclasses
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
from hrvit_lab.study.groups import ATTACHMENTS, ProbeInput

STEPS_EVERY_S = 0.5

Probe = Callable[[Any], Mapping[str, Any]]
"""Takes a trial's input; gives ``{metric: number}``, and under ``ATTACHMENTS`` what else is to be kept."""


def main(connection: Connection, probes: Mapping[str, Probe], threads: int) -> None:
    """Serve ``(group, inputs)`` tasks until the parent is gone.

    Sends ``("ready", None)`` once, then for every task any number of ``("steps", (done, total))`` and its
    ``("outcome", {…})``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone answers Ctrl-C
    tasks: queue.SimpleQueue[tuple[str, ProbeInput]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    import torch  # here, not above: the parent can make a worker without it

    torch.set_num_threads(threads)
    connection.send(("ready", None))
    while True:
        group, inputs = tasks.get()
        inputs = dataclasses.replace(inputs, on_step=_Steps(connection))
        connection.send(("outcome", attempt(probes[group], inputs)))


class _Steps:
    """Tells the parent of steps, twice a second at most."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.told = -STEPS_EVERY_S

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.told >= STEPS_EVERY_S:
            self.told = now
            self.connection.send(("steps", (done, total)))


def _listen(connection: Connection, tasks: "queue.SimpleQueue[tuple[str, ProbeInput]]") -> None:
    """Pass tasks on; when the pipe ends the parent is dead, however it died, and nobody wants the result."""
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def attempt(probe: Probe, inputs: ProbeInput) -> dict[str, Any]:
    """Run a probe; a failure is an outcome too, with its reason in one line."""
    started, began, cpu_began = time.time(), time.perf_counter(), time.process_time()
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
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return outcome | {"started": started, "seconds": seconds, "cpu_seconds": cpu_seconds}
