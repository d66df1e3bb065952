"""Where finished trials ran: host and device. Results that are copied to be published do not say it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrvit_lab.study.results import Results

TRIALS_ON = "trials_on"
"""Key of the places in an environment of ``measured_in.json``."""


def place_of(record: Mapping[str, Any]) -> str:
    """Host and device of a record, such as ``node7, cuda:1``; empty if unknown, as in records of older versions."""
    return ", ".join(part for part in (record.get("host"), record.get("on_device")) if part)


def places(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Numbers of records by host and device, most first, then by name."""
    counts = Counter(map(place_of, records))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def said(found: Mapping[str, int]) -> str:
    """The places in words, for the terminal; empty if none is known.

    >>> said({"vm, cpu": 3, "node7, cuda:1": 2})
    '3 on vm, cpu; 2 on node7, cuda:1'
    """
    if not any(found):
        return ""
    return "; ".join(f"{number} on {place or 'an unknown host'}" for place, number in found.items())


def without_places(results: "Results") -> "Results":
    """The results without names of hosts."""
    kept = [{key: value for key, value in each.items() if key != TRIALS_ON} for each in results.measured_in]
    return replace(results, measured_in=kept)
