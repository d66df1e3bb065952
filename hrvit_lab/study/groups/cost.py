"""Costs: parameters, multiply-accumulates, activations and moved memory."""

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.count import MIB, count
from hrvit_lab.cost.ledger import totals
from hrvit_lab.study.groups.group import Figures, Group, ProbeInput


def costs(asked: ProbeInput) -> Figures:
    """Costs in closed form, or of a run on the meta device; no weights are made."""
    config, resolution = asked.config, asked.resolution
    sums = totals(config, resolution) if isinstance(config, HRViTConfig) else count(config, resolution).totals
    return {
        "params": sums.params,
        "macs": sums.macs,
        "macs_padded": sums.macs_padded,
        "macs_paper": sums.macs_paper,
        "activations": sums.activations,
        "weight_mib": sums.weight_bytes() / MIB,
        "moved_mib": sums.moved_bytes() / MIB,
    }


def closed_form(asked: ProbeInput) -> Figures | None:
    """Costs of our configs, which are arithmetic. A model of timm has to be loaded and run, which takes seconds and may
    meet an operator that can't be counted: that is a trial."""
    return costs(asked) if isinstance(asked.config, HRViTConfig) else None


COST = Group(
    key="cost",
    label="costs",
    version=1,
    depends_on=("resolution",),
    probe=costs,
    quick=True,
    compute=closed_form,
)
