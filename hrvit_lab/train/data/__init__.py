"""Data sets: images in memory for the short training, and samples read one at a time for all others.

``load_dataset`` and ``ImageData`` are imported on first use (PEP 562), so that look-ups do not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrvit_lab.train.data.memory import ImageData, load_dataset

__all__ = ["ImageData", "load_dataset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.memory"), name)
