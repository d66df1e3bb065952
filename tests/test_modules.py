"""The plain network with other tools: modules are called, hooks get true values, every weight has a gradient."""

import copy
import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import pytest
import torch
from test_variants import randomised
from torch import Tensor, nn
from torch.nn.utils import prune

from hrvit_lab import HRViTConfig
from hrvit_lab.network import blocks, heads
from hrvit_lab.network.build import build
from hrvit_lab.network.model import HRViT

IMAGE = torch.randn(2, 3, 45, 67, generator=torch.Generator().manual_seed(0))


def networks() -> Iterator[tuple[str, HRViTConfig]]:
    """Small networks of two branches that together contain every variant of every part, in both topologies."""
    shortcut, fusion, embed, stem, head = (
        cycle(table) for table in (blocks.SHORTCUT, blocks.FUSION, blocks.PATCH_EMBED, blocks.STEM, heads.HEAD)
    )
    ffns = cycle(blocks.FFNS)
    for number, attention in enumerate(blocks.ATTENTION):
        pyramid = number % 3 == 2
        fields: dict[str, Any] = {
            "topology": "pyramid" if pyramid else "parallel", "depths": ((2, 1),) if pyramid else ((1,), (2, 1)),
            "widths": (8, 16), "stem_width": 8, "head_dims": 4, "window_sizes": 3, "mlp_ratios": 2, "num_classes": 5,
            "attention": attention, "ffn": (next(ffns), next(ffns)), "shortcut": next(shortcut), "fusion": next(fusion),
            "patch_embed": next(embed), "stem": next(stem), "head": next(head), "head_widths": 2, "head_features": 8,
            "segformer_width": 8, "upernet_width": 8, "upsample": ("nearest", "bilinear")[number % 2],
            "parallel_conv": number % 4 != 3, "attn_activation": number % 5 != 4,
        }  # fmt: skip
        yield f"{attention}, {fields['topology']}, {fields['head']}", HRViTConfig(**fields)


NETWORKS = dict(networks())
every_network = pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS.keys())


def awake(config: HRViTConfig) -> HRViT:
    model = build(config)
    randomised(model)
    return model


def outputs(model: nn.Module, image: Tensor = IMAGE) -> tuple[Tensor, ...]:
    result = model(image)
    return result if isinstance(result, tuple) else (result,)


def loss(model: nn.Module, image: Tensor = IMAGE) -> Tensor:
    return torch.stack([output.square().mean() for output in outputs(model, image)]).sum()


def test_every_variant_is_in_one_of_the_networks() -> None:
    by_branch: dict[str, Iterable[str]] = {"attention": blocks.ATTENTION, "ffn": blocks.FFNS}
    for field, table in by_branch.items():
        assert {name for config in NETWORKS.values() for name in getattr(config, field)} == set(table)
    whole: dict[str, Iterable[str]] = {
        "shortcut": blocks.SHORTCUT, "fusion": blocks.FUSION, "patch_embed": blocks.PATCH_EMBED, "stem": blocks.STEM,
        "head": heads.HEAD, "topology": ("parallel", "pyramid"),
    }  # fmt: skip
    for field, names in whole.items():
        assert {getattr(config, field) for config in NETWORKS.values()} == set(names)


# -- modules are called -----------------------------------------------------------------------------------------------


@every_network
def test_every_module_with_weights_is_called(config: HRViTConfig) -> None:
    model = awake(config).train()
    calls: set[str] = set()

    def note_call(name: str, *_: Any) -> None:
        calls.add(name)

    kinds = nn.Linear | nn.Conv2d | nn.LayerNorm | nn.BatchNorm1d | nn.BatchNorm2d
    with_weights = {name for name, part in model.named_modules() if isinstance(part, kinds)}
    for name in with_weights:
        model.get_submodule(name).register_forward_hook(partial(note_call, name))
    model(IMAGE)
    assert calls == with_weights and len(with_weights) > 15


class LoRA(nn.Module):
    """A frozen linear and a trained one of rank 2 in parallel."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def wrap_linears(model: nn.Module, wrapper: Callable[[nn.Linear], nn.Module]) -> None:
    for part in list(model.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Linear):
                setattr(part, name, wrapper(child))


@every_network
def test_an_adapter_of_every_linear_changes_the_output_and_is_trained(config: HRViTConfig) -> None:
    model = awake(config)
    before = [output.detach() for output in outputs(model)]
    wrap_linears(model, LoRA)
    adapters = [part for part in model.modules() if isinstance(part, LoRA)]
    assert adapters
    for number, adapter in enumerate(adapters):
        with torch.no_grad():
            kept = adapter.up.weight.clone()
            for other in adapters:
                other.up.weight.zero_()
            adapter.up.weight.copy_(kept if kept.any() else torch.randn_like(kept))
            changed = outputs(model)
        assert any(not torch.allclose(a, b, atol=1e-7) for a, b in zip(changed, before, strict=True)), number
    for adapter in adapters:
        nn.init.normal_(adapter.up.weight)
    loss(model).backward()
    for adapter in adapters:
        for weight in (adapter.down.weight, adapter.up.weight):
            assert weight.grad is not None and weight.grad.abs().max() > 0


def test_pefts_adapters_of_the_feed_forward_networks_are_trained() -> None:
    peft = importlib.import_module("peft")
    plain = awake(HRViTConfig(**HALVES))
    before = outputs(plain)[0].detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(plain, peft.LoraConfig(target_modules=["fc1", "fc2"], init_lora_weights=False))
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * 4 * 3  # two matrices; fc1 and fc2 of both halves; three blocks
    assert not torch.allclose(model(IMAGE), before)
    model(IMAGE).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in trained.values())


HALVES: dict[str, Any] = {
    "depths": ((1,), (1, 1)), "widths": (8, 16), "stem_width": 8, "head_dims": 4, "window_sizes": 2, "mlp_ratios": 2,
    "num_classes": 5, "head_widths": 2, "head_features": 8,
}  # fmt: skip


@every_network
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_linears_can_be_quantized(config: HRViTConfig) -> None:
    model = awake(config)
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear})
    assert not any(type(part) is nn.Linear for part in quantized.modules())
    with torch.no_grad():
        for found, expected in zip(outputs(quantized), outputs(model), strict=True):
            assert 0 < (found - expected).abs().mean() < 0.1 * expected.abs().mean()


@every_network
def test_a_pruned_network_trains_for_several_steps(config: HRViTConfig) -> None:
    model = awake(config).train()
    pruned: list[Any] = [part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    for part in pruned:
        if part.weight.is_contiguous():
            prune.l1_unstructured(part, "weight", amount=0.5)
        else:  # torch cannot order a weight whose channels are last in memory
            prune.custom_from_mask(part, "weight", part.weight.abs() > part.weight.abs().median())
    before = [part.weight_orig.detach().clone() for part in pruned]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    for part, old in zip(pruned, before, strict=True):
        kept = part.weight_mask.bool()
        assert not (part.weight_orig * part.weight_mask)[~kept].any()
        assert torch.equal(part.weight_orig[~kept], old[~kept])  # what is pruned has no gradient
    moved = [not torch.equal(part.weight_orig, old) for part, old in zip(pruned, before, strict=True)]
    assert all(moved)


# -- hooks see true values --------------------------------------------------------------------------------------------


@every_network
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_tensors_held_by_hooks_are_never_overwritten(config: HRViTConfig, mode: str) -> None:
    """Inputs and outputs of every module, copied when it ran, against the tensors themselves after the pass."""
    model = awake(config).train(mode == "training")
    held: list[tuple[str, Tensor, Tensor]] = []

    def hold(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            results = result if isinstance(result, tuple) else (result,)
            for tensor in (*args, *results):
                assert isinstance(tensor, Tensor), name
                held.append((name, tensor, tensor.detach().clone()))

        return hook

    for name, part in model.named_modules():
        part.register_forward_hook(hold(name))
    with torch.set_grad_enabled(mode == "training"):
        model(IMAGE)
    assert len({name for name, _, _ in held}) > 40
    assert [name for name, tensor, copied in held if not torch.equal(tensor, copied)] == []


@every_network
def test_full_backward_hooks_fire_on_every_module_and_change_no_gradient(config: HRViTConfig) -> None:
    plain = awake(config).train()
    model = copy.deepcopy(plain)
    loss(plain, IMAGE.clone().requires_grad_()).backward()
    called: set[str] = set()
    fired: set[str] = set()
    shapes: dict[str, list[Any]] = {}  # of every call: a convolution of CSWin's runs on whole stripes and on the rest

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, result: Any) -> None:
            called.add(name)
            results = result if isinstance(result, tuple) else (result,)
            shapes.setdefault(name, []).append([tensor.shape for tensor in results])

        return hook

    def fire(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, grad_inputs: Any, grad_outputs: Any) -> None:
            fired.add(name)
            found = [None if gradient is None else gradient.shape for gradient in grad_outputs]
            assert any(all(a is None or a == b for a, b in zip(found, call, strict=True)) for call in shapes[name]), (
                name
            )
            assert any(gradient is not None for gradient in grad_inputs), name

        return hook

    for name, part in model.named_modules():
        part.register_forward_hook(note(name))
        part.register_full_backward_hook(fire(name))
    loss(model, IMAGE.clone().requires_grad_()).backward()
    assert fired == called and len(fired) > 40
    for (name, own), (_, expected) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert own.grad is not None and expected.grad is not None, name
        torch.testing.assert_close(own.grad, expected.grad, atol=1e-6, rtol=1e-4)


# -- every weight has a gradient --------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["parallel", "pyramid"])
@pytest.mark.parametrize("head", heads.HEAD)
@pytest.mark.parametrize("fusion", blocks.FUSION)
def test_every_weight_has_a_gradient(head: str, topology: str, fusion: str) -> None:
    if topology == "pyramid":
        fields = HALVES | {"depths": ((1, 1, 1),)}
    else:
        fields = HALVES | {"depths": ((1,), (1, 1), (1, 1, 1))}
    fields |= {"widths": (8, 8, 8), "segformer_width": 8, "upernet_width": 8, "attn_batch_norm": False}
    model = build(HRViTConfig(**fields, topology=topology, head=head, fusion=fusion))
    loss(model).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    if head in ("pool", "norm_pool"):
        finer = [weight for name, weight in model.named_parameters() if name.startswith("stages.2.branches.0.")]
        assert topology == "pyramid" or all(weight.grad.any() for weight in finer)  # type: ignore[union-attr]
