"""Ways to run trials: each takes what is missing and returns when it is in the store. A file each, and a line here."""

from hrvit_lab.study.executors.local import run_here
from hrvit_lab.study.executors.work import Ended, Executor, Watcher, Work, WorkerUnable

__all__ = ["EXECUTORS", "Ended", "Executor", "Watcher", "Work", "WorkerUnable"]

EXECUTORS: dict[str, Executor] = {"local": run_here}
"""Every executor by its name."""
