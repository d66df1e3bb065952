"""Costs: parameters, multiply-accumulates, activations and moved memory."""

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.study.groups.group import Figures, Group, ProbeInput


def costs(inputs: ProbeInput) -> Figures:
    """Costs in closed form, or counted in a forward pass on the meta device. No weights are allocated."""
    counts = count(inputs.config, inputs.resolution)
    return {
        "params": counts.params,
        "macs": counts.macs,
        "macs_padded": counts.macs_padded,
        "macs_paper": counts.macs_paper,
        "activations": counts.activations,
        "weight_mib": counts.weight_mib,
        "moved_mib": counts.moved_mib,
    }


def closed_form(inputs: ProbeInput) -> Figures | None:
    """Costs of our configs in closed form; None for timm models, which must be built and run in a trial, because this
    takes seconds and fails on operators with unknown cost."""
    return costs(inputs) if isinstance(inputs.config, HRViTConfig) else None


COST = Group(
    key="cost",
    label="costs",
    version=1,
    depends_on=("resolution",),
    probe=costs,
    quick=True,
    compute=closed_form,
)
