"""The settings of a config that the network depends on."""

from typing import TYPE_CHECKING, Any

from hrvit_lab.parts import ATTENTION, FFNS, HEAD

if TYPE_CHECKING:
    from hrvit_lab.config.schema import HRViTConfig


def identity(config: "HRViTConfig") -> dict[str, Any]:
    """The settings that the built network depends on; unused settings are left out."""
    branches = [
        [
            width,
            config.attention[b],
            ATTENTION[config.attention[b]].identity(width, config.head_dims[b], config.window_sizes[b]),
            config.ffn[b],
            FFNS[config.ffn[b]].identity(width, config.mlp_ratios[b]),
        ]
        for b, width in enumerate(config.widths)
    ]
    head = HEAD[config.head].identity(config.head_widths, config.head_channels, config.num_classes, config.drop_rate)
    several_blocks = sum(map(len, config.drop_path_rates)) > 1
    fused = config.num_branches > 1 and config.topology == "parallel"
    return {
        "topology": config.topology,
        "depths": config.depths,
        "branches": branches,
        "augmented": [config.parallel_conv, config.attn_activation, config.attn_batch_norm],
        "shortcut": config.shortcut,
        "patch_embed": None if config.topology == "pyramid" and config.num_branches == 1 else config.patch_embed,
        "fusion": [config.fusion, config.upsample] if fused else None,
        "norms": [config.branch_norm, config.norm_eps],
        "stem": [config.stem, config.stem_width, config.in_chans],
        "head": [config.head, head],
        "proj_drop_rate": config.proj_drop_rate,
        "drop_path_rate": config.drop_path_rate if several_blocks else 0.0,
        "grad_checkpointing": config.grad_checkpointing,
    }
