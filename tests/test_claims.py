"""Claims have one holder at a time: on one machine, over the network, without file locks and without hard links."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock
import pytest

from hrvit_lab.study import claims
from hrvit_lab.study.claims import STALE_S, Claim, read_claim, remove_leftovers, try_claim
from hrvit_lab.study.store import Store

HOLD = """
import sys, pathlib
from hrvit_lab.study.claims import try_claim
print(try_claim(pathlib.Path(sys.argv[1])) is not None, flush=True)
sys.stdin.read()
"""

COUNT = """
import os, random, sys, time, pathlib
from hrvit_lab.study import claims
claim, counter = map(pathlib.Path, sys.argv[1:3])
name, turns = sys.argv[3:5]
chance = random.Random(name)
for turn in range(int(turns)):
    claims._machine = lambda: f"{name} {turn}"  # its own claim of an earlier turn is one of a lost host as well
    while (held := claims.try_claim(claim)) is None:
        time.sleep(0.0005)
    counter.write_text(str(int(counter.read_text()) + 1))
    if chance.random() < 0.5:
        held.release()
    else:  # as if its host were lost, and this process will notice too late that it has lost the claim
        held._over.set()
        os.utime(held._place, (1, 1))
        if chance.random() < 0.5:
            time.sleep(chance.random() / 100)
            held.release()
"""


def python(code: str, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, cwd=Path(__file__).parents[1], **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.claim"


def claimed(path: Path) -> Claim:
    claim = try_claim(path)
    assert claim is not None
    return claim


def left(path: Path) -> list[str]:
    return sorted(child.name for child in path.parent.iterdir())


def as_if_elsewhere(path: Path, untouched_s: float = 0) -> None:
    """Change a claim into one of another machine."""
    fields = json.loads(path.read_text()) | {"machine": "another", "host": "there"}
    path.write_text(json.dumps(fields))
    now = path.stat().st_mtime
    os.utime(path, (now - untouched_s, now - untouched_s))


def test_a_claim_has_one_holder_until_it_is_released(path: Path) -> None:
    claim = claimed(path)
    assert try_claim(path) is None
    assert read_claim(path) == claim.owner and claim.owner.pid == os.getpid()
    claim.release()
    claim.release()  # again changes nothing
    assert left(path) == [] and read_claim(path) is None
    claimed(path).release()


def test_the_claim_of_a_killed_process_is_void_at_once(path: Path) -> None:
    with python(HOLD, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == "True\n"
        assert try_claim(path) is None
        holder.send_signal(signal.SIGKILL)
    assert read_claim(path) is None
    claim = claimed(path)
    assert try_claim(path) is None and read_claim(path) == claim.owner
    claim.release()
    assert left(path) == []


def test_a_process_id_that_is_used_again_holds_no_claim(path: Path) -> None:
    claim = claimed(path)
    path.write_text(json.dumps(asdict(claim.owner) | {"born": claim.owner.born - 1000}))
    claimed(path).release()


@pytest.mark.parametrize(("untouched_s", "held"), [(0, True), (STALE_S - 30, True), (STALE_S + 30, False)])
def test_the_claim_of_another_machine_holds_while_it_is_touched(path: Path, untouched_s: float, held: bool) -> None:
    first = claimed(path)
    as_if_elsewhere(path, untouched_s)
    assert (read_claim(path) is not None) is held
    second = try_claim(path)
    assert (second is None) is held
    if second is not None:
        first.release()  # it comes back too late
        assert read_claim(path) == second.owner and try_claim(path) is None
        second.release()
        assert left(path) == []


def test_a_holder_touches_its_claim(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    claim = claimed(path)
    os.utime(path, (1, 1))
    while path.stat().st_mtime == 1:
        time.sleep(0.01)
    claim.release()


def test_claims_exclude_each_other_whatever_their_holders_do(path: Path) -> None:
    """Four machines increment one counter; if a claim had two holders, increments would be lost. Half of the claims are
    given up as by a lost host, and some of these are released late."""
    counter = path.with_name("counter")
    counter.write_text("0")
    processes = [python(COUNT, path, counter, f"machine {number}", 60) for number in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert counter.read_text() == "240"


def test_a_release_that_was_cut_off_leaves_a_void_claim(path: Path) -> None:
    """After its first step; and the next one after that as well."""
    for length in range(1, 4):
        claim = claimed(path)
        claim._over.set()
        os.link(claim._place, path.with_name(f"a.claim.{claim.owner.token}"))
        assert try_claim(path) is None  # it may go on
        claim._place.write_text(json.dumps(asdict(claim.owner) | {"pid": 2**22 + 1}))
        assert read_claim(path) is None
        assert len(left(path)) == 2 * length
    claimed(path).release()
    assert left(path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 1}', '{"token": "../../x"}', "\x00" * 5000])
def test_a_damaged_claim_is_void_after_a_while(path: Path, text: str) -> None:
    path.write_text(text)
    assert try_claim(path) is None
    os.utime(path, (1, 1))
    claim = claimed(path)
    assert try_claim(path) is None
    claim.release()
    assert left(path) == []


def test_without_file_locks_a_store_claims_correctly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, refuse)
    with pytest.raises(OSError, match="No locks"):
        filelock.FileLock(tmp_path / "lock").acquire(blocking=False)
    store, other = Store(tmp_path), Store(tmp_path)
    store.create()
    claim = store.claim("1" * 32)
    assert claim is not None and other.claim("1" * 32) is None
    other.create()
    assert other.owner("1" * 32) == claim.owner
    store.release(claim)
    again = other.claim("1" * 32)
    assert again is not None
    again.release()
    assert list(store.folder.iterdir()) == []


def test_without_hard_links_claims_exclude_each_other_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    claim = claimed(path)
    assert try_claim(path) is None
    claim.release()
    assert left(path) == []


def test_leftovers_of_killed_processes_are_removed(path: Path) -> None:
    held = claimed(path.with_name("held.claim"))
    with python(HOLD, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == "True\n"
        holder.kill()
    for name, when in (("b.claim.1.new", 1), ("c.claim.2", 1), ("d.claim.3.new", None)):
        path.with_name(name).touch()
        if when:
            os.utime(path.with_name(name), (when, when))
    remove_leftovers(path.parent)
    assert left(path) == ["d.claim.3.new", "held.claim"]
    held.release()


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        try_claim(tmp_path / "file" / "a.claim")
