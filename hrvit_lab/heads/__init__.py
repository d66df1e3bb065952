"""Heads: from the maps of all branches to an answer, and the table that names them."""

from collections.abc import Callable, Sequence

from torch import nn

from hrvit_lab.heads.classifier import ClassifierHead

HEAD: dict[str, Callable[[Sequence[int], Sequence[int], int, int, float], nn.Module] | None] = {
    "classifier": ClassifierHead,
    "none": None,
}
"""``(dims, head_widths, head_features, num_classes, drop_rate)`` → head; None leaves the branches' maps."""

__all__ = ["HEAD", "ClassifierHead"]
