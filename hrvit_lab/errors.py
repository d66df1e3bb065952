"""Errors that rooms share, and suggestions for misspelled names."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """An invalid request. The message is one sentence with the field, its value and the remedy."""


class ProcessLost(RuntimeError):
    """A process of a training was killed, or ended without saying why; the training can be run again."""


def suggest(name: object, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or the list of known names if none is similar."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"use one of {', '.join(names)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error is a failed allocation of Python, or of torch on a GPU or (by its message) on the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
        or "MPS backend out of memory" in str(error)
    )
