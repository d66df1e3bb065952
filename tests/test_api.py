"""The public names: what they import, which arguments they accept, and their reprs."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hrvit_lab
from hrvit_lab import ConfigError, count, create_model, deploy, load_results, measure_latency, preset, race
from hrvit_lab.cost.ledger import ledger
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.parts import measure_parts
from hrvit_lab.latency.roofline import Ceilings
from hrvit_lab.study.files import find_study, load_study
from hrvit_lab.study.space import expand

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "timm", "torchvision", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "streamlit")


def fresh(code: str) -> str:
    """The output of one line of Python in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=250, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import hrvit_lab; hrvit_lab.preset('hrvit_b1')",
        "import hrvit_lab.config",
        "import hrvit_lab.cost",
        "from hrvit_lab import count; print(count('hrvit_b1', 224).macs)",
        "from hrvit_lab import with_branches, scale_widths, PRESETS; scale_widths(PRESETS['hrvit_nano'], 2)",
        "from hrvit_lab.study.files import find_study, load_study; from hrvit_lab.study.space import expand; "
        "print(len(expand(load_study(find_study('branch_sweep'))).variants))",
        "from hrvit_lab.study.__main__ import main; main(['--list'])",
        "from hrvit_lab.__main__ import main; main(['--help'])",
        *(f"from hrvit_lab.{name}.__main__ import main; main(['--help'])"
          for name in ("cost", "evaluate", "latency", "train", "study", "app")),
    ],
)  # fmt: skip
def test_config_and_cost_import_neither_torch_nor_timm(code: str) -> None:
    loaded = fresh(
        f"{code}; import sys; print({HEAVY!r} & sys.modules.keys() if 0 else sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert loaded.splitlines()[-1] == "[]"


def test_building_a_network_does_not_import_timm() -> None:
    """``import timm`` takes as long as ``import torch``, because it imports torchvision and torch._dynamo."""
    code = (
        "from hrvit_lab import build, deploy, preset; import sys, torch; x = torch.ones(2, 3, 64, 64); "
        "model = build(preset('hrvit_nano')); model(x).sum().backward(); deploy(model.eval())(x); "
    )
    assert fresh(f"{code} print({{'timm', 'torchvision', 'torch._dynamo'}} & set(sys.modules))") == "set()"


def test_help_takes_a_fraction_of_the_time_of_import_torch() -> None:
    """Processor time of both, one after the other, so that other work on the machine does not count. On two idle cores
    they are 0.2 s and 3 s."""

    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, timeout=250, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert seconds("-m", "hrvit_lab", "--help") < seconds("-c", "import torch") / 4


# All other tests import hrvit_lab first: the order that they never have is the one of the default run.
@pytest.mark.slow
@pytest.mark.parametrize("imports", ["timm, hrvit_lab", "hrvit_lab, timm"])
def test_presets_are_registered_with_timm_in_either_order_of_import(imports: str) -> None:
    assert fresh(f"import {imports}; print(timm.create_model('hrvit_nano', num_classes=7).num_classes)") == "7"


def test_every_public_name_exists() -> None:
    for name in hrvit_lab.__all__:
        assert getattr(hrvit_lab, name) is not None
    assert set(hrvit_lab.__all__) <= set(dir(hrvit_lab))
    asked = {
        "HRViTConfig", "PRESETS", "preset", "diff", "with_branches", "with_widths", "scale_widths", "scale_depths",
        "build", "create_model", "count", "race", "measure_latency", "deploy", "pack", "load_checkpoint", "run_study",
        "load_results",
    }  # fmt: skip
    assert asked <= set(hrvit_lab.__all__)
    for name in asked - {"PRESETS"}:
        assert callable(getattr(hrvit_lab, name))
    with pytest.raises(AttributeError, match="no_such_name"):
        hrvit_lab.no_such_name  # noqa: B018


@pytest.fixture
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the measurement of ceilings, which is tested elsewhere."""
    monkeypatch.setattr("hrvit_lab.latency.race.measure_ceilings", lambda *_, **__: Ceilings(1e9, 1e9))


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("preset: hrvit_nano\nnum_classes: 7\nname: mine\n")
    return path


def test_a_yaml_file_is_accepted_in_place_of_a_config(yaml_file: Path) -> None:
    config = preset("hrvit_nano").replace(num_classes=7, name="mine")
    for given in (yaml_file, str(yaml_file)):
        assert create_model(given).config == config
        assert count(given, 64).rows == count(config, 64).rows
    assert create_model(yaml_file, num_classes=3).num_classes == 3
    short = {"max_seconds": 0.01, "max_warmup_seconds": 0.01, "min_runs": 3, "max_runs": 3}
    result = measure_latency(str(yaml_file), 32, **short)  # type: ignore[arg-type]
    assert result.resolution == (32, 32) and result.median_ms > 0


def test_a_file_without_a_config_is_reported_in_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "large.yaml").write_text("#" * 70_000)
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    problems = {"fifo": "not a regular file", "large": "larger than", "latin": "UTF-8", "absent": "No such file"}
    for name, problem in {**problems, "a\0b": "invalid file name"}.items():
        for use in (create_model, count):
            with pytest.raises(ConfigError, match=problem) as refused:
                use(str(tmp_path / f"{name}.yaml"))
            assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="give a preset's name, a YAML file or an HRViTConfig"):
        create_model(3)  # type: ignore[arg-type]


@pytest.mark.usefixtures("known_ceilings")
def test_race_accepts_names_configs_and_modules(yaml_file: Path) -> None:
    budget = hrvit_lab.latency.compare.Budget(min_rounds=3, max_rounds=3, max_seconds=0.1)
    competitors: list[Any] = [str(yaml_file), preset("hrvit_nano"), create_model("hrvit_nano"), f"{yaml_file}:deploy"]
    results = race(competitors, 32, budget, max_warmup_seconds=0.01)
    assert [result.status for result in results] == ["ok"] * 4, results
    assert [result.model for result in results] == [str(yaml_file), "hrvit_nano", "HRViT", f"{yaml_file}:deploy"]
    assert all(result.resolution == (32, 32) for result in results)
    assert "Measurement(hrvit_nano, eager, float32; " in repr(results[1]) and len(repr(results[1])) < 200


def test_reprs_are_short() -> None:
    config = preset("hrvit_b1")
    assert repr(config) == (
        f"HRViTConfig('hrvit_b1', parallel, 4 branches, widths 32-64-128-256, 35 blocks, id {config.id})"
    )
    assert str(config) == repr(config)
    counts = count(config, (224, 160))
    assert f"{counts.params:,} parameters" in repr(counts) and "224×160" in repr(counts) and len(repr(counts)) < 120


def test_every_repr_is_one_line() -> None:
    """At most 300 characters; PyTorch's repr of a model has one line per module."""
    model = create_model("hrvit_nano")
    study = load_study(find_study("branch_sweep"))
    budget = Budget(min_rounds=3, max_rounds=3, max_seconds=0.1)
    for value in (
        model, deploy(model), count(model, 64), count("timm:resnet18", 64),
        ledger(model.config, 64), study, expand(study).variants[0],
        measure_parts(model, (32, 32), budget=budget),
        load_results(ROOT / "studies" / "measured" / "attention_variants"),
    ):  # fmt: skip
        assert len(repr(value)) < 300 and "\n" not in repr(value), type(value)
    assert f"{count(model, 64).params:,} parameters" in repr(model) and "hrvit_nano" in repr(model)
    assert f"{count(model, 64).macs:,} MACs" in repr(ledger(model.config, 64))


@pytest.mark.slow
@pytest.mark.usefixtures("known_ceilings")
def test_race_accepts_names_of_segmenters() -> None:
    budget = Budget(min_rounds=3, max_rounds=3, max_seconds=0.1)
    results = race(["hrvit_nano", "hrvit_b1_segformer_cityscapes"], 32, budget, max_warmup_seconds=0.01)
    assert [result.status for result in results] == ["ok", "ok"]
    assert results[1].model == "hrvit_b1_segformer_cityscapes"
