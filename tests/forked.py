"""Processes forked from a server that has loaded torch once. A new Python process takes 4 s to load torch, and 10 s to
load a training.

They are used for studies that a test runs, and for tests of commands that are killed or told to end.
"""

import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
PRELOADED = [
    "hrvit_lab.train.engine_command", "hrvit_lab.train.command", "sklearn.datasets", "hrvit_lab.study.analysis",
    "hrvit_lab.study.reporting", "hrvit_lab.plots", "light_study", "test_engine", "frozen",
]  # fmt: skip


def server() -> ForkServerContext:
    """The context of the processes that the server forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:  # the server does not inherit sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))
        importlib.import_module("multiprocessing.forkserver").ensure_running()
    return context


def get_context(method: str) -> SimpleNamespace:
    """Replacement of `multiprocessing.get_context`: its processes have the working folder and environment of this
    one."""
    context = server()

    def process(target: Callable[..., object], args: tuple[Any, ...], daemon: bool) -> BaseProcess:
        return context.Process(target=_as_here, args=(os.getcwd(), dict(os.environ), target, args), daemon=daemon)

    return SimpleNamespace(Pipe=context.Pipe, Process=process)


def _as_here(folder: str, variables: Mapping[str, str], target: Callable[..., object], args: tuple[Any, ...]) -> None:
    multiprocessing.set_start_method(None, force=True)  # for the process's own children: Python's default
    os.environ.clear()
    os.environ.update(variables)
    tempfile.tempdir = None
    os.chdir(folder)
    target(*args)


class Command:
    """``python -m MODULE ARGUMENTS``, with the methods of `subprocess.Popen` that tests need.

    The process leads a group and a session of its own, in the folder and with the variables of this one.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.process = get_context("").Process(target=_run, args=(module, arguments, self.folder), daemon=False)
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    @property
    def output(self) -> str:
        """Its standard output so far."""
        return self._written("stdout")

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float = 250) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.process.name, timeout)
        return self.process.exitcode

    def communicate(self, timeout: float = 250) -> tuple[str, str]:
        """Wait until it ends; returns its standard output and standard error."""
        self.wait(timeout)
        return self.output, self._written("stderr")

    def _written(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


def _run(module: str, arguments: tuple[str, ...], folder: Path) -> None:
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
