"""Study files and the networks that they define."""

import itertools
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml

from hrvit_lab.config import ConfigError, HRViTConfig, preset, scale_depths, with_branches
from hrvit_lab.config.settings import parse_settings, split_commas
from hrvit_lab.cost.count import count
from hrvit_lab.cost.dispatch import dispatch_count
from hrvit_lab.cost.ledger import ledger, totals
from hrvit_lab.network.baselines import build_network
from hrvit_lab.network.build import build
from hrvit_lab.parts import HEAD
from hrvit_lab.study.files import list_studies, load_study
from hrvit_lab.study.matching import match_macs
from hrvit_lab.study.space import expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.trials import Trial, in_order, plan

BASE: dict[str, Any] = {"title": "t", "question": "q?", "base": "hrvit_nano", "resolution": 64}


def spec(**fields: Any) -> Spec:
    return Spec.model_validate(BASE | fields)


def written(folder: Path, fields: dict[str, Any] | str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(fields if isinstance(fields, str) else yaml.safe_dump(fields))
    return path


def test_a_study_of_many_networks_is_read_as_it_was_written(tmp_path: Path) -> None:
    """As the Pareto set of a search, whose networks differ in every block; other YAML may have 64 KiB."""
    depths = preset("hrvit_b1").model_dump(mode="json")["depths"]
    variants = [{"name": f"found {i}", "set": {"depths": depths, "widths": [8, 16, 32, 64 + i]}} for i in range(300)]
    study = spec(variants=variants, question="q" * 4000)
    path = written(tmp_path, study.to_yaml())
    assert 64 * 1024 < path.stat().st_size < 4 * 2**20
    assert load_study(path) == study
    path.write_bytes(b"#" * (4 * 2**20 + 1))
    with pytest.raises(ConfigError, match=r"mine\.yaml cannot be read: it is larger than 4 MiB; give a YAML file"):
        load_study(path)


def test_grid_is_every_combination() -> None:
    variants, dropped = expand(spec(grid={"branches": [2, 3], "window_sizes": [1, 7]}))
    assert not dropped
    assert [v.name for v in variants] == [
        "branches=2, window_sizes=1",
        "branches=2, window_sizes=7",
        "branches=3, window_sizes=1",
        "branches=3, window_sizes=7",
    ]
    for variant, (branches, window) in zip(variants, itertools.product((2, 3), (1, 7)), strict=True):
        assert variant.config.id == with_branches(preset("hrvit_nano"), branches).replace(window_sizes=window).id
        assert variant.point == {"branches": branches, "window_sizes": window}


def test_one_at_a_time_is_the_base_and_single_changes() -> None:
    variants, dropped = expand(spec(one_at_a_time={"depth_scale": [1, 2], "stem_width": [32]}))
    base = preset("hrvit_nano")
    assert {v.name: v.config.id for v in variants} == {
        "base": base.id,
        "depth_scale=2": scale_depths(base, 2).id,
        "stem_width=32": base.replace(stem_width=32).id,
    }
    assert variants[0].point == {"depth_scale": 1.0, "stem_width": 16}
    assert dropped == [("depth_scale=1", "it is identical to the base")]


def test_named_variants_may_start_from_another_preset() -> None:
    entries = [
        {"name": "micro", "set": {"preset": "hrvit_micro"}},
        {"name": "windows", "set": {"window_sizes": [1, 1, 7, 7]}},
    ]
    micro, windows = expand(spec(variants=entries)).variants
    assert micro.config.id == preset("hrvit_micro").id
    assert windows.config.id == preset("hrvit_nano").replace(window_sizes=(1, 1, 7, 7)).id
    assert micro.point == {"window_sizes": "1-2-7-7"}
    assert windows.point == {"window_sizes": "1-1-7-7"}


def test_equal_macs_are_equal_by_a_count_of_the_built_network() -> None:
    """The ratio in the table equals that of the operators dispatched on the meta device."""
    variants = expand(spec(grid={"branches": [1, 4]}, match=["as is", {"macs": "base"}])).variants
    assert [v.point["matching"] for v in variants] == ["as is"] * 2 + ["equal macs"] * 2
    counted = {}  # of the base and the two variants that are not equal to it
    for config in (preset("hrvit_nano"), *(variant.config for variant in variants)):
        if config.id not in counted:
            counted[config.id] = dispatch_count(build_network(config), (64, 64)).macs
    assert len(counted) == 3
    for variant in variants:
        ratio = counted[variant.config.id] / counted[preset("hrvit_nano").id]
        assert variant.point["macs_vs_base"] == pytest.approx(ratio, rel=1e-12)
        assert variant.point["note"] == ""
        if variant.point["matching"] == "equal macs":
            assert abs(ratio - 1) <= 0.03
    as_is, equal = variants[1], variants[3]
    assert as_is.config.id == equal.config.id == preset("hrvit_nano").id


def test_matching_computes_few_totals_and_no_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a ledger are only for tables; the factor of the widths is found by bisection."""
    sums, ledgers = Mock(wraps=totals), Mock(wraps=ledger)
    monkeypatch.setattr("hrvit_lab.study.matching.totals", sums)
    monkeypatch.setattr("hrvit_lab.cost.count.ledger", ledgers)
    variants = expand(load_study(list_studies()["heterogeneous_branches"])).variants
    assert ledgers.call_count == 0
    assert sums.call_count <= 20 * len(variants)


def test_a_pyramid_is_matched_with_its_stem() -> None:
    change = {"topology": "pyramid", "depths": [[2, 2, 2, 2]], "stem_width": 8}
    (variant,) = expand(spec(variants=[{"name": "pyramid", "set": change}], match="equal macs")).variants
    assert isinstance(variant.config, HRViTConfig)
    assert variant.config.stem_width == variant.config.widths[0] > 8
    macs = [dispatch_count(build(c), (64, 64)).macs for c in (variant.config, preset("hrvit_nano"))]
    assert macs[0] / macs[1] == pytest.approx(1, abs=0.03)


def test_a_match_out_of_reach_is_noted() -> None:
    """The stem of b3 alone costs more than nano."""
    study = spec(variants=[{"name": "b3", "set": {"preset": "hrvit_b3"}}], match="equal macs")
    (variant,) = expand(study).variants
    ratio = variant.point["macs_vs_base"]
    assert ratio > 1.05
    assert f"{ratio - 1:+.0%}" in variant.point["note"]


def test_matching_keeps_proportions_if_possible() -> None:
    wide = preset("hrvit_micro").replace(widths=(32, 64, 128, 256))
    target = count(preset("hrvit_micro"), (64, 64)).macs
    widths = match_macs(wide, target, (64, 64)).widths
    assert widths == (16, 32, 64, 128)


def test_constraints_drop_with_a_reason() -> None:
    variants, dropped = expand(spec(grid={"branches": [1, 2, 3, 4, 5]}, constraints={"params": {"max": 5e5}}))
    sizes = {n: count(with_branches(preset("hrvit_nano"), n), 64).params for n in (1, 2, 3, 4, 5)}
    assert [v.point["branches"] for v in variants] == [n for n in sizes if sizes[n] <= 5e5]
    assert [name for name, _ in dropped] == [f"branches={n}" for n in sizes if sizes[n] > 5e5]
    assert all("params" in reason and "at most 500000" in reason.replace("5e+05", "500000") for _, reason in dropped)


def test_an_invalid_network_is_dropped_with_its_reason() -> None:
    variants, dropped = expand(spec(grid={"branches": [4, 5]}, resolution=32))
    assert [v.name for v in variants] == ["branches=4"]
    assert "resolution" in dropped[0].reason
    with pytest.raises(ConfigError, match="all variants are excluded"):
        expand(spec(grid={"branches": [5]}, resolution=32))


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"set": {"attention": ["window", "global"]}}, ["'odd': attention", "2 entries for 4 branches"]),
        ({"set": {"model": "timm:resnet18", "widths": 8}}, ["'odd': timm:resnet18 has no field 'widths'"]),
        ({"set": {"topology": "pyramid"}}, ["'odd': depths", "[[2, 2, 2, 2]]"]),
        ({"set": {"head": "segformer"}}, ["'odd': head = 'segformer'", "top1 needs", "norm_pool"]),
        ({"set": {"preset": "hrvit_b1_upernet_ade20k"}}, ["'odd': head = 'upernet'"]),
    ],
)
def test_a_network_that_is_listed_by_name_is_not_dropped(fields: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(spec(variants=[{"name": "fine"}, {"name": "odd", **fields}], metrics=["macs", "top1"]))
    assert "\n" not in str(caught.value)
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


def keys_of(planned: dict[str, list[Trial]]) -> dict[str, str]:
    """The key of each group that has one trial."""
    return {trial.group: trial.key for trials in planned.values() for trial in trials}


def test_equal_networks_and_equal_conditions_share_trials() -> None:
    study = spec(
        grid={"branches": [3, 4]},
        match=["as is", "equal macs"],
        metrics=["params", "macs", "top1"],
        seeds=[0, 1],
        data={"resolution": 64},
    )
    planned = plan(study, expand(study).variants, "chip")
    keys = {name: [trial.key for trial in trials] for name, trials in planned.items()}
    assert keys["branches=4"] == keys["branches=4, equal macs"]
    assert not set(keys["branches=3"]) & set(keys["branches=4"])
    assert len(in_order(planned)) == 3 * 2  # networks × two seeds; costs are computed


@pytest.mark.parametrize(
    ("change", "costs", "trainings", "clocks"),
    [
        ({"train": {"epochs": 3}}, True, False, True),
        ({"data": {"resolution": 48}}, True, False, True),
        ({"resolution": 96}, False, True, False),
        ({"latency": {"batch_size": 2}}, True, True, False),
        ({"title": "other"}, True, True, True),
        ({"trial_timeout_s": 5}, True, True, True),
    ],
)
def test_a_record_is_valid_only_for_its_conditions(
    change: dict[str, Any], costs: bool, trainings: bool, clocks: bool
) -> None:
    def keys(**fields: Any) -> dict[str, str]:
        study = spec(grid={"branches": [2]}, metrics=["params", "top1", "latency_ms"], **fields)
        return keys_of(plan(study, expand(study).variants, "chip"))

    before, after = keys(), keys(**change)
    same = {group: before[group] == after[group] for group in before}
    assert same == {"cost": costs, "accuracy": trainings, "latency": clocks}


def test_another_chip_invalidates_only_latencies() -> None:
    study = spec(grid={"branches": [2]}, metrics=["params", "top1", "latency_ms", "peak_memory_mib"])
    variants = expand(study).variants
    here, there = (keys_of(plan(study, variants, chip)) for chip in ("this", "that"))
    assert {group for group in here if here[group] != there[group]} == {"latency", "memory"}


def test_other_files_invalidate_only_trainings() -> None:
    study = spec(grid={"branches": [2]}, metrics=["params", "top1"], data={"name": "folder", "root": "images"})
    variants = expand(study).variants
    one, other, same = (keys_of(plan(study, variants, "chip", files)) for files in ("a1", "b2", "a1"))
    assert one == same
    assert (one["cost"] == other["cost"], one["accuracy"] == other["accuracy"]) == (True, False)


@pytest.mark.parametrize("name", sorted(list_studies()))
def test_shipped_studies_are_valid(name: str, tmp_path: Path) -> None:
    study = load_study(list_studies()[name])
    assert study.question.strip().endswith((".", "?"))
    assert "?" in study.title + study.question
    variants, dropped = expand(study)
    assert len(variants) >= 3
    assert not [entry for entry in dropped if "identical to the base" not in entry.reason]
    said = {entry.name: entry.note for entry in study.variants or ()}
    assert all(variant.point.get("note", "") == said.get(variant.name, "") for variant in variants)
    resolved = load_study(written(tmp_path, study.to_yaml()))
    assert resolved == study
    again = expand(resolved).variants
    assert [(v.name, v.config.id, v.point) for v in again] == [(v.name, v.config.id, v.point) for v in variants]


def test_branch_sweep_compares_networks_at_equal_macs() -> None:
    study = load_study(list_studies()["branch_sweep"])
    variants = expand(study).variants
    assert len({v.config.id for v in variants}) >= 9
    assert len(study.seeds) >= 3
    assert {v.point["branches"] for v in variants} == {1, 2, 3, 4, 5}


GRID = {"grid": {"branches": [1, 2]}}


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ("title: [1\nbase: x", ["not valid YAML", "line 2"]),
        ("- a\n- b", ["must be a mapping"]),
        ("a: &x [1]\nb: *x", ["alias"]),
        ("[" * 3000, []),
        ({**BASE}, ["exactly one of grid, one_at_a_time and variants"]),
        ({**BASE, **GRID, "variants": [{"name": "a"}]}, ["exactly one", "grid and variants"]),
        ({**BASE, **GRID, "metrix": ["params"]}, ["unknown key 'metrix'", "'metrics'"]),
        ({**BASE, **GRID, "train": {"epoch": 1}}, ["unknown key 'train.epoch'", "'epochs'"]),
        ({**BASE, **GRID, "latency": {"batchsize": 1}}, ["'latency.batchsize'", "'batch_size'"]),
        ({**BASE, **GRID, "constraints": {"params": {"maximum": 1}}}, ["'constraints.params.maximum'", "max"]),
        ({**BASE, **GRID, "constraints": {"top1": {"max": 1}}}, ["'top1' is not a cost"]),
        ({**BASE, "grid": {"branch": [1]}}, ["unknown axis 'branch'", "'branches'"]),
        ({**BASE, "grid": {"branches": ["two"]}}, ["branches = 'two'", "whole number"]),
        ({**BASE, "grid": {"branches": [1, 6]}}, ["branches = 6", "at most 5"]),
        ({**BASE, "grid": {"width_scale": [0]}}, ["width_scale = 0", "above 0"]),
        ({**BASE, "grid": {"fusion": ["dense", "spars"]}}, ["grid: fusion = 'spars'", "'sparse'"]),
        ({**BASE, "grid": {"attention": [["window", "globl"]]}}, ["unknown variant", "'global'"]),
        ({**BASE, "one_at_a_time": {"upsample": ["linear"]}}, ["upsample = 'linear'", "'bilinear'"]),
        ({**BASE, "grid": {"ffn": [{"mlp": 1}]}}, ["ffn = {'mlp': 1}"]),
        ({**BASE, "variants": [{"name": "a"}, {"name": "b", "set": {"window_sizes": 0}}]}, ["window_sizes[0] = 0"]),
        ({**BASE, "variants": [{"name": "a"}, {"name": "b", "set": {"preset": "mit_b9"}}]}, ["'b': ", "'mit_b9'"]),
        ({**BASE, "variants": [{"name": "b", "set": {"ffn": ["mlp", "mpl"]}}]}, ["'b': ffn[1] = 'mpl'", "'mlp'"]),
        ({**BASE, "variants": [{"name": "b", "set": 3}]}, ["variants.0.set = 3", "give a mapping"]),
        ({**BASE, **GRID, "seeds": 3}, ["seeds = 3", "give a list"]),
        ({**BASE, **GRID, "tradeoff": ["macs", "latency_ms"]}, ["tradeoff: 'latency_ms' is not measured", "metrics"]),
        ({**BASE, **GRID, "tradeoff": ["macs", "macs"]}, ["tradeoff: 'macs' is given twice"]),
        ({**BASE, "grid": {"branches": []}}, ["grid.branches", "at least 1"]),
        ({**BASE, **GRID, "base": "hrvit_nan"}, ["base", "unknown preset 'hrvit_nan'", "'hrvit_nano'"]),
        ({**BASE, **GRID, "base": {"preset": "hrvit_nano", "width": 3}}, ["base", "'width'"]),
        ({**BASE, **GRID, "metrics": ["param"]}, ["metrics", "unknown metric 'param'", "'params'"]),
        ({**BASE, **GRID, "data": {"name": "digit"}}, ["data.name", "'digits'"]),
        ({**BASE, **GRID, "seeds": [-1]}, ["seeds.0", "-1"]),
        ({**BASE, **GRID, "device": "gpu"}, ["device", "'gpu'", "cuda"]),
        ({**BASE, **GRID, "match": "equal params"}, ["match", "equal params"]),
        ({**BASE, "variants": [{"name": "a"}, {"name": "a"}]}, ["two variants have the name 'a'"]),
        (
            {**BASE, "grid": {"stem_width": list(range(1, 400)), "drop_rate": [i / 100 for i in range(99)]}},
            ["39501", "10000"],
        ),
        ({key: BASE[key] for key in BASE if key != "question"} | GRID, ["'question' is missing"]),
    ],
)
def test_a_wrong_file_is_reported_in_one_sentence(
    tmp_path: Path, fields: dict[str, Any] | str, fragments: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, fields))
    message = str(caught.value)
    assert "mine.yaml" in message
    assert "\n" not in message
    assert len(message) < 500
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_a_segmentation_head_is_refused_only_if_it_would_be_trained() -> None:
    heads = {"head": list(HEAD)}
    assert [v.point["head"] for v in expand(spec(grid=heads, metrics=["macs", "latency_ms"])).variants] == list(HEAD)
    for head in HEAD:
        asked = spec(grid={"head": [head]}, metrics=["top1"], resolution=32)
        model = build(preset("hrvit_nano").replace(head=head)).eval()
        answer = model(torch.zeros(1, 3, 32, 32))
        if isinstance(answer, torch.Tensor) and answer.ndim == 2:
            assert len(expand(asked).variants) == 1
        else:
            with pytest.raises(ConfigError, match=f"'head={head}'.*does not classify whole images"):
                expand(asked)


def test_requested_metrics_replace_the_trade_off_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, BASE | {**GRID, "metrics": ["macs", "latency_ms"], "tradeoff": ["macs", "latency_ms"]})
    assert load_study(path).tradeoff == ("macs", "latency_ms")
    assert load_study(path, [("metrics", ["macs"])]).tradeoff is None
    assert load_study(path, [("metrics", ["params", "latency_ms", "macs"])]).tradeoff == ("macs", "latency_ms")


def test_settings_change_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, BASE | {"grid": {"branches": [1, 2]}})
    text = "train.epochs=2,grid.branches=[1, 3],base.window_sizes=7,data.name=fashion_mnist,resolution=[64, 96]"
    study = load_study(path, parse_settings(text))
    assert study.train.epochs == 2
    assert study.grid == {"branches": [1, 3]}
    assert study.base_config.id == preset("hrvit_nano").replace(window_sizes=7).id
    assert study.data.name == "fashion_mnist"
    assert study.resolution == (64, 96)


@pytest.mark.parametrize(
    ("setting", "fragments"),
    [
        ("train.epohcs=2", ["--set", "'train.epohcs'", "'epochs'"]),
        ("trian.epochs=2", ["--set", "'trian'", "'train'"]),
        ("train", ["--set", "'train' is not of the form key=value"]),
        ("title.x=2", ["--set", "'title' has no keys"]),
        ("train.epochs=many", ["--set", "train.epochs", "'many'"]),
        ("grid.branches=[1", ["grid.branches", "not valid YAML"]),
    ],
)
def test_a_wrong_setting_is_reported_in_one_sentence(tmp_path: Path, setting: str, fragments: list[str]) -> None:
    path = written(tmp_path, BASE | {"grid": {"branches": [1, 2]}})
    with pytest.raises(ConfigError) as caught:
        load_study(path, parse_settings(setting))
    assert "\n" not in str(caught.value)
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a=1,b=2", ["a=1", "b=2"]),
        ("a=[1, 2],b={c: 1, d: 2}", ["a=[1, 2]", "b={c: 1, d: 2}"]),
        ("a=[[1,2],[3,4]],b=x", ["a=[[1,2],[3,4]]", "b=x"]),
        ("title='x, y',b=1", ["title='x, y'", "b=1"]),
        ("", []),
    ],
)
def test_only_commas_outside_brackets_split(text: str, parts: list[str]) -> None:
    assert split_commas(text) == parts
