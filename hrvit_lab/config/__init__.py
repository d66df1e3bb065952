"""The configuration of a variant: frozen, validated, hashable, with presets and pure transforms.

A config says what network is built and nothing about how it is trained or measured.
"""

from hrvit_lab.config.check_field import check_field
from hrvit_lab.config.fields import FINEST_STRIDE, MAX_BRANCHES, MAX_RATIO, PER_BRANCH, TABLES
from hrvit_lab.config.presets import PRESETS, SEGMENTERS, own_name, preset, preset_names, read_config
from hrvit_lab.config.schema import HRViTConfig, as_size, diff, nearest
from hrvit_lab.config.shipped import shipped
from hrvit_lab.config.text import SCALINGS, remedy
from hrvit_lab.config.transforms import (
    scale_depths,
    scale_widths,
    valid_widths,
    with_branches,
    with_stages,
    with_topology,
    with_widths,
)
from hrvit_lab.config.yaml_text import read_json, read_text, read_yaml, write_yaml
from hrvit_lab.errors import ConfigError, suggest

__all__ = [
    "FINEST_STRIDE", "MAX_BRANCHES", "MAX_RATIO", "PER_BRANCH", "PRESETS", "SCALINGS", "SEGMENTERS", "TABLES",
    "ConfigError", "HRViTConfig", "as_size", "check_field", "diff", "nearest", "own_name", "preset", "preset_names",
    "read_config", "read_json", "read_text", "read_yaml", "remedy", "scale_depths", "scale_widths", "shipped",
    "suggest", "valid_widths", "with_branches", "with_stages", "with_topology", "with_widths", "write_yaml",
]  # fmt: skip
