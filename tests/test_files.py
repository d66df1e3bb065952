"""Writes are complete or absent, reads are bounded, and a lock has one holder."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hrvit_lab import load_results
from hrvit_lab.config import ConfigError
from hrvit_lab.export.__main__ import main as export
from hrvit_lab.files import read_bounded, try_lock, user_path, write_atomically
from hrvit_lab.insight.__main__ import main as insight
from hrvit_lab.search.__main__ import main as search
from hrvit_lab.train.__main__ import main as train

ROOT = Path(__file__).resolve().parent.parent


def test_a_write_replaces_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("old", "new: ä ×\n"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]


def test_the_file_and_its_folder_are_on_disk_before_the_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_atomically(tmp_path / "a.txt", "text")
    assert synced == [tmp_path / "a.txt.tmp", tmp_path]


def test_a_write_that_fails_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    """A limit on file sizes simulates a full disk: the same system call fails."""
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(OSError) as failure:
            write_atomically(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (failure.value.errno, failure.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]


def test_a_read_is_bounded_and_never_waits(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345678")
    assert read_bounded(path, 8) == b"12345678"
    os.mkfifo(tmp_path / "fifo")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(2**30)
    for name, limit, said in [
        ("a", 7, "larger than"),
        ("huge", 2**20, "larger than 1 MiB"),
        ("huge", 2**16, "larger than 64 KiB"),
        ("fifo", 8, "not a regular file"),
        (".", 8, "not a regular file"),
        ("absent", 8, "No such file"),
        ("../../../../../../../../dev/zero", 8, "not a regular file"),
    ]:
        with pytest.raises(OSError, match=said):
            read_bounded(tmp_path / name, limit)


def test_a_lock_is_held_only_once_even_within_one_process(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    lock = try_lock(path)
    assert lock and try_lock(path) is None
    lock.release()
    again = try_lock(path)
    assert again
    again.release(unlink=True)
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_a_lock_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as failure:
        try_lock(tmp_path / "file" / "a.lock")
    assert failure.value.filename == str(tmp_path / "file" / "a.lock")


HOLD = """
import sys, pathlib
from hrvit_lab.files import try_lock
held = try_lock(pathlib.Path(sys.argv[1]))
print(held is not None, flush=True)
sys.stdin.read()
"""


def hold(path: Path, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", "-c", HOLD, str(path)]
    return subprocess.Popen(
        command, text=True, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
    )


def test_without_kernel_locks_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    """If Python has no ``fcntl``, a file marks the lock: it must be valid exactly while its owner lives."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['fcntl'] = None\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    path = tmp_path / "a.lock"
    said = []
    for _ in range(2):
        with hold(path, env=environment) as first, hold(path, env=environment) as second:
            assert first.stdout and second.stdout
            said.append({first.stdout.readline(), second.stdout.readline()})
            for process in (first, second):
                process.kill()
    assert said == [{"True\n", "False\n"}] * 2


NOBODY = "~nobody-here/x"


def test_a_path_with_an_unknown_home_folder_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/a/b") == Path("/somewhere/a/b")
    assert user_path(Path("a/~/b")) == Path("a/~/b")
    with pytest.raises(ConfigError, match=r"home folder in '~nobody-here/x' does not exist on this machine; give"):
        user_path(NOBODY)


def test_paths_of_users_are_expanded_in_one_place() -> None:
    """The functions of pathlib and os raise an error for an unknown home folder, or leave the name as it is."""
    calls = re.compile(r"\bexpanduser\(|\bPath\.home\(")
    files = [ROOT / "app.py", *sorted((ROOT / "hrvit_lab").rglob("*.py"))]
    found = [str(path.relative_to(ROOT)) for path in files for _ in calls.findall(path.read_text(encoding="utf-8"))]
    assert found == ["hrvit_lab/files.py"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (search, ["mine.yaml", "--dry-run"]),
        (search, ["mine.yaml"]),
        (train, ["recipe.yaml", "--set", f"model.initial_weights={NOBODY}"]),
        (train, ["recipe.yaml", "--resume", NOBODY]),
        (export, ["hrvit_nano", "--format", "openvino", "--dtype", "int8", "--data", NOBODY]),
        (insight, ["hrvit_nano", NOBODY]),
    ],
)
def test_commands_refuse_a_path_with_an_unknown_home_folder(
    command: Callable[[list[str]], int], arguments: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    space = {"title": "t", "question": "q", "base": "hrvit_nano", "space": {"stem_width": [8, 16]}, "resolution": 64}
    objectives = {"macs": "lower", "predicted_latency_ms": "lower"}
    Path("mine.yaml").write_text(json.dumps({**space, "objectives": objectives, "profile": NOBODY}))
    Path("recipe.yaml").write_text(
        "title: t\ntask: classification\ndata: {name: digits, resolution_px: 32}\nmodel: {name: hrvit_nano}\n"
        "optimiser: {learning_rate: 0.001}\nschedule: {epochs: 1}\n"
    )
    assert command(arguments) == 2
    error = capsys.readouterr().err
    assert "home folder" in error and "nobody-here" in error and "Traceback" not in error
    assert error.count("error:") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "recipe.yaml"]
    with pytest.raises(ConfigError, match="nobody-here"):
        load_results("mine", out="~nobody-here/results")
