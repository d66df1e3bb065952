"""The lab: entries that pass the gate are timed exactly (fake clock), others are rows with a reason; the command
line."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_clock import FakeClock
from rich.console import Console
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hrvit_lab import create_model, plots
from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, preset, with_branches
from hrvit_lab.latency import __main__ as cli
from hrvit_lab.latency import backends, command, single, suite
from hrvit_lab.latency import race as lab
from hrvit_lab.latency import roofline as roofline_module
from hrvit_lab.latency.backends import BACKENDS, Backend, Prepared, Refused, compiling, find_backend, regions
from hrvit_lab.latency.compare import Budget, judge
from hrvit_lab.latency.conditions import NoNvml
from hrvit_lab.latency.energy import Energy
from hrvit_lab.latency.estimate import Estimate
from hrvit_lab.latency.gate import (
    check,
    reference_gradients,
    reference_output,
    relative_error,
    step_gradients,
    training_step,
)
from hrvit_lab.latency.measurement import Entry, Measurement, Setting, to_frame
from hrvit_lab.latency.models import NamedModel, as_model, find_model, randomize_norms
from hrvit_lab.latency.parts import measure_parts
from hrvit_lab.latency.race import race
from hrvit_lab.latency.roofline import Ceilings, Product, roofline
from hrvit_lab.latency.show import knees, race_table, remarks
from hrvit_lab.latency.timing import Sample, primed
from hrvit_lab.latency.workload import Workload, prepare
from hrvit_lab.network.build import build
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.model import HRViT
from hrvit_lab.study.groups import PROBES, ProbeInput

SMALL = Setting((8, 8))
FIVE = Budget(min_rounds=5, max_rounds=5)


class Timed(nn.Module):
    """A convolution that takes that many milliseconds of a clock, half as many in bfloat16."""

    def __init__(self, clock: FakeClock, ms: float, fail: Callable[[Tensor], None] = lambda x: None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.clock, self.ms, self.fail = clock, ms, fail

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.fail(x_BCHW)
        self.clock.pass_ms(self.ms * (0.5 if x_BCHW.dtype == torch.bfloat16 else 1))
        return self.conv(x_BCHW)


def named(name: str, module: nn.Module) -> NamedModel:
    return NamedModel(name, module, module)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """A fake clock, with fixed ceilings in place of measured ones."""
    monkeypatch.setattr(lab, "measure_ceilings", lambda *_, **__: Ceilings(gemm_flop_s=4e6, copy_byte_s=1e9))
    return FakeClock()


def test_the_race_is_exact_on_a_fake_clock(clock: FakeClock) -> None:
    a, b = named("a", Timed(clock, 10.0)), named("b", Timed(clock, 12.0))
    entries = [Entry(a), Entry(b), Entry(a, dtype="bfloat16")]
    first, second, third = race(entries, replace(SMALL, batch_size=2), FIVE, clock=clock)
    assert [m.status for m in (first, second, third)] == ["ok"] * 3
    assert first.samples_ms == pytest.approx([10.0] * 5)
    assert first.steady and first.ratio is None and first.against is None
    assert second.ratio == pytest.approx((1.2, 1.2, 1.2)) and second.verdict == "slower"
    assert third.ratio == pytest.approx((0.5, 0.5, 0.5)) and third.verdict == "faster"
    assert second.against == "a, eager, float32"
    assert second.control == pytest.approx((1.0, 1.0, 1.0))
    assert second.throughput_img_s == pytest.approx(2 / 12e-3)
    macs = 2 * 8 * 8 * 4 * 3 * 9
    assert first.macs == macs
    assert first.roofline is not None and first.roofline.distance == pytest.approx(10.0 / (2e3 * macs / 4e6))
    assert first.roofline.byte_s is None  # moved bytes are known in closed form only
    assert first.relative_error == 0 < (third.relative_error or 0) < 0.02
    assert first.peak_memory_mib is not None and first.energy is None and first.device_samples_ms == ()


def planted(clock: FakeClock, flop_s: float) -> Callable[..., Callable[[], None]]:
    """A matrix product of a known speed."""
    return lambda side, device, dtype: lambda: clock.pass_ms(2e3 * side**3 / flop_s)


@pytest.mark.parametrize(
    ("kernel", "fastest", "words"),
    [
        (1, 1e6, "below 1: the ceiling is too low, because this network is faster than every matrix product"),
        (
            3,
            1e6,
            "below 1: its 3 × 3 convolutions (by Winograd) or a deployed SegFormer decoder may multiply less than is",
        ),
        (1, 1e9, ""),
        (3, 1e9, ""),
    ],
)
def test_a_planted_slow_product_is_detected(
    monkeypatch: pytest.MonkeyPatch, kernel: int, fastest: float, words: str
) -> None:
    """All available products are slow, or one is not; the network computes 2 · 64 · 12 · k² operations in 0.1 ms."""
    clock = FakeClock(tick_ms=1e-6)
    monkeypatch.setattr(roofline_module, "COPY_BYTES", {"cpu": 2**10})
    monkeypatch.setattr(roofline_module, "PRODUCTS", {"slow": planted(clock, 1e6), "other": planted(clock, fastest)})
    model = Timed(clock, 0.1)
    model.conv = nn.Conv2d(3, 4, kernel, padding=kernel // 2)
    [result] = race([Entry(named("a", model))], SMALL, FIVE, clock=clock)
    assert result.roofline is not None and result.ceilings is not None
    assert result.ceilings.gemm_flop_s == pytest.approx(fastest, rel=0.01)
    floor_ms = 2e3 * 64 * 12 * kernel**2 / fastest
    assert result.roofline.distance == pytest.approx(0.1 / floor_ms, rel=0.02)
    said = [sentence for sentence in remarks([result]) if "below 1" in sentence]
    assert len(said) == bool(words) and words in "".join(said)
    assert "by other of 512 × 512 with 1 thread" in " ".join(remarks([result])) or fastest == 1e6


def test_a_product_above_the_published_peak_indicates_a_wrong_clock() -> None:
    def said(gflop_s: float, peak: float | None) -> str:
        ceilings = Ceilings(
            gflop_s * 1e9, 1e9, Product("packed linear", 2048, gflop_s * 1e9), 2, (),
            peak and peak * 1e9, "Zen 5, 1 core" if peak else "",
        )  # fmt: skip
        [sentence] = [text for text in remarks([measured(ceilings=ceilings)]) if text.startswith("Ceiling in")]
        return sentence

    product = "Ceiling in float32: 260 GFLOP/s, by packed linear of 2048 × 2048 with 2 threads"
    assert said(260, 262) == f"{product}, 99% of the published peak of 262 GFLOP/s (Zen 5, 1 core)."
    assert said(260, None) == f"{product}; the published peak of this device is unknown."
    assert "above the published peak of 262 GFLOP/s (Zen 5, 1 core): the timer is wrong" in said(270, 262)


def test_the_ceiling_is_named_in_records_and_tables(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    product = Product("packed linear", 1024, 260e9)
    monkeypatch.setattr(lab, "measure_ceilings", lambda *_, **__: Ceilings(260e9, 1e9, product, 1, (product,)))
    [result] = race([Entry(named("a", Timed(clock, 10.0)))], SMALL, FIVE, clock=clock)
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    named_so = {"product": "packed linear", "side": 1024, "flop_s": 260e9}
    assert record["ceilings"]["gemm"] == named_so and record["ceilings"]["tried"] == [named_so]
    [row] = to_frame([result]).to_dict("records")
    assert (row["ceiling"], row["ceiling_gflop_s"]) == ("packed linear, 1024", 260.0)


def test_a_record_is_complete_json(clock: FakeClock) -> None:
    [result] = race([Entry(named("a", Timed(clock, 10.0)))], SMALL, FIVE, clock=clock)
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["samples_ms"] == list(result.samples_ms)
    keys = [f"latency_{q}_ms" for q in ("min", "p10", "p50", "p90", "p99")]
    assert [record[key] for key in keys] == pytest.approx([10.0] * 5)
    assert record["control"] == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
    assert record["environment"]["versions"]["torch"] == torch.__version__
    assert record["conditions"].keys() >= {"clock_mhz", "other_cores_busy", "load_average_1min", "remarks"}
    assert record["rounds"] == 5 and record["rounds_stopped"] == "precise"


def test_a_network_with_wrong_outputs_is_reported_and_not_timed(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def miscompiled(load: Workload) -> Prepared:
        def run() -> Tensor:
            nonlocal calls
            calls += 1
            return load.model(load.images_BCHW) * 1.001

        return Prepared(run, 7.0)

    monkeypatch.setitem(BACKENDS, "odd", Backend("odd", miscompiled))
    model = named("a", Timed(clock, 10.0))
    right, wrong, tolerable = race(
        [Entry(model), Entry(model, "odd"), Entry(model, "odd", "bfloat16")], SMALL, FIVE, clock=clock
    )
    assert right.status == "ok"
    assert wrong.status == "wrong" and wrong.samples_ms == () and wrong.latency is None
    assert wrong.relative_error == pytest.approx(1e-3, rel=1e-3) and wrong.tolerance == 1e-4
    assert "above the tolerance of 0.0001 (compared with eager float32)" in wrong.reason
    assert tolerable.status == "ok"
    assert calls == 1 + len(tolerable.warmup_samples_ms) * 2 + 1 + 5 * 2


def no_memory(x_BCHW: Tensor) -> None:
    if x_BCHW.dtype == torch.bfloat16:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


def broken(x_BCHW: Tensor) -> None:
    if x_BCHW.dtype == torch.bfloat16:
        raise NotImplementedError("no such kernel\nand a long story")


@pytest.mark.parametrize(
    ("fail", "status", "reason"),
    [
        (no_memory, "out of memory", "out of memory: batch 1 at 8×8, bfloat16"),
        (broken, "failed", "NotImplementedError: no such kernel"),
    ],
)
def test_a_failure_is_a_row_and_the_race_continues(
    clock: FakeClock, fail: Callable[[Tensor], None], status: str, reason: str
) -> None:
    model = named("a", Timed(clock, 10.0, fail))
    bad, good = race([Entry(model, dtype="bfloat16"), Entry(model)], SMALL, FIVE, clock=clock)
    assert bad.status == status and bad.reason.startswith(reason) and "\n" not in bad.reason
    assert bad.samples_ms == ()
    assert good.status == "ok" and good.ratio is None  # the entry became the reference


def test_combinations_that_a_back_end_does_not_support_are_refused(clock: FakeClock) -> None:
    model = named("a", Timed(clock, 10.0))
    results = race([Entry(model), Entry(model, "cuda_graph"), Entry(model, "onnxruntime", "bfloat16")], SMALL, FIVE,
                   clock=clock)  # fmt: skip
    assert [m.status for m in results] == ["ok", "refused", "refused"]
    assert [m.reason for m in results[1:]] == [
        "CUDA graph runs on cuda only", "ONNX Runtime supports float32 only",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "setting", "message"),
    [
        ([], SMALL, "give at least one model"),
        (["eager", "eager"], SMALL, "a, eager, float32 is given twice"),
        (["tvm"], SMALL, "backend 'tvm' is unknown; use one of eager, packed"),
        (["eager"], replace(SMALL, batch_size=0), "batch_size is 0"),
        (["eager"], replace(SMALL, threads=0), "threads is 0"),
        (["eager"], replace(SMALL, device="tpu"), "device 'tpu' is unknown"),
        (["eager"], replace(SMALL, memory_format="nchw"), "memory_format 'nchw' is unknown"),
    ],
)
def test_invalid_requests_are_named(entries: list[str], setting: Setting, message: str) -> None:
    model = named("a", nn.Conv2d(3, 4, 3))
    with pytest.raises(ValueError, match=message):
        race([Entry(model, backend) for backend in entries], setting)


def test_an_interrupt_keeps_finished_measurements(clock: FakeClock) -> None:
    runs = 0

    def interrupt_late(x_BCHW: Tensor) -> None:
        nonlocal runs
        runs += 1
        if runs == 2 + 1 + 20 + 4 * 10:  # gate and memory, warm-up, then ten rounds of four calls
            raise KeyboardInterrupt

    [result] = race([Entry(named("a", Timed(clock, 10.0, interrupt_late)))], SMALL, Budget(), clock=clock)
    assert result.status == result.rounds_stopped == "interrupted"
    assert len(result.samples_ms) == 9
    assert result.latency == pytest.approx((10.0, 10.0, 10.0))


# -- gate and models --------------------------------------------------------------------------------------------------


def test_relative_error_against_hand_computation() -> None:
    reference = [torch.tensor([3.0, 4.0]), torch.tensor([12.0])]
    assert relative_error([torch.tensor([3.0, 4.0]), torch.tensor([12.0 + 1.3])], reference) == pytest.approx(0.1)
    assert relative_error(torch.tensor([1.0]), reference) == math.inf
    assert relative_error([torch.tensor([math.nan, 4.0]), torch.tensor([12.0])], reference) == math.inf
    assert not check(torch.zeros(2), torch.zeros(2), "float32").passed  # a network with zero output is not accepted


def test_the_reference_computed_in_chunks_equals_the_network() -> None:
    model = find_model("hrvit_micro").plain.train()
    images_BCHW = torch.randn(11, 3, 32, 32)
    [ours] = reference_output(model, images_BCHW)
    assert model.training
    with torch.no_grad():
        torch.testing.assert_close(ours, model.eval()(images_BCHW), atol=1e-4, rtol=1e-4)


def test_reference_gradients_computed_in_chunks_equal_those_of_the_batch() -> None:
    model = find_model("hrvit_nano").plain.eval()
    images_BCHW = torch.randn(11, 3, 32, 32)
    ours = reference_gradients(model, images_BCHW)
    training_step(model, lambda: model(images_BCHW))
    assert len(ours) == len(list(model.parameters()))
    assert relative_error(ours, step_gradients(model)) < 1e-5


def test_batch_norms_are_random_and_reproducible() -> None:
    """At initialization, attention ends in a BatchNorm of zeros, which would hide errors in attention."""
    initial, measurable = create_model("hrvit_micro").eval(), find_model("hrvit_micro").plain.eval()
    images_BCHW = torch.randn(1, 3, 32, 32)

    def effect_of_attention(model: nn.Module) -> float:
        with torch.no_grad():
            before = model(images_BCHW)
            for name, parameter in model.named_parameters():
                if ".attn.mixer.to_qv." in name:
                    parameter.zero_()
            return relative_error(model(images_BCHW), before)

    assert effect_of_attention(initial) == 0.0
    assert effect_of_attention(measurable) > 0.1  # more than any number format is allowed
    for norm in find_model("hrvit_micro", seed=3).plain.modules():
        if isinstance(norm, _BatchNorm):
            assert norm.weight.abs().min() > 0 and norm.bias.abs().min() > 0 and norm.running_mean is not None
    same = [find_model("hrvit_micro", seed=seed).plain.state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(same[0][key], same[1][key]) for key in same[0])
    assert not torch.equal(same[0]["stem.bn1.weight"], same[2]["stem.bn1.weight"])


def test_a_batch_norm_without_parameters_is_accepted() -> None:
    randomize_norms(nn.BatchNorm2d(4, affine=False, track_running_stats=False))


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("convnext_atto_ols", "gamma"),  # 1e-6 of each block
        ("poolformer_s12", "layer_scale1.scale"),
        ("resmlp_12_224", "ls1"),
    ],
)
def test_layer_scales_of_any_name_are_randomized(name: str, ending: str) -> None:
    model = find_model(f"timm:{name}").plain
    scales = [parameter for key, parameter in model.named_parameters() if key.endswith(ending)]
    assert scales and min(scale.abs().min().item() for scale in scales) >= 0.5


def test_only_weights_that_start_at_zero_are_randomized() -> None:
    """A classifier of zeros gives outputs of zero for any features (timm's ResMLP and Hiera)."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm(4), nn.Linear(4, 50))
    model.gain = nn.Parameter(torch.zeros(4, 1, 1, 1))  # as in timm's NFNets
    nn.init.zeros_(model[2].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model[2].bias)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    randomize_norms(model)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["gain", "2.weight"]
    assert model.gain.min() >= 0.5
    assert model.state_dict()["2.weight"].std().item() == pytest.approx(0.02, rel=0.2)


def test_studies_and_the_lab_time_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies and the lab measure nano with equal weights."""
    config = PRESETS["hrvit_nano"]
    timed = []

    def spy(model: Any, *arguments: Any, **settings: Any) -> Any:
        timed.append(as_model(model, seed=3).state_dict())
        raise InterruptedError

    monkeypatch.setattr(single, "measure_latency", spy)
    with pytest.raises(InterruptedError):
        PROBES["latency"](ProbeInput(config, (32, 32), seed=3))
    by_name = find_model("hrvit_nano", seed=3).plain.state_dict()
    for state in (*timed, as_model(config, seed=3).state_dict()):
        assert all(torch.equal(tensor, by_name[name]) for name, tensor in state.items())


def test_models_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(create_model("hrvit_micro").config.replace(num_classes=7).to_yaml())
    assert find_model(str(path)).plain.config.num_classes == 7  # type: ignore[union-attr]
    assert isinstance(find_model("timm:resnet18").module, nn.Module)
    segmenter = find_model("hrvit_b1_segformer_ade20k").plain
    assert isinstance(segmenter, HRViT) and segmenter.config == SEGMENTERS["hrvit_b1_segformer_ade20k"]
    served = find_model("hrvit_micro:deploy")
    assert served.module is not served.plain and served.name == "hrvit_micro:deploy"
    images_BCHW = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert check(served.module(images_BCHW), served.plain.eval()(images_BCHW), "float32").passed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hrvit_b4", "model 'hrvit_b4' is unknown; did you mean"),
        ("hrvit_b1_segformer", "model 'hrvit_b1_segformer' is unknown; did you mean 'hrvit_b1_segformer_ade20k'"),
        ("timm:resnet19", "timm:resnet19: timm has no such model"),
        ("timm:resnet18:deploy", "only HRViTs have a deployed form; use timm:resnet18"),
        ("no/such.yaml", "the config no/such.yaml cannot be read"),
    ],
)
def test_unknown_models_are_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_model(name)


# -- back ends --------------------------------------------------------------------------------------------------------


def test_a_missing_package_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="backend openvino needs openvino; run: pip install openvino"):
        find_backend("openvino")


@pytest.mark.parametrize("form", [lambda model: model, deploy], ids=["plain", "deployed"])
def test_regions_contain_every_weight_except_norms_of_stages(form: Callable[[nn.Module], nn.Module]) -> None:
    model = form(create_model("hrvit_micro"))
    held = {id(p) for region in regions(model) for p in region.parameters()}
    left = [name for name, p in model.named_parameters() if id(p) not in held]
    assert left and all(".norms." in name for name in left)
    other = nn.Conv2d(3, 4, 3)
    assert regions(other) == [other]


@pytest.mark.parametrize("before", [8, 1_000_000])
def test_every_shape_can_be_compiled_and_limits_are_restored(before: int) -> None:
    """Limits that were raised before (exporting does this) are kept."""
    import torch._dynamo

    config = torch._dynamo.config
    with config.patch(recompile_limit=before, accumulated_recompile_limit=before):
        with compiling():
            assert config.recompile_limit == max(before, 1024)
            assert config.accumulated_recompile_limit == max(before, 8192)
        assert config.recompile_limit == config.accumulated_recompile_limit == before


def test_without_a_compiler_compiling_is_refused_in_one_sentence(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    with config.patch({"cpp.cxx": (None, str(tmp_path / "g++"))}):
        [result] = race([Entry(named("a", Timed(clock, 10.0)), "compile")], SMALL, FIVE, clock=clock)
    assert result.status == "refused"
    assert result.reason.startswith("torch.compile on a CPU needs a C++ compiler; install g++")


def test_onnx_runtime_computes_the_same() -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    load = prepare(model, 8, batch_size=2, device="cpu")
    with torch.inference_mode():
        prepared = BACKENDS["onnxruntime"].prepare(load)
        assert check(prepared.run(), model(load.images_BCHW), "float32").passed
    assert prepared.compile_seconds is not None and prepared.compile_seconds > 0


def test_openvino_computes_in_bfloat16_if_the_processor_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is that of bfloat16: more than that of float32, which it has elsewhere without a word."""
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 64, 3), nn.Flatten(), nn.Linear(64 * 16, 5)
    ).eval()
    load = prepare(model, 8, batch_size=2, device="cpu", dtype="bfloat16")
    with torch.inference_mode():
        exact = model(load.images_BCHW.float())
        if backends.openvino_has_bfloat16():
            found = BACKENDS["openvino"].prepare(load).run()[0]
            assert 1e-4 < float((found - exact).abs().max() / exact.abs().max()) < 3e-2
    monkeypatch.setattr(backends, "openvino_has_bfloat16", lambda: False)
    with pytest.raises(Refused, match="OpenVINO has no bfloat16 on this processor"):
        BACKENDS["openvino"].prepare(load)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")  # torch's compiler stumbles over its own warnings where they are errors
def test_compiled_blocks_compute_the_same_and_train() -> None:
    network = build(with_branches(preset("hrvit_nano"), 1))
    randomize_norms(network)
    model = named("one branch", network)
    for training in (False, True):
        setting = Setting((64, 64), threads=1, training=training)
        _, result = race([Entry(model), Entry(model, "compile")], setting, Budget(max_seconds=5))
        assert (result.status, result.reason) == ("ok", "")
        assert result.compile_seconds is not None and result.compile_seconds > 1


# -- training ---------------------------------------------------------------------------------------------------------


def test_a_training_step_against_hand_computation() -> None:
    """The mean of (2w)² over one number has gradient 8w; a second step must not add to the gradient of the first."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(3.0)
    for _ in range(2):
        training_step(model, lambda: model(torch.tensor([[2.0]])))
    assert model.weight.grad is not None and model.weight.grad.item() == pytest.approx(8 * 3.0)


class Switch(nn.Module):
    """Takes 1 ms in eval mode and 4 ms in training mode."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.conv, self.clock = nn.Conv2d(3, 4, 1), clock

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.clock.pass_ms(4.0 if self.training else 1.0)
        return self.conv(x_BCHW)


def test_training_is_timed_in_training_mode(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def halved_gradient(load: Workload) -> Prepared:
        def run() -> Tensor:
            y = load.model(load.images_BCHW)
            return 0.5 * y + 0.5 * y.detach()

        return Prepared(run)

    monkeypatch.setitem(BACKENDS, "odd", Backend("odd", halved_gradient, trains=True))
    model = named("a", Switch(clock))
    right, wrong, graph = race(
        [Entry(model), Entry(model, "odd"), Entry(model, "onnxruntime")],
        replace(SMALL, training=True),
        FIVE,
        clock=clock,
    )
    assert right.samples_ms == pytest.approx([4.0] * 5)
    assert right.macs == 3 * 8 * 8 * 4 * 3
    assert wrong.status == "wrong" and wrong.relative_error == pytest.approx(0.5)  # its output is correct
    assert graph.reason == "ONNX Runtime supports inference only"


def test_training_a_deployed_form_is_refused() -> None:
    [result] = race([Entry(find_model("hrvit_micro:deploy"))], Setting((32, 32), training=True), FIVE)
    assert result.status == "refused" and "supports inference only" in result.reason


def test_each_timed_call_follows_an_untimed_call_of_the_same_model() -> None:
    calls: list[str] = []

    def timed() -> Sample:
        calls.append("timed")
        return Sample(1.0)

    measure = primed(lambda: calls.append("untimed"), timed)
    assert measure() == Sample(1.0) == measure()
    assert calls == ["untimed", "timed"] * 2


# -- showing ----------------------------------------------------------------------------------------------------------


def test_disturbed_measurements_are_marked_everywhere() -> None:
    reason = "Other programs kept 1.9 of 2 cores busy during the measurement."
    rows = [measured(batch_size=1, disturbed=(reason,)), measured("b", ratio=Estimate(1.0, 0.99, 1.01), verdict="tie")]
    assert reason in remarks(rows)
    with (console := Console(width=140)).capture() as captured:
        console.print(race_table(rows, 140))
    lines = captured.get().splitlines()
    assert [" ! (" in line for name in "ab" for line in lines if line.strip().startswith(name)] == [True, False]
    assert json.loads(json.dumps(rows[0].to_dict()))["disturbed"] == [reason]
    frame = to_frame(rows)
    assert list(frame["disturbed"]) == [reason, ""]
    for draw in (plots.latency_comparison, plots.throughput_by_batch):
        words = {drawn: " ".join(text.get_text() for text in draw(drawn_frame).texts).replace("\n", " ")
                 for drawn, drawn_frame in (("both", frame), ("quiet", frame[frame["disturbed"] == ""]),
                                            ("older", frame.drop(columns="disturbed")))}  # fmt: skip
        marked = {drawn: "Open: unreliable measurement." in text for drawn, text in words.items()}
        assert marked == {"both": True, "quiet": False, "older": False}


def measured(model: str = "a", batch_size: int = 1, **fields: Any) -> Measurement:
    base = Measurement(model, "eager", "float32", (224, 224), batch_size, "cpu", "a CPU", "contiguous", 1, False)
    times = dict(
        latency=Estimate(10.0, 9.9, 10.1), samples_ms=(10.0,) * 3, throttled=((),) * 3, race_seconds=1.0, steady=True,
        control=Estimate(1.0, 0.99, 1.01), rounds_stopped="precise", ceilings=Ceilings(1e9, 1e9),
    )  # fmt: skip
    return replace(base, **{**times, **fields})


def test_remarks_name_the_disturbances() -> None:
    said = " ".join(
        remarks(
            [
                measured(
                    control=Estimate(1.02, 1.01, 1.03),
                    rounds_stopped="time",
                    steady=False,
                    disturbed=("The warm-up did not become steady.",),
                ),
                replace(measured("b"), status="wrong", reason="its output is off", latency=None),
            ]
        )
    )
    assert "b, eager, float32: wrong: its output is off." in said
    assert "stopped by the time limit" in said
    assert "A/A control: 1.020 [1.010, 1.030]. The A/A control differs from 1" in said
    assert "The warm-up did not become steady: a, eager, float32." in said
    thrown = measured(samples_ms=(10.0,) * 9, throttled=(*[()] * 8, ("heat",)), rounds_discarded=1)
    assert "1 round was discarded because the device was throttled." in remarks([thrown])
    assert thrown.statistics()["rounds"] == 8


def test_a_tie_whose_interval_excludes_1_is_explained() -> None:
    control = Estimate(0.99, 0.93, 1.02)
    first = measured(control=control)
    leaving_out, holding = (Estimate(0.94, 0.88, 0.98), Estimate(1.06, 1.02, 1.08)), (Estimate(0.94, 0.86, 1.03),)
    for ratio in (*leaving_out, *holding):
        other = measured("b", ratio=ratio, verdict=judge(ratio, control))
        assert other.verdict == "tie"
        text = "a tie although its interval excludes 1: the A/A control differs from 1 by up to 7.5%."  # 1 / 0.93
        assert (f"b, eager, float32: {text}" in remarks([first, other])) is (ratio in leaving_out)


def test_the_knee_is_reported_for_three_or_more_batch_sizes() -> None:
    sweep = [
        measured(batch_size=batch, latency=Estimate(ms, ms, ms)) for batch, ms in ((1, 10.0), (8, 20.0), (64, 155.0))
    ]
    assert knees(sweep[:2]) == []
    growing = [measured(batch_size=batch) for batch in (1, 8, 64)]
    assert knees(growing) == [
        "a, eager, float32 at 224×224: throughput still increases at batch size 64, the largest measured."
    ]
    assert knees(sweep) == [
        "a, eager, float32 at 224×224: batch size 8 is the smallest with 90 % of the best throughput (413 img/s)."
    ]


def test_the_figure_shows_every_row() -> None:
    rows = [
        measured(),
        measured("b", ratio=Estimate(0.5, 0.49, 0.51), verdict="faster", latency=Estimate(5.0, 5.0, 5.0)),
        measured("c", ratio=Estimate(1.0, 0.99, 1.01), verdict="tie"),
        measured("d", status="wrong", latency=None, samples_ms=(), throttled=()),
    ]
    frame = to_frame(rows)
    assert list(frame["status"]) == ["ok", "ok", "ok", "wrong"]
    fig = plots.latency_comparison(frame)
    texts = {text.get_text() for ax in fig.axes for text in [*ax.texts, *ax.get_yticklabels()]}
    assert {"a", "b", "c", "d", "10.0 ms", "10.0 ms, 0.50 ×", "10.0 ms, tie", "wrong"} <= texts
    empty = plots.latency_comparison(frame[frame["status"] == "wrong"])
    assert "No values to show." in {text.get_text() for text in empty.axes[0].texts}


def test_the_throughput_figure_has_a_line_per_network_and_a_ring_at_the_knee() -> None:
    sweep = [
        measured(model, batch_size=batch, latency=Estimate(ms, ms, ms))
        for model, times in (("a", (10.0, 20.0, 155.0)), ("b", (10.0, 20.0, 40.0)))
        for batch, ms in zip((1, 8, 64), times, strict=True)
    ]
    fig = plots.throughput_by_batch(to_frame(sweep))
    [ax] = fig.axes
    assert any("eager, float32, 224×224, inference, on a CPU, 1 thread." in text.get_text() for text in fig.texts)
    drawn = [tuple(np.round(np.asarray(data)).tolist() for data in line.get_data()) for line in ax.lines]
    assert drawn == [([1, 8, 64], [100, 400, 413]), ([8], [400]), ([1, 8, 64], [100, 400, 1600])]


def test_a_narrow_terminal_shows_uncut_names_and_fewer_columns() -> None:
    rows = [
        measured("hrvit_b1:deploy", relative_error=1e-7),
        measured("hrvit_b1", relative_error=1e-7, ratio=Estimate(1.0, 0.99, 1.01), verdict="tie"),
    ]
    shown = {}
    for width in (80, 140):
        with (console := Console(width=width)).capture() as captured:
            console.print(race_table(rows, width))
        shown[width] = captured.get()
    for text in shown.values():
        assert "hrvit_b1:deploy" in text and "eager, float32, on" in " ".join(text.split())
    assert "error" in shown[140] and "error" not in shown[80].partition("The terminal is too narrow for: error")[0]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_cell_is_cut_at_any_width(width: int) -> None:
    """Every column of a GPU's table. If the terminal is too narrow, some columns are omitted and named."""
    everything: dict[str, Any] = dict(
        dtype="bfloat16", relative_error=1e-7, compile_seconds=61.2, peak_memory_mib=1234.5,
        device_samples_ms=(9.0,) * 3, cold_samples_ms=(9.5,) * 3, energy=Energy(1.0, 0.5, 60.0, 10, 3.0),
        roofline=roofline(10.0, 10**9, 10**8, Ceilings(4e11, 2e10)),
    )  # fmt: skip
    rows = [measured("hrvit_b1", **everything)]
    other = measured("hrvit_b1:deploy", ratio=Estimate(0.9, 0.85, 0.95), verdict="faster", **everything)
    rows.append(replace(other, dtype="float32", backend="cuda_graph"))
    with (console := Console(width=width)).capture() as captured:
        console.print(race_table(rows, width))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    [line] = [line for line in text.splitlines() if "hrvit_b1:deploy" in line and "cuda_graph, " not in line]
    assert all(cell in line for cell in ("cuda_graph", "float32", "10.0 ms", "0.900 [0.850, 0.950]"))
    assert ("10.0 ms (10.0–10.0)" in line) is (width > 80)
    said = " ".join(text.split())
    cells = {"error": "1e-07", "L2 cold": "9.50 ms", "compile": "61.2 s", "mJ/img": " 500 ", "peak": "1234 MiB"}
    for head, cell in cells.items():
        left_out = head in said.partition("The terminal is too narrow for:")[2].partition(".")[0]
        assert (cell in f"{line} ") is not left_out, head


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hrvit_b4"], "error: model 'hrvit_b4' is unknown"),
        (["hrvit_micro", "--backend", "tvm"], "error: --backend: unknown back end 'tvm'; use one of aot_inductor"),
        (["hrvit_micro", "--device", "cuda:7"], "error: device 'cuda:7' is not present"),
        (["hrvit_micro", "--resolution", "8"], "error: "),
        (["hrvit_micro", "--precision", "0"], "error: --precision: '0' is invalid; give a number above 0"),
        (["hrvit_micro", "--dtype", "int8"], "error: --dtype: unknown number format 'int8'"),
        (["hrvit_micro", "--batch", "0"], "error: --batch-size/--batch: '0' is invalid; give a whole number from 1"),
        (["hrvit_micro", "--resolution", "1x2x3"], "error: --resolution: '1x2x3' is not a size"),
    ],
)
def test_user_errors_are_reported_in_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and len(error.splitlines()) == 1


def test_the_command_line_names_every_back_end() -> None:
    assert tuple(BACKENDS) == cli.BACKENDS


def test_an_unwritable_path_is_reported_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["hrvit_micro", "--out", str(tmp_path / "file")]) == 2
    assert "can't be written" in capsys.readouterr().err


@pytest.fixture
def ticking(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command on a clock whose readings are a millisecond apart: each call takes that time on any machine."""
    clock.tick_ms = 1.0
    monkeypatch.setattr(command, "race", partial(race, clock=clock))
    monkeypatch.setattr(command, "measure_parts", partial(measure_parts, clock=clock))


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a network with two branches, small enough for whole commands."""
    monkeypatch.chdir(tmp_path)
    config = with_branches(preset("hrvit_nano"), 2).replace(depths=((1,), (1, 1)))
    (tmp_path / "two.yaml").write_text(config.to_yaml())
    return "two.yaml"


@pytest.mark.usefixtures("ticking")
def test_the_command_writes_lines_a_table_and_a_figure(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"{two}:deploy", "--against", two, "--resolution", "32x48", "--threads", "1"]
    bounds = ["--max-seconds", "0.01", "--precision", "50", "--parts"]
    assert cli.main([*arguments, *bounds, "--out", str(tmp_path), "--json", str(tmp_path / "own.jsonl")]) == 0
    shown = capsys.readouterr().out
    for words in ("Inference at 32×48, batch 1", "A/A control", "By part: two.yaml:deploy, 32×48"):
        assert words in shown
    lines = [json.loads(line) for line in (tmp_path / "latency.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["model"]) for line in lines] == [
        ("latency", "two.yaml"), ("latency", "two.yaml:deploy"), ("parts", "two.yaml"), ("parts", "two.yaml:deploy"),
    ]  # fmt: skip
    assert lines[0]["resolution"] == [32, 48] and lines[1]["against"] == "two.yaml, eager, float32"
    parts = pd.DataFrame(lines[2]["parts"])
    assert list(parts["latency_ms"]) == pytest.approx(list(parts["calls"]))  # each call takes a millisecond
    assert parts["latency_ms"].sum() == pytest.approx(lines[2]["sum_ms"]) == pytest.approx(lines[2]["ratio"]["value"])
    assert lines[2]["whole_ms"] == pytest.approx(1.0)
    assert (tmp_path / "own.jsonl").read_text() == (tmp_path / "latency.jsonl").read_text()
    table = pd.read_csv(tmp_path / "latency.csv")
    assert list(table["model"]) == ["two.yaml", "two.yaml:deploy"]
    assert (tmp_path / "latency.png").stat().st_size > 10_000


@pytest.mark.usefixtures("ticking")
def test_a_second_run_replaces_no_file_and_training_has_no_parts(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file collects the lines of many runs; a folder holds one run, like its table and figures."""
    arguments = [two, "--resolution", "32", "--max-seconds", "0.01", "--json", str(tmp_path / "all.jsonl")]
    for folder, option, batches in (("a", "--batch", "1"), ("b", "--batch-size", "1,2,4")):
        assert cli.main([*arguments, "--out", folder, option, batches]) == 0
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [line["batch_size"] for line in lines] == [1, 1, 2, 4]
    assert list(pd.read_csv(tmp_path / "b" / "latency.csv")["batch_size"]) == [1, 2, 4]
    shown = capsys.readouterr().out
    assert "Wrote latency.jsonl, latency.csv, latency.png, throughput.png in" in shown
    assert "batch size" in shown and ("smallest with 90 %" in shown or "still increases" in shown)
    before = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert cli.main([*arguments, "--out", "b"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert (
        line == "error: b already contains latency.jsonl, which is never overwritten; choose another folder with --out"
    )
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 4
    assert cli.main([*arguments, "--parts", "--training"]) == 2
    assert "--parts times inference" in capsys.readouterr().err


@pytest.mark.usefixtures("ticking")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("name", ["latency.jsonl", pytest.param("latency.csv", marks=pytest.mark.slow), "latency.png"])
def test_a_full_disk_names_the_file(name: str, two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / (name if name == "latency.jsonl" else f"{name}.tmp")).symlink_to("/dev/full")
    assert cli.main([two, "--resolution", "32", "--max-seconds", "0.01", "--out", "out"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: out/{name}: No space left on device; free some space")


@pytest.mark.usefixtures("ticking")
def test_a_later_interrupt_keeps_the_figures_of_finished_races(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while parts are timed: the earlier race is kept with its table and figure."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure_parts", interrupted)
    assert cli.main([two, "--resolution", "32", "--max-seconds", "0.01", "--parts", "--out", str(tmp_path)]) == 130
    assert "interrupted; finished measurements are kept" in capsys.readouterr().err
    assert {path.suffix for path in tmp_path.glob("latency.*")} == {".jsonl", ".csv", ".png", ".svg"}


# -- the suite --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("clock")
def test_the_suite_resumes_after_an_interruption(two: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raced: list[str] = []

    def short_race(entries: list[Entry], setting: Setting, budget: Budget, **options: Any) -> list[Measurement]:
        raced.append(f"{entries[0].model.name} {setting.batch_size}")
        results = race(entries, setting, FIVE, max_warmup_seconds=0.0)
        return [replace(m, status="interrupted") for m in results] if len(raced) == 2 else results

    monkeypatch.setattr(suite, "race", short_race)
    small = suite.Suite((two,), ((32, 32),), (1, 2), ("eager", "cuda_graph"), ("float32",), device="cpu")
    console = Console(quiet=True)
    with pytest.raises(KeyboardInterrupt):
        suite.run_suite(small, tmp_path, FIVE, console)
    for _ in range(2):
        suite.run_suite(small, tmp_path, FIVE, console)
    assert raced == ["two.yaml 1", "two.yaml 2", "two.yaml 2"]
    table = pd.read_csv(tmp_path / "latency.csv")
    assert list(zip(table["batch_size"], table["backend"], table["status"], strict=True)) == [
        (1, "eager", "ok"), (1, "cuda_graph", "refused"), (2, "eager", "ok"), (2, "cuda_graph", "refused"),
    ]  # fmt: skip
    assert len((tmp_path / "latency.jsonl").read_text().splitlines()) == 4


def test_the_suite_reports_values_that_it_cannot_measure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(suite, "run_suite", lambda *_: None)
    monkeypatch.setattr(suite, "load_nvml", lambda: NoNvml("run pip install nvidia-ml-py for them"))
    assert suite.main(["--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err.startswith("energy, clock rates and temperatures are not measured: run pip install")
    monkeypatch.setattr(suite, "load_nvml", object)
    assert suite.main(["--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("default")  # torch's compiler stumbles over its own warnings where they are errors
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_back_end_of_a_gpu_is_correct_and_timed(dtype: str) -> None:
    names = [name for name, backend in BACKENDS.items() if "cuda" in backend.devices]
    assert {"eager", "cuda_graph", "compile"} <= set(names)
    entries = [Entry(find_model("hrvit_nano"), name, dtype) for name in names]
    for result in race(entries, Setting((64, 64), device="cuda"), FIVE):
        assert result.status == "ok", result.reason
        assert len(result.device_samples_ms) == len(result.samples_ms) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_a_gpu_the_suite_measures_nothing_and_loads_little() -> None:
    code = (
        "import sys; from hrvit_lab.latency.suite import main; code = main([]); "
        "print(sorted({'fvcore', 'ptflops', 'streamlit', 'sklearn'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250)
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (
        2,
        "[]",
        "error: torch finds no CUDA device; run the suite on a machine with an NVIDIA GPU",
    )
