"""Under what conditions a number was measured: recorded beside every result, safe to publish."""

import contextlib
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil
import torch

PACKAGES = ("hrvit-lab", "timm", "numpy", "triton", "onnxruntime", "openvino", "nvidia-ml-py")

# A path from its root (/, ~ or a drive letter) to its last part, wherever it stands in an argument: --out=/a.
_ROOTED_PATH = re.compile(r"(?<![\w.…/\\])(?:~[^/\\=,]*|[A-Za-z]:)?[/\\](?:[^/\\=,]*[/\\])*([^/\\=,]*)")


def environment() -> dict[str, object]:
    """Versions, processor, devices, commit, command and date, as JSON knows them.

    No environment variables, no host or user name; of rooted paths in the command only the last part is kept.
    What can't be found out is None.
    """
    return {
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(sys.argv, getattr(sys.modules["__main__"], "__spec__", None)),
        **_git_state(Path(__file__).parent),
        "versions": versions(),
        "os": operating_system(),
        "cpu": cpu_model(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        **_cuda_state(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a measurement; absent ones left out."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if torch.version.cuda is not None and torch.cuda.is_available():
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def command_line(argv: Sequence[str], main_spec: object = None) -> str:
    """The command as typed, without the places where things lie.

    Args:
        argv: program and arguments, as ``sys.argv``.
        main_spec: ``__main__.__spec__``; names the module of ``python -m``.

    Example:
        >>> command_line(["/home/me/sweep.py", "--out=/data/me/results", "--jobs", "2"])
        'sweep.py --out=…/results --jobs 2'
    """
    module = getattr(main_spec, "name", None)
    program = f"python -m {module.removesuffix('.__main__')}" if module else re.split(r"[/\\]", argv[0])[-1]
    return " ".join([program, *(_ROOTED_PATH.sub(r"…/\1", argument) for argument in argv[1:])])


def operating_system() -> str:
    """System, kernel version without a builder's suffix, machine, and the distribution where there is one."""
    release = re.match(r"[\d.]*\d", platform.release())
    name = " ".join([platform.system(), release.group() if release else "", platform.machine()])
    with contextlib.suppress(OSError):
        name += f", {platform.freedesktop_os_release()['PRETTY_NAME']}"
    return name


def cpu_model() -> str:
    """The processor's name as the operating system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_state(directory: Path) -> dict[str, object]:
    """Commit of the checkout that tracks this package, and whether tracked files differ from it.

    A package installed inside somebody else's checkout is not tracked there: then both are None.
    """
    nothing: dict[str, object] = {"git_commit": None, "git_dirty": None}
    if _output("git", "-C", str(directory), "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return nothing
    commit = _output("git", "-C", str(directory), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(directory), "status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "git_dirty": bool(changes)} if commit else nothing


def _cuda_state() -> dict[str, object]:
    if not torch.cuda.is_available():
        return {"cuda_devices": [], "cuda_driver": None}
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "cuda_devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda_driver": driver.splitlines()[0] if driver else None,
    }


def _output(*command: str) -> str | None:
    """Standard output of a command; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
