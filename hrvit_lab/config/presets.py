"""Named networks as fields of a config. Other fields have their defaults, which are those of the published b1.

Sources: HRViT, arXiv 2111.01236; MiT (SegFormer), arXiv 2105.15203; CSWin, arXiv 2107.00652.
"""

from pathlib import Path
from typing import Any

from hrvit_lab.config.schema import HRViTConfig
from hrvit_lab.config.shipped import shipped
from hrvit_lab.config.text import shortened
from hrvit_lab.config.yaml_text import read_text, read_yaml
from hrvit_lab.errors import ConfigError, suggest

Fields = dict[str, Any]

_B3_DEPTHS = ((1,), (1, 1), (1, 1, 6), (1, 1, 6), (1, 1, 6, 3), (1, 1, 6, 3))
_B2_DEPTHS = ((1,), (1, 1), (1, 1, 6), (1, 1, 6), (1, 1, 6, 2), (1, 1, 6, 2))
_SMALL_DEPTHS = ((1,), (1, 1), (1, 1, 1), (1, 1, 2), (1, 1, 2, 1), (1, 1, 1, 1))

_HRVIT: dict[str, Fields] = {
    "hrvit_b1": {},
    "hrvit_b2": {
        "depths": _B2_DEPTHS, "widths": (48, 96, 240, 384), "head_dims": 24, "mlp_ratios": (2, 3, 3, 3),
    },
    "hrvit_b3": {
        "depths": _B3_DEPTHS, "widths": (64, 128, 256, 512), "mlp_ratios": 2, "segformer_width": 768,
    },
    # Ours: the same topology, small enough to train on a laptop's CPU.
    "hrvit_nano": {
        "depths": _SMALL_DEPTHS, "widths": (8, 16, 32, 64), "head_dims": 8, "window_sizes": (1, 2, 4, 4),
        "mlp_ratios": 2, "stem_width": 16, "head_widths": (4, 8, 16, 32), "head_features": 128,
    },
    "hrvit_micro": {
        "depths": _SMALL_DEPTHS, "widths": (16, 32, 64, 128), "head_dims": 16, "window_sizes": (1, 2, 7, 7),
        "mlp_ratios": 3, "stem_width": 32, "head_widths": (8, 16, 32, 64), "head_features": 512,
    },
}  # fmt: skip

_PLAIN: Fields = {
    "parallel_conv": False, "attn_activation": False, "attn_batch_norm": False,
    "shortcut": "none", "patch_embed": "dense",
}  # fmt: skip
"""A block without the additions of HRViT."""
_MIT: Fields = {**_PLAIN, "attention": "spatial_reduction", "ffn": "mixffn", "window_sizes": (8, 4, 2, 1)}
_CSWIN: Fields = {**_PLAIN, "attention": "cswin", "ffn": "mlp"}
_WHOLE_MAP = 1024
"""A stripe at least as wide as any map: the last stage of CSWin attends globally."""


def _mit(depths: tuple[int, ...], widths: tuple[int, ...], head_dims: tuple[int, ...], segformer_width: int) -> Fields:
    return {
        **_MIT, "topology": "pyramid", "depths": (depths,), "widths": widths, "head_dims": head_dims,
        "stem": "conv7", "stem_width": widths[0], "norm_eps": 1e-6, "head": "pool", "segformer_width": segformer_width,
    }  # fmt: skip


def _cswin(width: int, depths: tuple[int, ...], head_dim: int) -> Fields:
    return {
        **_CSWIN, "topology": "pyramid", "depths": (depths,), "widths": tuple(width * 2**i for i in range(4)),
        "head_dims": head_dim, "window_sizes": (1, 2, 7, _WHOLE_MAP), "branch_norm": False,
        "stem": "conv7_cswin", "stem_width": width, "head": "norm_pool",
    }  # fmt: skip


_LARGE_MIT = (64, 128, 320, 512), (64, 64, 64, 64)

_NAMED: dict[str, Fields] = {
    **_HRVIT,
    "mit_b0": _mit((2, 2, 2, 2), (32, 64, 160, 256), (32, 32, 32, 32), 256),
    "mit_b1": _mit((2, 2, 2, 2), *_LARGE_MIT, 256),
    "mit_b2": _mit((3, 4, 6, 3), *_LARGE_MIT, 768),
    "mit_b3": _mit((3, 4, 18, 3), *_LARGE_MIT, 768),
    "mit_b4": _mit((3, 8, 27, 3), *_LARGE_MIT, 768),
    "mit_b5": _mit((3, 6, 40, 3), *_LARGE_MIT, 768),
    "cswin_tiny": _cswin(64, (1, 2, 21, 1), 32),
    "cswin_small": _cswin(64, (2, 4, 32, 2), 32),
    "cswin_base": _cswin(96, (2, 4, 32, 2), 24),
    # The paper's naive combinations: b1's layout, stem, fusions and head with the blocks of other networks.
    "hr_mit_b1": _MIT,
    "hr_cswin_b1": {**_CSWIN, "window_sizes": (1, 2, 7, 7)},
}
"""Fields by name. Pyramids have the classifiers of their publications."""


def _segmenter(backbone: str, head: str, dataset: str) -> Fields:
    fields = _NAMED[backbone] | {
        "head": head,
        "drop_rate": 0.1,
        "num_classes": {"ade20k": 150, "cityscapes": 19}[dataset],
    }
    # For Cityscapes the paper's b3 has other windows. (Its published FLOPs are those of 1, 2, 7, 7.)
    return fields | {"window_sizes": (1, 2, 3, 9)} if (backbone, dataset) == ("hrvit_b3", "cityscapes") else fields


_SEGMENTERS: dict[str, Fields] = {
    f"{backbone}_{head}_{dataset}": _segmenter(backbone, head, dataset)
    for head, dataset in (("segformer", "ade20k"), ("upernet", "ade20k"), ("segformer", "cityscapes"))
    for backbone in ("hrvit_b1", "hrvit_b2", "hrvit_b3")
}
"""HRViTs with the decoders and classes of their published segmentation results."""


PRESETS: dict[str, HRViTConfig] = {name: HRViTConfig(name=name, **fields) for name, fields in _NAMED.items()}
"""Published networks (HRViT b1 to b3, MiT b0 to b5, CSWin), two of ours for a CPU (nano, micro), and HRViT b1's layout
with the blocks of MiT and CSWin."""


SEGMENTERS: dict[str, HRViTConfig] = {name: HRViTConfig(name=name, **fields) for name, fields in _SEGMENTERS.items()}
"""The published networks with the decoders and classes of their segmentation results (arXiv 2111.01236): dropout 0.1
before the classifier, logits at a quarter of the image's height and width. ``preset`` accepts their names, too."""


def preset(name: str) -> HRViTConfig:
    """The config of a preset in ``PRESETS`` or ``SEGMENTERS``, or of a trained network that ships with the package.

    Raises:
        ConfigError: if there is no such preset; suggests similar names.
    """
    trained = shipped().get(name) if isinstance(name, str) else None
    base = trained.architecture if trained else name
    found = (PRESETS | SEGMENTERS).get(base) if isinstance(base, str) else None
    if found is None:
        raise ConfigError(f"unknown preset {shortened(name)}; {suggest(name, preset_names())}")
    return found.replace(name=name, num_classes=len(trained.classes), **trained.changes) if trained else found


def preset_names() -> list[str]:
    """All names that ``preset`` accepts."""
    return [*PRESETS, *SEGMENTERS, *shipped()]


def own_name(model: str) -> str:
    """The name without the prefix ``timm:``, if it is a network of this package; else unchanged.

    >>> own_name("timm:hrvit_b1"), own_name("timm:resnet18")
    ('hrvit_b1', 'timm:resnet18')
    """
    name = model.removeprefix("timm:")
    return name if name.partition(".")[0] in PRESETS | SEGMENTERS else model


def read_config(model: str | Path) -> HRViTConfig:
    """The config of a preset, or of a YAML file (a path that ends in .yaml or .yml).

    Raises:
        ConfigError: for an unknown preset, or a file that cannot be read or contains no valid config.
    """
    model = own_name(str(model))
    if model.startswith("timm:"):
        raise ConfigError(
            f"{shortened(model)} is a timm model and has no HRViT config; use hrvit_lab.count, hrvit-lab latency "
            "or a study"
        )
    path = Path(model)
    if not path.name.endswith((".yaml", ".yml")):
        return preset(model)
    values = read_yaml(read_text(path, "the config"), str(path))
    try:
        return HRViTConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
