"""hrvit_lab: a workbench for building, measuring and understanding HRViT (arXiv 2111.01236) variants.

The public names are imported on first use (PEP 562), so that configs and costs do not import torch. The presets are
registered in timm: ``timm.create_model("hrvit_b1")``.
"""

from hrvit_lab import interrupts

interrupts.expect()  # before anything else is imported

from importlib import import_module  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

import wrapt  # noqa: E402

if TYPE_CHECKING:
    from hrvit_lab.config import (
        PRESETS,
        ConfigError,
        HRViTConfig,
        diff,
        preset,
        scale_depths,
        scale_widths,
        with_branches,
        with_widths,
    )
    from hrvit_lab.cost.count import count
    from hrvit_lab.latency.race import race
    from hrvit_lab.latency.single import measure_latency
    from hrvit_lab.network.build import build, create_model
    from hrvit_lab.network.checkpoints import load_checkpoint, load_published
    from hrvit_lab.network.deploy import deploy
    from hrvit_lab.network.model import HRViT
    from hrvit_lab.network.pack import pack
    from hrvit_lab.study.run import load_results, run_study

_SOURCES = {
    "PRESETS": "config",
    "ConfigError": "config",
    "HRViT": "network.model",
    "HRViTConfig": "config",
    "build": "network.build",
    "count": "cost.count",
    "create_model": "network.build",
    "deploy": "network.deploy",
    "diff": "config",
    "load_checkpoint": "network.checkpoints",
    "load_published": "network.checkpoints",
    "load_results": "study.run",
    "measure_latency": "latency.single",
    "pack": "network.pack",
    "preset": "config",
    "race": "latency.race",
    "run_study": "study.run",
    "scale_depths": "config",
    "scale_widths": "config",
    "with_branches": "config",
    "with_widths": "config",
}
"""The public names with their modules."""

__all__ = [
    "PRESETS",
    "ConfigError",
    "HRViT",
    "HRViTConfig",
    "build",
    "count",
    "create_model",
    "deploy",
    "diff",
    "load_checkpoint",
    "load_published",
    "load_results",
    "measure_latency",
    "pack",
    "preset",
    "race",
    "run_study",
    "scale_depths",
    "scale_widths",
    "with_branches",
    "with_widths",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("hrvit-lab")
        except PackageNotFoundError:  # imported from a checkout that is not installed
            return "0+unknown"
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_SOURCES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


@wrapt.when_imported("timm")
def _register_presets(_: Any) -> None:
    import_module(f"{__name__}.network.timm_models")
