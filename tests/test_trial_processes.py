"""Trials whose training has several processes: figures, errors, lost processes, and what is checked before.

Here two processes are forked in place of those of ``torchrun``; `test_slurm` and `test_slurm_cluster` start it.
"""

import functools
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from forked import Command
from test_recipe_training import TINY
from test_several_processes import run_two
from test_study_runner import Notes

from hrvit_lab.config import ConfigError, read_config
from hrvit_lab.errors import ProcessLost
from hrvit_lab.study import runner
from hrvit_lab.study.groups import PROBES, ProbeInput
from hrvit_lab.study.recipe_choice import RecipeChoice
from hrvit_lab.study.report.summary import protocol
from hrvit_lab.study.requirements import check_devices, check_gpus, check_requirements
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial
from hrvit_lab.train import trial_processes
from hrvit_lab.train.recipe import changed

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
SETTINGS: Mapping[str, Any] = {
    "name": "fashion_mnist",
    "data": {
        "name": "digits", "resolution_px": [32, 32], "train_limit": 64, "batch_size_per_process": 16,
        "global_batch_size": 32,
    },
    "optimiser": {"name": "sgd", "learning_rate": 0.05, "betas": None, "epsilon": None, "momentum": 0.9},
    "schedule": {"epochs": 1, "warmup_epochs": 0},
    "precision": {"sync_batch_norm": True},
    "evaluation": {"resolution_px": [32, 32]},
    "processes": 2,
}  # fmt: skip


class Launcher:
    """As what `trial_processes.start` returns: processes of which all end if one fails."""

    def __init__(self, folder: Path, processes: int) -> None:
        pipe = folder.with_name(f"{folder.name}.pipe")
        os.mkfifo(pipe)
        self.stdin = open(os.open(pipe, os.O_RDWR), "wb", buffering=0)  # noqa: SIM115
        self.processes = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        for rank in map(str, range(processes)):
            with pytest.MonkeyPatch.context() as patch:
                where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
                for name, value in (where | {"MASTER_PORT": port, "STDIN_PIPE": str(pipe)}).items():
                    patch.setenv(name, value)
                self.processes.append(Command("ranked", str(folder)))

    def poll(self) -> int | None:
        codes = [process.poll() for process in self.processes]
        if any(codes):
            self.kill(signal.SIGTERM)
        return None if None in codes else max(abs(code or 0) for code in codes)

    def wait(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("ranked", timeout)
            time.sleep(0.05)

    def kill(self, number: int = signal.SIGKILL) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Launcher]:
    """The launchers that are started; their folders are in ``temporary``."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    here = functools.partial(tempfile.TemporaryDirectory, dir=tmp_path / "temporary")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", here)
    found: list[Launcher] = []

    def start(folder: Path, processes: int) -> Launcher:
        found.append(Launcher(folder, processes))
        return found[-1]

    monkeypatch.setattr(trial_processes, "start", start)
    return found


def inputs(**changes: Any) -> ProbeInput:
    choice = RecipeChoice.model_validate({**SETTINGS, **changes})
    config = read_config("tiny.yaml").replace(num_classes=10)
    return ProbeInput(config, (32, 32), seed=1, recipe=choice.recipe, processes=choice.processes)


def left(folder: Path) -> list[str]:
    """Folders of trainings."""
    return [path.name for path in (folder / "temporary").glob("hrvit-lab-*/")]


def test_two_processes_have_the_figures_of_the_command_and_nearly_those_of_one(
    started: list[Launcher], tmp_path: Path
) -> None:
    asked = inputs()
    assert asked.recipe is not None
    steps: list[tuple[int, int]] = []
    two = PROBES["accuracy"](ProbeInput(**{**vars(asked), "on_step": lambda *done: steps.append(done)}))
    assert steps and all(total == 2 and 1 <= done <= 2 for done, total in steps)
    assert len(started) == 1 and left(tmp_path) == []
    recipe = changed(asked.recipe, [("model.name", "tiny.yaml"), ("run.seed", 1)])
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    assert run_two("hrvit_lab.train", "mine.yaml", "--device", "cpu", "--out", "out") == [(0, ""), (0, "")]
    last = json.loads((tmp_path / "out" / "result.json").read_text())["last"]
    assert (two["top1"], two["val_loss"], two["train_loss"]) == (
        last["eval_top1"], last["eval_loss"], last["train_loss"],
    )  # fmt: skip
    one = PROBES["accuracy"](inputs(processes=1, data={**SETTINGS["data"], "batch_size_per_process": 32}))
    assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-4)
    assert two["curves"] == [{"epoch": 1, "train_loss": two["train_loss"], "val_top1": two["top1"],
                              "val_loss": two["val_loss"]}]  # fmt: skip
    assert two["disturbed"] == {}


def test_an_error_of_the_processes_is_that_of_the_trial(started: list[Launcher], tmp_path: Path) -> None:
    odd = {**SETTINGS["data"], "batch_size_per_process": 15, "global_batch_size": 30}
    with pytest.raises(ConfigError, match="30 over 2 processes gives an odd number of images") as failure:
        PROBES["accuracy"](inputs(data=odd, augmentation={"mixup_alpha": 0.8}))
    assert "make_mixing" in failure.value.__notes__[0], "the traceback of the process"
    assert len(started) == 1 and left(tmp_path) == []


def test_processes_end_with_their_trial_and_remove_its_folder(started: list[Launcher], tmp_path: Path) -> None:
    """The folder has no task, so that the processes are as if they had just been started."""
    folder = tmp_path / "temporary" / "hrvit-lab-trial"
    folder.mkdir()
    os.mkfifo(folder / trial_processes.TASK)  # they wait for it
    launcher = Launcher(folder, 2)
    time.sleep(0.5)
    assert launcher.poll() is None
    launcher.stdin.close()
    launcher.wait(60)
    assert [process.poll() for process in launcher.processes] == [1, 1] and left(tmp_path) == []


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("  exitcode : -9\n  traceback : Signal 9 (SIGKILL) received by PID 12\n", "was killed by SIGKILL, possibly"),
        ("Signal 15 (SIGTERM) received by PID 12\nSignal 11 (SIGSEGV) received by PID 13\n", "was killed by SIGSEGV"),
        ("ModuleNotFoundError: No module named 'torch.distributed.run'\n", "ended without a result"),
    ],
)
def test_a_lost_process_is_named_by_its_signal(tmp_path: Path, log: str, said: str) -> None:
    (tmp_path / trial_processes.LOG).write_text(log)
    with pytest.raises(ProcessLost, match=f"^a process of the training {said}") as lost:
        trial_processes._result(tmp_path)
    assert lost.value.__notes__ == [log]


def lose(asked: ProbeInput) -> dict[str, Any]:
    """A probe that loses a process until it was started as often as ``data["times"]`` says."""
    path = Path(asked.data["root"]) / "starts"
    with open(path, "a") as file:
        file.write("\n")
    if len(path.read_text()) <= asked.data["times"]:
        raise ProcessLost("a process of the training was killed by SIGKILL")
    return {"top1": 50.0, "val_loss": 1.0, "train_seconds": 1.0, "curves": []}


@pytest.mark.usefixtures("light_workers")
@pytest.mark.parametrize(
    ("executor", "times", "status", "starts"),
    [("local", 2, "ok", 3), ("local", 9, "failed", 3), ("inline", 9, "failed", 1)],
)
def test_a_training_that_lost_a_process_runs_again_up_to_a_limit(
    tmp_path: Path, executor: str, times: int, status: str, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrvit_lab.study.executors.local.GRACE_S", 0.0)
    (tmp_path / "tiny.yaml").write_text(TINY)
    config = read_config(str(tmp_path / "tiny.yaml"))
    trial = Trial("accuracy", ProbeInput(config, (32, 32), data={"root": str(tmp_path), "times": times}), "it", "chip")
    store, notes = Store(tmp_path / "out"), Notes()
    store.create()
    runner.run([trial], store, {"accuracy": lose}, notes, jobs=1, timeout_s=60, environment={}, executor=executor)
    record = store.load(trial.key)
    assert record is not None and record["status"] == status
    assert len((tmp_path / "starts").read_text()) == starts
    if status == "failed":
        suffix = " (3 times)" if executor == "local" else ""
        assert record["reason"] == f"a process of the training was killed by SIGKILL{suffix}"
        assert "ProcessLost" in record["traceback"]


# -- before a trial runs -----------------------------------------------------------------------------------------------


def spec(device: str = "cpu", **changes: Any) -> Spec:
    return Spec.model_validate({
        "title": "T", "question": "Q?", "base": {"preset": "hrvit_nano"}, "metrics": ["top1"], "device": device,
        "grid": {"branches": [1]}, "recipe": {**SETTINGS, **changes},
    })  # fmt: skip


def test_what_several_processes_need_is_checked_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(said: str, check: Any, *arguments: Any, **options: Any) -> None:
        with pytest.raises(ConfigError, match=said):
            check(*arguments, **options)

    monkeypatch.setattr("hrvit_lab.study.requirements._count_gpus", lambda: 1)
    monkeypatch.setattr("hrvit_lab.study.requirements.find_device", lambda name: name)
    check_requirements(spec(), [])
    check_requirements(spec("cuda"), [], here=False)
    check_gpus(spec(), 0)
    check_gpus(spec("cuda"), 2)
    check_gpus(spec("cuda", processes=1), 0)
    refused("needs 2 GPUs, but torch sees 1; use at most 1", check_requirements, spec("cuda"), [])
    refused("needs the device cpu, or cuda for a GPU each", check_requirements, spec("cuda:1"), [], here=False)
    refused("needs a job with 2 GPUs, but .* ask for 1; use --gres gpu:2", check_gpus, spec("cuda"), 1)
    refused("needs a job with 2 GPUs, but .* ask for 0", check_gpus, spec("cuda"), 0)
    refused("several devices have a training each", check_devices, spec("cuda"), ["cuda:0", "cuda:1"])
    with pytest.raises(ValueError, match="32 is not a multiple of 3 processes × 16 images"):
        spec(processes=3)
    with pytest.raises(ValueError, match=r"recipe\.processes"):
        spec(processes=0)


def test_several_processes_are_a_condition_and_one_is_none(started: list[Launcher]) -> None:
    one, two = (Trial("accuracy", inputs(processes=processes), "it", "chip") for processes in (1, 2))
    assert "processes" not in one.conditions["recipe"] and two.conditions["recipe"]["processes"] == 2
    assert one.key != two.key
    said = dict(protocol(spec()))["Training budget"]
    assert said.startswith("recipe fashion_mnist with data.name digits, ") and said.endswith(": 1 epoch by 2 processes")
    assert "processes 2" not in said
