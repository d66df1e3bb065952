"""A worker process: imports torch once, then runs the trials that it receives through a pipe."""

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

from hrvit_lab.errors import ProcessLost, is_out_of_memory
from hrvit_lab.study.groups import ATTACHMENTS, ProbeInput
from hrvit_lab.study.records import INTERRUPTED

STEPS_EVERY_S = 0.5

Probe = Callable[[Any], Mapping[str, Any]]
"""Maps a trial's input to ``{metric: number}``, with additional data under ``ATTACHMENTS``."""


def main(connection: Connection, probes: Mapping[str, Probe], threads: int) -> None:
    """Run ``(group, inputs)`` tasks until the parent process ends.

    Sends ``("ready", None)`` once, then for every task any number of ``("steps", (done, total))`` and its
    ``("outcome", {…})``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C
    tasks: queue.SimpleQueue[tuple[str, ProbeInput]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    import torch  # here, because the parent imports this module without torch

    torch.set_num_threads(threads)
    connection.send(("ready", None))
    while True:
        group, inputs = tasks.get()
        inputs = dataclasses.replace(inputs, on_step=_Steps(connection))
        connection.send(("outcome", attempt(probes[group], inputs)))


class _Steps:
    """Sends the number of steps to the parent, at most twice per second."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sent_at = -STEPS_EVERY_S

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.sent_at >= STEPS_EVERY_S:
            self.sent_at = now
            self.connection.send(("steps", (done, total)))


def _listen(connection: Connection, tasks: "queue.SimpleQueue[tuple[str, ProbeInput]]") -> None:
    """Receive tasks; exit when the pipe closes, because the parent has ended."""
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def attempt(probe: Probe, inputs: ProbeInput) -> dict[str, Any]:
    """Run a probe and return the outcome; a failure has a one-line reason. A training that lost a process is
    interrupted, as if this process had been killed."""
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
        if isinstance(error, ProcessLost):
            outcome |= {"status": INTERRUPTED, "reason": str(error)}
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return outcome | {"started": started, "seconds": seconds, "cpu_seconds": cpu_seconds}
