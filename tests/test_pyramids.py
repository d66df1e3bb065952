"""MiT and CSWin as presets of the pyramid: exact counts, and MiT's outputs beside the transformers library's."""

import csv
import re
from typing import Any

import pytest
import torch
from reference import DATA, reference_input, reference_tensor
from torch import Tensor

from hrvit_lab import PRESETS, count, create_model
from hrvit_lab.config import HRViTConfig
from hrvit_lab.network.build import build

with open(DATA / "baselines.csv", newline="") as file:
    BASELINES = list(csv.DictReader(file))

PARTS: dict[str, dict[str, Any]] = {
    "backbone": {"head": "none"},
    "segformer head, 150 classes": {"head": "segformer", "num_classes": 150},
    "classifier, 1000 classes": {},
}


@pytest.mark.parametrize("row", BASELINES, ids=lambda row: f"{row['model']} {row['part']} {row['resolution']}")
def test_counts_equal_those_of_the_baselines(row: dict[str, str]) -> None:
    counts = count(PRESETS[row["model"]].replace(**PARTS[row["part"]]), int(row["resolution"]))
    ours = {"params": counts.params, "macs": counts.macs, "macs_padded": counts.macs_padded}
    assert {name: ours[name] for name in ours if row[name]} == {name: int(row[name]) for name in ours if row[name]}


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("hrvit")])
def test_the_network_has_the_counted_parameters(name: str) -> None:
    with torch.device("meta"):
        model = build(PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == count(PRESETS[name]).params


def test_naive_combinations_keep_the_layout_without_hrvits_additions() -> None:
    for name in ("hr_mit_b1", "hr_cswin_b1"):
        config, b1 = PRESETS[name], PRESETS["hrvit_b1"]
        assert (config.depths, config.widths, config.fusion, config.stem, config.head) == (
            b1.depths, b1.widths, b1.fusion, b1.stem, b1.head,
        )  # fmt: skip
        assert (config.patch_embed, config.shortcut) == ("dense", "none")
        assert not (config.parallel_conv or config.attn_activation or config.attn_batch_norm)
        table = count(config).table("part").set_index("part")
        assert not {"des", "shortcut", "parallel convolution"} & set(table.index)


# -- the transformers library -----------------------------------------------------------------------------------------

RENAMES = (
    (r"^segformer\.stages\.0\.patch_embeddings\.proj\.", "stem.conv1."),
    (r"^segformer\.stages\.0\.patch_embeddings\.layer_norm\.", "stem.norm."),
    (r"^segformer\.stages\.(\d)\.patch_embeddings\.proj\.", r"stages.\1.patch_embeds.0.conv."),
    (r"^segformer\.stages\.(\d)\.patch_embeddings\.layer_norm\.", r"stages.\1.patch_embeds.0.norm."),
    (r"^segformer\.stages\.(\d)\.layer_norm\.", r"stages.\1.norms.0."),
    (r"^segformer\.stages\.(\d)\.blocks\.(\d)\.", r"stages.\1.branches.0.\2."),
    (r"\.layernorm_before\.", ".attn_norm."),
    (r"\.layernorm_after\.", ".ffn_norm."),
    (r"\.attention\.q_proj\.", ".attn.mixer.to_q."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".attn.mixer.reduce."),
    (r"\.attention\.sequence_reduction\.layer_norm\.", ".attn.mixer.norm."),
    (r"\.mlp\.dwconv\.dwconv\.", ".ffn.conv."),
    (r"\.mlp\.", ".ffn."),
    (r"^classifier\.", "head.classifier."),
)


def our_state_dict(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the transformers library under our names; key and value projection are one linear here."""
    ours = {}
    for key, tensor in theirs.items():
        if ".v_proj." in key:
            continue
        if ".k_proj." in key:
            tensor = torch.cat((tensor, theirs[key.replace(".k_proj.", ".v_proj.")]))
            key = key.replace(".attention.k_proj.", ".attn.mixer.to_kv.")
        for pattern, replacement in RENAMES:
            key = re.sub(pattern, replacement, key)
        ours[key] = tensor
    return ours


@pytest.mark.parametrize(("name", "size"), [("mit_b0", (224, 224)), ("mit_b1", (96, 160))])
@torch.no_grad()
def test_mit_has_the_outputs_of_the_transformers_library(name: str, size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    config: HRViTConfig = PRESETS[name].replace(num_classes=10)
    theirs = transformers.SegformerForImageClassification(
        transformers.SegformerConfig(hidden_sizes=list(config.widths), num_labels=10)
    ).eval()
    theirs.load_state_dict({key: reference_tensor(key, tuple(v.shape)) for key, v in theirs.state_dict().items()})
    for module in theirs.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = theirs.config.layer_norm_eps  # that library ignores its own setting and uses 1e-5
    ours = create_model(config).eval()
    ours.load_state_dict(our_state_dict(theirs.state_dict()))
    image = reference_input(*size)
    expected = theirs(image, output_hidden_states=True)
    maps = ours.forward_features(image)
    for y, reference in zip(maps, expected.hidden_states[-4:], strict=True):
        assert reference.std() > 0.5
        torch.testing.assert_close(y, reference, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.forward_head(maps), expected.logits, atol=1e-4, rtol=0)
