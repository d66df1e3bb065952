"""The environment record: complete, JSON, and without anything private."""

import getpass
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from hrvit_lab.environment import command_line, cpu_model, environment

KEYS = {
    "date_utc", "command", "git_commit", "git_dirty", "versions", "os", "cpu", "physical_cores",
    "logical_cores", "torch_threads", "cuda_devices", "cuda_driver",
}  # fmt: skip


def test_it_is_json_and_complete() -> None:
    found = json.loads(json.dumps(environment()))
    assert set(found) == KEYS
    assert found["versions"].items() >= {"python": platform.python_version(), "torch": torch.__version__}.items()
    assert {"timm", "numpy"} <= set(found["versions"])
    assert 1 <= found["physical_cores"] <= found["logical_cores"] == os.cpu_count()
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["cuda_devices"] == [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    assert found["cpu"] == cpu_model() != ""
    assert found["os"].startswith(platform.system())


def test_the_date_is_now_in_utc() -> None:
    date = datetime.fromisoformat(str(environment()["date_utc"]))
    assert date.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - date) < timedelta(minutes=1)


def test_the_commit_is_gits() -> None:
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    found = environment()
    if git("ls-files", "hrvit_lab/measure/environment.py") and git("rev-parse", "HEAD"):
        assert found["git_commit"] == git("rev-parse", "HEAD")
        assert found["git_dirty"] is bool(git("status", "--porcelain", "--untracked-files=no"))
    else:
        assert found["git_commit"] is found["git_dirty"] is None


def test_another_projects_checkout_is_not_ours(tmp_path: Path) -> None:
    """Installed into the environment of a user's own repository, we have no commit of ours to report."""
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
def test_commands_keep_no_private_path(argv: list[str], module: str | None, command: str) -> None:
    assert command_line(argv, ModuleSpec(module, None) if module else None) == command


def test_nothing_private_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cret-of-the-environment"
    monkeypatch.setenv("SOME_TOKEN", secret)
    monkeypatch.setattr(sys, "argv", [str(Path.home() / "project" / "run.py"), f"--root={Path.home()}/data"])
    text = json.dumps(environment())
    private = [secret, str(Path.cwd()), platform.node(), os.path.expanduser("~/")]
    if len(user := getpass.getuser()) > 4:  # "root" is part of --root
        private.append(user)
    for word in private:
        assert word not in text
