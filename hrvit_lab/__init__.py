"""hrvit_lab: a workbench for building, measuring and understanding HRViT (arXiv 2111.01236) variants.

The public surface; everything else is importable from its module. Importing the package registers the presets
with timm.
"""

from importlib.metadata import PackageNotFoundError, version

from hrvit_lab import timm_models
from hrvit_lab.checkpoints import load_published
from hrvit_lab.config import PRESETS, ConfigError, HRViTConfig, diff, preset
from hrvit_lab.measure.count import count
from hrvit_lab.measure.latency import measure_latency
from hrvit_lab.model import HRViT, build, create_model

try:
    __version__ = version("hrvit-lab")
except PackageNotFoundError:  # imported from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = [
    "PRESETS",
    "ConfigError",
    "HRViT",
    "HRViTConfig",
    "build",
    "count",
    "create_model",
    "diff",
    "load_published",
    "measure_latency",
    "preset",
    "timm_models",
]
