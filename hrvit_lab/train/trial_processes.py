"""Train the network of a trial by several processes of this host, which ``torchrun`` starts.

They share a temporary folder with the process of the trial: it writes the arguments of the training, and they write the
number of finished steps, and the result or an error. They also have a pipe from it as their standard input, so that
they notice its end, however it ends, and end too.
"""

import contextlib
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hrvit_lab.devices import find_device
from hrvit_lab.errors import ProcessLost
from hrvit_lab.files import write_atomically
from hrvit_lab.network.baselines import NetworkConfig
from hrvit_lab.train.distributed import OtherProcessFailed, is_lost, joined
from hrvit_lab.train.recipe import AnyRecipe
from hrvit_lab.train.trial import Trained, train_network

TASK, RESULT, STEPS, LOG = "task.pickle", "result.pickle", "steps", "log"
"""Files in the folder; ``R.error`` is that of process R."""

POLL_S = 0.2
STEPS_EVERY_S = 0.5
END_S = 60.0
"""Seconds in which the processes end after the trial."""

LOG_CHARS = 4000
KILLED = re.compile(r"Signal \d+ \((?!SIGTERM)(\w+)\) received")
"""What ``torchrun`` writes about a killed process. It ends the others by SIGTERM."""


def train_in_processes(
    processes: int,
    recipe: AnyRecipe,
    config: NetworkConfig,
    *,
    device: str,
    root: Path | None,
    on_step: Callable[[int, int], None],
) -> Trained:
    """Train as `train_network`, by several processes, each with its share of every batch.

    Args:
        device: ``cpu`` or ``cuda``; each process has a GPU of its own.
    Raises:
        ConfigError, TrainingDiverged, …: as `train_network`, in one of the processes.
        ProcessLost: if a process was killed.
    """
    with tempfile.TemporaryDirectory(prefix="hrvit-lab-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        task = {"recipe": recipe, "config": config, "device": device, "root": root}
        (folder / TASK).write_bytes(pickle.dumps(task))
        launcher = start(folder, processes)
        try:
            while launcher.poll() is None:
                time.sleep(POLL_S)
                if steps := _steps(folder):
                    on_step(*steps)
        finally:
            assert launcher.stdin is not None
            launcher.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                launcher.wait(END_S)
            launcher.kill()
        return _result(folder)


def start(folder: Path, processes: int) -> "subprocess.Popen[bytes]":
    """Start ``torchrun``, which starts the processes, with the source of this one."""
    source = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", f"--log-dir={folder}"]
    with open(folder / LOG, "wb") as log:
        return subprocess.Popen(
            [sys.executable, *torchrun, "-m", "hrvit_lab.train.trial_processes", str(folder)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # without Ctrl-C, which is the trial's to handle
        )  # fmt: skip


def _steps(folder: Path) -> tuple[int, int] | None:
    try:
        done, total = map(int, (folder / STEPS).read_text().split())
    except (OSError, ValueError):
        return None
    return done, total


def _result(folder: Path) -> Trained:
    """The result that process 0 wrote.

    Raises:
        Exception: of the process that failed; `ProcessLost` if none said why.
    """
    if (path := folder / RESULT).exists():
        trained: Trained = pickle.loads(path.read_bytes())
        return trained
    for path in sorted(folder.glob("*.error")):
        error, where = pickle.loads(path.read_bytes())
        error.add_note(where)
        raise error
    log = (folder / LOG).read_text(errors="replace")
    killed = KILLED.search(log)
    how = "ended without a result" if killed is None else f"was killed by {killed[1]}"
    hint = ", possibly because memory ran out" if killed and killed[1] == "SIGKILL" else ""
    lost = ProcessLost(f"a process of the training {how}{hint}")
    lost.add_note(log[-LOG_CHARS:])
    raise lost


def run_rank(folder: Path) -> int:
    """What one of the processes does; returns its exit code."""
    threading.Thread(target=_end_with_trial, args=(folder,), daemon=True).start()
    rank = int(os.environ["RANK"])
    task: dict[str, Any] = pickle.loads((folder / TASK).read_bytes())
    try:
        device = find_device(task.pop("device"))
        with joined(device) as ranks:
            trained = train_network(**task, device=device, ranks=ranks, on_step=_Steps(folder))
    except Exception as error:
        traceback.print_exc()
        if not isinstance(error, OtherProcessFailed) and not is_lost(error):
            write_atomically(folder / f"{rank}.error", pickle.dumps((_picklable(error), traceback.format_exc())))
        return 1
    if rank == 0:
        write_atomically(folder / RESULT, pickle.dumps(trained))
    return 0


def _end_with_trial(folder: Path) -> None:
    """End this process when the trial's has ended, whose folder is then nobody's."""
    while os.read(0, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _picklable(error: Exception) -> Exception:
    try:
        found: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return found


class _Steps:
    """Writes the number of steps, at most twice per second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written_at = -STEPS_EVERY_S

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.written_at >= STEPS_EVERY_S:
            self.written_at = now
            write_atomically(self.folder / STEPS, f"{done} {total}")


if __name__ == "__main__":
    sys.exit(run_rank(Path(sys.argv[1])))
