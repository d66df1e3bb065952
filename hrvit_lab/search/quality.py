"""How well predictors rank networks: Kendall's τ, Spearman's ρ, and Kendall's partial τ at fixed costs.

- τ is τ-b: the correlation of the signs of differences over all pairs of networks (Kendall 1945).
- Partial τ is the partial correlation of the same signs, given those of parameters and MACs (Kendall 1942, Biometrika
  32, 277–283; with several given quantities it is read from the inverse of the matrix of τ, as with Pearson's
  correlation). It says whether a predictor ranks networks of equal costs.
- Intervals are percentiles of 2000 resamples of the networks. All predictors see the same resamples, so that
  differences between them are paired.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrvit_lab.config import ConfigError

CONTROLS = ("params", "macs")
"""The baselines to beat, and the costs that partial τ holds fixed."""
RESAMPLES = 2000
LEVEL = 0.05
FEWEST = 8
"""Fewer networks are refused."""
WANTED = 40
"""With fewer networks, intervals are wide."""

KEPT_FROM = 0.6
"""A supernet needs at least this τ."""
CURVES = ("early", "extrapolated")
"""Predictions from the learning curve of each network."""
SUPERNET = "supernet"
"""The accuracy of networks with the weights of a supernet."""

Matrix = NDArray[np.float64]
AZ_NAS = ("expressivity", "progressivity", "trainability", "macs")


class Correlations(NamedTuple):
    """Of each predictor with the score, (predictors,).

    Attributes:
        tau, rho, partial_tau: see the module. NaN for a constant predictor, and for partial τ of the controls.
        gain: τ minus that of the better one of the controls.
    """

    tau: Matrix
    rho: Matrix
    partial_tau: Matrix
    gain: Matrix


def quality(table: pd.DataFrame, score: str, better: Mapping[str, str], seed: int = 0) -> pd.DataFrame:
    """One row for each predictor: ``predictor``, then each of `Correlations` with its 95 % interval (``_low``,
    ``_high``), and ``beats``, ``adds``.

    ``beats`` says whether its τ is higher than that of parameters and that of MACs; ``adds`` whether its partial τ is
    positive. Both hold together for all predictors at the 5 % level (Bonferroni).

    Args:
        table: one row for each network: the score, ``params``, ``macs``, and the predictors.
        score: a column; higher is better.
        better: ``"higher"`` or ``"lower"`` by predictor; more parameters and MACs count as better.
        seed: of the resamples.
    Raises:
        ConfigError: if fewer than 8 networks have a score.
    """
    names = [*CONTROLS, *(name for name in better if name not in CONTROLS)]
    known = table.dropna(subset=[score, *names])
    if len(known) < FEWEST:
        raise ConfigError(
            f"{len(known)} networks have a {score} and all scores of predictors; give a study with at least {FEWEST}"
        )
    signs = np.array([-1.0 if better.get(name) == "lower" else 1.0 for name in names])
    values = np.column_stack([known[score], known[names].to_numpy(dtype=float) * signs])
    values = np.apply_along_axis(_average_ranks, 0, values)  # the same τ and ρ, also of infinite scores
    found = correlations(values)
    rng = np.random.default_rng(seed)
    resampled = [correlations(values[rng.integers(0, len(values), len(values))]) for _ in range(RESAMPLES)]
    frame = pd.DataFrame({"predictor": names})
    for field in Correlations._fields:
        samples = np.array([getattr(each, field) for each in resampled])
        frame[field] = getattr(found, field)
        frame[f"{field}_low"], frame[f"{field}_high"] = _interval(samples, LEVEL)
    tested = max(1, len(names) - len(CONTROLS))
    for said, field in (("beats", "gain"), ("adds", "partial_tau")):
        low, _ = _interval(np.array([getattr(each, field) for each in resampled]), LEVEL / tested)
        frame[said] = (low > 0) & ~frame["predictor"].isin(CONTROLS)
    return frame


def correlations(values: Matrix) -> Correlations:
    """The correlations of the first column, the score, with the others, of which the first two are the controls.

    Args:
        values: (networks, 1 + predictors).
    """
    taus = tau_matrix(values)
    ranks = np.apply_along_axis(_average_ranks, 0, values)
    centred = ranks - ranks.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (centred.T @ centred[:, 0]) / (norms * norms[0])
    partial = [np.nan] * 2 + [partial_tau(taus[np.ix_(four, four)]) for four in _with_controls(values.shape[1])]
    return Correlations(taus[0, 1:], rho[1:], np.array(partial), taus[0, 1:] - np.fmax(taus[0, 1], taus[0, 2]))


def tau_matrix(values: Matrix) -> Matrix:
    """τ-b between all columns; NaN for constant ones, (columns, columns)."""
    pairs = np.sign(values[:, None] - values[None]).reshape(-1, values.shape[1])
    products = pairs.T @ pairs
    norms = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(products / np.outer(norms, norms))


def partial_tau(taus: Matrix) -> float:
    """The partial τ of the first two quantities, given all others; NaN if it is undefined.

    Args:
        taus: between the quantities, (quantities, quantities).
    """
    if not np.isfinite(taus).all() or np.linalg.cond(taus) > 1e10:
        return float("nan")
    inverse = np.linalg.inv(taus)
    return float(-inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]))


def az_nas(table: pd.DataFrame) -> "pd.Series[float]":
    """AZ-NAS's sum of log ranks of its four parts, ranks divided by their number (arXiv 2403.19232)."""
    ranks = table[list(AZ_NAS)].rank() / len(table)
    return pd.Series(np.log(ranks.to_numpy()).sum(axis=1), index=table.index)


def verdict(found: pd.DataFrame, networks: int, labels: Mapping[str, str]) -> list[str]:
    """Sentences: does any predictor rank networks better than their costs do? Does any rank networks of equal costs?

    Args:
        found: from `quality`.
        labels: of predictors, as shown to users.
    """
    rows = found.set_index("predictor")
    best = max(CONTROLS, key=lambda name: rows["tau"].get(name, -1.0))
    cost = f"{labels.get(best, best)} (τ {rows['tau'][best]:.2f})"
    others = rows.drop(list(CONTROLS))
    sentences = []
    for said, yes, no in (
        (
            "beats",
            f"ranks the {networks} networks better than {cost}",
            f"no predictor ranks the {networks} networks better than {cost}, beyond chance",
        ),
        (
            "adds",
            "ranks networks of equal parameters and MACs",
            "no predictor ranks networks of equal costs, beyond chance",
        ),
    ):
        field = "tau" if said == "beats" else "partial_tau"
        names = others.index[others[said]].tolist()
        if not names:
            top = str(others[field].idxmax()) if others[field].notna().any() else None
            value = f"; the best one is {labels.get(top, top)} ({others[field][top]:.2f})" if top is not None else ""
            sentences.append(f"{no[0].upper()}{no[1:]}{value}.")
        for name in names:
            label = labels.get(name, name)
            sentences.append(f"{label} {yes}: {'τ' if said == 'beats' else 'partial τ'} {others[field][name]:.2f}.")
    if networks < WANTED:
        sentences.append(f"{networks} networks are few: with fewer than {WANTED}, intervals are wide.")
    return sentences


def supernet_verdict(found: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """Sentences: is a supernet worth its training? It is kept if its τ is at least 0.6 and above that of all others.

    Args:
        found: from `quality`, with the row ``supernet``.
        labels: of predictors, as shown to users.
    """
    rows = found.set_index("predictor")
    row = rows.loc[SUPERNET]
    others = rows["tau"].drop(SUPERNET).dropna()

    def best(of: "pd.Series[float]") -> str:
        return f"{labels.get(str(of.idxmax()), str(of.idxmax()))}, τ {of.max():.2f}"

    said = f"The supernet has τ {row['tau']:.2f} [{row['tau_low']:.2f}, {row['tau_high']:.2f}]"
    enough, above = row["tau"] >= KEPT_FROM, row["tau"] > others.max()
    if enough and above:
        return f"{said}, at least {KEPT_FROM} and above every other predictor ({best(others)}): it is kept."
    reasons = [f"below {KEPT_FROM}"] * (not enough) + [f"not above the best other predictor ({best(others)})"] * (
        not above
    )
    sentence = f"{said}, {' and '.join(reasons)}: it is left out."
    cheap = others.drop(list(CURVES), errors="ignore")
    if others.idxmax() in CURVES:
        sentence += f" Without predictions from the learning curve of each network, the best one is {best(cheap)}."
    return sentence


def _with_controls(columns: int) -> Sequence[Sequence[int]]:
    """The indices of score, predictor and controls, for every predictor that is no control."""
    return [[0, index, 1, 2] for index in range(3, columns)]


def _interval(samples: Matrix, level: float) -> tuple[Matrix, Matrix]:
    """Percentiles by column, without undefined samples; NaN if more than half of them are undefined."""
    low, high = np.full(samples.shape[1], np.nan), np.full(samples.shape[1], np.nan)
    for column, of in enumerate(samples.T):
        defined = of[np.isfinite(of)]
        if 2 * len(defined) >= len(of):
            low[column], high[column] = np.quantile(defined, (level / 2, 1 - level / 2))
    return low, high


def _average_ranks(values: Matrix) -> Matrix:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])
