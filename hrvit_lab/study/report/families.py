"""Families of a study's networks: the values of an axis, compared by the errors of all networks that have them."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrvit_lab import plots
from hrvit_lab.config import ConfigError
from hrvit_lab.study.families import distribution, equal_complexity, same_at_equal_complexity, same_distribution
from hrvit_lab.study.report.differences import p_text
from hrvit_lab.study.results import Results
from hrvit_lab.study.spec import EQUAL_MACS
from hrvit_lab.study.statistics import LEVEL, holm
from hrvit_lab.study.tables import table_schema

FEWEST = 8
"""Minimum number of networks of a family."""
MAX_AXES = 4
MAX_NAMED = 6
MAX_NETWORKS = 1_000
"""Maximum number of networks with this section: each comparison sorts all of them a thousand times."""

Steps = NDArray[np.float64]


class Families(NamedTuple):
    """The families on one axis.

    Attributes:
        axis: the column of the table.
        errors: by family, 100 % minus the score of each network, in percent.
        macs: by family, of each network; empty if MACs are equal, or not comparable with the score.
    """

    axis: str
    errors: Mapping[str, NDArray[np.float64]]
    macs: Mapping[str, NDArray[np.float64]]

    @property
    def raw(self) -> dict[str, Steps]:
        """The distribution of errors by family."""
        return {name: distribution(of) for name, of in self.errors.items()}

    @property
    def equal(self) -> dict[str, Steps]:
        """The same at equal MACs; empty if the families have no MACs in common."""
        try:
            weights = equal_complexity(list(self.macs.values())) if self.macs else []
        except ConfigError:
            return {}
        return {name: distribution(self.errors[name], of) for name, of in zip(self.macs, weights, strict=True)}


class _Compared(NamedTuple):
    axis: str
    names: tuple[str, str]
    numbers: tuple[int, int]
    raw: tuple[float, float, float]
    """Median errors of both, and the p-value."""
    equal: tuple[float, float, float]
    """The same at equal MACs; NaN if there are none."""


def families_of(results: Results) -> list[Families]:
    """The axes of which at least two values have ``FEWEST`` networks each."""
    table, score = results.table, results.score
    if score not in table or len(table) > MAX_NETWORKS:
        return []
    known = table[table[score].notna()].drop_duplicates("config_id")
    differing = results.comparable and results.spec.match != (EQUAL_MACS,)  # else there is nothing to make equal
    weighted = differing and "macs" in known and bool((known["macs"] > 0).all())
    found = []
    for axis in (str(column) for column in table if column not in table_schema()):
        groups = known.groupby(known[axis].map(lambda value: "unchanged" if pd.isna(value) else str(value)), sort=False)
        members = {str(name): rows for name, rows in groups if len(rows) >= FEWEST}
        if 2 <= len(members) <= plots.MAX_LINES:
            errors = {name: 100 - rows[score].to_numpy(dtype=float) for name, rows in members.items()}
            macs = {name: rows["macs"].to_numpy(dtype=float) for name, rows in members.items()} if weighted else {}
            found.append(Families(axis, errors, macs))
    return found[:MAX_AXES]


def families_figures(results: Results) -> dict[str, plots.Figure]:
    """The distributions of errors, one figure for each axis."""
    return {
        f"errors_by_{of.axis}": plots.error_distributions(
            of.raw, of.equal, f"errors by {of.axis.replace('_', ' ')}", results.score, results.dataset
        )
        for of in families_of(results)
    }


def families_sentences(results: Results) -> list[str]:
    """A sentence for each pair of families, the most certain differences first, and the method; empty without pairs."""
    compared = [pair for of in families_of(results) for pair in _pairs(of)]
    if not compared:
        return []
    corrected = holm([p for pair in compared for p in (pair.raw[2], pair.equal[2])]).reshape(-1, 2)
    certain = np.where(np.isnan(corrected), 1.0, corrected).min(axis=1)
    said = [_sentence(compared[at], *corrected[at]) for at in np.argsort(certain, kind="stable")[:MAX_NAMED]]
    if len(compared) > MAX_NAMED:
        differ = int((certain < LEVEL).sum())
        said.append(f"{differ} of all {len(compared)} pairs of families differ at the 5 % level.")
    tests = int(np.isfinite(corrected).sum())
    said.append(
        f"P-values are of the Kolmogorov-Smirnov statistic, with Holm's correction for {tests} "
        f"test{'s' * (tests > 1)}; at equal MACs by permutation. Networks are taken as random members of their family."
    )
    return said


def _pairs(families: Families) -> Iterator[_Compared]:
    for names in itertools.combinations(families.errors, 2):
        pair = Families(
            families.axis,
            {name: families.errors[name] for name in names},
            {name: families.macs[name] for name in names if families.macs},
        )
        ours, theirs = pair.errors.values()
        medians = [_median(steps) for steps in pair.raw.values()]
        raw, equal = (medians[0], medians[1], same_distribution(ours, theirs)), (math.nan, math.nan, math.nan)
        if weighted := list(pair.equal.values()):
            our_macs, their_macs = pair.macs.values()
            p = same_at_equal_complexity((ours, theirs), (our_macs, their_macs))
            equal = (_median(weighted[0]), _median(weighted[1]), p)
        yield _Compared(families.axis, names, (len(ours), len(theirs)), raw, equal)


def _median(steps: Steps) -> float:
    """The smallest error that half of the networks have at most."""
    return float(steps[np.searchsorted(steps[:, 1], 0.5 - 1e-9), 0])


def _sentence(pair: _Compared, p_raw: float, p_equal: float) -> str:
    names = " and ".join(f"{name} ({number} networks)" for name, number in zip(pair.names, pair.numbers, strict=True))
    text = f"{pair.axis.replace('_', ' ')} {names}: median errors {_percent(pair.raw)}, {_p(p_raw)}"
    if math.isnan(p_equal):
        return f"{text}."
    return f"{text}; at equal MACs {_percent(pair.equal)}, {_p(p_equal)}."


def _percent(medians: tuple[float, float, float]) -> str:
    return f"{medians[0]:.1f} and {medians[1]:.1f} %"


def _p(p: float) -> str:
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
