"""Run trials in this process, one after another, without workers.

A spawned worker imports the package anew, so it does not know a variant that was registered in a notebook. This process
does.
"""

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Iterator
from functools import partial

from hrvit_lab.environment import usable_cores
from hrvit_lab.study.claims import host_name
from hrvit_lab.study.executors.host import POLL_S, holding_timing_lock, until_free
from hrvit_lab.study.executors.work import FOR_ANOTHER, Work
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.records import INTERRUPTED
from hrvit_lab.study.trials import Trial
from hrvit_lab.study.worker import attempt


def run_inline(work: Work) -> None:
    """An `Executor`. There is no time limit; Ctrl-C ends the run, and the trial that was running has no record."""
    for alone, threads in ((False, 1), (True, usable_cores())):
        queue = deque(trial for trial in work.trials if GROUPS[trial.group].alone == alone)
        if queue:
            _run_together(work, queue, alone, threads)


def _run_together(work: Work, queue: deque[Trial], alone: bool, threads: int) -> None:
    lock = holding_timing_lock(exclusive=alone, waiting=lambda: work.watcher.waiting(list(queue), until_free(alone)))
    with lock, _torch_threads(threads):
        _run(work, queue)


def _run(work: Work, queue: deque[Trial]) -> None:
    """Run the trials; those that another process has claimed are tried again later."""
    claimed_elsewhere = 0
    while queue:
        trial = queue.popleft()
        claim = work.store.claim(trial.key)
        if claim is None:
            queue.append(trial)
            claimed_elsewhere += 1
            if claimed_elsewhere >= len(queue):
                claimed_elsewhere = 0
                work.watcher.waiting(list(queue), FOR_ANOTHER)
                time.sleep(POLL_S)
            continue
        try:
            record = work.settled(trial)
            if record is None:
                work.store.note("started", trial.key)
                work.watcher.started(trial)
                inputs = dataclasses.replace(trial.inputs, on_step=partial(work.watcher.stepped, trial))
                outcome = attempt(work.probes[trial.group], inputs)
                if outcome["status"] == INTERRUPTED:
                    outcome["status"] = "failed"
                disturbed = {metric: list(reasons) for metric, reasons in outcome.get("disturbed", {}).items()}
                about = {"beside": 0, "disturbed": disturbed, "environment": dict(work.environment)}
                record = trial.head() | outcome | about | {"host": host_name(), "on_device": trial.inputs.device}
                work.store.save(record)
                work.store.note("finished", trial.key)
        finally:
            work.store.release(claim)
        work.watcher.finished(trial, record)


@contextlib.contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    """As many threads as a worker has; afterwards the former number."""
    import torch  # imported here: reading results does not need it

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
