"""HRViT: stem → (fusion → stage) … → head; or a pyramid without fusions.

Source: arXiv 2111.01236.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.network.blocks import (
    Block,
)
from hrvit_lab.network.blocks.tokens import to_image
from hrvit_lab.network.heads import ClassifierHead


class HRViT(nn.Module):
    """Parallel branches at strides 4, 8, 16, …, fused before every stage; or a sequential pyramid of these strides.

    Args:
        config: the config of the modules below. It is only read; nothing is built from it.
        stem: (B, C_in, H, W) → (B, H/4, W/4, stem_width).
        fusions, stages: equally many; (B, H_i, W_i, C_i) of every branch → tuple of the same.
        head: (B, C_i, H_i, W_i) of every branch → output; None: the model returns these maps.

    Shape: (B, C_in, H, W), sides of at least the coarsest stride → (B, num_classes), or the branches' maps; with a
        segmentation head (B, num_classes, H/4, W/4), rounded up (the size of the finest map).
    """

    def __init__(
        self,
        config: HRViTConfig,
        stem: nn.Module,
        fusions: Iterable[nn.Module],
        stages: Iterable[nn.Module],
        head: nn.Module | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.stem = stem
        self.fusions = nn.ModuleList(fusions)
        self.stages = nn.ModuleList(stages)
        self.head = head
        self.feature_info = [
            {"num_chs": width, "reduction": stride, "module": self._module_of(branch)}
            for branch, (width, stride) in enumerate(zip(config.widths, config.strides, strict=True))
        ]

    def __repr__(self) -> str:
        """A summary in one line, instead of PyTorch's list of 1,000 modules; ``print(model.stages[0])`` lists a
        stage."""
        return f"{type(self).__name__}({self.config!r}, {sum(p.numel() for p in self.parameters()):,} parameters)"

    def _module_of(self, branch: int) -> str:
        if self.config.topology == "pyramid":
            return f"stages.{branch}.norms.0"
        return f"stages.{len(self.stages) - 1}.norms.{branch}"

    @property
    def num_classes(self) -> int:
        """Outputs of the head, 0 without a classifier."""
        return self.config.num_classes if self.head is not None else 0

    @property
    def num_features(self) -> int:
        """Channels of the coarsest branch's map."""
        return self.config.widths[-1]

    @property
    def head_hidden_size(self) -> int:
        """Channels that ``forward_head(…, pre_logits=True)`` returns."""
        return self.head.num_features if self.head is not None else self.num_features  # type: ignore[return-value]

    def forward_features(self, x_BCHW: Tensor) -> tuple[Tensor, ...]:
        """(B, C_in, H, W) → the last stage's maps, (B, C_i, H_i, W_i) finest first, channels last in memory.

        Raises:
            ConfigError: if a side is smaller than the coarsest branch's stride.
        """
        if not (isinstance(x_BCHW, torch.fx.Proxy) or torch.jit.is_tracing()):  # traced graphs contain no checks
            self.config.check_resolution((x_BCHW.shape[-2], x_BCHW.shape[-1]))
        maps: tuple[Tensor, ...] = (self.stem(x_BCHW),)
        for fusion, stage in zip(self.fusions, self.stages, strict=True):
            maps = stage(*(maps if isinstance(fusion, nn.Identity) else fusion(*maps)))
        return tuple(to_image(x_BHWC) for x_BHWC in maps)

    def forward_head(self, maps: Sequence[Tensor], pre_logits: bool = False) -> Any:
        """The branches' maps → (B, num_classes), or (B, head_hidden_size) before the classifier.

        With a segmentation head, both also have the height and width of the finest map; UperNet in training mode
        returns ``(logits, auxiliary logits)``. Without a head, the maps are returned unchanged.
        """
        return maps if self.head is None else self.head(*maps, pre_logits=pre_logits)

    def forward(self, x_BCHW: Tensor) -> Any:
        return self.forward_head(self.forward_features(x_BCHW))

    # -- timm's conventions ---------------------------------------------------------------------------------------

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = True,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps of selected branches (timm's interface).

        Args:
            x: (B, C_in, H, W).
            indices: branches, 0 is the finest; an int n: the last n; None: all.
            norm, stop_early: accepted for compatibility; branches always end in a LayerNorm, and all branches run.
            output_fmt: ``"NCHW"`` or ``"NHWC"``.
            intermediates_only: do not return the final output.
        Returns:
            The selected maps; or ``(all maps, selected maps)``.
        Raises:
            ValueError: for another ``output_fmt``.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt = {output_fmt!r} is not supported; use 'NCHW' or 'NHWC'")
        selected = _selected(indices, len(self.feature_info))
        maps = self.forward_features(x)
        chosen = [maps[i] if output_fmt == "NCHW" else maps[i].permute(0, 2, 3, 1) for i in selected]
        return chosen if intermediates_only else (maps, chosen)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the head. All branches are kept, because they are fused with each other."""
        selected = _selected(indices, len(self.feature_info))
        if prune_head:
            self.head, self.config = None, self.config.replace(head="none")
        return selected

    def get_classifier(self) -> nn.Module:
        """The last linear, or the last convolution of a segmentation head; an identity if there is none."""
        return nn.Identity() if self.head is None else self.head.classifier  # type: ignore[return-value]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last linear by a new one, or the last convolutions of a segmentation head, including the
        auxiliary one.

        The new one has the dtype and device of the old one, or of the other weights if there was none.

        Raises:
            ConfigError: if the model has no head, or ``global_pool`` is not average pooling.
        """
        if self.head is None:
            raise ConfigError("reset_classifier: this model has no head; build it with head='classifier'")
        if global_pool not in (None, "avg"):
            raise ConfigError(f"global_pool = {global_pool!r} is not supported; use 'avg'")
        self.config = self.config.replace(num_classes=num_classes)
        weight = next(chain(self.get_classifier().parameters(), self.parameters()))
        self.head.reset(num_classes)  # type: ignore[operator]
        for name, module in self.head.named_modules():
            if name.rpartition(".")[2] == "classifier":
                module.to(weight.device, weight.dtype, memory_format=torch.channels_last)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute attention, feed-forward networks and the head's bottlenecks in the backward pass."""
        for module in self.modules():
            if isinstance(module, Block | ClassifierHead):
                module.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, in addition to one-dimensional ones: tables of relative positions.

        Modules with such a table have a ``no_weight_decay`` method.
        """
        return {
            f"{path}.{name}"
            for path, module in self.named_modules()
            if module is not self and callable(own := getattr(module, "no_weight_decay", None))
            for name in own()
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of layers for layer-wise learning rates: the stem, then every stage with its fusion."""
        if coarse:
            return {"stem": r"^stem", "blocks": r"^(?:fusions|stages)\.(\d+)"}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^fusions\.(\d+)", (-1,)),
                (r"^stages\.(\d+)\.patch_embeds", (0,)),
                (r"^stages\.(\d+)\.branches\.\d+\.(\d+)", None),
                (r"^stages\.(\d+)\.norms", (99,)),
            ],
        }


def _selected(indices: int | Sequence[int] | None, maps: int) -> list[int]:
    """Indices of the selected maps by timm's rule: all, the last n, or the given ones."""
    from timm.models._features import feature_take_indices  # imported here because it is as slow as torch

    return feature_take_indices(maps, indices if indices is None or isinstance(indices, int) else list(indices))[0]
