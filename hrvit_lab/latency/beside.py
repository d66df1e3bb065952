"""The latency of a network divided by that of a reference in the same rounds, which cancels how fast the device was."""

import time

from hrvit_lab.latency.compare import Budget, paired_ratio
from hrvit_lab.latency.engine import run_rounds
from hrvit_lab.latency.estimate import Estimate
from hrvit_lab.latency.parts import REFERENCE, WHOLE, workload_stopwatch
from hrvit_lab.latency.timing import Clock
from hrvit_lab.latency.workload import Workload, timed_inference


def relative_latency(
    load: Workload, reference: Workload, *, threads: int | None, budget: Budget, clock: Clock = time.perf_counter
) -> Estimate:
    """Time both in rounds, in eval and inference mode; wall time on the CPU, device time on a GPU.

    Args:
        threads: CPU threads; None: torch's own choice.
        budget: stopping rule for the ratio.
    Returns:
        The median over rounds of the ratio within each round, with its interval.
    Raises:
        OutOfDeviceMemory: if they do not fit into memory.
    """
    with timed_inference(load.name, threads):
        stopwatches = {REFERENCE: workload_stopwatch(reference, clock), WHOLE: workload_stopwatch(load, clock)}
        for stopwatch in stopwatches.values():
            stopwatch()
        rounds, _ = run_rounds(stopwatches, budget, load.device, clock=clock)
    if rounds.stopped == "interrupted":
        raise KeyboardInterrupt
    return paired_ratio(rounds.wall_ms(WHOLE), rounds.wall_ms(REFERENCE))
