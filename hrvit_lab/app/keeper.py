"""Run a command apart from the app, and write how it ended: ``python -m hrvit_lab.app.keeper FOLDER COMMAND…``.

The keeper has a session of its own, so the end of the app, of its terminal or of a browser's tab does not end it. It
writes ``process.json`` (process id and start), ``log.txt`` (output and errors of the command) and ``exit.json``.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from hrvit_lab.files import write_atomically


def main(arguments: list[str]) -> int:
    """Start the command in the background. Returns when ``process.json`` is written."""
    folder, command = Path(arguments[0]), arguments[1:]
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.read(reader, 1)  # the end of the file: the other process has written, or ended
        return 0
    os.setsid()
    early: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a signal to the process group is for the command;
        signal.signal(number, lambda number, _: early.append(number))  # a command would inherit ignored signals
    _write(folder / "process.json", {"pid": os.getpid(), "created": psutil.Process().create_time()})
    os.close(writer)
    _keep(folder, command, early)
    os._exit(0)


def _keep(folder: Path, command: list[str], early: list[int]) -> None:
    """Run the command to its end. It also gets a signal that arrived before it had started."""
    with open(folder / "log.txt", "ab") as log:
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            for number in early[:1]:
                child.send_signal(number)
            code = child.wait()
        except OSError as error:
            log.write(f"error: {command[0]} can't be started: {error.strerror}\n".encode())
            code = 127
    _write(folder / "exit.json", {"code": code, "ended": time.time()})


def _write(path: Path, content: dict[str, float]) -> None:
    write_atomically(path, json.dumps(content))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
