"""Groups of metrics, each measured by one probe: a file each, and a line here."""

from hrvit_lab.study.groups.accuracy import ACCURACY
from hrvit_lab.study.groups.cost import COST
from hrvit_lab.study.groups.group import ATTACHMENTS, Figures, Group, ProbeInput
from hrvit_lab.study.groups.latency import LATENCY
from hrvit_lab.study.groups.memory import MEMORY

__all__ = ["ATTACHMENTS", "GROUPS", "PROBES", "Figures", "Group", "ProbeInput"]

GROUPS = {group.key: group for group in (COST, LATENCY, MEMORY, ACCURACY)}
"""Every group by its key."""

PROBES = {key: group.probe for key, group in GROUPS.items()}
"""Every group's probe: one call is one trial."""
