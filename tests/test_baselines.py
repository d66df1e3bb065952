"""timm models in place of ours: the same counters, latency measurements and training; a failure is a row with a
reason."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, preset, shipped
from hrvit_lab.cost import dispatch as counting
from hrvit_lab.cost.count import UncountedOperator, count
from hrvit_lab.network import baselines
from hrvit_lab.network.baselines import TimmConfig, build_network, network_from_dict
from hrvit_lab.network.blocks import use_explicit_attention
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.groups import PROBES, ProbeInput
from hrvit_lab.study.report.figures import costs_by_part
from hrvit_lab.study.results import read_results
from hrvit_lab.study.space import expand
from hrvit_lab.study.spec import Spec

RESNET = TimmConfig("timm:resnet18", num_classes=10)
NARROW = RESNET.replace(options={"channels": (8, 16, 32, 64)})
SEGMENTER = NARROW.replace(head="segformer", segformer_width=24, num_classes=5)


@contextmanager
def hooked_macs(model: nn.Module) -> Iterator[list[int]]:
    """MACs of convolutions and linears, from the shapes of their inputs and outputs."""
    macs: list[int] = []

    def note(module: nn.Module, inputs: Any, out: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        macs.append(out.numel() * module.weight[0].numel())

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    yield macs
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:mobilenetv3_small_050", "timm:convnext_atto"])
def test_costs_equal_those_of_the_layers_that_run(name: str) -> None:
    config = TimmConfig(name, num_classes=10)
    model = build_network(config).eval()
    with hooked_macs(model) as macs, torch.no_grad():
        model(torch.zeros(1, 3, 64, 96))
    counts = count(config, (64, 96))
    assert counts.macs == counts.macs_padded == counts.macs_paper == sum(macs)
    assert count(name, (64, 96)) == count(TimmConfig(name), (64, 96)) != counts
    assert counts.params == sum(parameter.numel() for parameter in model.parameters())


def test_attention_counts_in_full_and_half_by_the_papers_convention() -> None:
    config = TimmConfig("timm:swin_tiny_patch4_window7_224", num_classes=10)
    with torch.device("meta"):
        model = build_network(config, (224, 224)).eval()
    flops = FlopCounterMode(display=False)
    with use_explicit_attention(model), hooked_macs(model) as layers, flops, torch.no_grad():
        model(torch.empty(1, 3, 224, 224, device="meta"))
    counts = count(config, 224)
    assert 2 * counts.macs == flops.get_total_flops()
    assert counts.macs_paper == (sum(layers) + counts.macs) / 2


def test_a_fixed_size_is_built_for_the_resolution() -> None:
    model = build_network(TimmConfig("timm:vit_tiny_patch16_224", num_classes=10), (64, 96))
    assert model.get_parameter("pos_embed").shape == (1, 1 + 4 * 6, 192)
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 10)


@pytest.mark.parametrize(
    ("model", "fragments"),
    [
        ("timm:resnet19", ["timm:resnet19", "no such model", "'resnet18'"]),
        ("timm:hf-hub:somebody/model", ["no such model"]),
        ("timm:zzzzzzzzzzzz", ["no such model", "timm.list_models()"]),
        ("resnet18", ["'resnet18' is unknown", "timm:NAME"]),
        (18, ["18"]),
    ],
)
def test_an_unknown_model_is_reported_in_one_sentence(model: Any, fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        TimmConfig(model)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_names_read_from_timms_files_equal_its_registered_names() -> None:
    ours = {*PRESETS, *SEGMENTERS, *shipped()}
    assert baselines._names_in_timm() == {*timm.list_models()} - ours


def test_a_model_registered_by_another_package_is_found() -> None:
    assert TimmConfig("timm:hrvit_nano").model == "timm:hrvit_nano"


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 0}, {"num_classes": True}, {"in_chans": 65}, {"widths": 3}, {"head": "upernet"},
        {"segformer_width": 0}, {"options": [1]}, {"options": {"pretrained": True}}, {"options": {"block_args": {}}},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        RESNET.replace(**changes)


def test_configs_are_restored_from_their_dicts() -> None:
    for config in (RESNET, NARROW, SEGMENTER, preset("hrvit_nano")):
        assert network_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert RESNET.replace(name="other").id == RESNET.id != RESNET.replace(num_classes=11).id


def test_an_unsupported_size_is_reported_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="timm:crossvit_tiny_240 does not run at 64×64 pixels: ") as caught:
        count(TimmConfig("timm:crossvit_tiny_240"), 64)
    assert "\n" not in str(caught.value)


def test_an_operator_of_unknown_cost_is_an_error_and_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet's max pooling is removed from the known operators."""
    known = counting.FREE - {torch.ops.aten.max_pool2d_with_indices}
    monkeypatch.setattr(counting, "FREE", known)
    with pytest.raises(UncountedOperator, match="max_pool2d"):
        count(TimmConfig("timm:resnet18", num_classes=7), 32)


def test_every_probe_accepts_a_baseline() -> None:
    """Except that of segmentation: such studies refuse classifiers before any trial (test_study_segmentation)."""
    asked = ProbeInput(
        TimmConfig("timm:test_resnet"), (32, 32), data={"name": "digits", "resolution": (32, 32)},
        train={"epochs": 1, "train_limit": 40, "batch_size": 20},
        latency={"min_runs": 3, "max_runs": 3, "max_seconds": 0.01, "max_warmup_seconds": 0.01},
    )  # fmt: skip
    values = {group: probe(asked) for group, probe in PROBES.items() if group != "segmentation"}
    assert values["latency"]["latency_ms"] > 0
    assert values["memory"]["peak_memory_mib"] > values["cost"]["weight_mib"]
    assert 0 <= values["accuracy"]["top1"] <= 100
    again = PROBES["accuracy"](asked)
    assert (again["top1"], again["val_loss"]) == (values["accuracy"]["top1"], values["accuracy"]["val_loss"])


BASE: dict[str, Any] = {"title": "t", "question": "q?", "base": {"preset": "hrvit_nano", "num_classes": 12}}
BASELINES = [
    {"name": "ours", "set": {}},
    {"name": "ResNet", "set": {"model": "timm:resnet18"}},
    {"name": "grey", "set": {"model": "timm:resnet18", "in_chans": 1, "num_classes": 3}},
]


def test_a_baseline_has_the_number_of_classes_of_the_base() -> None:
    _, resnet, grey = expand(Spec.model_validate({**BASE, "resolution": 32, "variants": BASELINES})).variants
    assert resnet.config == TimmConfig("timm:resnet18", num_classes=12, name="ResNet")
    assert grey.config == TimmConfig("timm:resnet18", num_classes=3, in_chans=1, name="grey")
    assert grey.point == {"in_chans": 1, "num_classes": 3}


def test_our_networks_are_matched_to_a_baselines_macs_but_not_the_reverse() -> None:
    fields = {**BASE, "base": "timm:test_resnet", "resolution": 64, "match": "equal macs"}
    entries = [{"name": "nano", "set": {"preset": "hrvit_nano"}}, {"name": "ResNet", "set": {"model": "timm:resnet18"}}]
    variants, dropped = expand(Spec.model_validate({**fields, "variants": entries}))
    target = count(TimmConfig("timm:test_resnet"), 64).macs
    assert [v.name for v in variants] == ["nano"]
    assert variants[0].point["macs_vs_base"] == pytest.approx(count(variants[0].config, 64).macs / target)
    assert [(d.name, d.reason) for d in dropped] == [("ResNet", "timm:resnet18 has no widths to scale")]


def test_a_study_with_baselines_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "baselines.yaml"
    entries = [*BASELINES, {"name": "CrossViT", "set": {"model": "timm:crossvit_tiny_240"}}]
    study.write_text(json.dumps({**BASE, "resolution": 64, "metrics": ["params", "macs"], "variants": entries}))
    arguments = [str(study), "--out", str(tmp_path / "results"), "--jobs", "1"]
    assert main([*arguments, "--dry-run"]) == 0
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert "failed: CrossViT" in shown and "does not run at 64×64" in shown
    folder = tmp_path / "results" / "baselines"
    with (folder / "table.csv").open() as file:
        ours, resnet, grey, cross = csv.DictReader(file)
    assert float(resnet["macs"]) == count(TimmConfig("timm:resnet18", num_classes=12), 64).macs
    assert float(ours["macs"]) == count(preset("hrvit_nano").replace(num_classes=12), 64).macs
    assert cross["macs"] == "" and cross["status"].startswith("failed: cost: ")
    results = read_results(folder)
    assert network_from_dict(results.configs["ResNet"]) == TimmConfig("timm:resnet18", num_classes=12, name="ResNet")
    assert costs_by_part(results).loc["ResNet", "whole network"] == float(resnet["macs"])


def test_an_unknown_baseline_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "baselines.yaml"
    study.write_text(json.dumps({**BASE, "variants": [{"name": "a", "set": {"model": "timm:resnet19"}}]}))
    assert main([str(study), "--out", str(tmp_path / "results")]) == 2
    output, errors = capsys.readouterr()
    assert output == "" and len(errors.splitlines()) == 1
    assert "'resnet18'" in errors
    assert not (tmp_path / "results").exists()


def test_options_are_arguments_of_timms_model() -> None:
    ours, theirs = build_network(NARROW), timm.create_model("resnet18", num_classes=10, channels=[8, 16, 32, 64])
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert len({RESNET.id, NARROW.id, SEGMENTER.id, SEGMENTER.replace(segformer_width=32).id}) == 4


@pytest.mark.parametrize("options", [{"chanels": [8, 16, 32, 64]}, {"channels": "wide"}], ids=["name", "value"])
def test_options_that_a_model_does_not_have_are_reported_in_one_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="timm:resnet18 does not accept options") as caught:
        build_network(RESNET.replace(options=options))
    assert "\n" not in str(caught.value)


def test_a_segmenter_accepts_maps_with_the_channels_last() -> None:
    """As Swin's; the same maps from timm's whole network, which permutes them itself."""
    options: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
    config = TimmConfig("timm:swin_tiny_patch4_window7_224", 5, head="segformer", segformer_width=24, options=options)
    model, x = build_network(config, (64, 96)).eval(), torch.randn(2, 3, 64, 96)
    whole: Any = timm.create_model("swin_tiny_patch4_window7_224", img_size=(64, 96), **options).eval()
    weights = model.get_submodule("backbone").state_dict()
    missing, unexpected = whole.load_state_dict({k.replace("s_", "s.", 1): v for k, v in weights.items()}, strict=False)
    assert not unexpected and all(name.startswith(("norm.", "head.")) for name in missing)
    with torch.no_grad():
        maps = whole.forward_intermediates(x, intermediates_only=True, output_fmt="NCHW")
        torch.testing.assert_close(model(x), model.get_submodule("head")(*maps))


def test_a_segmenter_is_the_decoder_on_timms_maps() -> None:
    model = build_network(SEGMENTER).eval()
    x = torch.randn(2, 3, 40, 72)
    maps = model.get_submodule("backbone")(x)[1:]  # ResNet's first map has stride 2
    assert [tuple(each.shape[1:]) for each in maps] == [(8, 10, 18), (16, 5, 9), (32, 3, 5), (64, 2, 3)]
    head = model.get_submodule("head")
    same_size = [
        F.interpolate(project(each), maps[0].shape[-2:], mode="bilinear", align_corners=False)
        for project, each in zip(head.get_submodule("projections").children(), maps, strict=True)
    ]
    expected = head.get_submodule("classifier")(head.get_submodule("fuse")(torch.cat(same_size, 1)))
    torch.testing.assert_close(model(x), expected)
    assert count(SEGMENTER, (40, 72)).params == sum(parameter.numel() for parameter in model.parameters())


def test_a_network_without_maps_of_all_strides_cannot_segment() -> None:
    with pytest.raises(ConfigError, match="timm:vit_tiny_patch16_224 has no feature maps with strides 4, 8, 16 and 32"):
        build_network(TimmConfig("timm:vit_tiny_patch16_224", head="segformer"), (64, 64))
