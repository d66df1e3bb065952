"""The plan compared with built networks: every part exists, with its kind and size, and runs in the order of the
plan."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from random_configs import odd_resolution, random_config
from torch import Tensor, nn

from hrvit_lab.config import PRESETS, SEGMENTERS, HRViTConfig
from hrvit_lab.config.plan import Part, plan
from hrvit_lab.cost import ledger, memory
from hrvit_lab.network.build import build
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.places import Place, places

CLASSES = {
    "two_conv": "TwoConvStem", "conv7": "OneConvStem", "conv7_cswin": "OneConvStem", "patchify": "OneConvStem",
    "efficient": "EfficientPatchEmbed", "dense": "DensePatchEmbed",
    "cross_shaped": "CrossShaped", "cross_shaped_qkv": "CrossShapedQKV", "cswin": "CSWin", "window": "WindowAttention",
    "shifted_window": "WindowAttention", "dilated_window": "DilatedWindowAttention",
    "spatial_reduction": "SpatialReductionAttention", "global": "GlobalAttention", "linear": "LinearAttention",
    "depthwise_conv": "DepthwiseConv", "identity": "Unmixed",
    "mixcfn": "MixCFN", "mixcfn_3_7": "MixCFN", "mixcfn_5_7": "MixCFN", "mixffn": "MixFFN", "mlp": "MLP",
    "swiglu": "SwiGLU", "swiglu_conv": "SwiGLU", "hrformer": "HRFormerFFN",
    "des": "DES", "weighted_sum": "WeightedSum", "sparse": "Fusion", "late": "Fusion",
    "classifier": "ClassifierHead", "pool": "PoolHead", "norm_pool": "PoolHead", "segformer": "SegFormerHead",
    "upernet": "UperNetHead",
}  # fmt: skip
"""Classes by variant, of those whose names mean the same in all kinds of parts."""
OTHERS = {
    ("fusion", "dense"): "Fusion", ("shortcut", "linear"): "LinearShortcut", ("shortcut", "none"): "NoShortcut",
    ("patch_embed", "none"): "BarePatchEmbed", ("block", ""): "Block", ("norm", ""): "LayerNorm",
}  # fmt: skip


def class_of(part: Part) -> str:
    return OTHERS.get((part.kind, part.variant)) or CLASSES[part.variant]


NAMED = PRESETS | SEGMENTERS
DIFFERENT = (
    "hrvit_b1",
    "mit_b0",
    "cswin_tiny",
    "hr_mit_b1",
    "hrvit_b1_segformer_cityscapes",
    "hrvit_b1_upernet_ade20k",
)


def some_configs(number: int, seed: int, names: Iterable[str] = NAMED) -> Iterator[HRViTConfig]:
    rng = random.Random(seed)
    yield from (NAMED[name] for name in names)
    yield from (random_config(rng) for _ in range(number))


def flat(found: Iterator[Place]) -> Iterator[Place]:
    """Blocks, each followed by the parts inside it."""
    for place in found:
        yield place
        yield from place.inside


def on_meta(config: HRViTConfig) -> nn.Module:
    with torch.device("meta"):
        return build(config).eval()


@pytest.mark.parametrize(("number", "names"), [(15, DIFFERENT), pytest.param(200, NAMED, marks=pytest.mark.slow)])
def test_every_part_is_built_with_the_parameters_of_its_costs(number: int, names: Iterable[str]) -> None:
    for config in some_configs(number, 10, names):
        model = on_meta(config)
        held: Counter[int] = Counter()
        for place in flat(places(plan(config, 256))):
            module = model.get_submodule(place.name)
            kind = module.mixer if place.part.kind == "attention" else module
            assert type(kind).__name__ == class_of(place.part), (config, place)
            numbers = [parameter.numel() for parameter in module.parameters()]
            assert sum(numbers) == sum(cost.params for cost in ledger.part_costs(place.part)), (config, place)
            if not place.inside:
                held.update(map(id, module.parameters()))
        assert held == Counter(map(id, model.parameters())), config


def calls(model: nn.Module, names: list[str], images_BCHW: Tensor) -> list[tuple[str, list[tuple[int, ...]]]]:
    """Name and input shapes of each of these modules, in the order in which they are called."""
    heard: list[tuple[str, list[tuple[int, ...]]]] = []

    def listen(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            maps = args if name == "head" or name.startswith("fusions.") else args[:1]
            heard.append((name, [tuple(x.shape) for x in maps]))

        return hook

    for name in names:
        model.get_submodule(name).register_forward_pre_hook(listen(name))
    with torch.no_grad():
        model(images_BCHW)
    return heard


def planned_shapes(part: Part) -> list[tuple[int, ...]]:
    """Shapes of the input maps of a part, for one image."""
    first = part.arguments[0]
    if part.kind in ("stem", "head"):  # channels first
        dims = [first] if part.kind == "stem" else first
        return [(1, dim, *size) for dim, size in zip(dims, part.sizes, strict=True)]
    dims = first if part.kind == "fusion" else [first]
    return [(1, *size, dim) for dim, size in zip(dims, part.sizes, strict=False)]  # there may be fewer input maps


@pytest.mark.parametrize(("form", "number"), [(lambda model: model, 4), (deploy, 4)], ids=["plain", "deployed"])
def test_parts_run_in_the_order_and_sizes_of_the_plan(form: Callable[[nn.Module], nn.Module], number: int) -> None:
    rng = random.Random(11)
    named = [PRESETS[name] for name in ("hrvit_nano", "mit_b0")]
    for config in [*named, *(random_config(rng) for _ in range(number))]:
        size = odd_resolution(rng, config)
        expected = [(place.name, planned_shapes(place.part)) for place in flat(places(plan(config, size)))]
        device = "cpu" if form is deploy else "meta"
        model = form(build(config) if form is deploy else on_meta(config))
        images_BCHW = torch.zeros(1, config.in_chans, *size, device=device)
        assert calls(model, [name for name, _ in expected], images_BCHW) == expected, config


def test_a_plan_without_a_resolution_differs_only_in_its_sizes() -> None:
    for config in some_configs(50, seed=12):
        sized, bare = (list(flat(places(plan(config, *resolution)))) for resolution in ([256], []))
        assert [(p.name, *p.part[:3]) for p in sized] == [(p.name, *p.part[:3]) for p in bare]
        assert not any(place.part.sizes for place in bare)


def test_steps_are_the_places_with_equal_blocks_merged() -> None:
    shifted = PRESETS["hrvit_b1"].replace(attention="shifted_window")
    for config in [shifted, *some_configs(50, seed=13)]:
        planned = plan(config, 256)
        assert Counter((place.stage, place.branch, place.part) for place in places(planned)) == Counter(
            {step[:3]: step.repeats for step in planned.steps()}
        )
    repeats = [step.repeats for step in plan(shifted).steps() if step.stage == 3 and step.part.kind == "block"]
    assert repeats == [1, 1, 3, 3]  # six blocks, of which every other one is shifted


def test_a_config_is_planned_and_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checks, plans = Mock(wraps=HRViTConfig.check_resolution), Mock(wraps=plan)
    monkeypatch.setattr(HRViTConfig, "check_resolution", lambda *args: checks(*args))
    for module in (ledger, memory):
        monkeypatch.setattr(module, "plan", plans)
    asked: tuple[Callable[..., object], ...] = (ledger.ledger, ledger.totals, memory.peak_memory_bytes)
    for number, ask in enumerate(asked, 1):
        ask(PRESETS["hrvit_nano"], 64)
        assert checks.call_count == plans.call_count == number, ask
