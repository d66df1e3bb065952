"""Commands in processes of their own, forked from a server that has loaded torch once: a new Python needs 10 s for it.

For tests of what a command does when it is killed, told to end, or without room on its disk.
"""

import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PRELOADED = ["hrvit_lab.train.engine_command", "sklearn.datasets", "test_engine"]


def server() -> ForkServerContext:
    """The context of processes that the server forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:  # the server does not know sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))
        importlib.import_module("multiprocessing.forkserver").ensure_running()
    return context


class Command:
    """``python -m MODULE ARGUMENTS``, with the methods of `subprocess.Popen` that tests need.

    The process leads a group and a session of its own, in the folder and with the variables of this one.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.process = server().Process(
            target=_run, args=(module, arguments, os.getcwd(), dict(os.environ), self.folder)
        )
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    @property
    def output(self) -> str:
        """What it has written so far to its standard output."""
        path = self.folder / "stdout"
        return path.read_text() if path.exists() else ""

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; its standard output and standard error."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.process.name, timeout)
        path = self.folder / "stderr"
        return self.output, path.read_text() if path.exists() else ""


def _run(module: str, arguments: tuple[str, ...], cwd: str, variables: Mapping[str, str], folder: Path) -> None:
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # for the command's own processes: Python's default
    os.environ.clear()
    os.environ.update(variables)
    tempfile.tempdir = None
    os.chdir(cwd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
