"""Receptive fields, similarity, components, evidence and segments, compared with closed forms, loops and scikit-
learn."""

import doctest
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.decomposition import PCA
from test_attention import tiny, woken
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight import evidence, locate, receptive_field
from hrvit_lab.insight.attention import block_attention
from hrvit_lab.insight.evidence import gradient_evidence, occlusion_evidence, predicted_class
from hrvit_lab.insight.features import coloured, feature_maps, last_maps, principal_components
from hrvit_lab.insight.hooks import capture
from hrvit_lab.insight.locate import token_at
from hrvit_lab.insight.receptive_field import receptive_fields
from hrvit_lab.insight.segments import boundary_errors, segments
from hrvit_lab.insight.similarity import linear_cka, similarity
from hrvit_lab.network.build import build


def test_docstring_examples() -> None:
    for module in (evidence, locate, receptive_field):
        tried = doctest.testmod(module)
        assert tried.attempted > 0 and tried.failed == 0


# -- receptive fields -------------------------------------------------------------------------------------------------


class Stack(nn.Module):
    """Convolutions with kernels of ones: (kernel size, stride, dilation) each, no padding effects at the centre."""

    def __init__(self, *layers: tuple[int, int, int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for size, stride, dilation in layers:
            conv = nn.Conv2d(1, 1, size, stride=stride, dilation=dilation, padding=dilation * (size // 2), bias=False)
            nn.init.ones_(conv.weight)
            self.layers.append(conv)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def profile(*layers: tuple[int, int, int]) -> np.ndarray:
    """Influence along an axis in closed form: the convolution of dilated boxes, spread by the strides before them."""
    out, spread = np.ones(1), 1
    for size, stride, dilation in layers:
        box = np.zeros((size - 1) * dilation * spread + 1)
        box[:: dilation * spread] = 1
        out = np.convolve(out, box)
        spread *= stride
    return out


def smallest_area(influence: np.ndarray, share: float) -> int:
    total, area = 0.0, 0
    for value in sorted(influence.ravel() / influence.sum(), reverse=True):
        if total >= share - 1e-9:
            break
        total, area = total + value, area + 1
    return area


STACKS = [((3, 1, 1), (3, 1, 1)), ((5, 1, 1),), ((3, 2, 1), (3, 1, 1)), ((3, 1, 2), (3, 2, 1), (5, 1, 1))]


@pytest.mark.parametrize("layers", STACKS, ids=str)
def test_the_receptive_field_of_a_stack_equals_the_closed_form(layers: tuple[tuple[int, int, int], ...]) -> None:
    along = profile(*layers)
    # r = 1 + sum of (k - 1) · dilation · strides before
    reach = 1 + sum((k - 1) * d * math.prod(s for _, s, _ in layers[:i]) for i, (k, _, d) in enumerate(layers))
    expected = np.outer(along, along)
    [field] = receptive_fields(Stack(*layers), torch.randn(1, 1, 64, 48)).values()
    assert field.extent_px == (reach, reach) == expected.shape
    rows, columns = (np.flatnonzero(field.influence.any(axis)) for axis in (1, 0))
    inside = field.influence[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_allclose(inside, expected / expected.sum(), atol=1e-7)
    stride = math.prod(s for _, s, _ in layers)
    assert rows[0] + reach // 2 == field.token[0] * stride and columns[0] + reach // 2 == field.token[1] * stride
    for share in (0.5, 0.99):
        assert field.area_px(share) == smallest_area(expected, share)


def test_the_receptive_field_includes_all_channels() -> None:
    """The mean square over random signs approximates the sum of squares over channels; a plain sum would cancel
    terms."""
    conv = nn.Conv2d(2, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[3.0, 0], [-3, 4]])[:, :, None, None])
    deep = nn.Sequential(conv, nn.Conv2d(2, 2, 3, padding=1, bias=False))
    weight = torch.zeros(2, 2, 3, 3)
    weight[0, 0, 1, 1] = weight[1, 1, 1, 1] = 1  # the same position
    weight[0, 0, 0, 0] = weight[1, 0, 0, 0] = 1
    with torch.no_grad():
        deep[1].weight.copy_(weight)  # type: ignore[operator]
    [field] = receptive_fields(deep, torch.randn(1, 2, 9, 9), samples=600).values()
    # Derivatives at the centre: rows (3, 0) and (-3, 4); at the corner: (3, 0) twice.
    corner, centre = math.sqrt(18), math.sqrt(9 + 25)
    assert field.influence[3, 3] / field.influence[4, 4] == pytest.approx(corner / centre, rel=0.05)
    assert field.influence.sum() == pytest.approx(1)


def test_fields_of_all_branches() -> None:
    model = woken(build(tiny("window"))).eval()
    found = receptive_fields(model, torch.randn(2, 3, 49, 35), samples=1)
    assert list(found) == ["stage 0, branch 0", "stage 0, branch 1"]
    assert all(field.influence.shape == (49, 35) for field in found.values())
    assert 0 < found["stage 0, branch 1"].area_px(0.5) < found["stage 0, branch 1"].area_px(0.99) < 49 * 35
    with pytest.raises(ConfigError, match="pixel 64,0 is outside of the image, which has 64 rows"):
        receptive_fields(Stack((3, 16, 1)), torch.randn(1, 1, 64, 48), (64, 0))


# -- similarity -------------------------------------------------------------------------------------------------------


def hsic_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    """Means over all tuples of different examples: E[k l] + E[k] E[l] − 2 E[k_ij l_iq], by loops."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    pairs = [k[i, j] * m[i, j] for i in range(n) for j in range(n) if i != j]
    fours, threes = [], []
    for i in range(n):
        for j in range(n):
            for q in range(n):
                if len({i, j, q}) < 3:
                    continue
                threes.append(k[i, j] * m[i, q])
                fours += [k[i, j] * m[q, r] for r in range(n) if r not in (i, j, q)]
    return float(np.mean(pairs) + np.mean(fours) - 2 * np.mean(threes))


def test_unbiased_cka_equals_that_of_naive_loops() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)) + 1, rng.normal(size=(7, 5))
    y[:, :2] += x[:, :2]
    expected = hsic_by_loops(x, y) / math.sqrt(hsic_by_loops(x, x) * hsic_by_loops(y, y))
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_cka_of_a_map_with_itself_is_one_and_does_not_change_under_rotation() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 9))
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, 3 * x @ rotation) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x @ rotation, y) == pytest.approx(linear_cka(x, y), abs=1e-12)
    assert linear_cka(x + 5, y - 2) == pytest.approx(linear_cka(x, y), abs=1e-9)
    assert abs(linear_cka(x, y)) < 0.2
    with pytest.raises(ConfigError, match="at least 4 positions"):
        linear_cka(x[:3], y[:3])


def test_similarity_of_networks_in_minibatches() -> None:
    model, other = (build(tiny("window")).eval() for _ in range(2))
    batches = [torch.randn(2, 3, 49, 35) for _ in range(3)]
    same = similarity(batches, model)
    assert same.rows == same.columns == ("stage 0, branch 0", "stage 0, branch 1") and same.grid == (7, 5)
    np.testing.assert_allclose(np.diag(same.cka), 1)
    np.testing.assert_allclose(same.cka, same.cka.T)
    # By definition: HSIC of each pair, averaged over the batches, then normalised.
    sums = np.zeros(3)
    for batch in batches:
        fine, coarse = (x.detach() for x in feature_maps(model, batch).values())
        points = [
            nn.functional.adaptive_avg_pool2d(x, (7, 5)).permute(0, 2, 3, 1).reshape(70, -1).double().numpy()
            for x in (fine, coarse)
        ]
        k, m = (x @ x.T * (1 - np.eye(70)) for x in points)
        n = 70
        for i, (a, b) in enumerate(((k, m), (k, k), (m, m))):
            one = np.ones(n)
            term = one @ a @ one * (one @ b @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ a @ b @ one)
            sums[i] += np.trace(a @ b) + term
    assert same.cka[0, 1] == pytest.approx(sums[0] / math.sqrt(sums[1] * sums[2]), rel=1e-6)
    between = similarity(batches, model, other)
    assert between.cka.shape == (2, 2) and between.cka[0, 0] < 0.99
    # Each network may read the images with its own normalisation: the maps are those of what it reads.
    images, others = batches[0], 2 * batches[0] - 1
    own = similarity([(images, others)], model, other).cka
    for (i, x), (j, y) in product(
        enumerate(feature_maps(model, images).values()), enumerate(feature_maps(other, others).values())
    ):
        a, b = (
            nn.functional.adaptive_avg_pool2d(one, (7, 5)).permute(0, 2, 3, 1).reshape(70, -1).double().numpy()
            for one in (x, y)
        )
        assert own[i, j] == pytest.approx(linear_cka(a, b), rel=1e-6)
    assert not np.allclose(own, similarity([images], model, other).cka)
    with pytest.raises(ConfigError, match="no images"):
        similarity([], model)


# -- components -------------------------------------------------------------------------------------------------------


def test_components_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(size=(50, 8)) * np.arange(1, 9) + 3
    theirs = PCA(3, svd_solver="full")
    scores = theirs.fit_transform(points)
    ours = principal_components(points)
    np.testing.assert_allclose(ours.components, theirs.components_, atol=1e-10)
    np.testing.assert_allclose(ours.scores, scores, atol=1e-9)
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_, atol=1e-12)
    with pytest.raises(ConfigError, match="fewer than 3 principal components"):
        principal_components(points[:, :2])


def test_colours_separate_regions_that_features_separate() -> None:
    map_1CHW = torch.zeros(1, 4, 4, 6)
    map_1CHW[:, 0, :, 3:] = 5
    map_1CHW += 0.01 * torch.randn(map_1CHW.shape)
    found = coloured(map_1CHW, (40, 60))
    assert found.rgb.shape == (40, 60, 3) and found.rgb.min() >= 0 and found.rgb.max() <= 1
    assert found.explained[0] > 0.95 and found.size == (4, 6)
    assert abs(found.rgb[:, 5, 0].mean() - found.rgb[:, 55, 0].mean()) > 0.9


# -- evidence ---------------------------------------------------------------------------------------------------------


class Quadrant(nn.Module):
    """Class 1 is the mean of the red channel in the upper left quarter, class 0 that of the lower right one."""

    num_classes = 2

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2] // 2, x.shape[3] // 2
        return torch.stack((x[:, 0, h:, w:].mean((1, 2)), x[:, 0, :h, :w].mean((1, 2))), dim=1)


def test_occlusion_finds_the_pixels_that_the_class_depends_on() -> None:
    image = torch.rand(1, 3, 12, 20) + 1
    found = occlusion_evidence(Quadrant(), image, 1, 5)
    expected = np.zeros((12, 20))
    for top in (0, 5, 10):
        for left in (0, 5, 10, 15):
            inside = image[0, 0, top : min(top + 5, 6), left : min(left + 5, 10)]
            expected[top : top + 5, left : left + 5] = float(inside.sum()) / 60
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ConfigError, match="class 2 does not exist; the network has classes 0 to 1"):
        occlusion_evidence(Quadrant(), image, 2, 5)


@pytest.mark.parametrize("head", ["pool", "segformer"])
def test_gradient_evidence_equals_its_definition(head: str) -> None:
    model, image = woken(build(tiny("window", head=head))).eval(), torch.randn(1, 3, 49, 35)
    found = gradient_evidence(model, image, 3)
    maps = [x.detach().requires_grad_(True) for x in model.forward_features(image)]
    logits = model.forward_head(maps)
    score = logits[0, 3].mean() if logits.ndim == 4 else logits[0, 3]
    for (branch, seen), x, g in zip(found.items(), maps, torch.autograd.grad(score, maps), strict=True):
        h, w = x.shape[2:]
        small = torch.zeros(1, 1, h, w)
        for channel in range(x.shape[1]):
            small[0, 0] += g[0, channel].sum() / (h * w) * x[0, channel].detach()
        expected = nn.functional.interpolate(small.clamp(min=0), (49, 35), mode="bilinear")[0, 0]
        np.testing.assert_allclose(seen, expected, atol=1e-6, err_msg=branch)
    number, probability = predicted_class(model, image)
    assert 0 <= number < 5 and 0.2 <= probability <= 1
    with pytest.raises(ConfigError, match="class 5 does not exist"):
        gradient_evidence(model, image, 5)
    with pytest.raises(ConfigError, match="HRViT has no classifier"):
        predicted_class(build(tiny("window", head="none")), image)


# -- segments ---------------------------------------------------------------------------------------------------------


def test_segments_and_their_entropy() -> None:
    model, image = build(tiny("window", head="segformer")).eval(), torch.randn(1, 3, 49, 35)
    found = segments(model, image)
    with torch.no_grad():
        logits = nn.functional.interpolate(model(image), (49, 35), mode="bilinear")[0].double()
    shares = (logits - logits.logsumexp(0)).exp().numpy()
    np.testing.assert_array_equal(found.prediction, shares.argmax(0))
    np.testing.assert_allclose(found.entropy_nats, -(shares * np.log(shares)).sum(0), atol=1e-5)
    assert found.max_entropy_nats == pytest.approx(math.log(5))
    with pytest.raises(ConfigError, match="is not a segmenter"):
        segments(build(tiny("window")), image)


@pytest.mark.parametrize("width", [1, 3])
def test_errors_near_boundaries_by_loops(width: int) -> None:
    rng = np.random.default_rng(3)
    truth = np.zeros((14, 17), dtype=int)
    truth[4:9, 6:] = 2
    truth[10:, :3] = 255
    prediction = np.where(rng.random(truth.shape) < 0.3, 1, truth)
    found = boundary_errors(prediction, truth, width)
    pixels = [(y, x) for y in range(14) for x in range(17)]

    def at_edge(y: int, x: int) -> bool:
        around = ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1))
        others = [truth[place] for place in around if place in set(pixels)]
        return truth[y, x] != 255 and any(other not in (truth[y, x], 255) for other in others)

    edges = [place for place in pixels if at_edge(*place)]
    near = [any(max(abs(y - a), abs(x - b)) < width for a, b in edges) and truth[y, x] != 255 for y, x in pixels]
    wrong = [truth[place] != 255 and prediction[place] != truth[place] for place in pixels]
    labelled = [truth[place] != 255 for place in pixels]
    assert found.wrong.ravel().tolist() == wrong
    assert found.error_percent == pytest.approx(100 * sum(wrong) / sum(labelled))
    inside = sum(a and b for a, b in zip(wrong, near, strict=True))
    assert found.near_error_percent == pytest.approx(100 * inside / sum(near))
    assert found.far_error_percent == pytest.approx(100 * (sum(wrong) - inside) / (sum(labelled) - sum(near)))


# -- any network ------------------------------------------------------------------------------------------------------


def test_maps_of_any_network() -> None:
    pyramid = build(tiny(("spatial_reduction", "global"), topology="pyramid", stem_width=8, head="pool")).eval()
    image = torch.randn(1, 3, 49, 35)
    maps = feature_maps(pyramid, image)
    assert {name: tuple(x.shape[1:]) for name, x in maps.items()} == {
        "stage 0, branch 0": (8, 13, 9), "stage 1, branch 1": (16, 7, 5),
    }  # fmt: skip
    for x, y in zip(maps.values(), pyramid.forward_features(image), strict=True):
        torch.testing.assert_close(x, y)
    with pytest.raises(ConfigError, match="Flatten has no feature maps"):
        feature_maps(nn.Flatten(), image)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_views_that_timm_models_support(name: str) -> None:
    model, image = timm.create_model(name, num_classes=4).eval(), torch.randn(1, 3, 160, 160)
    maps = last_maps(model, feature_maps(model, image))
    fields = receptive_fields(model, image, samples=1)
    assert list(fields) == list(maps) and all(x.ndim == 4 for x in maps.values())
    assert coloured(list(maps.values())[-1], (160, 160)).rgb.shape == (160, 160, 3)
    assert np.diag(similarity([image], model).cka) == pytest.approx(1)
    assert occlusion_evidence(model, image, 1, 80).shape == (160, 160)
    if name != "test_vit":
        with pytest.raises(ConfigError, match="shows no attention"):
            block_attention(model, image)


@torch.no_grad()
def test_attention_of_timms_vision_transformer_times_values_equals_its_output() -> None:
    model: Any = timm.create_model("test_vit", num_classes=4).eval()
    image = torch.randn(1, 3, 160, 160)
    found = block_attention(model, image)
    names = [one.place.name for one in found]
    assert names == [f"blocks.{number}.attn" for number in range(6)]
    inputs = capture(model, image, inputs=[f"{name}.norm" for name in names]).inputs
    for one in found:
        weights = torch.from_numpy(one.of_all())  # of the 100 tokens of the grid, to these and the class token
        assert weights.shape == (one.num_heads, 100, 101) and one.size == (10, 10)
        attended = (weights @ one.heads.v_hmd).transpose(0, 1).flatten(1)
        torch.testing.assert_close(attended, inputs[f"{one.place.name}.norm"][0, 1:], atol=1e-5, rtol=1e-5)
        drawn = one.of_pixel((40, 99))
        assert drawn.shape == (one.num_heads, 160, 160)
        np.testing.assert_allclose(drawn[:, ::16, ::16].reshape(-1, 100), weights[:, 26, 1:], atol=1e-7)
    with pytest.raises(ConfigError, match=r"unknown block 'blocks.9.attn'; did you mean"):
        block_attention(model, image, ["blocks.9.attn"])


@torch.no_grad()
@pytest.mark.parametrize("image_px", [(64, 64), (72, 56)])
def test_attention_of_timms_swin_times_values_equals_its_output(image_px: tuple[int, int]) -> None:
    # 72 × 56 pixels are 18 × 14 tokens, which windows of 4 × 4 don't divide: timm pads the map.
    model: Any = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=image_px, window_size=4, depths=(2, 2), embed_dim=16,
        num_heads=(2, 4), num_classes=4, strict_img_size=False,
    ).eval()  # fmt: skip
    for name, table in model.named_parameters():
        if name.endswith("bias_table"):
            torch.nn.init.normal_(table)
    image = torch.randn(1, 3, *image_px)
    found = block_attention(model, image)
    names = [f"layers.{stage}.blocks.{number}.attn" for stage in range(2) for number in range(2)]
    assert [one.place.name for one in found] == names
    assert [one.place.title for one in found][2:] == ["stage 1, block 0", "stage 1, block 1"]
    outputs = capture(model, image, outputs=[f"{name}.proj" for name in names]).outputs
    for one in found:
        block = model.get_submodule(one.place.name.removesuffix(".attn"))
        (H, W), (h, w), (down, right) = one.size, block.window_size, block.shift_size
        weights = torch.from_numpy(one.of_all())
        attended = block.attn.proj((weights @ one.heads.v_hmd).transpose(0, 1).flatten(1))
        torch.testing.assert_close(weights.sum(-1), torch.ones(one.num_heads, H * W))
        across = -(-W // w)
        for y in range(H):
            for x in range(W):  # where timm has put the token: rolled, padded, and divided into windows
                row, column = (y - down) % H, (x - right) % W
                window, inside = row // h * across + column // w, row % h * w + column % w
                theirs = outputs[f"{one.place.name}.proj"][window, inside]
                torch.testing.assert_close(attended[y * W + x], theirs, atol=1e-5, rtol=1e-5)
    shifted = found[1].of_token((0, 0))  # the first window after a shift is the corner
    assert found[1].heads.prefix == (0 if image_px == (64, 64) else 20 * 16 - 18 * 14)
    assert (shifted[:, 2:] < 1e-30).all() and (shifted[:, :, 2:] < 1e-30).all() and (shifted[:, :2, :2] > 0).all()


@torch.no_grad()
def test_tokens_of_odd_maps_of_swin_stand_for_the_pixels_that_reach_them() -> None:
    """A map of 5 tokens is padded to 6 before it is halved, so that a token stands for 8 pixels and not for 20 / 3."""
    model: Any = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=(20, 28), window_size=4, depths=(1, 1, 1), embed_dim=16,
        num_heads=(2, 4, 4), num_classes=4, strict_img_size=False,
    ).eval()  # fmt: skip
    found = block_attention(model, torch.randn(1, 3, 20, 28))
    assert [one.size for one in found] == [(5, 7), (3, 4), (2, 2)]
    assert [one.place.stride for one in found] == [(4, 4), (8, 8), (16, 16)]
    image = torch.randn(1, 3, 20, 28)
    for block in model.layers[0].blocks:  # without attention, the first merging shows which token a pixel reaches
        block.attn.proj.weight.zero_()
    for pixel in ((0, 0), (7, 8), (19, 27), (16, 15)):
        other = image.clone()
        other[0, :, pixel[0], pixel[1]] += 1
        merged = "layers.1.downsample"
        plain, changed = (capture(model, one, outputs=[merged]).outputs[merged][0] for one in (image, other))
        assert (plain != changed).any(-1).nonzero().tolist() == [list(token_at(pixel, (20, 28), (8, 8)))]
    for one in found:
        assert one.of_pixel((19, 27)).shape[1:] == (20, 28)


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_patches_that_leave_out_pixels_are_refused(name: str) -> None:
    small: dict[str, Any] = {"depths": (1, 1), "embed_dim": 16, "num_heads": (2, 2)} if name.startswith("swin") else {}
    model = timm.create_model(name, img_size=(38, 35), num_classes=4, **small).eval()
    with pytest.raises(ConfigError, match=r"leave out the last rows or columns of an image of 38 × 35 pixels; choose"):
        block_attention(model, torch.randn(1, 3, 38, 35))
