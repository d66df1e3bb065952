"""Latency by part: exact on a fake clock, complete over the network, and its sum close to the whole (slow)."""

import copy
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from fake_clock import FakeClock
from random_configs import with_one_block_a_branch
from torch import nn

from hrvit_lab import PRESETS, build, create_model
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.models import find_model
from hrvit_lab.latency.parts import measure_parts, record
from hrvit_lab.latency.show import parts_by_place
from hrvit_lab.latency.units import RESIDUAL
from hrvit_lab.network.blocks import Block
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.heads import HEAD
from hrvit_lab.network.model import HRViT

SIX = Budget(min_rounds=6, max_rounds=6)


TIMES_MS = {"attn": 3.0, "shortcut": 1.0, "ffn": 2.0, "attn_norm": 0.25, "ffn_norm": 0.25}


def test_on_a_fake_clock_every_part_has_its_exact_time() -> None:
    """Hooks of every part take known times; the table must return them, multiplied by the number of blocks."""
    clock = FakeClock()
    model = create_model("hrvit_nano").eval()
    total = 0.0

    def take(module: nn.Module, ms: float) -> None:
        nonlocal total
        total += ms
        module.register_forward_hook(lambda *_: clock.pass_ms(ms))

    take(model.stem, 10.0)
    take(model.head, 20.0)  # type: ignore[arg-type]
    for fusion in model.fusions:
        take(fusion, 5.0)
    for module in model.modules():
        if isinstance(module, Block):
            for name, ms in TIMES_MS.items():
                take(getattr(module, name), ms)
            take(module, 0.5)  # time of the block outside its parts
    times = measure_parts(model, (64, 64), budget=SIX, clock=clock)
    branches = [None if pd.isna(branch) else branch for branch in times.frame["branch"]]
    rows = dict(zip(zip(times.frame["stage"], branches, times.frame["part"], strict=True), times.frame.itertuples(),
                    strict=True))  # fmt: skip
    for s, depths in enumerate(model.config.depths):
        assert rows[s, None, "fusion"].latency_ms == pytest.approx(5.0)
        for b, depth in enumerate(depths):
            for part, ms in (("attention", 3.0), ("shortcut", 1.0), ("ffn", 2.0), ("norm", 0.5), (RESIDUAL, 0.5)):
                row = rows[s, b, part]
                assert row.latency_ms == pytest.approx(ms * depth), (s, b, part)
                assert row.calls == (2 * depth + 1 if part == "norm" else depth)
    assert rows["stem", None, "stem"].latency_ms == pytest.approx(10.0)
    assert rows["head", None, "head"].latency_ms == pytest.approx(20.0)
    places = parts_by_place(times)
    assert [*places.index[:3], places.index[-1]] == ["stem", "stage 0, fusion", "stage 0, branch 0", "head"]
    assert places.loc["stage 3, branch 2", "attention"] == pytest.approx(3.0 * model.config.depths[3][2])
    assert times.whole_ms == pytest.approx(total)
    assert times.sum_ms == pytest.approx(total)
    assert times.ratio == pytest.approx((1.0, 1.0, 1.0))
    assert times.rounds == 6


def all_specs(tree: Any) -> list[tuple[int, ...]]:
    if hasattr(tree, "shape"):
        return [tuple(tree.shape)]
    return [shape for item in tree for shape in all_specs(item)] if isinstance(tree, list | tuple) else []


@pytest.mark.parametrize("head", HEAD)
def test_every_head_is_timed_as_a_part(head: str) -> None:
    config = with_one_block_a_branch(PRESETS["hrvit_nano"]).replace(head=head, segformer_width=8, upernet_width=8)
    frame = measure_parts(build(config), (64, 64), budget=SIX).frame
    assert (frame["part"] == "head").sum() == (head != "none")


@pytest.mark.parametrize("form", [lambda model: model, deploy], ids=["plain", "deployed"])
def test_parts_are_recorded_with_their_shapes_in_the_network(form: Callable[[HRViT], HRViT]) -> None:
    model = form(create_model("hrvit_micro").eval())
    config = model.config
    with torch.no_grad():
        calls = record(model, torch.randn(2, 3, 64, 96))
    blocks = [call for call in calls if call.children]
    assert len(blocks) == sum(map(sum, config.depths))
    assert calls[0].place.part == "stem" and calls[-1].place.part == "head"
    for call in blocks:
        b = call.place.branch
        assert b is not None
        shape = (2, 64 // config.strides[b], 96 // config.strides[b], config.widths[b])
        assert set(all_specs(call.args) + all_specs(call.output)) == {shape}
        assert [child.place.part for child in call.children] == ["norm", "attention", "shortcut", "norm", "ffn"]
        assert {spec for child in call.children for spec in all_specs(child.args)} == {shape}


def test_the_model_and_global_state_are_restored() -> None:
    model = build(with_one_block_a_branch(PRESETS["hrvit_nano"]))
    state = copy.deepcopy(model.state_dict())
    measure_parts(model, (64, 64), budget=SIX)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_other_networks_are_not_timed_by_part() -> None:
    with pytest.raises(ValueError, match="measure_parts supports HRViTs only, not Conv2d; use measure_latency"):
        measure_parts(nn.Conv2d(3, 4, 3))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("side", [224, 512])
def test_the_sum_of_parts_is_near_the_whole(side: int) -> None:
    model = find_model("hrvit_b1").module
    times = measure_parts(model, (side, side), threads=1, budget=Budget(min_rounds=10, max_seconds=60))
    print(f"{side}: sum {times.sum_ms:.1f} ms, whole {times.whole_ms:.1f} ms, ratio {times.ratio}")
    assert times.ratio.value == pytest.approx(1, abs=0.15)
