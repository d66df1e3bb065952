"""Costs: parameters, multiply-accumulates, activations and moved memory."""

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.study.groups.group import Figures, Group, ProbeInput


def costs(asked: ProbeInput) -> Figures:
    """Costs in closed form, or of a run on the meta device; no weights are made."""
    counts = count(asked.config, asked.resolution)
    return {
        "params": counts.params,
        "macs": counts.macs,
        "macs_padded": counts.macs_padded,
        "macs_paper": counts.macs_paper,
        "activations": counts.activations,
        "weight_mib": counts.weight_mib,
        "moved_mib": counts.moved_mib,
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
