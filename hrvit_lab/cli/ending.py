"""How a command ends: each way out has its exit code, and no user sees a traceback for what a user can cause."""

import errno
import os
import sys
from collections.abc import Callable

from hrvit_lab.cli.display import printable
from hrvit_lab.errors import ConfigError

INVALID = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""As a shell says that SIGPIPE ended a command."""

REMEDIES = {
    errno.ENOSPC: "free some space there, or choose another folder",
    errno.EDQUOT: "free some of your quota there, or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.EISDIR: "it is a folder; give a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "close some files, or raise the limit of open files (ulimit -n)",
}
"""What to do about an error of the operating system."""


def run(work: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Call ``work`` and return the command's exit code.

    A command imports what takes long within ``work``, so that Ctrl-C is heard while it loads.

    Args:
        work: the command; returns its exit code.
        interrupted: what to say after Ctrl-C.

    Returns:
        What ``work`` returns; 2 with one sentence on standard error for a ConfigError or an error of the operating
        system (a full disk, a file without permission); 130 after Ctrl-C; 141, without a word, if nobody reads its
        output any more. What argparse ends (``--help``) keeps its exit code.
    """
    prepare_streams()
    try:
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
        complain(interrupted)
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        complain(f"error: {os_error(error)}")
        if error.errno == errno.ENOSPC:
            _discard_output()  # what standard output still holds would raise again at exit
        return INVALID


def complain(sentence: str) -> None:
    """Print one line on standard error."""
    print(printable(sentence).replace("\n", " "), file=sys.stderr)


def os_error(error: OSError) -> str:
    """One sentence about an error of the operating system: the file, what is wrong, what to do.

    >>> os_error(FileNotFoundError(2, "No such file or directory", "study.yaml"))
    'study.yaml: No such file or directory; check the path'
    """
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "writing or reading a file"
    what = error.strerror or str(error) or type(error).__name__
    return f"{where}: {what}; {REMEDIES.get(error.errno or 0, 'try again, or choose another path')}"


def prepare_streams() -> None:
    """Make standard streams safe to write to: characters that their encoding lacks are replaced; closed ones discard.

    A closed stream's descriptor would else be given to the next file that is opened, and a print would write there.
    """
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _reopen(descriptor)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _discard_output() -> None:
    """Send what standard output still holds, and will be given, nowhere."""
    _reopen(sys.stdout.fileno())


def _reopen(descriptor: int) -> None:
    """Let a descriptor lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
