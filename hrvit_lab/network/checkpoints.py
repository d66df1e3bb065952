"""Loading checkpoints in the published layout (arXiv 2111.01236's release) into our modules.

The published names say where a tensor belongs; this page is the dictionary.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrvit_lab.config import ConfigError
from hrvit_lab.network.model import HRViT

MAX_CHECKPOINT_BYTES = 8 * 1024**3
BACKBONE = "backbone."
DECODER = ("decode_head.", "auxiliary_head.")
"""What a segmentation checkpoint writes before the keys of the network without its head, and of its heads."""

RENAMES: tuple[tuple[str, str], ...] = (
    (r"^features\.(\d*[02468])\.blocks\.", r"fusions.\1.paths."),
    (r"^features\.(\d*[13579])\.", r"stages.\1."),
    (r"\.patch_embed\.(\d+)\.proj\.0\.", r".patch_embeds.\1.pointwise."),
    (r"\.patch_embed\.(\d+)\.proj\.1\.", r".patch_embeds.\1.depthwise."),
    (r"\.patch_embed\.(\d+)\.norm\.", r".patch_embeds.\1.norm."),
    (r"^(stages\.\d+)\.norm\.", r"\1.norms."),
    (r"\.attn\.to_qkv\.", ".attn.mixer.to_qv."),
    (r"\.attn\.to_out\.0\.", ".attn.proj."),
    (r"\.attn\.attn_bn\.", ".attn.norm."),
    (r"\.attn\.parallel_conv\.1\.", ".attn.parallel_conv."),
    (r"\.des\.proj_(right|left)\.", r".shortcut.\1."),
    (r"\.ffn\.conv\.conv_(\d)\.", r".ffn.conv\1."),
)
HEAD_RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "classifier": (
        (r"^head\.incre_modules\.(\d+)\.0\.downsample\.", r"head.bottlenecks.\1.shortcut."),
        (r"^head\.incre_modules\.(\d+)\.0\.", r"head.bottlenecks.\1."),
        (r"^head\.downsamp_modules\.", "head.downsamples."),
        (r"^head\.final_layer\.", "head.features."),
        (r"^head\.classifier\.", "head.classifier."),
    ),
    "segformer": (
        (r"^decode_head\.convs\.(\d+)\.conv\.", r"head.projections.\1."),
        (r"^decode_head\.fusion_conv\.", "head.fuse."),
        (r"^decode_head\.conv_seg\.", "head.classifier."),
    ),
    "upernet": (
        (r"^decode_head\.psp_modules\.(\d+)\.1\.", r"head.top.projections.\1."),
        (r"^decode_head\.bottleneck\.", "head.top.fuse."),
        (r"^decode_head\.lateral_convs\.", "head.laterals."),
        (r"^decode_head\.fpn_convs\.", "head.outputs."),
        (r"^decode_head\.fpn_bottleneck\.", "head.fuse."),
        (r"^decode_head\.conv_seg\.", "head.classifier."),
        (r"^auxiliary_head\.convs\.0\.", "head.auxiliary.conv."),
        (r"^auxiliary_head\.conv_seg\.", "head.auxiliary.classifier."),
    ),
}
"""By our heads that have a published layout: the release's classifier, and mmsegmentation's decoders."""


class LoadReport(NamedTuple):
    """What ``load_published`` did: keys loaded, missing from the checkpoint (ours), unexpected in it (theirs)."""

    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.loaded} tensors loaded"]
        for what, keys in (("missing", self.missing), ("unexpected", self.unexpected)):
            if keys:
                parts.append(f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})")
        return "; ".join(parts)


def our_name(published: str, head: str = "classifier") -> str | None:
    """Our name of a published key; None for a key of another head than the model's ``head``.

    >>> our_name("features.3.branches.1.0.attn.to_qkv.weight")
    'stages.1.branches.1.0.attn.mixer.to_qv.weight'
    >>> our_name("decode_head.fusion_conv.bn.bias", "segformer")
    'head.fuse.bn.bias'
    """
    name = published.removeprefix(BACKBONE)
    if name.startswith(("head.", *DECODER)):
        renames = HEAD_RENAMES.get(head, ())
        return next((re.sub(old, new, name) for old, new in renames if re.match(old, name)), None)
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    # The release numbers fusions and stages in one list: fusion s is 2s, stage s is 2s + 1.
    return re.sub(r"^(fusions|stages)\.(\d+)", lambda match: f"{match[1]}.{int(match[2]) // 2}", name)


def load_published(model: HRViT, checkpoint: str | Path | Mapping[str, Any], *, strict: bool = True) -> LoadReport:
    """Load a checkpoint of the published layout: classification, or mmsegmentation's (``backbone.``, ``decode_head.``).

    Args:
        model: built with the checkpoint's config.
        checkpoint: a path (read with ``weights_only``, at most 8 GiB), or a state dict; either may hold the state dict
            under ``state_dict`` or ``model``.
        strict: refuse a checkpoint with missing or unexpected keys; else load what fits. A decoder is asked for by a
            model with a segmentation head alone: for others its keys are unexpected, but no reason to refuse.
    Returns:
        What was loaded, missing and unexpected.
    Raises:
        ConfigError: for a file that can't be read, a shape that differs, or, if strict, keys that don't match.
    """
    content = _read(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    published = _state_dict(content, checkpoint if isinstance(checkpoint, str | Path) else "given")
    segmentation = any(key.startswith(BACKBONE) for key in published)
    head = model.config.head
    ours = model.state_dict()
    found: dict[str, Tensor] = {}
    unexpected = []
    for key, tensor in published.items():
        name = our_name(key, head)
        if name not in ours or (segmentation and not key.startswith((BACKBONE, *DECODER))):
            unexpected.append(key)
            continue
        if tensor.shape != ours[name].shape:
            raise ConfigError(
                f"checkpoint key {key!r} has shape {tuple(tensor.shape)} but the model's {name!r} has "
                f"{tuple(ours[name].shape)}; build the model with the checkpoint's widths, depths and num_classes"
            )
        found[name] = tensor
    missing = [name for name in ours if name not in found]
    report = LoadReport(len(found), tuple(missing), tuple(unexpected))
    decoder_wanted = not segmentation or head in ("segformer", "upernet")
    if strict and (missing or any(decoder_wanted or key.startswith(BACKBONE) for key in unexpected)):
        raise ConfigError(
            f"the checkpoint does not fit {model.config.name or 'the model'}: {report}; strict=False loads what fits"
        )
    model.load_state_dict(found, strict=False)
    return report


def _state_dict(content: Any, where: object) -> dict[str, Tensor]:
    """The state dict itself, out of the mapping that it may be wrapped in."""
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(f"checkpoint {where} holds no state dict; save one with torch.save(model.state_dict(), …)")
    return dict(content)


def _read(path: str | Path) -> Any:
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"checkpoint {path} is not a file; give the path of a PyTorch checkpoint")
    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise ConfigError(f"checkpoint {path} is larger than {MAX_CHECKPOINT_BYTES // 1024**3} GiB; give weights only")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint of tensors
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"checkpoint {path} can't be read as tensors only ({first_line[:120]}); save a state dict"
        ) from None
