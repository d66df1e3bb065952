"""Costs of a network: parameters, multiply-accumulates, activations, and the bytes of weights and of memory traffic.

A config is counted in closed form, without building the network. Any other module is counted by one forward pass on
the meta device, operator by operator. An operator with an unknown cost is an error; it is never counted as 0.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrvit_lab.config import HRViTConfig, as_size, own_name, read_config
from hrvit_lab.cost.ledger import Row, ledger, totals
from hrvit_lab.network.baselines import TIMM, NetworkConfig, TimmConfig
from hrvit_lab.parts.ops import Totals, dtype_bytes, sum_costs

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

MIB = 2**20


class UncountedOperator(RuntimeError):
    """An operator was dispatched whose number of multiply-accumulates is unknown."""


GROUPINGS = ("operator", "branch", "stage", "part")


NUMBERS = ("params", "weight_bytes", "macs", "macs_padded", "macs_padding", "activations", "moved_bytes")
"""The columns of numbers in tables of costs."""


@dataclass(frozen=True)
class Counts:
    """Costs of one forward pass of one image.

    Attributes:
        totals: the sums over all rows.
        resolution: (height, width) of the input in pixels.
        counted: the rows, or the config that they are computed from.
    """

    totals: Totals
    resolution: tuple[int, int]
    counted: HRViTConfig | tuple[Row, ...] = field(repr=False)

    @classmethod
    def of_config(cls, config: HRViTConfig, resolution: tuple[int, int]) -> "Counts":
        """Counts in closed form.

        Raises:
            ConfigError: if the input is smaller than the coarsest branch's stride.
        """
        return cls(totals(config, resolution), resolution, config)

    @classmethod
    def of_rows(cls, rows: tuple[Row, ...], resolution: tuple[int, int]) -> "Counts":
        """Counts from the rows of a forward pass."""
        return cls(sum_costs(row.cost for row in rows), resolution, rows)

    def __str__(self) -> str:
        height, width = self.resolution
        return f"{self.params:,} parameters, {self.macs:,} MACs and {self.activations:,} activations, {height}×{width}"

    def __repr__(self) -> str:
        return f"Counts({self})"

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The cost of each operator with its stage and branch. Rows of a config are computed on first use."""
        return ledger(self.counted, self.resolution) if isinstance(self.counted, HRViTConfig) else self.counted

    @property
    def params(self) -> int:
        """Learned parameters, without the running statistics of BatchNorms."""
        return self.totals.params

    @property
    def macs(self) -> int:
        """Exact multiply-accumulates of convolutions, linears and both products of attention. FLOPs are twice that."""
        return self.totals.macs

    @property
    def macs_padded(self) -> int:
        """MACs with attention windows padded to full size, as the published release runs them."""
        return self.totals.macs_padded

    @property
    def macs_padding(self) -> int:
        """MACs that padded windows would add: ``macs_padded - macs``."""
        return self.macs_padded - self.macs

    @property
    def macs_paper(self) -> int:
        """MACs by the paper's convention: convolutions, linears and half of the padded attention products."""
        return self.totals.macs_paper

    @property
    def activations(self) -> int:
        """Elements in the outputs of the counted operators. Attention counts its scores and its output."""
        return self.totals.activations

    def weight_bytes(self, dtype: str = "float32") -> int:
        """Bytes of parameters and floating-point buffers (running statistics).

        Raises:
            ValueError: for an unknown dtype.
        """
        return self.totals.weight_bytes(dtype)

    def moved_bytes(self, batch_size: int = 1, dtype: str = "float32") -> int:
        """Minimum memory traffic of a batch in bytes, as in a roofline; see ``hrvit_lab.parts.ops.Totals.moved_bytes``.

        Raises:
            ValueError: for an unknown dtype.
        """
        return self.totals.moved_bytes(batch_size, dtype)

    @property
    def weight_mib(self) -> float:
        """Weights in MiB, as float32."""
        return self.weight_bytes() / MIB

    @property
    def moved_mib(self) -> float:
        """Memory traffic of one image in MiB, as float32."""
        return self.moved_bytes() / MIB

    def frame(self, dtype: str = "float32") -> "pd.DataFrame":
        """All rows as a table: stage, branch, part, operator, and ``NUMBERS`` for one image, bytes in that dtype.

        Raises:
            ValueError: for an unknown dtype.
        """
        import pandas as pd  # imported here: totals, which a search computes often, do not need it

        return pd.DataFrame(self._records(dtype), columns=["stage", "branch", "part", "operator", *NUMBERS])

    def sums(self, by: str, dtype: str = "float32") -> list[dict[str, Any]]:
        """Sums of ``NUMBERS`` by ``"operator"``, ``"branch"``, ``"stage"`` or ``"part"``, in the network's order.

        Operators without any counted cost (GELU, upsampling, …) are left out.

        Raises:
            ValueError: for another grouping or an unknown dtype.
        """
        if by not in GROUPINGS:
            raise ValueError(f"by = {by!r} is not a grouping; use operator, branch, stage or part")
        groups: dict[Any, dict[str, Any]] = {}
        for record in self._records(dtype):
            group = groups.setdefault(record[by], {by: record[by], **dict.fromkeys(NUMBERS, 0)})
            for name in NUMBERS:
                group[name] += record[name]
        return [group for group in groups.values() if any(group[name] for name in NUMBERS)]

    def table(self, by: str, dtype: str = "float32") -> "pd.DataFrame":
        """``sums`` as a table: a column ``by``, and ``NUMBERS``.

        Raises:
            ValueError: for another grouping or an unknown dtype.
        """
        import pandas as pd

        return pd.DataFrame(self.sums(by, dtype), columns=[by, *NUMBERS])

    def _records(self, dtype: str) -> list[dict[str, Any]]:
        size = dtype_bytes(dtype)
        return [
            {
                "stage": row.stage,
                "branch": row.branch,
                "part": row.cost.part,
                "operator": row.cost.operator,
                "params": row.cost.params,
                "weight_bytes": (row.cost.params + row.cost.buffers) * size,
                "macs": row.cost.macs,
                "macs_padded": row.cost.macs_padded,
                "macs_padding": row.cost.macs_padded - row.cost.macs,
                "activations": row.cost.activations,
                "moved_bytes": (row.cost.moved + row.cost.params) * size,
            }
            for row in self.rows
        ]


def count(model: "nn.Module | NetworkConfig | str | Path", resolution: int | tuple[int, int] = 224) -> Counts:
    """Count parameters, MACs and activations for one image.

    Args:
        model: the name of a preset, a config, a YAML file or an HRViT, counted in closed form; or any module with
            input (1, C, H, W), a `TimmConfig` or its name (``timm:resnet18``), counted by one forward pass on the meta
            device. Masked attention is counted in full.
        resolution: input size in pixels, a side or (height, width).
    Raises:
        ConfigError: for an unknown name, an unreadable file, an object that is not a model, an invalid size, or a
            resolution that the network does not accept.
        UncountedOperator: if the module dispatches an operator with an unknown cost.

    >>> f"{count('hrvit_b1', 224).macs / 1e9:.4f} GMACs"
    '2.7756 GMACs'
    """
    size = as_size(resolution)
    if isinstance(model, str | Path):
        name = own_name(str(model))
        model = TimmConfig(name) if name.startswith(TIMM) else read_config(name)
    if isinstance(model, HRViTConfig):
        return Counts.of_config(model, size)
    from hrvit_lab.cost.dispatch import count_module, count_timm  # imported here: a config is counted without torch

    return count_timm(model, size) if isinstance(model, TimmConfig) else count_module(model, size)
