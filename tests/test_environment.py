"""The environment record: complete, JSON, and without private data."""

import getpass
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.machinery import ModuleSpec
from pathlib import Path

import psutil
import pytest
import torch

from hrvit_lab.environment import (
    available_memory,
    command_line,
    cpu_model,
    environment,
    hardware,
    usable_cores,
)

KEYS = {
    "date_utc", "command", "git_commit", "git_dirty", "hardware", "versions", "os", "cpu", "physical_cores",
    "logical_cores", "usable_cores", "torch_threads", "cuda_devices", "cuda_driver",
}  # fmt: skip


def test_the_record_is_complete_json() -> None:
    found = json.loads(json.dumps(environment()))
    assert set(found) == KEYS
    assert found["versions"].items() >= {"python": platform.python_version(), "torch": torch.__version__}.items()
    assert {"timm", "numpy"} <= set(found["versions"])
    assert 1 <= found["physical_cores"] <= found["logical_cores"] == os.cpu_count()
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["cuda_devices"] == [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    assert found["cpu"] == cpu_model() != ""
    assert found["os"].startswith(platform.system())


def test_the_date_is_the_current_time_in_utc() -> None:
    date = datetime.fromisoformat(str(environment()["date_utc"]))
    assert date.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - date) < timedelta(minutes=1)


def test_the_commit_equals_that_of_git() -> None:
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    found = environment()
    if git("ls-files", "hrvit_lab/environment.py") and git("rev-parse", "HEAD"):
        assert found["git_commit"] == git("rev-parse", "HEAD")
        assert found["git_dirty"] is bool(git("status", "--porcelain", "--untracked-files=no"))
    else:
        assert found["git_commit"] is found["git_dirty"] is None


def test_the_commit_of_another_project_is_not_recorded(tmp_path: Path) -> None:
    """If the package is installed in the environment of a user's own repository, that repository's commit is not
    ours."""
    package = tmp_path / "site-packages" / "hrvit_lab"
    package.mkdir(parents=True)
    source = Path(sys.modules["hrvit_lab.environment"].__file__ or "")
    (package / "environment.py").write_text(source.read_text())
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    code = "import environment, json; print(json.dumps(environment.environment()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=package, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["git_commit"], found["git_dirty"]) == (None, None)


@pytest.mark.parametrize(
    ("argv", "module", "command"),
    [
        (["/home/me/code/sweep.py", "--jobs", "2"], None, "sweep.py --jobs 2"),
        (["sweep.py", "--out=/data/me/results"], None, "sweep.py --out=…/results"),
        (["sweep.py", "--out", "~/results", "../here/too"], None, "sweep.py --out …/results ../here/too"),
        (["sweep.py", "~me/a/b", "/home/jo doe/a file"], None, "sweep.py …/b …/a file"),
        (["sweep.py", "--set", "data.root=/home/me/x,train.epochs=2"], None,
         "sweep.py --set data.root=…/x,train.epochs=2"),
        ([r"C:\Users\me\sweep.py", r"D:\data\me\set", "--out=C:/Users/me/r"], None,
         "sweep.py …/set --out=…/r"),
        (["/x/hrvit_lab/study/__main__.py", "branch_sweep"], "hrvit_lab.study.__main__",
         "python -m hrvit_lab.study branch_sweep"),
        (["/x/hrvit_lab/cost/audit.py", "1/2"], "hrvit_lab.cost.audit",
         "python -m hrvit_lab.cost.audit 1/2"),
        (["-c"], None, "-c"),
    ],
)  # fmt: skip
def test_recorded_commands_contain_no_private_path(argv: list[str], module: str | None, command: str) -> None:
    assert command_line(argv, ModuleSpec(module, None) if module else None) == command


def test_the_record_contains_nothing_private(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cret-of-the-environment"
    monkeypatch.setenv("SOME_TOKEN", secret)
    monkeypatch.setattr(sys, "argv", [str(Path.home() / "project" / "run.py"), f"--root={Path.home()}/data"])
    text = json.dumps(environment())
    private = [secret, str(Path.cwd()), platform.node(), os.path.expanduser("~/")]
    if len(user := getpass.getuser()) > 4:  # "root" is part of --root
        private.append(user)
    for word in private:
        assert word not in text


def test_torch_is_not_loaded_and_its_version_is_exact() -> None:
    code = (
        "import sys, json; from hrvit_lab.environment import environment; found = environment(); "
        "print(json.dumps(found)); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["versions"] == environment()["versions"]
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"] == environment()["hardware"]
    assert found["torch_threads"] is found["cuda_devices"] is None


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


ARM = """\
processor	: 0
BogoMIPS	: 50.00
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: {part}
CPU revision	: 1

processor	: 1
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: {second}
CPU revision	: 1
"""
X86 = """\
processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: {model}
model name	: Intel Xeon Processor
stepping	: 4
cpu MHz		: {clock}
"""


def test_different_chips_have_different_keys_and_equal_chips_equal_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux has no names for ARM chips, virtual machines give different chips the same name, and macOS calls all of
    them arm."""
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    cpus = {
        "n1": ARM.format(part="0xd0c", second="0xd0c"),
        "v1": ARM.format(part="0xd40", second="0xd40"),
        "big and little": ARM.format(part="0xd0c", second="0xd03"),
        "skylake": X86.format(model=85, clock="2000.000"),
        "ice lake": X86.format(model=106, clock="2000.000"),
    }
    roots = {name: plant(tmp_path / name, {"proc/cpuinfo": text}) for name, text in cpus.items()}
    chips = {name: hardware("cpu", root) for name, root in roots.items()}
    assert len(set(chips.values())) == len(chips), chips
    warm = plant(tmp_path / "warm", {"proc/cpuinfo": X86.format(model=85, clock="3100.125")})
    assert hardware("cpu", warm) == chips["skylake"]
    assert cpu_model(roots["n1"]) == "arm implementer 0x41 architecture 8 variant 0x3 part 0xd0c revision 1"
    assert cpu_model(roots["skylake"]) == "Intel Xeon Processor"


def test_macs_are_distinguished_by_the_name_of_their_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    found = {}
    for brand in ("Apple M1", "Apple M4 Pro"):
        sysctl = plant(
            tmp_path / brand, {"sysctl": f"#!/bin/sh\n[ \"$*\" = '-n machdep.cpu.brand_string' ] && echo {brand}\n"}
        )
        (sysctl / "sysctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{sysctl}{os.pathsep}{os.environ['PATH']}")
        found[brand] = cpu_model(tmp_path)
    assert found == {"Apple M1": "Apple M1", "Apple M4 Pro": "Apple M4 Pro"}


NONE = 9223372036854771712  # what version 1 says for no limit

BOUNDS = {
    "version 2, in a container": (
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": "1000000\n",
            "sys/fs/cgroup/memory.current": "600000\n",
            "sys/fs/cgroup/memory.stat": "anon 300000\ninactive_file 100000\n",
        },
        1,
        500_000,
    ),
    "version 2, the outer group is the tighter one": (
        {
            "proc/self/cgroup": "0::/job/step\n",
            "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
            "sys/fs/cgroup/job/cpu.max": "100000 100000\n",
            "sys/fs/cgroup/job/step/memory.max": "max\n",
            "sys/fs/cgroup/job/step/memory.current": "5\n",
            "sys/fs/cgroup/job/memory.max": "2000\n",
            "sys/fs/cgroup/job/memory.current": "500\n",
        },
        1,
        1500,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "4:memory:/slurm/job\n3:cpu,cpuacct:/slurm/job\n0::/\n",
            "sys/fs/cgroup/cpu,cpuacct/slurm/job/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/slurm/job/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/slurm/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/slurm/cpu.cfs_period_us": "50000\n",
            "sys/fs/cgroup/memory/slurm/job/memory.limit_in_bytes": "3000\n",
            "sys/fs/cgroup/memory/slurm/job/memory.usage_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/slurm/job/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{NONE}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
        },
        1,
        2300,
    ),
    "version 1, in a container that sees its own group as the outermost": (
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu:/docker/abc\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "4000\n",
        },
        1,
        0,
    ),
    "less than a core": (
        {"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/x/cpu.max": "1000 100000\n"},
        1,
        None,
    ),
    "more than there are": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9000000 1000\n"}, None, None),
    "no groups": ({}, None, None),
    "files of another shape": (
        {
            "proc/self/cgroup": "what\n0::/\n::\n",
            "sys/fs/cgroup/cpu.max": "1 0\n",
            "sys/fs/cgroup/memory.max": "",
            "sys/fs/cgroup/memory.current": "x\n",
            "sys/fs/cgroup/memory.stat": "inactive_file",
        },
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_control_groups_bound_cores_and_memory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, cores, memory = BOUNDS[name]
    root = plant(tmp_path, files)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: [0, 1, 2, 3, 4])
    machine = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert usable_cores(root) == (5 if cores is None else cores)
    assert available_memory(root) == (machine.available if memory is None else memory)


def test_a_limit_of_two_cores_is_reported_as_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"})
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: [0, 1, 2, 3, 4])
    assert usable_cores(root) == 2
    monkeypatch.delattr(psutil.Process, "cpu_affinity")  # as on macOS
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 3)
    assert usable_cores(root) == 2
    assert usable_cores(tmp_path / "none") == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can't be taken away here")
def test_a_process_bound_to_one_core_has_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from hrvit_lab.environment import hardware, usable_cores; print(usable_cores(), hardware())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 ") and done.stdout.endswith(", 1 core\n")
