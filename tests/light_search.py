"""``python -m light_search …``: ``hrvit_lab.search`` with the workers and trainings of `light_worker`, in a folder
without file locks, which is named in ``WITHOUT_LOCKS``."""

import errno
import fcntl
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import light_worker

from hrvit_lab.search import outer, run
from hrvit_lab.search.__main__ import main
from hrvit_lab.study import worker


def refusing(lock: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """The function ``flock`` or ``lockf``, as on a file system that has none."""

    def refuse(file: Any, *arguments: Any) -> Any:
        descriptor = file if isinstance(file, int) else file.fileno()
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(folder):
            raise OSError(errno.ENOLCK, "No locks available")
        return lock(file, *arguments)

    return refuse


if __name__ == "__main__":
    for name in ("flock", "lockf"):
        setattr(fcntl, name, refusing(getattr(fcntl, name), Path(os.environ["WITHOUT_LOCKS"])))
    forking = SimpleNamespace(  # its processes need not load everything anew
        get_context=lambda method: multiprocessing.get_context("fork"),
        active_children=multiprocessing.active_children,
        parent_process=multiprocessing.parent_process,
    )
    setattr(run, "multiprocessing", forking)  # noqa: B010  # a module, for mypy
    worker.main = light_worker.main
    outer.PROBES = {**outer.PROBES, "accuracy": light_worker.accuracy}
    sys.exit(main(sys.argv[1:]))
