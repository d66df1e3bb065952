"""Predictors of accuracy: each against a naive computation, a closed form or finite differences."""

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import curve_fit
from torch import Tensor, nn

from hrvit_lab.config import ConfigError, HRViTConfig, preset, with_branches
from hrvit_lab.network.blocks import Block
from hrvit_lab.network.build import build
from hrvit_lab.network.seeding import seeded
from hrvit_lab.search.predictors import PREDICTORS, Batch
from hrvit_lab.search.predictors.blocks import entropy, spectral_norm
from hrvit_lab.search.predictors.choice import BatchChoice
from hrvit_lab.search.predictors.codes import log_determinant
from hrvit_lab.search.predictors.curves import extrapolate
from hrvit_lab.search.predictors.gradients import loss_gradients
from hrvit_lab.search.predictors.score import load_batch, score_config, scores

TINY = with_branches(preset("hrvit_nano"), 2).replace(
    name="", widths=(8, 16), stem_width=8, head_dims=(4, 4), num_classes=3, head="pool", depths=((1,), (1, 1))
)


def batch_of(images: int, *shape: int, dtype: torch.dtype = torch.float32) -> Batch:
    with seeded(7):
        return Batch(torch.randn(images, *shape, dtype=dtype), torch.arange(images) % 3)


def perceptron(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with seeded(3):
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.GELU(), nn.Linear(5, 3)).to(dtype)


def tiny() -> nn.Module:
    with seeded(0):
        return build(TINY)


# -- each formula ----------------------------------------------------------------------------------------------------


def test_grad_norm_and_snip_equal_finite_differences() -> None:
    model, batch = perceptron(), batch_of(4, 3, 2, 2, dtype=torch.float64)
    norms, saliency = 0.0, 0.0
    for weight in (p for p in model.parameters() if p.ndim > 1):
        squares = 0.0
        for place in np.ndindex(weight.shape):
            value, losses = float(weight.data[place]), []
            for step in (1e-5, -1e-5):
                weight.data[place] = value + step
                losses.append(float(F.cross_entropy(model(batch.images), batch.labels).detach()))
            weight.data[place] = value
            slope = (losses[0] - losses[1]) / 2e-5
            squares += slope**2
            saliency += abs(slope * value)
        norms += math.sqrt(squares)
    assert scores(model, ["grad_norm", "snip"], batch) == pytest.approx({"grad_norm": norms, "snip": saliency})


def test_zico_equals_a_loop_over_weights() -> None:
    model, batch = perceptron(), batch_of(6, 3, 2, 2, dtype=torch.float64)
    total = 0.0
    for index in (1, 3):
        by_part = []
        for part in (slice(0, 3), slice(3, 6)):
            model.zero_grad()
            F.cross_entropy(model(batch.images[part]), batch.labels[part]).backward()
            by_part.append(model.get_parameter(f"{index}.weight").grad.abs().numpy().copy())  # type: ignore[union-attr]
        inner = 0.0
        for place in np.ndindex(by_part[0].shape):
            values = [float(part[place]) for part in by_part]
            inner += float(np.mean(values) / np.std(values))
        total += math.log(inner)
    assert scores(model, ["zico"], batch)["zico"] == pytest.approx(total)


def test_synflow_of_linears_is_the_number_of_layers_times_the_flow() -> None:
    """Every layer of a linear network carries the whole flow. Norms and biases do not change it."""
    with seeded(1):
        plain = nn.Sequential(nn.Flatten(), nn.Linear(12, 5, bias=False), nn.Linear(5, 7), nn.Linear(7, 3))
    normed = nn.Sequential(*plain[:2], nn.LayerNorm(5), *plain[2:], nn.BatchNorm1d(3))
    flow = np.ones(12)
    for index in (1, 2, 3):
        flow = np.abs(plain.get_parameter(f"{index}.weight").detach().double().numpy()) @ flow
    for model in (plain, normed):
        assert scores(model, ["synflow"], batch_of(4, 3, 2, 2))["synflow"] == pytest.approx(math.log(3 * flow.sum()))


def test_synflow_without_a_flow_is_minus_infinity() -> None:
    """An image of ones minus itself: no weight changes the output."""

    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(images - 1)

    assert scores(Nothing(), ["synflow"], batch_of(4, 3, 2, 2))["synflow"] == -math.inf


def test_synflow_reaches_every_weight_but_those_of_queries() -> None:
    """With equal attention weights, the flow through the values of a network is positive everywhere."""
    assert math.isfinite(scores(tiny(), ["synflow"], batch_of(4, 3, 32, 32))["synflow"])


def test_dss_equals_a_loop_over_names() -> None:
    model, batch = tiny(), batch_of(4, 3, 32, 32)
    flow = copy.deepcopy(model).double().eval()
    for name, parameter in flow.named_parameters():
        if name.endswith("attn.norm.weight"):
            parameter.data.fill_(1)
        parameter.data.abs_()
    flow(torch.ones(1, 3, 32, 32, dtype=torch.float64)).sum().backward()
    diversity, saliency = 0.0, 0.0
    for name, parameter in flow.named_parameters():
        w, g = parameter.detach().numpy(), parameter.grad
        if g is None:
            continue
        if ".attn." in name and w.ndim == 2:
            diversity += np.linalg.svd(w)[1].sum() * np.linalg.svd(g.numpy())[1].sum()
        if ".ffn." in name and w.ndim > 1:
            saliency += float((w * g.numpy()).sum())
    assert diversity > 0 and saliency != 0
    assert scores(model, ["dss"], batch)["dss"] == pytest.approx(diversity + saliency)


def test_naswot_equals_numpys_determinant_of_counted_agreements() -> None:
    codes = [[1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [1, 1, 0, 1, 0]]
    kernel = [[sum(a == b for a, b in zip(first, second, strict=True)) for second in codes] for first in codes]
    expected = math.log(abs(np.linalg.det(np.array(kernel))))
    assert log_determinant([torch.tensor(codes, dtype=torch.bool)]) == pytest.approx(expected)
    halves = [torch.tensor(codes, dtype=torch.bool)[:, :2], torch.tensor(codes, dtype=torch.bool)[:, 2:]]
    assert log_determinant(halves) == pytest.approx(expected)
    assert log_determinant([torch.ones(2, 4, dtype=torch.bool)]) == -math.inf


def test_naswot_reads_the_inputs_of_all_activations() -> None:
    with seeded(5):
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 9), nn.GELU(), nn.Linear(9, 8), nn.Hardswish(), nn.Linear(8, 7), nn.ReLU()
        )
    batch, signs = batch_of(4, 3, 2, 2), []
    x = batch.images
    for module in model:
        if isinstance(module, nn.GELU | nn.Hardswish | nn.ReLU):
            signs.append((x > 0).detach())
        x = module(x)
    assert scores(model, ["naswot"], batch)["naswot"] == pytest.approx(log_determinant(signs))


def test_entropy_of_features_is_that_of_their_principal_components() -> None:
    with seeded(2):
        features = torch.randn(4, 5, 6, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5])
    centred = features.reshape(-1, 3).numpy()
    shares = np.linalg.svd(centred - centred.mean(0), compute_uv=False) ** 2
    shares /= shares.sum()
    assert entropy(features) == pytest.approx(-(shares * np.log(shares)).sum())
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))
    assert entropy(corners) == pytest.approx(math.log(4))


def test_the_spectral_norm_is_exact_for_uncorrelated_signs() -> None:
    jacobian = np.array([[2.0, -1.0, 0.0], [0.5, 3.0, 1.0], [0.0, 1.0, -1.0]])
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    back = signs @ torch.from_numpy(jacobian)
    assert spectral_norm(back, signs) == pytest.approx(np.linalg.norm(jacobian, 2))


def test_expressivity_and_progressivity_follow_the_blocks_of_each_branch() -> None:
    model, batch = tiny(), batch_of(4, 3, 32, 32)
    copied = copy.deepcopy(model).train()
    found: dict[str, float] = {}
    for name, module in copied.named_modules():
        if name.endswith("attn.norm"):
            nn.init.ones_(module.weight)
        if isinstance(module, Block):
            module.register_forward_hook(lambda _, __, y, name=name: found.update({name: entropy(y)}))
    with seeded(0):
        copied(torch.randn(4, 3, 32, 32))
    branches = [[value for name, value in found.items() if name.split(".")[3] == branch] for branch in ("0", "1")]
    steps = [after - before for chain in branches for before, after in itertools.pairwise(chain)]
    assert len(found) == sum(map(sum, TINY.depths))
    expected = {"expressivity": sum(found.values()), "progressivity": min(steps)}
    assert scores(model, list(expected), batch) == pytest.approx(expected, rel=1e-4)


def test_blocks_that_are_identities_are_perfectly_trainable() -> None:
    config = TINY.replace(attention="identity", shortcut="none", ffn="none")
    with seeded(0):
        model = build(config)
    for name, parameter in model.named_parameters():
        if ".proj." in name:
            parameter.data.zero_()
    batch = batch_of(16, 3, 64, 64)
    assert -0.1 < scores(model, ["trainability"], batch)["trainability"] <= 0
    assert scores(tiny(), ["trainability"], batch_of(4, 3, 32, 32))["trainability"] < 0


def test_loss_after_steps_equals_ten_steps_of_adamw_by_hand() -> None:
    model, batch = perceptron()[:2], batch_of(6, 3, 2, 2, dtype=torch.float64)
    parameters = [parameter.detach().clone() for parameter in model.parameters()]
    means, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    def loss_of(values: list[Tensor]) -> Tensor:
        return F.cross_entropy(batch.images.flatten(1) @ values[0].T + values[1], batch.labels)

    for step in range(1, 11):
        wanted = [p.clone().requires_grad_() for p in parameters]
        gradients = torch.autograd.grad(loss_of(wanted), wanted)
        for p, g, m, v in zip(parameters, gradients, means, squares, strict=True):
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g**2)
            p.mul_(1 - 1e-3 * 0.01)
            p.sub_(1e-3 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
    assert scores(model, ["loss_after_steps"], batch)["loss_after_steps"] == pytest.approx(float(loss_of(parameters)))


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.5])
def test_a_power_law_is_continued_exactly(exponent: float) -> None:
    curve = [90 - 50 * epoch**-exponent for epoch in range(1, 6)]
    assert extrapolate(curve, 40) == pytest.approx(90 - 50 * 40**-exponent, abs=0.2)


def test_extrapolation_agrees_with_a_general_fit() -> None:
    rng = np.random.default_rng(0)
    epochs = np.arange(1, 16)
    curve = 85 - 40 * epochs**-0.8 + rng.normal(0, 0.3, 15)

    def law(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a - b * x**-c

    (a, b, c), _ = curve_fit(law, epochs, curve, p0=(80, 30, 1))
    assert extrapolate(curve.tolist(), 60) == pytest.approx(law(np.array(60.0), a, b, c), abs=0.3)
    assert extrapolate([50.0, 60.0], 9) == 60
    assert extrapolate([70.0, 70.0, 70.0], 9) == pytest.approx(70)


# -- what all predictors share ---------------------------------------------------------------------------------------


def test_scores_are_reproducible_and_leave_everything_as_it_was() -> None:
    model, batch = tiny().eval(), batch_of(6, 3, 32, 32)
    before, state, threads = copy.deepcopy(model.state_dict()), torch.get_rng_state(), torch.get_num_threads()
    first = scores(model, PREDICTORS, batch, seed=4)
    torch.manual_seed(99)
    with torch.no_grad():
        assert scores(model, PREDICTORS, batch, seed=4) == first
    torch.set_rng_state(state)
    assert scores(model, list(PREDICTORS)[::-1], batch, seed=4) == first
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(math.isfinite(value) for value in first.values()) and first.keys() == PREDICTORS.keys()


def test_zero_gammas_would_hide_attention_from_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """As built, the gradient of attention's mixer is 0; while scoring it is not."""
    seen: list[float] = []

    def mixer(model: nn.Module, batch: Batch) -> float:
        gradients = loss_gradients(model, *batch)
        named = [name for name, parameter in model.named_parameters() if parameter.ndim > 1]
        seen.append(sum(float(g.norm()) for name, g in zip(named, gradients, strict=True) if ".mixer." in name))
        return seen[-1]

    model, batch = tiny(), batch_of(6, 3, 32, 32)
    assert mixer(model.train(), batch) == 0
    monkeypatch.setattr("hrvit_lab.search.predictors.gradients.snip", mixer)
    assert scores(tiny(), ["snip"], batch)["snip"] > 0


def test_scores_of_a_config_depend_on_the_seed_and_the_batch() -> None:
    batch, classes = load_batch(BatchChoice.model_validate({"data": {"name": "digits", "resolution": 32}}))
    assert (len(batch.images), classes) == (32, 10)
    assert np.ptp(np.bincount(batch.labels.numpy())) <= 1
    keys = ["snip"]
    one, same, other = (score_config(TINY, keys, batch, classes, seed)["snip"] for seed in (0, 0, 1))
    assert one == same != other
    half = Batch(batch.images[:16], batch.labels[:16])
    assert score_config(TINY, keys, half, classes, 0)["snip"] != one


@pytest.mark.parametrize(
    ("make", "key", "said"),
    [
        (lambda: perceptron(torch.float32), "expressivity", "supports HRViTs only, not Sequential; use one of"),
        (lambda: build(TINY.replace(head="segformer")), "snip", "its head is 'segformer'; use one of synflow, dss"),
        (lambda: build(TINY.replace(head="none")), "zico", "its head is 'none'"),
    ],
)
def test_a_predictor_that_does_not_fit_a_network_says_which_do(
    make: Callable[[], nn.Module], key: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        scores(make(), [key], batch_of(4, 3, 32, 32))


def test_predictors_without_labels_score_segmenters() -> None:
    keys = [key for key, predictor in PREDICTORS.items() if predictor.reads != "labels"]
    config: HRViTConfig = TINY.replace(head="segformer", segformer_width=8)
    with seeded(0):
        found = scores(build(config), keys, batch_of(4, 3, 32, 32))
    assert all(map(math.isfinite, found.values()))


def test_a_batch_with_too_few_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size = 5 leaves classes without an image; use at least 10"):
        load_batch(BatchChoice(batch_size=5))
