"""Peak memory equals sums computed by hand, for passes whose tensors can all be listed."""

import copy

import pytest
import torch
from naive import NaiveHRViT
from torch import Tensor, nn

from hrvit_lab import PRESETS, create_model
from hrvit_lab.latency.memory import measure_peak_memory
from hrvit_lab.latency.workload import OutOfDeviceMemory

MIB = 2**20
FLOAT = 4  # bytes
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def two_linears() -> nn.Module:
    """192 → 1000 → 10 on 3 × 8 × 8 images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 1000), nn.Linear(1000, 10))


WEIGHTS = 192 * 1000 + 1000 + 1000 * 10 + 10


def test_two_linears_against_hand_computation() -> None:
    """Input, both weights, hidden layer and output are alive when the second linear ends."""
    floats = WEIGHTS + 16 * (192 + 1000 + 10)
    assert measure_peak_memory(two_linears(), 8, batch_size=16) == floats * FLOAT / MIB


def test_half_the_bytes_per_number_is_half_the_memory() -> None:
    full = measure_peak_memory(two_linears(), 8, batch_size=16)
    assert measure_peak_memory(two_linears(), 8, batch_size=16, dtype="bfloat16") == full / 2


class Chain(nn.Module):
    """x + 1, then + 2, then + 3: each result except the last is dropped after the next is computed."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for step in (1, 2, 3):
            x_BCHW = x_BCHW + step
        return x_BCHW


class Hoard(nn.Module):
    """The same without dropping results."""

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        kept = [x_BCHW]
        for step in (1, 2, 3):
            kept.append(kept[-1] + step)
        return kept


class Views(nn.Module):
    """One new tensor; the others are a change in place and views."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return (x_BCHW + 1).relu_().transpose(2, 3)[:, :1].expand(-1, 5, -1, -1)


@pytest.mark.parametrize(("model", "images_alive"), [(Chain(), 3), (Hoard(), 4), (Views(), 2)])
def test_dropped_tensors_are_freed_and_views_take_no_memory(model: nn.Module, images_alive: int) -> None:
    image = 2 * 3 * 16 * 16 * FLOAT
    assert measure_peak_memory(model, 16, batch_size=2) == images_alive * image / MIB


def test_tied_weights_and_buffers_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(8, 8, bias=False)
            self.other = nn.Linear(8, 8, bias=False)
            self.other.weight = self.one.weight
            self.register_buffer("buffer", torch.zeros(100))

        def forward(self, x_BCHW: Tensor) -> Tensor:
            return x_BCHW

    assert measure_peak_memory(Tied(), 8) == (64 + 100 + 3 * 8 * 8) * FLOAT / MIB


def test_training_keeps_activations_for_the_gradient() -> None:
    """Inference drops each of ten squares; training saves the input of each."""

    class Squares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x_BCHW: Tensor) -> Tensor:
            y_BCHW = x_BCHW * self.scale
            for _ in range(10):
                y_BCHW = y_BCHW * y_BCHW
            return y_BCHW

    image = 3 * 32 * 32 * FLOAT
    assert measure_peak_memory(Squares(), 32) == (3 * image + FLOAT) / MIB
    training = measure_peak_memory(Squares(), 32, training=True) * MIB
    # The input, the scaled image and ten squares; in the backward pass, at most a gradient and its two summands.
    assert 12 * image < training < 16 * image


def test_gradients_are_part_of_training() -> None:
    """Weights are much larger than activations; training stores them and their gradients."""
    weights = 192 * 5000
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5000, bias=False))
    assert measure_peak_memory(model, 8, training=True) == pytest.approx(2 * weights * FLOAT / MIB, rel=0.02)


def test_memory_grows_by_the_same_amount_for_every_image() -> None:
    model = create_model("hrvit_micro")
    one, two, three = (measure_peak_memory(model, 64, batch_size=batch) for batch in (1, 2, 3))
    assert two > one
    assert three - two == pytest.approx(two - one, rel=1e-3)
    weights = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()]) / MIB
    assert one > weights


def test_the_model_is_not_changed() -> None:
    model = create_model("hrvit_micro").eval()
    state = copy.deepcopy(model.state_dict())
    measure_peak_memory(model, 64, batch_size=2, training=True)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_model_that_does_not_fit_into_memory_is_an_error() -> None:
    class Outer(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            x_N = x_BCHW.flatten()
            return x_N[:, None, None] * x_N[:, None] * x_N

    with pytest.raises(OutOfDeviceMemory, match="out of memory: batch 10 at 64×64, float32"):
        measure_peak_memory(Outer(), 64, batch_size=10)


def test_invalid_settings_are_named() -> None:
    with pytest.raises(ValueError, match="device 'gpu' is unknown"):
        measure_peak_memory(two_linears(), 8, device="gpu")


@pytest.mark.gpu
@needs_cuda
def test_cuda_agrees_with_the_sum_against_hand_computation() -> None:
    """Up to the allocator's rounding to 512 bytes."""
    floats = WEIGHTS + 1024 * (192 + 1000 + 10)
    for _ in range(2):  # the libraries allocate their workspaces in the first pass
        peak = measure_peak_memory(two_linears(), 8, batch_size=1024, device="cuda")
        assert peak == pytest.approx(floats * FLOAT / MIB, rel=0.01)


@pytest.mark.parametrize(("name", "side"), [("hrvit_nano", 96), pytest.param("hrvit_b1", 224, marks=pytest.mark.slow)])
def test_a_training_step_needs_less_than_the_naive_network(name: str, side: int) -> None:
    naive, ours = (
        measure_peak_memory(model, side, batch_size=8, training=True)
        for model in (NaiveHRViT(PRESETS[name]), create_model(name))
    )
    assert 0.8 * naive < ours <= 0.93 * naive
