"""Checkpoints of the published layout."""

from pathlib import Path

import pytest
import torch
from naive import NaiveHRViT
from torch import Tensor

from hrvit_lab import PRESETS, ConfigError, create_model, load_published
from hrvit_lab.checkpoints import our_name


@pytest.fixture
def published() -> dict[str, Tensor]:
    return NaiveHRViT(PRESETS["hrvit_nano"]).state_dict()


def test_every_key_has_a_place_and_no_two_the_same(published: dict[str, Tensor]) -> None:
    assert {our_name(key) for key in published} == set(create_model("hrvit_nano").state_dict())


def test_a_file_loads(tmp_path: Path, published: dict[str, Tensor]) -> None:
    path = tmp_path / "b.pth"
    torch.save({"state_dict": published}, path)
    model = create_model("hrvit_nano")
    report = load_published(model, path)
    assert report.loaded == len(published) and str(report) == f"{len(published)} tensors loaded"
    for key, value in published.items():
        assert torch.equal(model.state_dict()[our_name(key)], value)


def test_a_segmentation_backbone_loads(published: dict[str, Tensor]) -> None:
    """The decoder's keys are said and no reason to refuse; a missing key of the backbone is one."""
    backbone = {f"backbone.{key}": value for key, value in published.items() if not key.startswith("head.")}
    decoder = {"decode_head.conv_seg.weight": torch.zeros(1), "auxiliary_head.convs.0.conv.weight": torch.zeros(1)}
    model = create_model("hrvit_nano", head="none")
    report = load_published(model, {"state_dict": backbone | decoder})
    assert report.missing == () and set(report.unexpected) == set(decoder) and report.loaded == len(backbone)
    del backbone["backbone.stem.conv1.bias"]
    with pytest.raises(ConfigError, match=r"1 missing \(stem.conv1.bias\)"):
        load_published(model, backbone | decoder)
    with pytest.raises(ConfigError, match="holds no state dict"):
        load_published(model, {"state_dict": {"epoch": 3}})


def test_missing_and_unexpected_keys_are_said(published: dict[str, Tensor]) -> None:
    del published["stem.conv1.bias"]
    published["decode_head.conv_seg.weight"] = torch.zeros(1)
    model = create_model("hrvit_nano")
    with pytest.raises(
        ConfigError, match=r"1 missing \(stem.conv1.bias\); 1 unexpected \(decode_head.conv_seg.weight\)"
    ):
        load_published(model, published)
    report = load_published(model, published, strict=False)
    assert report.missing == ("stem.conv1.bias",) and report.unexpected == ("decode_head.conv_seg.weight",)


def test_a_wrong_shape_names_both(published: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match=r"classifier.*shape \(1000, 128\).*\(10, 128\)"):
        load_published(create_model("hrvit_nano", num_classes=10), published)


@pytest.mark.parametrize("content", [b"not a checkpoint", b""])
def test_an_unreadable_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_published(create_model("hrvit_nano"), path)
    assert "\n" not in str(caught.value) and "can't be read" in str(caught.value)
    with pytest.raises(ConfigError, match="not a file"):
        load_published(create_model("hrvit_nano"), tmp_path / "none.pth")


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (witness,)

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match="tensors only"):
        load_published(create_model("hrvit_nano"), tmp_path / "evil.pth")
    assert not witness.exists()
