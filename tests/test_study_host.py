"""Studies on one host do not disturb each other's latency measurements, for any results folder."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrvit_lab.errors import ConfigError
from hrvit_lab.study.executors import host
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
    """A process that holds the lock, with a ``TMPDIR`` of its own."""
    command = [sys.executable, "-c", COMPUTE, str(exclusive)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(cwd)}
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
    with pytest.raises(
        ConfigError,
        match=f"{folder} .* must be a folder that only this user can write to; remove it, or set HRVIT_LAB_LOCKS",
    ):
        timing_lock(exclusive=False)
    assert list(tmp_path.iterdir()) == []
    folder.unlink()
    host_folder()


def test_the_folder_is_not_moved_by_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(host.LOCKS)
    usual, other = tmp_path / "usual", tmp_path / "other"
    for path in (usual, other):
        path.mkdir()
    monkeypatch.setattr(host, "TEMPORARY", (str(tmp_path / "missing"), str(usual)))
    for tmpdir in (usual, other):
        monkeypatch.setattr(tempfile, "tempdir", str(tmpdir))
        assert host_folder() == usual / f"hrvit-lab-{os.getuid()}"
    monkeypatch.setattr(host, "TEMPORARY", ())  # as on Windows
    assert host_folder().parent == other
    monkeypatch.setenv(host.LOCKS, str(tmp_path))
    assert host_folder().parent == tmp_path


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_cannot_be_created_is_one_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(host.LOCKS, str(tmp_path / kind))
    with pytest.raises(ConfigError) as refusal:
        timing_lock(exclusive=False)
    assert re.fullmatch(
        rf"{tmp_path}/{kind}/hrvit-lab-\d+ holds the locks of studies, but can't be created \(.+\); "
        "set HRVIT_LAB_LOCKS to a folder of this host that you can write to",
        str(refusal.value),
    )


@pytest.mark.parametrize(
    ("exclusive", "others"), [(False, "latency measurements"), (True, "trials, searches and measurements")]
)
def test_who_waits_says_it_once(exclusive: bool, others: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = timing_lock(exclusive=not exclusive)
    assert held is not None
    waits = iter((False, True))
    sentences: list[str] = []

    def sleep(seconds: float) -> None:
        if seconds == host.POLL_S and next(waits):
            held.release(unlink=True)

    monkeypatch.setattr(host.time, "sleep", sleep)
    with host.in_turn(exclusive=exclusive, say=sentences.append):
        assert timing_lock(exclusive=True) is None
    assert sentences == [f"Waiting until the {others} that run on this machine have ended."] and not list(waits)
