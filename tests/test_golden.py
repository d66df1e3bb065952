"""The network equals the published one: its recorded outputs, its state dict, its printed counts."""

import numpy as np
import pytest
import torch
from naive import NaiveHRViT
from reference import DATA, published_keys, reference_input, reference_state_dict

from hrvit_lab import PRESETS, count, create_model, load_published
from hrvit_lab.network.blocks.mixcfn import cut_in_halves
from hrvit_lab.network.model import HRViT

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def b1() -> HRViT:
    model = create_model("hrvit_b1").eval()
    published = reference_state_dict()
    report = load_published(model, published)
    assert report.missing == () and report.unexpected == ()
    assert published.keys() == published_keys().keys()
    assert report.loaded == len(cut_in_halves(published)) == len(model.state_dict())
    assert sum(value.numel() for value in published.values()) == sum(v.numel() for v in model.state_dict().values())
    return model


@pytest.mark.parametrize(("height", "width"), [(64, 96), (224, 224), (256, 256)])
def test_outputs_match_the_published_network(b1: HRViT, height: int, width: int) -> None:
    golden = np.load(DATA / "hrvit_b1_golden.npz")
    with torch.no_grad():
        maps = b1.forward_features(reference_input(height, width))
        ours = {"logits": b1.forward_head(maps).numpy()}
    for i, image in enumerate(maps):
        ours[f"feature{i}"] = image.numpy()
        ours[f"feature{i}_channel_mean"] = image.mean(1).numpy()
        ours[f"feature{i}_spatial_mean"] = image.mean((2, 3)).numpy()
    recorded = {key.split("/")[1]: golden[key] for key in golden if key.startswith(f"{height}x{width}/")}
    assert recorded
    for name, expected in recorded.items():
        assert ours[name].shape == expected.shape
        assert np.abs(ours[name] - expected).max() < TOLERANCE, name


def test_naive_witness_has_the_published_state_dict() -> None:
    with torch.device("meta"):
        naive = NaiveHRViT(PRESETS["hrvit_b1"])
    assert {key: tuple(value.shape) for key, value in naive.state_dict().items()} == published_keys()


@pytest.mark.parametrize("name", ["hrvit_b2", "hrvit_b3", "hrvit_nano"])
@pytest.mark.parametrize(("height", "width"), [(65, 107), (128, 96)])
def test_outputs_match_the_naive_witness(name: str, height: int, width: int) -> None:
    naive = NaiveHRViT(PRESETS[name]).eval()
    weights = reference_state_dict({key: tuple(value.shape) for key, value in naive.state_dict().items()})
    naive.load_state_dict(weights)
    model = create_model(name).eval()
    load_published(model, weights)
    image = reference_input(height, width)
    with torch.no_grad():
        torch.testing.assert_close(model(image), naive(image), atol=TOLERANCE, rtol=0)


PUBLISHED_PARAMS = {"hrvit_b1": 19_685_152, "hrvit_b2": 32_486_408, "hrvit_b3": 37_870_304}
# GMACs at 224 and 512: convolution, linear, attention products, the same with padded windows
PUBLISHED_MACS = {
    ("hrvit_b1", 224): (1_313_504_192, 1_263_271_936, 198_797_312, 198_797_312),
    ("hrvit_b1", 512): (6_862_389_248, 6_591_299_584, 2_305_818_624, 2_502_426_624),
    ("hrvit_b2", 224): (1_528_837_632, 3_387_497_984, 371_954_688, 371_954_688),
    ("hrvit_b2", 512): (7_987_396_608, 17_689_296_896, 4_292_345_856, 4_717_019_136),
    ("hrvit_b3", 224): (1_692_480_384, 3_765_649_408, 441_849_856, 441_849_856),
    ("hrvit_b3", 512): (8_842_346_496, 19_664_945_152, 5_109_710_848, 5_595_725_824),
}
PUBLISHED_GFLOPS = {"hrvit_b1": "2.7", "hrvit_b2": "5.1", "hrvit_b3": "5.7"}


@pytest.mark.parametrize("name", PUBLISHED_PARAMS)
def test_parameters_equal_the_published_number(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED_PARAMS[name] == count(PRESETS[name]).params


@pytest.mark.parametrize(("name", "resolution"), PUBLISHED_MACS)
def test_macs_per_operator_equal_the_published_ones(name: str, resolution: int) -> None:
    counts = count(PRESETS[name], resolution)
    macs = counts.table("operator").set_index("operator")
    convolution, linear, attention, padded = PUBLISHED_MACS[name, resolution]
    assert macs.loc["convolution", "macs"] == convolution
    assert macs.loc["linear", "macs"] == linear
    assert macs.loc["attention", "macs"] == attention
    assert macs.loc["attention", "macs_padded"] == padded
    assert counts.macs == convolution + linear + attention
    assert counts.macs_padded == convolution + linear + padded
    assert counts.macs_paper == convolution + linear + padded // 2


@pytest.mark.parametrize("name", PUBLISHED_GFLOPS)
def test_paper_convention_prints_the_published_figure(name: str) -> None:
    assert f"{count(PRESETS[name]).macs_paper / 1e9:.1f}" == PUBLISHED_GFLOPS[name]
