"""Groups of metrics, each measured by one probe. Add one with a file and a line here."""

from hrvit_lab.study.groups.accuracy import ACCURACY
from hrvit_lab.study.groups.cost import COST
from hrvit_lab.study.groups.group import ATTACHMENTS, Figures, Group, ProbeInput
from hrvit_lab.study.groups.latency import LATENCY
from hrvit_lab.study.groups.memory import MEMORY
from hrvit_lab.study.groups.segmentation import SEGMENTATION

__all__ = ["ATTACHMENTS", "GROUPS", "PROBES", "Figures", "Group", "ProbeInput"]

GROUPS = {group.key: group for group in (COST, LATENCY, MEMORY, ACCURACY, SEGMENTATION)}
"""All groups by key."""

PROBES = {key: group.probe for key, group in GROUPS.items()}
"""The probe of each group; one call is one trial."""
