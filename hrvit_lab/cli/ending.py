"""Exit codes of commands, and error messages without tracebacks for errors that a user can cause."""

import atexit
import contextlib
import errno
import io
import os
import shutil
import sys
from collections.abc import Callable

from hrvit_lab import interrupts
from hrvit_lab.cli.display import printable, wrapped
from hrvit_lab.errors import ConfigError

INVALID = 2
INTERRUPTED = interrupts.CODE
BROKEN_PIPE = 141
"""128 + SIGPIPE, as in shells."""

REMEDIES = {
    errno.ENOSPC: "free some space there, or choose another folder",
    errno.EDQUOT: "free some of your quota there, or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a folder in the path is a file; choose another path",
    errno.EISDIR: "it is a folder; give a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "close some files, or raise the limit of open files (ulimit -n)",
}
"""Remedies for errors of the operating system."""


def run(work: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Call ``work`` and return the exit code of the command.

    A command imports slow modules inside ``work``, within ``loading()``, so that Ctrl-C during the import is handled.

    Args:
        work: the command; returns its exit code.
        interrupted: message after Ctrl-C.

    Returns:
        The result of ``work``; 2 with one sentence on standard error for a ConfigError or an error of the operating
        system (a full disk, a missing permission, a standard output that cannot be written); 130 after Ctrl-C; 141
        without a message if the reader of a pipe has exited. Exits by argparse (``--help``) keep their exit code.
    """
    try:
        interrupts.hear()
        prepare_streams()
        try:
            code = work()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0
        sys.stdout.flush()
        return code
    except ConfigError as error:
        complain(f"error: {error}")
        return INVALID
    except KeyboardInterrupt:
        exec("")  # without this, CPython exits by the signal if the interrupt passed through the exec() of a module
        complain(interrupted)
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        complain(f"error: {os_error(error)}")
        return INVALID
    finally:
        _flush_output()
        atexit.unregister(interrupts.ignore)
        atexit.register(interrupts.ignore)


def complain(sentence: str) -> None:
    """Print one sentence on standard error: one line in a file, and in a terminal lines that end between words."""
    text = printable(sentence).replace("\n", " ")
    if sys.stderr is not None and sys.stderr.isatty():
        text = wrapped(text, shutil.get_terminal_size().columns)
    with contextlib.suppress(OSError):  # the exit code is kept if standard error cannot be written either
        print(text, file=sys.stderr)


def os_error(error: OSError) -> str:
    """Describe an error of the operating system in one sentence: the file, the problem, the remedy.

    >>> os_error(FileNotFoundError(2, "No such file or directory", "study.yaml"))
    'study.yaml: No such file or directory; check the path'
    """
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is None and not _output_works():
        return f"standard output: {what}; redirect it to another file"
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "writing or reading a file"
    return f"{where}: {what}; {REMEDIES.get(error.errno or 0, 'try again, or choose another path')}"


def prepare_streams() -> None:
    """Make standard streams safe to write to: replace unencodable characters, and open closed ones on the null device.

    Otherwise the next file that is opened would get the descriptor of a closed stream, and a print would write to it.
    """
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _reopen(descriptor)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _output_works() -> bool:
    """Whether standard output can be written; this writes an empty line."""
    try:
        print(flush=True)
    except OSError:
        return False
    return True


def _flush_output() -> None:
    """Flush standard output, and discard what cannot be written: Python would fail on it at exit, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()


def _discard_output() -> None:
    """Discard the buffered and all later output of standard output."""
    with contextlib.suppress(io.UnsupportedOperation):  # in a notebook or a test it has no descriptor
        _reopen(sys.stdout.fileno())


def _reopen(descriptor: int) -> None:
    """Redirect a descriptor to the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
