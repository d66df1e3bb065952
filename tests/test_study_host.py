"""Studies on one host do not disturb each other's latency measurements, for any results folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrvit_lab.errors import ConfigError
from hrvit_lab.study.executors.host import host_folder, timing_lock

COMPUTE = """
import sys
from hrvit_lab.errors import ConfigError
from hrvit_lab.study.executors.host import timing_lock
held = timing_lock(exclusive=sys.argv[1] == "True")
print(held is not None, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder() -> Iterator[Path]:
    yield (folder := host_folder())
    assert list(folder.iterdir()) == [], "a lock file was left"


def hold(exclusive: bool, cwd: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", COMPUTE, str(exclusive)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(command, text=True, cwd=cwd, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_lock_of_another_process_applies_to_any_folder_until_it_ends(tmp_path: Path, exclusive: bool) -> None:
    with hold(exclusive, tmp_path) as other:
        assert other.stdout and other.stdout.readline() == "True\n"
        assert timing_lock(exclusive=True) is None
        shared = timing_lock(exclusive=False)
        assert (shared is None) is exclusive
        if shared:
            shared.release(unlink=True)
        other.send_signal(signal.SIGKILL)
    alone = timing_lock(exclusive=True)
    assert alone
    alone.release(unlink=True)


def test_the_folder_is_accessible_only_to_its_user(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="must be a folder that only this user can write to"):
        timing_lock(exclusive=True)
    folder.chmod(0o700)


def test_a_link_in_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=f"{folder} .* must be a folder that only this user can write to; remove it"):
        timing_lock(exclusive=False)
    assert list(tmp_path.iterdir()) == []
    folder.unlink()
    host_folder()
