"""What a network costs: parameters, multiply-accumulates, activations, and the bytes that they occupy and move.

A config is counted in closed form (``hrvit_lab.cost``), without building anything. Any other module is counted by
running it once on the meta device and counting each operator it dispatches; an operator of unknown cost is an error,
never a silent 0.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrvit_lab.config import HRViTConfig, as_size, read_config
from hrvit_lab.cost.ledger import Row, ledger
from hrvit_lab.network.baselines import TIMM, NetworkConfig, TimmConfig
from hrvit_lab.parts.ops import Totals, dtype_bytes, sum_costs

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

MIB = 2**20


class UncountedOperator(RuntimeError):
    """An operator ran whose multiply-accumulates nobody defined."""


GROUPINGS = ("operator", "branch", "stage", "part")


NUMBERS = ("params", "weight_bytes", "macs", "macs_padded", "macs_padding", "activations", "moved_bytes")
"""What a table sums."""


@dataclass(frozen=True)
class Counts:
    """Costs of one forward pass of one image.

    Attributes:
        rows: where each cost stands; the sums below are over them.
        resolution: (height, width) of the input in pixels.
    """

    rows: tuple[Row, ...] = field(repr=False)
    resolution: tuple[int, int]

    def __str__(self) -> str:
        height, width = self.resolution
        return f"{self.params:,} parameters, {self.macs:,} MACs and {self.activations:,} activations, {height}×{width}"

    def __repr__(self) -> str:
        return f"Counts({self})"

    @cached_property
    def totals(self) -> Totals:
        """The sums over all rows."""
        return sum_costs(row.cost for row in self.rows)

    @property
    def params(self) -> int:
        """Learned parameters; running statistics of BatchNorms are none."""
        return self.totals.params

    @property
    def macs(self) -> int:
        """Exact multiply-accumulates of convolutions, linears and both products of attention. FLOPs are twice that."""
        return self.totals.macs

    @property
    def macs_padded(self) -> int:
        """The same with attention windows padded to full size, as the published release runs them."""
        return self.totals.macs_padded

    @property
    def macs_padding(self) -> int:
        """What padded windows would waste: ``macs_padded - macs``."""
        return self.macs_padded - self.macs

    @property
    def macs_paper(self) -> int:
        """As the paper counts: convolutions, linears and half of the padded attention products."""
        return self.totals.macs_paper

    @property
    def activations(self) -> int:
        """Elements in the outputs of the counted operators; attention's are its scores and its output."""
        return self.totals.activations

    def weight_bytes(self, dtype: str = "float32") -> int:
        """Bytes of parameters and floating-point buffers (running statistics).

        Raises:
            ValueError: for an unknown dtype.
        """
        return self.totals.weight_bytes(dtype)

    def moved_bytes(self, batch_size: int = 1, dtype: str = "float32") -> int:
        """Bytes that a batch must move, a roofline's floor: ``hrvit_lab.parts.ops.Totals.moved_bytes`` defines it.

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
        """Moved bytes of one image in MiB, as float32."""
        return self.moved_bytes() / MIB

    def frame(self, dtype: str = "float32") -> "pd.DataFrame":
        """Every row: stage, branch, part, operator, and ``NUMBERS`` (bytes in that dtype, of one image).

        Raises:
            ValueError: for an unknown dtype.
        """
        import pandas as pd  # here: totals, of which a search asks many, do without

        return pd.DataFrame(self._records(dtype), columns=["stage", "branch", "part", "operator", *NUMBERS])

    def sums(self, by: str, dtype: str = "float32") -> list[dict[str, Any]]:
        """Sums of ``NUMBERS`` by ``"operator"``, ``"branch"``, ``"stage"`` or ``"part"``, in the network's order.

        Operators of which nothing is counted (GELU, upsampling, …) are left out.

        Raises:
            ValueError: for another grouping or an unknown dtype.
        """
        if by not in GROUPINGS:
            raise ValueError(f"by = {by!r} is no grouping; use operator, branch, stage or part")
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
    """Parameters, MACs and activations of one image.

    Args:
        model: a preset's name, a config, its YAML file or an HRViT, counted in closed form; or any module that takes
            (1, C, H, W), a `TimmConfig` or its name (``timm:resnet18``), counted by running it on the meta device, with
            both products of attention whole, whatever is masked.
        resolution: pixels, a side or (height, width).
    Raises:
        ConfigError: for an unknown name, a file that cannot be read, no model, no size, or a resolution that the
            network does not accept.
        UncountedOperator: if a module dispatches an operator whose cost is unknown.

    >>> f"{count('hrvit_b1', 224).macs / 1e9:.4f} GMACs"
    '2.7756 GMACs'
    """
    size = as_size(resolution)
    if isinstance(model, str | Path):
        model = TimmConfig(str(model)) if str(model).startswith(TIMM) else read_config(model)
    if isinstance(model, HRViTConfig):
        return Counts(ledger(model, size), size)
    from hrvit_lab.cost.dispatch import count_module, count_timm  # here: a config is counted without torch

    return count_timm(model, size) if isinstance(model, TimmConfig) else count_module(model, size)
