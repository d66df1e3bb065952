"""One process at a time runs a search, in a folder without file locks: refusals, killed owners, several hosts."""

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import light_worker
import psutil
import pytest
from forked import Command
from light_search import refusing
from test_claims import as_if_elsewhere, left
from test_search import SMALL
from test_search_trainings import FIELDS, finished

from hrvit_lab.config import ConfigError
from hrvit_lab.search import outer
from hrvit_lab.search.__main__ import main
from hrvit_lab.search.outer import read_outer
from hrvit_lab.search.run import Search, begun, run
from hrvit_lab.search.spec import search_from
from hrvit_lab.study.claims import STALE_S
from hrvit_lab.study.groups import PROBES

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files of Linux")
INNER = {**SMALL, "budget": {**SMALL["budget"], "seeds": [0]}}
OUTER = {**FIELDS, "trainings": {"networks": 4, "batch": 2, "train": {"epochs": 1, "train_limit": 20}}}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which no file can be locked, neither here nor in the processes of `start`."""
    folder = tmp_path / "store"
    folder.mkdir()
    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, refusing(getattr(fcntl, name), folder))
    with pytest.raises(OSError, match="No locks"):
        filelock.FileLock(folder / "lock").acquire(blocking=False)
    (folder / "lock").unlink()
    monkeypatch.setenv("WITHOUT_LOCKS", str(folder))
    yield folder


def search_in(folder: Path) -> Search:
    return Search("small", search_from(INNER), folder / "small")


def searched(search: Search) -> Search:
    with begun(search) as hold:
        run(search, hold, 1, lambda _: None)
    return search


def wait_for(what: str, holds: Callable[[], object]) -> None:
    until = time.monotonic() + 250
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def test_a_search_that_another_process_runs_is_refused_in_one_sentence(store: Path) -> None:
    search = search_in(store)
    with begun(search) as hold:
        before = (search.own_folder / "search.yaml").stat().st_mtime_ns
        for who in (rf"process {os.getpid()} on \S+", rf"process {os.getpid()} on there"):
            with pytest.raises(ConfigError) as refusal, begun(search):
                pass
            assert re.fullmatch(
                rf"{who} has run this search in {search.folder} since \d{{4}}-\d\d-\d\d \d\d:\d\d UTC; wait for it or "
                "end it, or change --out",
                str(refusal.value),
            )
            as_if_elsewhere(hold.path)
        assert (search.own_folder / "search.yaml").stat().st_mtime_ns == before
    hold.path.write_text("damaged")
    with pytest.raises(ConfigError, match=r"^another process has run this search|^another process runs this search"):
        searched(search)
    hold.path.unlink()
    searched(search)
    assert not [name for name in left(hold.path) if "claim" in name or "lock" in name]


def test_a_search_of_a_lost_host_is_taken_over_and_the_lost_one_writes_nothing_more(
    store: Path, tmp_path: Path
) -> None:
    """The first coordinator does one generation, and is suspended for longer than a claim holds without a touch."""
    search = search_in(store)
    path = search.state_file("nsga2", 0)
    taken: list[int] = []

    def suspended(evaluations: int) -> None:
        if not taken:
            taken.append(path.stat().st_mtime_ns)
            as_if_elsewhere(hold.path, STALE_S + 1)
            searched(search)
            taken.append(path.stat().st_mtime_ns)

    with pytest.raises(ConfigError) as ending, begun(search) as hold:
        run(search, hold, 1, suspended)
    assert re.fullmatch(rf".* has taken over the search in {search.folder}, because this one .*", str(ending.value))
    assert taken[0] < taken[1] == path.stat().st_mtime_ns
    assert search.states() == searched(search_in(tmp_path / "undisturbed")).states()
    assert not [name for name in left(hold.path) if "claim" in name]


@pytest.mark.parametrize("fields", [INNER, OUTER], ids=["costs", "trainings"])
def test_a_killed_search_is_taken_over_with_the_results_of_an_undisturbed_one(
    store: Path, fields: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second process is refused until the first one is killed; the workers of the killed one end with it."""
    (store / "s.yaml").write_text(json.dumps(fields))
    killed, whole = (Search("s", search_from(fields), store / name / "s") for name in ("killed", "whole"))
    command = [str(store / "s.yaml"), "--jobs", "2", "--out", str(store / "killed")]
    monkeypatch.setenv("LIGHT_TRIAL_S", "0.5")
    first = Command("light_search", *command)
    began = killed.state_file("nsga2", 0) if fields is INNER else store / "killed" / "trials" / "journal.jsonl"
    wait_for(f"{began} is written", lambda: began.exists() or first.poll() is not None)
    assert first.poll() is None, first.communicate()
    workers = psutil.Process(first.pid).children(recursive=True)
    for process in (*workers, psutil.Process(first.pid)):
        process.suspend()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: process {first.pid} on ") and error.count("\n") == 1, error
    first.kill()
    first.wait()
    for process in workers:
        process.resume()
    assert workers and psutil.wait_procs(workers, 120)[1] == []
    monkeypatch.setenv("LIGHT_TRIAL_S", "0")
    monkeypatch.setattr(outer, "PROBES", {**PROBES, "accuracy": light_worker.accuracy})
    if fields is INNER:
        assert 0 < sum(state.evaluations for state in killed.states().values()) < 2 * 60
        assert searched(killed).states() == searched(whole).states()
    else:
        before = read_outer(killed)
        assert before is not None and len(before.outcomes) < 4
        assert finished(killed) == finished(whole) == read_outer(killed)
        assert len(list((killed.folder.parent / "trials").glob("*.json"))) == 1 + 4, "the base, and each network once"
    assert not [path for path in killed.own_folder.iterdir() if "claim" in path.name or "lock" in path.name]
