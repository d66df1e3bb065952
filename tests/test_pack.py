"""pack(): equal outputs with weights that are packed once; and the back end that calls it."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from operators import count_real_operators
from random_configs import with_one_block_a_branch
from reference import reference_input
from test_variants import VARIANTS, randomised, tiny
from torch import nn

from hrvit_lab import PRESETS, build
from hrvit_lab.latency.backends import BACKENDS, Refused
from hrvit_lab.latency.workload import prepare
from hrvit_lab.network.blocks import ATTENTION
from hrvit_lab.network.blocks import packed as packed_blocks
from hrvit_lab.network.blocks.packed import Activation, Packed, PackedConv, PackedLinear
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.heads import HEAD
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.pack import pack, refusal

PACKED_HERE = [dtype for dtype in (torch.float32, torch.bfloat16) if refusal(dtype) is None]

pytestmark = pytest.mark.skipif(refusal(torch.float32) is not None, reason=str(refusal(torch.float32)))


@pytest.mark.parametrize(
    "size", [(64, 96), *(pytest.param((side, side), marks=pytest.mark.slow) for side in (224, 512))]
)
def test_outputs_equal_those_of_the_plain_model_at_any_size(plain: HRViT, served: HRViT, size: tuple[int, int]) -> None:
    packed = pack(served, reference_input(*size))
    with torch.no_grad():
        for image in (reference_input(*size), reference_input(288, 288), torch.randn(3, 3, 64, 64)):
            expected = plain(image)
            assert expected.abs().max() > 0.1
            assert (packed(image) - expected).abs().max() < 1e-5


def test_the_deployed_network_is_unchanged_and_each_weight_is_stored_once(served: HRViT) -> None:
    image = reference_input(224, 224)
    before = {key: value.clone() for key, value in served.state_dict().items()}
    with torch.no_grad():
        expected = served(image)
    packed = pack(served, image)
    with torch.no_grad():
        assert torch.equal(served(image), expected)
    assert all(torch.equal(value, before[key]) for key, value in served.state_dict().items())
    assert not any(isinstance(part, nn.Conv2d) for part in packed.modules())
    left = sum(weight.numel() for weight in packed.parameters())  # of norms and small factors
    held = sum(part.weight.numel() for part in packed.modules() if isinstance(part, PackedConv | PackedLinear))
    all_weights = sum(value.numel() for value in before.values())
    print(left, held, all_weights)
    assert 0.9 * all_weights < held
    assert left + held < 1.05 * all_weights


@pytest.mark.parametrize(
    ("rows", "width", "activation", "packs"),
    [(64, 250, "none", True), (64, 249, "none", False), (16, 250, "gelu", True), (16, 249, "gelu", False)],
)
def test_only_large_products_are_packed(rows: int, width: int, activation: Activation, packs: bool) -> None:
    """From 4 and from 1 million multiply-accumulates; in bfloat16 all of them."""
    linear, x, y = nn.Linear(width, 250), torch.randn(2, rows // 2, width), torch.randn(2, rows // 2, 250)
    packed = PackedLinear(linear.weight, linear.bias, x.shape, activation)
    assert packed.weight.is_mkldnn is packs
    with torch.no_grad():
        expected = F.gelu(linear(x)) if activation == "gelu" else linear(x)
        torch.testing.assert_close(packed(x), expected, atol=1e-5, rtol=1e-4)
        if activation == "none":
            torch.testing.assert_close(packed.onto(x, y), expected + y, atol=1e-5, rtol=1e-4)
            assert not torch.equal(y, packed.onto(x, y))  # y is not written to
    if torch.bfloat16 in PACKED_HERE:
        assert PackedLinear(linear.weight.bfloat16(), None, x.shape, activation).weight.is_mkldnn


@pytest.mark.parametrize(
    ("options", "packs"),
    [
        ({"kernel_size": 1}, False),
        ({"kernel_size": 3, "padding": 1}, True),  # 9 times the work
        ({"kernel_size": 1, "groups": 2}, True),
        ({"kernel_size": 1, "stride": 2}, True),
        ({"kernel_size": 3, "dilation": 2, "padding": 2}, True),
    ],
)
def test_convolutions_that_would_not_run_in_onednn_are_packed_if_large(options: dict[str, Any], packs: bool) -> None:
    conv = nn.Conv2d(64, 64, **options).to(memory_format=torch.channels_last)
    x = torch.randn(2, 64, 16, 16).to(memory_format=torch.channels_last)  # 2 million multiply-accumulates, times 3²
    packed = PackedConv(conv, x.shape, "gelu")
    assert PackedConv(conv, x.shape).weight.is_mkldnn is packs and packed.weight.is_mkldnn
    with torch.no_grad():
        for each, expected in ((PackedConv(conv, x.shape), conv(x)), (packed, F.gelu(conv(x)))):
            torch.testing.assert_close(each(x), expected, atol=1e-5, rtol=1e-4)


def test_which_products_of_a_network_are_packed() -> None:
    """Of nano at 64² none but grouped and strided convolutions; of b1 at 224² most weights."""
    for name, side, least, most in (("hrvit_nano", 64, 0.0, 0.3), ("hrvit_b1", 224, 0.8, 1.0)):
        images = torch.randn(1, 3, side, side)
        parts = [part for part in pack(deploy(build(PRESETS[name])), images).modules() if isinstance(part, Packed)]
        dense = [part for part in parts if not (isinstance(part, PackedConv) and part.layout[-1] > 1)]
        packed = sum(part.weight.numel() for part in dense if part.weight.is_mkldnn)
        assert least <= packed / sum(part.weight.numel() for part in dense) <= most
        assert all(part.weight.is_mkldnn for part in parts if part not in dense)


@pytest.fixture
def all_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products are packed, too."""
    monkeypatch.setattr(packed_blocks, "FEWEST_MACS", {"none": 0, "gelu": 0})


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=f"in bfloat16: {refusal(torch.bfloat16)}")
def test_bfloat16_is_packed_on_this_machine() -> None:
    """If bfloat16 is not supported, this single test is skipped, and not one test per variant."""
    assert torch.bfloat16 in PACKED_HERE


@pytest.mark.parametrize(
    ("field", "name"),
    [
        *(("attention", name) for name in ATTENTION),
        *(pytest.param(*each, marks=() if each[0] in ("ffn", "stem") else pytest.mark.slow) for each in VARIANTS),
    ],
)
@pytest.mark.parametrize("dtype", PACKED_HERE)
@pytest.mark.usefixtures("all_packed")
def test_every_variant_is_packed(field: str, name: Any, dtype: torch.dtype) -> None:
    model = randomised(tiny(field, name))
    served, image = deploy(model).to(dtype), torch.randn(2, 3, 67, 93)
    packed = pack(served, image.to(dtype))
    assert not any(isinstance(part, nn.Conv2d) for part in packed.modules())
    with torch.no_grad():
        for other in (image, torch.randn(1, 3, 64, 64)):
            expected = model(other)
            assert expected.abs().max() > 0.1
            bound = 2e-5 if dtype == torch.float32 else 0.1 * float(expected.abs().max())
            assert (packed(other.to(dtype)).float() - expected).abs().max() < bound


def test_a_network_in_training_mode_is_packed_for_evaluation(plain: HRViT) -> None:
    """A pass in training mode would have changed the statistics of the BatchNorms."""
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = plain(image)
        torch.testing.assert_close(pack(copy.deepcopy(plain).train(), image)(image), expected, atol=1e-5, rtol=1e-4)


def saved_and_loaded(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # its own bytes, and a whole module


def packed_in_another_process(model: nn.Module) -> Any:
    """As a worker would get it."""
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("again", [copy.deepcopy, saved_and_loaded, packed_in_another_process])
@pytest.mark.parametrize("dtype", PACKED_HERE)
@pytest.mark.usefixtures("all_packed")
def test_a_packed_network_is_copied_and_saved(again: Callable[[nn.Module], Any], dtype: torch.dtype) -> None:
    """The copy has the same outputs to the bit, and packed weights of its own."""
    served = deploy(randomised(build(with_one_block_a_branch(PRESETS["hrvit_nano"])))).to(dtype)
    images = torch.randn(2, 3, 64, 96).to(dtype)
    packed = pack(served, images)
    other = again(packed)
    pairs = [
        (a, b)
        for a, b in zip(packed.modules(), other.modules(), strict=True)
        if isinstance(a, PackedConv | PackedLinear)
    ]
    assert len(pairs) > 20
    for a, b in pairs:
        assert type(a) is type(b) and a.weight is not b.weight and a.weight.layout == b.weight.layout
        assert a.weight.is_mkldnn and torch.equal(a.weight.to_dense(), b.weight.to_dense())
    with torch.no_grad():
        expected = packed(images)
        assert expected.abs().max() > 0.01
        assert torch.equal(other(images), expected)
        torch.testing.assert_close(served(images), expected, atol=1e-4 if dtype == torch.float32 else 0.1, rtol=0.05)


@pytest.mark.parametrize("fewest", [0, 100_000])
def test_weights_of_a_packed_network_are_in_its_state(monkeypatch: pytest.MonkeyPatch, fewest: int) -> None:
    """Every weight has an influence, so a copy with equal outputs has all of them, packed or not."""
    monkeypatch.setattr(packed_blocks, "FEWEST_MACS", {"none": fewest, "gelu": fewest})
    config, images = with_one_block_a_branch(PRESETS["hrvit_nano"]), torch.randn(2, 3, 64, 64)
    one, two = (pack(deploy(model), images) for model in (randomised(build(config)), build(config)))
    with torch.no_grad():
        expected = one(images)
        assert (two(images) - expected).abs().max() > 0.01
        file = io.BytesIO()
        torch.save(one.state_dict(), file)
        file.seek(0)
        two.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(two(images), expected)
    with pytest.raises(RuntimeError, match="Missing key"):
        two.load_state_dict(deploy(build(config)).state_dict())
    linear = next(part for part in two.modules() if isinstance(part, PackedLinear))
    with pytest.raises(RuntimeError, match="not those of this packed module"):
        linear.set_extra_state({"weight": torch.zeros(3, 5), "bias": None})


def test_a_packed_network_runs_fewer_operators(served: HRViT) -> None:
    image = reference_input(224, 224)
    assert count_real_operators(pack(served, image), image) < count_real_operators(served, image) - 50


@pytest.mark.parametrize("head", HEAD)
@pytest.mark.usefixtures("all_packed")
def test_every_head_is_packed(head: str) -> None:
    config = with_one_block_a_branch(PRESETS["hrvit_nano"]).replace(head=head, num_classes=7, upernet_width=16)
    model = randomised(build(config))
    packed = pack(deploy(model), torch.randn(1, 3, 64, 64))
    assert any(isinstance(part, PackedConv) for part in packed.modules())
    for side in (64, 96):
        image = torch.randn(2, 3, 64, side)
        with torch.no_grad():
            expected = model(image)
            torch.testing.assert_close(packed(image), expected, atol=1e-5, rtol=1e-4)
        assert expected[0].abs().max() > 0.1


@pytest.mark.parametrize("form", [lambda model: model, deploy])
def test_the_back_end_packs_plain_and_deployed_networks(plain: HRViT, form: Callable[[HRViT], HRViT]) -> None:
    load = prepare(form(plain), 64, batch_size=2, device="cpu")
    with torch.inference_mode():
        ready = BACKENDS["packed"].prepare(load)
        torch.testing.assert_close(ready.run(), plain(load.images_BCHW), atol=1e-5, rtol=1e-4)
        # The workload keeps its plain model.
        torch.testing.assert_close(load.model(load.images_BCHW), ready.run(), atol=1e-5, rtol=1e-4)
    assert ready.compile_seconds is not None and ready.compile_seconds > 0


def test_another_network_and_another_build_of_torch_are_refused(monkeypatch: pytest.MonkeyPatch, plain: HRViT) -> None:
    with pytest.raises(Refused, match="support HRViTs only"):
        BACKENDS["packed"].prepare(prepare(nn.Conv2d(3, 8, 3), 8, batch_size=1, device="cpu"))
    with pytest.raises(ValueError, match="packed weights do not support float64; use float32 or bfloat16"):
        pack(plain, torch.randn(1, 3, 64, 64).double())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(Refused, match="need oneDNN, which this build of torch lacks; use the deployed network"):
        BACKENDS["packed"].prepare(prepare(plain, 64, batch_size=1, device="cpu"))
    said = BACKENDS["packed"].refusal("cpu", "float16", training=False)
    assert said == "oneDNN with packed weights supports float32 and bfloat16 only"
