"""The table of metric groups: complete, fast to import, and the contents of a trial's key by group."""

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hrvit_lab.config import preset, with_branches
from hrvit_lab.cost.count import count
from hrvit_lab.metrics import METRICS
from hrvit_lab.network.baselines import TimmConfig
from hrvit_lab.study import runner
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.groups import GROUPS, Group, ProbeInput
from hrvit_lab.study.trials import Trial, computed, in_order, key_of
from hrvit_lab.train.recipe import changed, load_recipe

NANO = preset("hrvit_nano")
CONDITIONS = {"resolution", "data", "train", "recipe", "latency", "seed", "device", "hardware", "torch"}
LATENCY = {"batch_size": 2, "dtype": "float32", "max_seconds": 1.0, "half_width": 0.01}


def trial(group: str, *, torch: str = "2.0", hardware: str = "chip", files: str = "", **fields: Any) -> Trial:
    given = {"resolution": (64, 64), "data": {"name": "digits"}, "train": {"epochs": 1}, "latency": LATENCY, **fields}
    return Trial(group, ProbeInput(NANO, **given), "label", hardware, files, torch)


def test_every_metric_belongs_to_one_group() -> None:
    assert [key for group in GROUPS.values() for key in (metric.key for metric in group.metrics)] == list(METRICS)
    assert [group.key for group in GROUPS.values()] == list(GROUPS)


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_every_group_is_complete(group: Group) -> None:
    assert group.label and group.metrics and group.version >= 1
    assert {name.partition(".")[0] for name in group.depends_on} <= CONDITIONS
    assert {metric.per_seed for metric in group.metrics} == {group.per_seed} == {"seed" in group.depends_on}
    assert set(group.shared_clock) <= {metric.key for metric in group.metrics}
    assert not (group.alone and group.shared_clock)
    measured = any(metric.measured for metric in group.metrics)
    assert ("torch" in group.depends_on) is measured, "costs are the same under every version of torch"
    assert pickle.loads(pickle.dumps(group.probe)) is group.probe, "worker processes import it by its name"


def test_the_table_loads_no_torch() -> None:
    code = "import sys, hrvit_lab.study.groups; assert not {'torch', 'timm', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("raised", GROUPS)
def test_a_new_version_voids_only_the_records_of_its_group(raised: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {key: trial(key).key for key in GROUPS}
    monkeypatch.setitem(GROUPS, raised, dataclasses.replace(GROUPS[raised], version=GROUPS[raised].version + 1))
    assert {key for key in GROUPS if trial(key).key != before[key]} == {raised}


@pytest.mark.parametrize(
    ("change", "voided"),
    [
        ({"torch": "2.1"}, {"latency", "memory", "accuracy", "segmentation"}),
        ({"hardware": "other"}, {"latency", "memory"}),
        ({"device": "cuda"}, {"latency", "memory", "accuracy", "segmentation"}),
        ({"resolution": (64, 96)}, {"cost", "latency", "memory"}),
        ({"train": {"epochs": 2}}, {"accuracy"}),
        ({"data": {"name": "digits", "resolution": [48, 48]}}, {"accuracy", "segmentation"}),
        ({"files": "changed"}, {"accuracy", "segmentation"}),
        ({"seed": 1}, {"accuracy", "segmentation"}),
        ({"recipe": load_recipe("textures")}, {"accuracy", "segmentation"}),
        ({"latency": LATENCY | {"batch_size": 4}}, {"latency", "memory"}),
        ({"latency": LATENCY | {"dtype": "bfloat16"}}, {"latency", "memory"}),
        ({"latency": LATENCY | {"max_seconds": 9.0}}, {"latency"}),
        ({"latency": LATENCY | {"half_width": 0.1}}, {"latency"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),  # sets have no order across processes
)
def test_a_key_contains_only_the_conditions_of_its_group(change: dict[str, Any], voided: set[str]) -> None:
    assert {key for key in GROUPS if trial(key, **change).key != trial(key).key} == voided


@pytest.mark.parametrize(
    ("setting", "value", "same"),
    [
        ("run.seed", 7, True), ("run.workers", 1, True), ("run.save_every_s", 5.0, True), ("run.threads", 3, False),
        ("schedule.iterations", 900, False), ("augmentation.flip_probability", 0.1, False),
        ("data.options", {"size": 64}, False), ("evaluation.flip", True, False),
    ],
)  # fmt: skip
def test_a_key_contains_the_relevant_settings_of_a_recipe(setting: str, value: Any, same: bool) -> None:
    recipe = load_recipe("textures")
    ours, theirs = (trial("segmentation", recipe=each) for each in (recipe, changed(recipe, [(setting, value)])))
    assert (ours.key == theirs.key) is same


def test_the_version_of_timm_voids_only_records_of_timm_models() -> None:
    for key in GROUPS:
        ours = trial(key)
        theirs = dataclasses.replace(ours, inputs=dataclasses.replace(ours.inputs, config=TimmConfig("timm:resnet18")))
        changed = [dataclasses.replace(each, timm="0.0").key != each.key for each in (ours, theirs)]
        assert changed == [False, True], key
        assert key_of(theirs.head()) == theirs.key


def test_a_record_contains_the_fields_of_its_key() -> None:
    for key in GROUPS:
        head = trial(key).head()
        assert key_of(head) == trial(key).key
        assert head["version"] == GROUPS[key].version
        for field, other in (("group", "none"), ("version", 99), ("config_id", "0" * 16), ("options", {})):
            assert key_of(head | {field: other}) != trial(key).key


def test_costs_of_configs_are_computed_and_those_of_timm_measured() -> None:
    ours = trial("cost")
    theirs = dataclasses.replace(ours, inputs=dataclasses.replace(ours.inputs, config=TimmConfig("timm:resnet18")))
    planned = {"a": [ours, trial("accuracy")], "b": [ours, theirs]}
    assert in_order(planned) == [theirs, trial("accuracy")]
    [(key, record)] = computed(planned).items()
    assert key == ours.key and record["status"] == "ok"
    assert record["values"]["macs"] == count(NANO, 64).macs
    assert set(record["values"]) == {metric.key for metric in GROUPS["cost"].metrics}


def test_a_study_of_costs_starts_no_worker_and_stores_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "costs.yaml"
    study.write_text(
        "title: Costs\nquestion: What does a branch cost?\nbase: hrvit_nano\n"
        "grid: {branches: [1, 2]}\nmetrics: [params, macs]\nresolution: 64\n"
    )
    monkeypatch.setattr(runner, "run", lambda *args, **options: pytest.fail("costs are arithmetic"))
    assert main([str(study), "--out", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out" / "trials").glob("*.json")) == []
    table = (tmp_path / "out" / "costs" / "table.csv").read_text()
    assert f",{count(with_branches(NANO, 2), 64).params}," in table
    capsys.readouterr()
    assert main(["report", "costs", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "costs" / "table.csv").read_text() == table
