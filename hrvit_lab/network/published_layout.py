"""Names of tensors in the published layouts: the release of arXiv 2111.01236, and mmsegmentation."""

import re

BACKBONE = "backbone."
DECODER = ("decode_head.", "auxiliary_head.")
"""Prefixes in segmentation checkpoints: of the backbone and of the heads."""

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
"""Renamings by head, for heads with a published layout: the release's classifier, mmsegmentation's decoders."""


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
