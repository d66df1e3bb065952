"""Several GPUs of one machine share a study: one worker each, and a latency has its GPU alone."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from test_study_runner import NANO, Notes

from hrvit_lab.config import ConfigError
from hrvit_lab.study import engine, requirements, runner
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.groups import ProbeInput
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial

GPUS = ("cuda:0", "cuda:1")


def measure(asked: ProbeInput) -> dict[str, Any]:
    """Takes a while, and writes when and on which device to a file in ``data["root"]``; waits once until both devices
    are in use."""
    began = time.monotonic()
    folder = Path(asked.data["root"])
    (folder / f"met-{asked.device}").touch()
    while len(list(folder.glob("met-*"))) < 2:
        time.sleep(0.02)
    time.sleep(0.1)
    with open(folder / "runs.jsonl", "a") as file:
        line = {"device": asked.device, "height": asked.resolution[0], "began": began, "ended": time.monotonic()}
        file.write(json.dumps(line) + "\n")
    return {"latency_ms": 1.0, "throughput_img_s": 1000.0}


@pytest.mark.usefixtures("light_workers")
def test_a_latency_has_its_gpu_alone_and_is_measured_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    store.create()
    data = {"root": str(tmp_path)}
    trials = [
        Trial("latency", ProbeInput(NANO, (height, 64), device="cuda", data=data), f"latency {height}", "a GPU")
        for height in range(64, 72)
    ]
    runner.run(
        trials, store, {"latency": measure}, Notes(), jobs=2, timeout_s=60, environment={"hardware": "a GPU"},
        devices=GPUS,
    )  # fmt: skip
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert sorted(run["height"] for run in runs) == list(range(64, 72))
    for gpu in GPUS:
        alone = sorted((run["began"], run["ended"]) for run in runs if run["device"] == gpu)
        assert alone and all(ended <= began for (_, ended), (began, _) in itertools.pairwise(alone))
    assert any(one["began"] < other["ended"] and other["began"] < one["ended"] and one["device"] != other["device"]
               for one in runs for other in runs), "the devices took turns"  # fmt: skip
    by_height = {run["height"]: run["device"] for run in runs}
    for trial in trials:
        record = store.load(trial.key)
        assert record is not None and record["device"] == "cuda" and record["host"]
        assert record["on_device"] == by_height[trial.inputs.resolution[0]]


STUDY = {
    "title": "Several", "question": "Which?", "base": "hrvit_nano", "grid": {"branches": [1]}, "device": "cuda",
    "metrics": ["latency_ms"],
}  # fmt: skip


def test_latencies_of_different_devices_never_share_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in one run, nor by records of an earlier one: the kind of the device is a part of a latency's key."""
    kinds = {"cuda:0": "GPU A", "cuda:1": "GPU B", "cuda:2": "GPU A"}
    monkeypatch.setattr(requirements, "find_device", lambda name: None)
    monkeypatch.setattr(requirements, "hardware", kinds.__getitem__)
    requirements.check_devices(Spec.model_validate(STUDY), ["cuda:0", "cuda:2"])
    with pytest.raises(ConfigError) as refusal:
        requirements.check_devices(Spec.model_validate(STUDY), ["cuda:0", "cuda:1"])
    assert str(refusal.value) == (
        "--device: cuda:0 is GPU A, cuda:1 is GPU B, and latencies of different devices can't be compared; "
        "use equal GPUs"
    )
    only_macs = Spec.model_validate(STUDY | {"metrics": ["macs"]})
    requirements.check_devices(only_macs, ["cuda:0", "cuda:1"])
    inputs = ProbeInput(NANO, (64, 64), device="cuda")
    assert len({Trial("latency", inputs, "", kind).key for kind in kinds.values()}) == 2
    assert len({Trial("accuracy", inputs, "", kind).key for kind in kinds.values()}) == 1


@pytest.mark.usefixtures("light_studies", "blank_figures")
def test_the_command_plans_for_the_kind_and_runs_on_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (requirements,):
        monkeypatch.setattr(module, "find_device", lambda name: None)
        monkeypatch.setattr(module, "hardware", lambda device: "a GPU")
    monkeypatch.setattr(engine, "environment", lambda device: {"hardware": "a GPU", "versions": {"torch": "2"}})
    study = STUDY | {"metrics": ["top1"], "seeds": [0, 1, 2]}
    Path("mine.yaml").write_text(json.dumps(study))
    assert main(["mine.yaml", "--device", "cuda:0,cuda:1"]) == 0
    records = [json.loads(path.read_text()) for path in Path("results/trials").glob("*.json")]
    assert {record["device"] for record in records} == {"cuda"} and len(records) == 3
    assert {record["on_device"] for record in records} <= set(GPUS)
