"""Ctrl-C while the modules of a command load.

A KeyboardInterrupt within an import may be swallowed there, or come out as another error. So the process ends at once:
nothing is lost, for nothing is computed yet.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

CODE = 130


def expect() -> None:
    """End at once until `hear`, if this process was started as one of our commands, and does not ignore SIGINT."""
    name = sys.argv[0] if sys.argv else ""  # while ``python -m`` looks for its module, that is "-m"
    if name == "-m" or os.path.basename(name) == "hrvit-lab":
        _exchange(signal.default_int_handler, _end_at_once)


def hear() -> None:
    """Let Ctrl-C raise a KeyboardInterrupt, as Python does."""
    _exchange(_end_at_once, signal.default_int_handler)


@contextmanager
def loading() -> Iterator[None]:
    """End the process at once on Ctrl-C within, where nothing would be lost: while modules load or tools count."""
    changed = _exchange(signal.default_int_handler, _end_at_once)
    try:
        yield
    finally:
        if changed:
            hear()


def ignore() -> None:
    """At exit all is done: a KeyboardInterrupt would only print a traceback of Python's own."""
    if _in_main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_at_once(*_: object) -> None:
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(CODE)


def _exchange(before: object, after: Callable[..., object]) -> bool:
    """Set the handler of SIGINT if it is that one; whether it was."""
    if not _in_main_thread() or signal.getsignal(signal.SIGINT) != before:
        return False
    signal.signal(signal.SIGINT, after)
    return True


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
