"""The error that a user can act on, and the names that a user may have meant."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """The request is invalid; the message is one sentence with the field, its value and what to do instead."""


def suggest(name: object, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or the list of known names if none is similar."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"use one of {', '.join(names)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator failed: Python's, torch's for a device, or torch's for the CPU, known by its text alone."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
        or "MPS backend out of memory" in str(error)
    )
