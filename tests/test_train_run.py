"""The files of the training command: a folder for each run, no replaced files, names as plain text, and reading
them."""

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.latency.memory import MIB, measure_peak_memory
from hrvit_lab.network.build import build
from hrvit_lab.train import command
from hrvit_lab.train.__main__ import main
from hrvit_lab.train.data import load_dataset
from hrvit_lab.train.loop import EVAL_BATCH_SIZE, evaluate
from hrvit_lab.train.memory import least_bytes
from hrvit_lab.train.run import FILES, Run, new_folder

BRIEF = ["--epochs", "1", "--train-limit", "20", "--batch-size", "10"]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network that trains quickly, as a file in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    config = HRViTConfig(
        depths=((1,), (1, 1)), widths=(8, 16), head_dims=(8, 8), head_widths=(4, 4), head_features=8, name="small"
    )
    Path("small.yaml").write_text(config.to_yaml())
    return "small.yaml"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def named(small: str, name: str) -> str:
    """The same network under another name."""
    config = HRViTConfig.from_yaml(Path(small).read_text()).replace(name=name)
    Path("named.yaml").write_text(config.to_yaml())
    return "named.yaml"


# -- nothing is replaced ---------------------------------------------------------------------------


def test_a_second_run_has_a_new_folder(small: str) -> None:
    """Earlier, it deleted the first run's weights at its start."""
    assert main([small, *BRIEF, "--epochs", "2"]) == 0
    first = contents(Path("results"))
    assert {Path(path).name for path in first} == set(FILES)
    assert main([small, *BRIEF]) == 0
    assert main([small, *BRIEF]) == 0
    assert {path: contents(Path("results"))[path] for path in first} == first
    runs = sorted(path.name for path in Path("results/train").iterdir())
    assert runs == ["small-digits-seed0", "small-digits-seed0-2", "small-digits-seed0-3"]
    assert [json.loads((Path("results/train") / run / "result.json").read_text())["epochs_done"] for run in runs] == [
        2,
        1,
        1,
    ]


@pytest.mark.parametrize("present", FILES)
def test_files_in_the_given_folder_are_never_replaced(
    small: str, present: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For files of any origin; the error is reported before anything is loaded."""
    Path("mine").mkdir()
    (Path("mine") / present).write_text("mine")
    monkeypatch.setattr(command, "load_dataset", lambda *_, **__: pytest.fail("loaded before it was refused"))
    assert main([small, *BRIEF, "--out", "mine"]) == 2
    error = capsys.readouterr().err
    assert (
        error
        == f"error: mine already contains {present}, which is never overwritten; choose another folder with --out\n"
    )
    assert contents(Path("mine")) == {f"mine/{present}": b"mine"}


def test_one_of_two_simultaneous_runs_is_refused(small: str) -> None:
    """Both have checked the folder while it was empty."""
    config = HRViTConfig.from_yaml(Path(small).read_text())
    folders = [new_folder(Path("both"), "x") for _ in range(2)]
    Run(folders[0], build(config), config, {})
    with pytest.raises(ConfigError, match=r"both already contains result\.json"):
        Run(folders[1], build(config), config, {})
    assert [new_folder(None, "x").name for _ in range(3)] == ["x", "x-2", "x-3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hrvit_nano", "--batch-size", "1"], "batch_size = 1"),
        (["maps.yaml"], "head: the model returns feature maps"),
        (["hrvit_nano", "--resolution", "4096", "--batch-size", "1437"], "out of memory"),
        (
            ["small.yaml", "--device", "cuda:77"],
            "device 'cuda:77' is not present",
        ),
    ],
)
def test_an_impossible_run_is_refused_before_any_file_is_written(
    small: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = HRViTConfig.from_yaml(Path(small).read_text())
    Path("maps.yaml").write_text(config.replace(head="segformer").to_yaml())
    assert main([*arguments, "--epochs", "1"]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not Path("results").exists()


# -- names are text --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("../../x", "x-digits-seed0"),
        ("/etc/x", "etc-x-digits-seed0"),
        ("bad[/x] [red]", "bad-x-red-digits-seed0"),
        ("..", "digits-seed0"),
        ("\x1b[31mred", "31mred-digits-seed0"),
        ("größe", "größe-digits-seed0"),
    ],
)
def test_the_name_of_a_network_is_plain_text(
    small: str, name: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No markup, no path, no escape sequence."""
    assert main([named(small, name), *BRIEF]) == 0
    printed = capsys.readouterr().out
    assert name.replace("\x1b", "\\x1b") in printed and "\x1b" not in printed
    assert [path.name for path in Path("results/train").iterdir()] == [folder]
    assert sorted(path.name for path in Path().iterdir()) == ["named.yaml", "results", "small.yaml"]


def test_a_long_name_is_accepted(small: str) -> None:
    assert main([named(small, 100 * "ä"), *BRIEF]) == 0
    (folder,) = Path("results/train").iterdir()
    assert len(os.fsencode(folder.name)) < 255


@pytest.mark.parametrize("out", ["o[/red]1", "with 'quotes' \"both\"", "new\nline", "ü"])
def test_a_folder_of_any_name_works_and_the_printed_code_loads_the_weights(
    small: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed lines are run as they are; the loaded network then has the scores of the result."""
    assert main([small, *BRIEF, "--out", out]) == 0
    printed = capsys.readouterr().out
    lines = printed.partition("To load it in Python:\n")[2]
    scope: dict[str, Any] = {}
    exec(dedent(lines), scope)
    result = json.loads((Path(out) / "result.json").read_text())
    data = load_dataset("digits", resolution=32, train_limit=20)
    assert evaluate(scope["model"], data) == pytest.approx((result["val_loss"], result["top1"]), rel=1e-4)


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
])  # fmt: skip
def test_running_out_of_memory_is_reported_in_one_sentence(
    small: str, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(*_: Any) -> None:
        raise error

    monkeypatch.setattr(command, "fit", fit)
    assert main([small, "--out", "run", "--batch-size", "7", "--train-limit", "70"]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"error: out of memory: a training step of 7 images at 32×32 needs at least [\d.]+ GiB, .* and [\d,.]+ GiB "
        r"are free; lower --batch-size or --resolution\n", said
    )  # fmt: skip
    assert json.loads(Path("run/result.json").read_text())["status"] == "out of memory"


def test_other_errors_are_not_reported_as_out_of_memory(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(command, "fit", fit)
    with pytest.raises(RuntimeError, match="something else"):
        main([small, "--out", "run"])


@pytest.mark.parametrize("fields", [{}, {"head": "pool"}, {"preset": "mit_b0"}])
@pytest.mark.parametrize(("resolution", "batch_size"), [(64, 2), (96, 5)])
def test_the_estimated_minimum_memory_is_less_than_that_of_a_step(
    fields: dict[str, Any], resolution: int, batch_size: int
) -> None:
    """Compared with the memory of a forward and backward pass, tracked by operator; and it is above zero."""
    config = HRViTConfig.from_dict({"preset": "hrvit_nano", **fields})
    model = build(config)
    pass_bytes = measure_peak_memory(model, resolution, batch_size=batch_size, training=True) * MIB
    averages = 8 * sum(parameter.numel() for parameter in model.parameters())
    least = least_bytes(config, (resolution, resolution), batch_size)
    assert 0.1 * (pass_bytes + averages) < least <= pass_bytes + averages


def test_large_images_are_evaluated_in_small_batches() -> None:
    """128 images of 1024 × 1024 would take 128 times the memory of a training step with one image."""
    sizes: list[int] = []

    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return self.scale * torch.zeros(len(x), 10)

    evaluate(Counts(), load_dataset("digits", resolution=(256, 256)))
    assert sizes == [EVAL_BATCH_SIZE, EVAL_BATCH_SIZE, 360 - 2 * EVAL_BATCH_SIZE]
    sizes.clear()
    data = load_dataset("digits", resolution=1024)
    evaluate(Counts(), replace(data, val_images=data.val_images[:40], val_labels=data.val_labels[:40]))
    assert sizes == 5 * [8]


# -- what stays when writing fails -----------------------------------------------------------------


def test_a_full_disk_is_reported_in_one_sentence_and_leaves_complete_files(
    small: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 12:  # in the second epoch
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main([small, *BRIEF, "--epochs", "3", "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert "Disk quota exceeded; free some of your quota" in error and "run/" in error and len(error.splitlines()) == 1
    assert {path.name for path in Path("run").iterdir()} == set(FILES)
    assert json.loads(Path("run/result.json").read_text())["epochs_done"] == 1
    assert len(Path("run/curves.csv").read_text().splitlines()) == 2
    exec(dedent(command.how_to_load(Path("run"))))


def test_the_duration_of_a_run_equals_that_of_its_computation(small: str) -> None:
    assert main([small, *BRIEF, "--out", "run"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert 0 < result["cpu_seconds"] < 1.5 * result["seconds"]
