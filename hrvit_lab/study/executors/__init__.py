"""Executors run missing trials and return when all are in the store. Add one with a file and a line here."""

from hrvit_lab.study.executors.inline import run_inline
from hrvit_lab.study.executors.local import run_here
from hrvit_lab.study.executors.slurm import run_on_slurm
from hrvit_lab.study.executors.work import Ended, Executor, Watcher, Work, WorkerUnable

__all__ = ["EXECUTORS", "Ended", "Executor", "Watcher", "Work", "WorkerUnable"]

EXECUTORS: dict[str, Executor] = {"local": run_here, "inline": run_inline, "slurm": run_on_slurm}
"""All executors by name."""
