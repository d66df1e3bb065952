"""Probes for jobs of Slurm in tests, and a study with them: ``python -m slurm_probes NAME …``.

A job imports this module with the probes, and then its workers load no torch. If the folder ``LIGHT_MARKS`` has a file
``unwarned-N``, the next job N of an array blocks SIGUSR2, Slurm's warning that the time limit is near.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import light_worker

from hrvit_lab.study import sweep, worker
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.groups import ProbeInput

if "SUBMITIT_EXECUTOR" in os.environ:  # in a job, not in the tests that import this module
    worker.main = light_worker.main
    mark = Path(os.environ.get("LIGHT_MARKS", "")) / f"unwarned-{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    if mark.exists():
        mark.unlink()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})


def job_name() -> str:
    """The job's id as ``squeue`` shows it. Slurm 22.05 cancels no job of an array by its SLURM_JOB_ID, and ``scancel``
    does not say so."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")


def accuracy(asked: ProbeInput) -> dict[str, Any]:
    """Does what a file in ``LIGHT_MARKS`` says that is called after its seed and network: ``kill`` the job, ``once`` or
    always, or ``hang``; then as a light trial."""
    folder = Path(os.environ["LIGHT_MARKS"])
    name = f"{asked.seed}-{asked.config.id}"
    with open(folder / f"{name}.started", "a") as file:
        file.write(f"{job_name()}\n")
    for path in (folder / name, folder / str(asked.seed)):
        act = path.read_text() if path.exists() else ""
        if act in ("once", "hang"):
            path.unlink()
        if act in ("kill", "once"):
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if act == "hang":
            time.sleep(600)
    time.sleep(float(os.environ.get("LIGHT_TRIAL_S", "0")))
    return light_worker.accuracy(asked)


def stopped(asked: ProbeInput) -> dict[str, Any]:
    """As a training that a search stops after its first epoch, for even seeds."""
    return accuracy(asked) | ({"stopped_epoch": 1} if asked.seed % 2 == 0 else {})


def latency(asked: ProbeInput) -> dict[str, Any]:
    return {"latency_ms": light_worker.figure(asked), "throughput_img_s": 1.0}


PROBES = {"accuracy": accuracy, "latency": latency, "memory": light_worker.memory}


if __name__ == "__main__":
    import slurm_probes  # under its own name, by which jobs import it

    sweep.PROBES.update(slurm_probes.PROBES)
    sys.exit(main(sys.argv[1:]))
