"""``python -m killed_search FILE.yaml OUT NUMBER``: run a search in processes of which each is killed by SIGKILL.

A process is killed at a random time after it has written a state. It waits for its end after a few generations, so
that the search can't be over before. Prints the number of generations on disk after each kill.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from hrvit_lab.search.run import Search, begun, run
from hrvit_lab.search.spec import load_search

MOST = 3
"""Generations of a process."""


def search_until_killed(search: Search, ready: int) -> None:
    """Run a search, write a byte to the file ``ready`` after each generation, and then wait."""
    left = MOST

    def progress(evaluations: int) -> None:
        nonlocal left
        left -= 1
        os.write(ready, b".")
        while not left:
            signal.pause()

    with begun(search) as hold:
        run(search, hold, 1, progress)


def generations(search: Search) -> int:
    return sum(state.generation for state in search.states().values())


def main(file: Path, out: Path, number: int) -> None:
    search, rng = Search(file.stem, load_search(file), out / file.stem), random.Random(0)
    for _ in range(number):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                search_until_killed(search, writing)
            finally:
                os._exit(1)
        os.close(writing)
        assert os.read(reading, 1) == b".", "the process ended by itself"
        os.close(reading)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "the process ended by itself"
        print(generations(search), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
