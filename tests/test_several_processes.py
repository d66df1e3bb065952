"""Trainings by several processes: how they end together, and that they resume after one is lost."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch.distributed as dist
from forked import Command
from test_recipe_training import ROOT, TINY, command, draw, on_pictures, same_weights, wait_for

from hrvit_lab.train.distributed import name_of_start
from hrvit_lab.train.state import checkpoints

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")


def run_two(module: str, *arguments: str) -> list[tuple[int, str]]:
    """Exit codes and messages of two gloo processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in ("0", "1"):
        with pytest.MonkeyPatch.context() as patch:
            where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
            for name, value in (where | {"MASTER_PORT": port}).items():
                patch.setenv(name, value)
            processes.append(Command(module, *arguments))
    ends = [process.communicate(timeout=120) for process in processes]
    return [(process.wait(), errors) for process, (_, errors) in zip(processes, ends, strict=True)]


def shared(*more: str) -> list[str]:
    return on_pictures(
        *more, schedule__epochs=2, precision__sync_batch_norm="true", data__batch_size_per_process=2
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted training by two processes, beside its images."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "tiny.yaml").write_text(TINY)
    draw(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_two("hrvit_lab.train", *shared("--out", "whole")) == [(0, ""), (0, "")]
    return folder / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_broken_image_in_one_process_ends_both_and_results_are_kept(
    whole: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an epoch, or in an evaluation, where the other process waits for its counts."""
    monkeypatch.chdir(whole.parent)
    path = Path("pictures") / split / "dark" / "1.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    try:
        ends = run_two("hrvit_lab.train", *shared("--out", split))
        if split == "val":
            scored = run_two("hrvit_lab.evaluate", str(whole), "--data", "pictures", "--set", "run.workers=0")
            said_of([errors for code, errors in scored if code == 2], path)
    finally:
        path.write_bytes(content)
    assert [code for code, _ in ends] == [2, 2], ends
    said_of([errors for _, errors in ends], path)
    [*_, last] = checkpoints(Path(split) / "checkpoints")
    assert run_two("hrvit_lab.train", *shared("--out", split, "--resume", "auto")) == [(0, ""), (0, "")]
    assert int(last.stem[5:]) > 0 or split == "train"
    assert same_weights(Path(split), whole)


def said_of(errors: list[str], path: Path) -> None:
    """Check the message of each process: one sentence, and one of them names the image."""
    assert len(errors) == 2 and all(text.count("\n") == 1 and text.startswith("error: ") for text in errors), errors
    assert sorted("another process" in text for text in errors) == [False, True], errors
    assert any(path.name in text and "dark" in text for text in errors), errors


@pytest.mark.slow
def test_torchrun_restarts_a_training_that_lost_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    settings = {
        "run__save_every_s": 0.001, "precision__sync_batch_norm": "true", "data__batch_size_per_process": 8,
    }  # fmt: skip

    def train(out: str) -> "subprocess.Popen[str]":
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
        published = command("--out", out, "--resume", "auto", **settings)
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", "hrvit_lab.train", *published], text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    undisturbed = train("whole")
    said, _ = undisturbed.communicate(timeout=250)
    assert undisturbed.returncode == 0, said[-2000:]
    process = train("lost")
    wait_for(tmp_path / "lost" / "checkpoints" / "step-00000006.pt", process)
    workers = psutil.Process(process.pid).children()
    random.Random(0).choice(workers).kill()
    began = time.monotonic()
    said, _ = process.communicate(timeout=250)
    assert process.returncode == 0, said[-2000:]
    assert "Resuming after step" in said and time.monotonic() - began < 200
    assert same_weights(tmp_path / "lost", tmp_path / "whole")


def test_every_start_has_a_new_name() -> None:
    """Also if the store still has entries of killed processes of an earlier start."""
    store = dist.HashStore()
    store.set("started/1", "gone")
    store.set("started/2", "gone too")
    names = set()
    for _ in range(3):
        with ThreadPoolExecutor(3) as threads:
            starts = [threads.submit(name_of_start, store, rank, 3, 30) for rank in (2, 1, 0)]
            [name] = {start.result(60) for start in starts}
        names.add(name)
    assert len(names) == 3
    with pytest.raises(RuntimeError, match="process 1 of 2 did not start"):
        name_of_start(dist.HashStore(), 0, 2, 0.05)
