"""Signals that end a run, noted so that the run ends between two of its steps."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from hrvit_lab.study.executors.work import Ended


@contextlib.contextmanager
def noted_signals() -> Iterator[Callable[[], None]]:
    """Yield a function that raises `Ended` if a signal (SIGINT, SIGTERM, SIGHUP) has been received.

    The handler only notes the signal: if it raised, that could happen between creating a lock or process and storing
    it. Signals that are ignored (nohup) or already have a handler are left as they are.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    def check_end() -> None:
        if received:
            raise Ended(received[0])

    if threading.current_thread() is not threading.main_thread():
        yield check_end
        return
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names)}
    ending = {n: handler for n, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)}
    for number in ending:
        signal.signal(number, note)
    try:
        yield check_end
        check_end()  # a signal may have arrived after the last check
    finally:
        for number, handler in ending.items():
            signal.signal(number, handler)
