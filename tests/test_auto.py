"""``--backend auto`` and the back ends in int8: the fastest correct back end is found once and kept."""

import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hrvit_lab.__main__ import main
from hrvit_lab.config import ConfigError
from hrvit_lab.latency import auto, command
from hrvit_lab.latency import race as lab
from hrvit_lab.latency.auto import AUTO, Choice, Tried, candidates, choose, digest, keep, read_choice
from hrvit_lab.latency.backends import BACKENDS, Backend, Prepared, eager
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.gate import check
from hrvit_lab.latency.measurement import Entry, Setting
from hrvit_lab.latency.models import NamedModel
from hrvit_lab.latency.race import race
from hrvit_lab.latency.roofline import Ceilings
from hrvit_lab.latency.workload import Workload, prepare
from hrvit_lab.network.rounding import INT8_TOLERANCE

QUICK = Budget(half_width=0.5, min_rounds=7, max_rounds=9, max_seconds=20)
SETTING = Setting((8, 8), 2, threads=1)


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3), nn.GELU(), nn.Flatten(), nn.Linear(36 * width, 5))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(images_BCHW)
        return out


def named(width: int = 4) -> NamedModel:
    torch.manual_seed(0)
    model = Net(width).eval()
    return NamedModel("net", model, model)


def delayed(seconds: float, factor: float = 1.0) -> Any:
    """A back end that waits before each call, and multiplies the outputs."""

    def prepare_it(load: Workload) -> Prepared:
        def run() -> torch.Tensor:
            time.sleep(seconds)
            out: torch.Tensor = load.model(load.images_BCHW) * factor
            return out

        return Prepared(run)

    return prepare_it


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty folder of choices. The back ends are eager, a slow one, a wrong one, and one in int8."""
    monkeypatch.setenv("HRVIT_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(lab, "measure_ceilings", lambda *_, **__: Ceilings(gemm_flop_s=1e9, copy_byte_s=1e9))
    known = dict(BACKENDS)
    BACKENDS.clear()
    BACKENDS.update(
        {
            "slow": Backend("slow", delayed(0.05)),
            "eager": Backend("eager", eager, trains=True),
            "wrong": Backend("wrong", delayed(0, 1.5)),
            "rounded": Backend("rounded", delayed(0), arithmetic="int8"),
            "gpu": Backend("gpu", delayed(0), devices=("cuda",)),
            "absent": Backend("absent", delayed(0), packages=("no_such_package",)),
        }
    )
    yield tmp_path / "auto"
    BACKENDS.clear()  # pytest's monkeypatch would change their order
    BACKENDS.update(known)


def test_the_fastest_correct_back_end_is_found_once(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert candidates(SETTING, "float32") == ["slow", "eager", "wrong"]
    choice = choose(named(), SETTING, budget=QUICK)
    assert choice.backend == "eager"
    assert [one.backend for one in choice.tried] == ["eager", "slow", "wrong"]
    times = [one.latency_ms for one in choice.tried]
    assert times[0] and times[1] and times[0] < 25 < 45 < times[1] and times[2] is None
    said = choice.sentences
    assert said.startswith("auto: eager is the fastest, ") and "Not timed: wrong (not timed, because" in said
    assert "relative to it: slow " in said and said.endswith(f"remove {choice.path}")
    assert [path.parent for path in (choice.path,)] == [kept] and len(list(kept.iterdir())) == 1
    monkeypatch.setattr(auto, "race", lambda *_, **__: pytest.fail("the choice was kept"))
    assert choose(named(), SETTING, budget=QUICK) == choice


def test_a_choice_depends_on_network_setting_and_machine(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["eager"]
    known = digest(named().module, SETTING, "float32", names)
    weights = named().module
    with torch.no_grad():
        next(weights.parameters()).zero_()
    assert digest(weights, SETTING, "float32", names) == known
    others = [
        digest(named(8).module, SETTING, "float32", names),
        digest(named().module, replace(SETTING, batch_size=3), "float32", names),
        digest(named().module, replace(SETTING, resolution=(8, 9)), "float32", names),
        digest(named().module, replace(SETTING, threads=2), "float32", names),
        digest(named().module, SETTING, "bfloat16", names),
        digest(named().module, SETTING, "float32", [*names, "slow"]),
    ]
    monkeypatch.setattr(auto, "versions", lambda: {"torch": "9.9"})
    others.append(digest(named().module, SETTING, "float32", names))
    monkeypatch.undo()
    monkeypatch.setattr(auto, "hardware", lambda device: "another processor")
    others.append(digest(named().module, SETTING, "float32", names))
    monkeypatch.undo()
    monkeypatch.setattr(auto, "source_digest", lambda folder: f"other code of {folder}")
    others.append(digest(named().module, SETTING, "float32", names))
    assert len({known, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    "damage",
    [
        "", "[]", "{}", '{"tried": []}', "[" * 100_000,
        '{"tried": [{"backend": "eager", "latency_ms": NaN, "reason": ""}], "disturbed": false, "date_utc": ""}',
        '{"tried": [{"backend": "rm", "latency_ms": 1, "reason": ""}], "disturbed": false, "date_utc": ""}',
        '{"tried": [{"backend": "eager", "latency_ms": null, "reason": ""}], "disturbed": false, "date_utc": ""}',
        '{"tried": [{"backend": "rounded", "latency_ms": 1, "reason": ""}], "disturbed": false, "date_utc": ""}',
        '{"tried": [{"backend": "eager", "latency_ms": 2, "reason": ""}, {"backend": "slow", "latency_ms": 1, '
        '"reason": ""}], "disturbed": false, "date_utc": ""}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_no_choice(kept: Path, damage: str) -> None:
    kept.mkdir()
    (kept / "a.json").write_text(damage)
    names = ["eager", "slow"] if "slow" in damage else ["eager"]
    assert read_choice(kept / "a.json", names) is None
    assert read_choice(kept / "absent.json", names) is None


def test_a_choice_that_cannot_be_kept_is_not_lost(kept: Path) -> None:
    kept.write_text("a file in place of the folder")
    choice = choose(named(), SETTING, budget=QUICK)
    assert choice.backend == "eager"
    assert choice.sentences.endswith(
        f"the next run chooses again, because {choice.path} cannot be written (File exists)"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError("no space left"), "slow failed"), (torch.OutOfMemoryError("out of memory"), "slow ran out of memory")],
)
def test_a_back_end_that_failed_once_is_tried_again(kept: Path, error: Exception, said: str) -> None:
    def failing(_: Any) -> Any:
        raise error

    healthy = BACKENDS["slow"]
    BACKENDS["slow"] = replace(healthy, prepare=failing)
    choice = choose(named(), SETTING, budget=QUICK)
    assert choice.backend == "eager" and choice.sentences.endswith(f"the next run chooses again, because {said}")
    BACKENDS["slow"] = healthy
    assert [one.reason for one in choose(named(), SETTING, budget=QUICK).tried if one.backend == "slow"] == [""]


def test_processes_that_choose_at_once_keep_one_whole_file(kept: Path) -> None:
    choice = Choice((Tried("eager", 1.0), Tried("slow", 2.0)), False, "2026-01-01", kept / "a.json")
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=keep_often, args=(choice,)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert read_choice(choice.path, ["eager", "slow"]) == choice and list(kept.iterdir()) == [choice.path]


def keep_often(choice: Choice) -> None:
    for _ in range(30):
        assert keep(choice).unkept == ""


def test_nothing_runs(kept: Path) -> None:
    del BACKENDS["slow"], BACKENDS["eager"]
    with pytest.raises(ConfigError, match="no back end runs net: wrong not timed, because the relative error"):
        choose(named(), SETTING, budget=QUICK)
    with pytest.raises(ConfigError, match="auto supports inference only"):
        choose(named(), replace(SETTING, training=True))
    assert not kept.exists()


def test_the_command_says_what_it_chose_over(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_model", lambda name, **_: named())
    line = f"latency net --resolution 8 --batch-size 2 --threads 1 --max-seconds 2 --backend eager,{AUTO}"
    assert main(line.split()) == 0
    shown = capsys.readouterr().out
    assert "net, 8×8, batch 2, float32, auto: eager is the fastest" in shown and "slow " in shown
    assert shown.count("\n net ") == 1  # the chosen back end is in the race once
    assert json.loads(next(kept.iterdir()).read_text())["tried"][0]["backend"] == "eager"
    assert main([*line.split(), "--training"]) == 2
    assert "auto supports inference only" in capsys.readouterr().err


def test_int8_is_not_held_against_the_ceiling_of_float32(kept: Path) -> None:
    exact, rounded = race([Entry(named(), "eager"), Entry(named(), "rounded")], SETTING, QUICK)
    assert exact.macs == 2 * (4 * 27 * 36 + 5 * 144) and exact.roofline is not None
    assert rounded.roofline is None and rounded.tolerance == INT8_TOLERANCE and exact.tolerance == 1e-4
    reference = torch.ones(3)
    assert (
        check(1.49 * reference, [reference], "int8").passed and not check(1.51 * reference, [reference], "int8").passed
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name, backend in BACKENDS.items() if backend.arithmetic == "int8"])
def test_int8_engines_round_and_nothing_else(name: str) -> None:
    """The error is that of rounding: above that of float32, and far below a wrong result's."""
    for package in BACKENDS[name].packages:
        pytest.importorskip(package)
    torch.manual_seed(0)
    model = Net(16).eval()
    load = prepare(model, 8, batch_size=4, device="cpu")
    with torch.inference_mode():
        prepared = BACKENDS[name].prepare(load)
        found = check(prepared.run(), [model(load.images_BCHW)], "int8")
    assert 1e-4 < found.relative_error < 0.1 and prepared.compile_seconds
