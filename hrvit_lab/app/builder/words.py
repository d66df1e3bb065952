"""Names and explanations of the fields, as the page shows them."""

from collections.abc import Mapping
from typing import NamedTuple

from hrvit_lab.config import TABLES
from hrvit_lab.config.repair import Change


class Words(NamedTuple):
    """What a field is called, and one sentence about it."""

    label: str
    help: str


WORDS: Mapping[str, Words] = {
    "name": Words("Name", "A label. It does not change the network."),
    "topology": Words("Topology", "How branches are arranged. A change converts the depths."),
    "depths": Words("Blocks", "Number of blocks. A branch continues in all later stages."),
    "attention": Words("Attention", "How tokens of a branch attend to each other."),
    "ffn": Words("FFN", "The feed-forward network of every block."),
    "widths": Words("Width", "Channels of the branch."),
    "head_dims": Words("Head dim", "Channels of one attention head."),
    "window_sizes": Words("Window", "In tokens: width of a stripe, side of a window, or side of a merged patch."),
    "mlp_ratios": Words(
        "Ratio", "FFN ratio: hidden width of the feed-forward network divided by the width of the branch."
    ),
    "head_widths": Words("Neck", "Inner width of the classifier's bottleneck on this branch."),
    "shortcut": Words("Shortcut", "A path parallel to the attention of every block."),
    "patch_embed": Words("Patch embedding", "The convolution at the start of a branch in every stage."),
    "fusion": Words("Fusion", "Which branches feed which ones before a stage."),
    "upsample": Words("Upsampling", "Interpolation from coarser to finer branches in fusions."),
    "stem": Words("Stem", "The first convolutions, to a quarter of the image's height and width."),
    "head": Words("Head", "What is computed from the last maps."),
    "parallel_conv": Words("Convolution beside attention", "A depthwise convolution of the values."),
    "attn_activation": Words("Hardswish before attention's output", "Before the output projection."),
    "attn_batch_norm": Words("BatchNorm after attention", "Its scale is initialized to zero."),
    "branch_norm": Words("LayerNorm after every branch", "At the end of every branch of a stage."),
    "stem_width": Words("Stem width", "Output channels of the stem. In a pyramid, the first scale is equally wide."),
    "in_chans": Words("Input channels", "3 for color images."),
    "num_classes": Words("Classes", "Outputs of the head. 0: no classifier."),
    "head_features": Words("Head features", "Channels before the classifier."),
    "segformer_width": Words("SegFormer width", "Channels of the SegFormer head."),
    "upernet_width": Words("UperNet width", "Channels of the UperNet head."),
    "norm_eps": Words("LayerNorm epsilon", "Added to the variance."),
    "drop_rate": Words("Dropout", "Before the classifier."),
    "proj_drop_rate": Words("Dropout of attention", "After the output projection."),
    "drop_path_rate": Words("Stochastic depth", "Of the last block; it grows linearly from 0 at the first."),
    "grad_checkpointing": Words("Gradient checkpointing", "Less memory in training, more computation."),
}

TOPOLOGIES = {
    "parallel": "branches side by side, fused before every stage",
    "pyramid": "one scale after another",
}


def option(field: str, name: str) -> str:
    """A variant's name and what it is, for a menu.

    >>> option("stem", "two_conv"), option("upsample", "nearest")
    ('two_conv – two 3×3 of stride 2', 'nearest')
    """
    label = TABLES[field][name].label if field in TABLES else TOPOLOGIES.get(name, name)
    return name if label == name else f"{name} – {label}"


def about(change: Change) -> str:
    """The text of a button that makes a change.

    >>> about(Change("widths", (2,), 128)), about(Change("stem_width", (), 64))
    ('Width of branch 2: 128', 'Stem width: 64')
    """
    if change.field == "resolution":
        return "Input: {} × {} px".format(*change.value)
    label = WORDS[change.field].label
    if change.field == "depths":
        if change.place:
            stage, branch = change.place
            return f"Blocks of branch {branch} in stage {stage}: {change.value}"
        return "Depths: " + " | ".join(", ".join(map(str, stage)) for stage in change.value)
    value = f"{change.value:g}" if isinstance(change.value, float) else str(change.value)
    return f"{label} of branch {change.place[0]}: {value}" if change.place else f"{label}: {value}"
