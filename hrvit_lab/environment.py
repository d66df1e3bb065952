"""The environment of a measurement, recorded with every result and safe to publish."""

import contextlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("hrvit-lab", "timm", "numpy", "triton", "onnxruntime", "openvino", "nncf", "torchao", "nvidia-ml-py")

# A path from its root (/, ~ or a drive letter) to its last part, wherever it stands in an argument: --out=/a.
_ROOTED_PATH = re.compile(r"(?<![\w.…/\\])(?:~[^/\\=,]*|[A-Za-z]:)?[/\\](?:[^/\\=,]*[/\\])*([^/\\=,]*)")


def environment(device: str = "cpu") -> dict[str, object]:
    """Versions, processor, devices, commit, command and date, as JSON knows them.

    No environment variables, no host or user name; of rooted paths in the command only the last part is kept.
    What can't be found out is None. Torch is not loaded for a CPU: where it is not loaded yet, its number of threads
    and the GPUs are None.

    Args:
        device: that the figures are of; where it is a GPU, the caller has loaded torch.
    """
    return {
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(sys.argv, getattr(sys.modules["__main__"], "__spec__", None)),
        **_git_state(Path(__file__).parent),
        "hardware": hardware(device),
        "versions": versions(),
        "os": operating_system(),
        "cpu": cpu_model(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "torch_threads": torch.get_num_threads() if (torch := _loaded_torch()) else None,
        **_cuda_state(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a measurement; absent ones left out."""
    found = {"python": platform.python_version(), "torch": torch_version()}
    found |= {package: version for package in PACKAGES if (version := package_version(package))}
    torch = _loaded_torch()
    if torch is not None and torch.version.cuda is not None and torch.cuda.is_available():
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def package_version(package: str) -> str:
    """The installed package's version; empty if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def torch_version() -> str:
    """``torch.__version__``, read from its files: loading torch takes seconds. Empty if it is not installed.

    The installed metadata lack what stands behind the plus sign, the build.
    """
    if (torch := _loaded_torch()) is not None:
        return str(torch.__version__)
    found = util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    with contextlib.suppress(OSError):
        text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
        if version := re.search(r"""^__version__ = ['"](.+)['"]$""", text, re.MULTILINE):
            return version.group(1)
    return metadata.version("torch")


def _loaded_torch() -> Any:
    """Torch, if something has loaded it."""
    return sys.modules.get("torch")


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
    typed = " ".join([program, *(_ROOTED_PATH.sub(r"…/\1", argument) for argument in argv[1:])])
    return typed.encode(errors="backslashreplace").decode()  # names of files can be bytes that are not UTF-8


def operating_system() -> str:
    """System, kernel version without a builder's suffix, machine, and the distribution where there is one."""
    release = re.match(r"[\d.]*\d", platform.release())
    name = " ".join([platform.system(), release.group() if release else "", platform.machine()])
    with contextlib.suppress(OSError):
        name += f", {platform.freedesktop_os_release()['PRETTY_NAME']}"
    return name


def cpu_model(root: Path = Path("/")) -> str:
    """The processor's name as the operating system tells it; where it has none (ARM), the numbers of its design.

    Args:
        root: where ``proc/cpuinfo`` is looked for.
    """
    facts = _cpuinfo(root)
    if name := next((facts[field] for field in CPU_NAMES if facts.get(field)), None):
        return name
    if platform.system() == "Darwin" and (brand := _output("sysctl", "-n", "machdep.cpu.brand_string")):
        return brand  # platform.processor() says "arm" for all of them
    numbers = [f"{field.removeprefix('CPU ')} {facts[field]}" for field in CPU_NUMBERS if field in facts]
    return " ".join([platform.processor() or platform.machine(), *numbers])


CPU_NAMES = ("model name", "cpu model", "Model Name", "cpu")
CPU_NUMBERS = (
    "vendor_id", "cpu family", "model", "stepping",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "mvendorid", "marchid", "mimpid",
)  # fmt: skip
"""Fields of /proc/cpuinfo: what a processor is called, and the numbers that tell designs of one name apart."""


def hardware(device: str = "cpu", root: Path = Path("/")) -> str:
    """The chip behind a device; of a CPU also how many cores this process may use. Times on others are other times.

    Args:
        device: a name of torch: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"mps"``; where it is one of CUDA's, the
            caller has loaded torch.
        root: where ``proc`` and ``sys`` are looked for.
    """
    if device.startswith("cuda"):
        torch = _loaded_torch()
        assert torch is not None, "who names a GPU has looked for it with torch"
        return str(torch.cuda.get_device_name(device))
    facts = _cpuinfo(root)
    numbers = " ".join(facts[field] for field in CPU_NUMBERS if field in facts)
    chip = cpu_model(root) + (f" ({numbers})" if numbers else "")
    if device != "cpu":
        return f"{chip}, {device}"
    cores = usable_cores(root)
    return f"{chip}, {cores} core{'s' * (cores != 1)}"


def _cpuinfo(root: Path) -> dict[str, str]:
    """The fields of /proc/cpuinfo; where processors differ (big and little cores), all values of a field."""
    found: dict[str, list[str]] = {}
    with contextlib.suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            field, _, value = (part.strip() for part in line.partition(":"))
            if value and value not in found.setdefault(field, []):
                found[field].append(value)
    return {field: "+".join(found[field]) for field in (*CPU_NAMES, *CPU_NUMBERS) if field in found}


def usable_cores(root: Path = Path("/")) -> int:
    """How many cores this process may use at once: those it is bound to, and what its control groups grant (whole
    cores, at least one).

    Args:
        root: where ``proc`` and ``sys`` are looked for.
    """
    process = psutil.Process()
    bound = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1
    quotas = []
    for folder in _control_groups(root, "cpu"):
        match _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"):
            case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period) > 0:  # not "max", not -1
                quotas.append(int(quota) // int(period))
    return max(1, min([bound, *quotas]))


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can still be allocated: of the machine's memory, and of what control groups grant.

    Args:
        root: where ``proc`` and ``sys`` are looked for.
    """
    available = [psutil.virtual_memory().available]
    for folder in _control_groups(root, "memory"):
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
        words = _words(folder / "memory.stat")
        facts = dict(zip(words[::2], words[1::2], strict=False))
        cached = facts.get("total_inactive_file", facts.get("inactive_file", "0"))  # files that give way
        match [*limit, *used, cached]:
            case [most, now, give] if most.isdecimal() and now.isdecimal() and give.isdecimal():
                available.append(int(most) - int(now) + int(give))
    return max(0, min(available))


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of Linux's control groups that bound this process, from its own to the outermost, in both versions.

    In a container the own group may be the outermost folder that can be seen.
    """
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mounts = []
        if number == "0" and not controllers:
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif controller in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / controller, root / "sys/fs/cgroup" / controllers]
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    """A small file of the kernel's; nothing if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


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
    torch = _loaded_torch()
    if torch is None:
        return {"cuda_devices": None, "cuda_driver": None}
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
