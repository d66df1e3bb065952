"""Checkpoints of the published layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from naive import NaiveHRViT
from torch import Tensor

from hrvit_lab import PRESETS, ConfigError, create_model, load_published
from hrvit_lab.network.blocks.mixcfn import cut_in_halves
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.published_layout import our_name


@pytest.fixture
def published() -> dict[str, Tensor]:
    return NaiveHRViT(PRESETS["hrvit_nano"]).state_dict()


def test_every_published_key_has_a_distinct_place(published: dict[str, Tensor]) -> None:
    names = [our_name(key) for key in cut_in_halves(published)]
    assert set(names) == set(create_model("hrvit_nano").state_dict()) and len(names) == len(set(names))


@pytest.mark.parametrize("conv", ["conv.conv_", "conv"])
def test_an_unsplit_mixcfn_is_split_into_halves(conv: str) -> None:
    """As in published checkpoints and in our own from before the halves were modules: the first half of the hidden
    channels has the smaller kernel. Other parts with the same names are unchanged."""
    kinds = {"fc1.weight": (6, 2), "fc1.bias": (6,), "fc2.weight": (2, 6), "fc2.bias": (2,)}
    whole = {f"a.ffn.{kind}": torch.randn(shape) for kind, shape in kinds.items()}
    whole |= {f"a.ffn.{conv}{kernel}.weight": torch.randn(3, 1, kernel, kernel) for kernel in (5, 3)}
    others = {
        "stem.conv1.bias": torch.ones(1), "stem.conv2.bias": torch.ones(1), "b.ffn.fc1.weight": torch.ones(2, 2),
        "c.ffn.conv1.weight": torch.ones(1), "c.ffn.conv2.weight": torch.ones(1), "c.ffn.conv3.weight": torch.ones(1),
        "a.ffn.fc3.bias": torch.ones(2),
    }  # fmt: skip
    cut = cut_in_halves(whole | others)
    assert {key: cut.pop(key) for key in others} == others
    expected = {
        "half3.fc1.weight": whole["a.ffn.fc1.weight"][:3], "half5.fc1.weight": whole["a.ffn.fc1.weight"][3:],
        "half3.fc1.bias": whole["a.ffn.fc1.bias"][:3], "half5.fc1.bias": whole["a.ffn.fc1.bias"][3:],
        "half3.fc2.weight": whole["a.ffn.fc2.weight"][:, :3], "half5.fc2.weight": whole["a.ffn.fc2.weight"][:, 3:],
        "half3.fc2.bias": whole["a.ffn.fc2.bias"],
        "half3.conv.weight": whole[f"a.ffn.{conv}3.weight"], "half5.conv.weight": whole[f"a.ffn.{conv}5.weight"],
    }  # fmt: skip
    assert cut.keys() == {f"a.ffn.{name}" for name in expected}
    assert all(torch.equal(cut[f"a.ffn.{name}"], tensor) for name, tensor in expected.items())


def test_tensors_of_other_shapes_are_not_split() -> None:
    convs = {"a.ffn.conv3.bias": torch.ones(1), "a.ffn.conv5.bias": torch.ones(1)}
    for odd in (torch.tensor(1.0), torch.ones(4), torch.ones(4, 4).to_sparse()):
        assert "a.ffn.fc2.weight" in cut_in_halves({"a.ffn.fc2.weight": odd, **convs})


def test_a_file_loads(tmp_path: Path, published: dict[str, Tensor]) -> None:
    path = tmp_path / "b.pth"
    torch.save({"state_dict": published}, path)
    model = create_model("hrvit_nano")
    report = load_published(model, path)
    published = cut_in_halves(published)
    assert report.loaded == len(published) and str(report) == f"{len(published)} tensors loaded"
    loaded = model.state_dict()
    for key, value in published.items():
        assert torch.equal(loaded[str(our_name(key))], value)


def test_a_segmentation_backbone_loads(published: dict[str, Tensor]) -> None:
    """Keys of the decoder are reported but accepted; a missing key of the backbone is an error."""
    backbone = {f"backbone.{key}": value for key, value in published.items() if not key.startswith("head.")}
    decoder = {"decode_head.conv_seg.weight": torch.zeros(1), "auxiliary_head.convs.0.conv.weight": torch.zeros(1)}
    model = create_model("hrvit_nano", head="none")
    report = load_published(model, {"state_dict": backbone | decoder})
    assert report.missing == () and set(report.unexpected) == set(decoder)
    assert report.loaded == len(cut_in_halves(backbone))
    del backbone["backbone.stem.conv1.bias"]
    with pytest.raises(ConfigError, match=r"1 missing \(stem.conv1.bias\)"):
        load_published(model, backbone | decoder)
    with pytest.raises(ConfigError, match="contains no state dict"):
        load_published(model, {"state_dict": {"epoch": 3}})


def decoder_names(head: str, branches: int) -> list[str]:
    """mmsegmentation's names for a decoder; a name that ends in a dot is short for a convolution and its BatchNorm."""
    names = {
        "segformer": [
            *(f"decode_head.convs.{i}.conv.{kind}" for i in range(branches) for kind in ("weight", "bias")),
            "decode_head.fusion_conv.", "decode_head.conv_seg.weight", "decode_head.conv_seg.bias",
        ],
        "upernet": [
            *(f"decode_head.psp_modules.{i}.1." for i in range(4)), "decode_head.bottleneck.",
            *(f"decode_head.{convs}.{i}." for convs in ("lateral_convs", "fpn_convs") for i in range(branches - 1)),
            "decode_head.fpn_bottleneck.", "decode_head.conv_seg.weight", "decode_head.conv_seg.bias",
            "auxiliary_head.convs.0.", "auxiliary_head.conv_seg.weight", "auxiliary_head.conv_seg.bias",
        ],
    }  # fmt: skip
    return names[head]


CONV_NORM = (
    "conv.weight",
    *(f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
)


def decoder_keys(head: str, branches: int = 4) -> list[str]:
    names = decoder_names(head, branches)
    return [key + end for key in names for end in (CONV_NORM if key.endswith(".") else ("",))]


def segmentation_checkpoint(head: str, backbone: dict[str, Tensor]) -> dict[str, Tensor]:
    """`backbone` and a random decoder, under mmsegmentation's names."""
    shapes = {key: value.shape for key, value in small_segmenter(head).state_dict().items()}
    decoder = {key: torch.rand(shapes[name]) for key in decoder_keys(head) if (name := our_name(key, head))}
    return {f"backbone.{key}": value for key, value in backbone.items() if not key.startswith("head.")} | decoder


def small_segmenter(head: str, **changes: Any) -> HRViT:
    small: dict[str, Any] = {"num_classes": 7, "segformer_width": 12, "upernet_width": 12}
    return create_model("hrvit_nano", head=head, **small | changes)


@pytest.mark.parametrize("head", ["segformer", "upernet"])
def test_decoders_of_mmsegmentation_load(head: str, published: dict[str, Tensor]) -> None:
    model = small_segmenter(head)
    wanted = {name for name in model.state_dict() if name.startswith("head.")}
    names = [our_name(key, head) for key in decoder_keys(head)]
    assert set(names) == wanted and len(names) == len(wanted)
    checkpoint = segmentation_checkpoint(head, published)
    report = load_published(model, {"state_dict": checkpoint})
    assert (report.loaded, report.missing, report.unexpected) == (len(cut_in_halves(checkpoint)), (), ())
    for key, name in zip(decoder_keys(head), names, strict=True):
        assert name is not None
        torch.testing.assert_close(model.state_dict()[name], checkpoint[key].to(model.state_dict()[name].dtype))


def test_a_decoder_of_another_kind_is_refused(published: dict[str, Tensor]) -> None:
    checkpoint = segmentation_checkpoint("upernet", published)
    model = small_segmenter("segformer")
    with pytest.raises(ConfigError, match=r"missing \(head\.projections\.0.*unexpected \(decode_head\.psp_modules"):
        load_published(model, checkpoint)
    del checkpoint["auxiliary_head.conv_seg.weight"]
    with pytest.raises(ConfigError, match=r"1 missing \(head\.auxiliary\.classifier\.weight\);"):
        load_published(small_segmenter("upernet"), checkpoint)
    with pytest.raises(ConfigError, match=r"'decode_head\.conv_seg\.weight' has shape \(7, 12, 1, 1\).*num_classes"):
        load_published(small_segmenter("upernet", num_classes=19), checkpoint)


@pytest.mark.parametrize("head", ["segformer", "upernet", "pool", "norm_pool", "none"])
def test_models_with_other_heads_load_the_backbone_of_a_classification_checkpoint(
    head: str, published: dict[str, Tensor]
) -> None:
    """The name of its classifier is also that of other heads, with another shape."""
    model = small_segmenter(head)
    report = load_published(model, published, strict=False)
    assert all(key.startswith("head.") for key in (*report.missing, *report.unexpected))
    assert "head.classifier.weight" in report.unexpected
    assert torch.equal(model.state_dict()["stem.conv1.weight"], published["stem.conv1.weight"])


def test_missing_and_unexpected_keys_are_reported(published: dict[str, Tensor]) -> None:
    del published["stem.conv1.bias"]
    published["decode_head.conv_seg.weight"] = torch.zeros(1)
    model = create_model("hrvit_nano")
    with pytest.raises(
        ConfigError, match=r"1 missing \(stem.conv1.bias\); 1 unexpected \(decode_head.conv_seg.weight\)"
    ):
        load_published(model, published)
    report = load_published(model, published, strict=False)
    assert report.missing == ("stem.conv1.bias",) and report.unexpected == ("decode_head.conv_seg.weight",)


def test_an_error_about_a_wrong_shape_names_both_shapes(published: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match=r"classifier.*shape \(1000, 128\).*\(10, 128\)"):
        load_published(create_model("hrvit_nano", num_classes=10), published)


@pytest.mark.parametrize("content", [b"not a checkpoint", b""])
def test_an_unreadable_file_is_reported_in_one_sentence(tmp_path: Path, content: bytes) -> None:
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
    with pytest.raises(ConfigError, match="only tensors are loaded"):
        load_published(create_model("hrvit_nano"), tmp_path / "evil.pth")
    assert not witness.exists()
