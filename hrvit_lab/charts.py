"""What all charts have in common, whichever library draws them: colours, short names, spreads, Pareto fronts.

Without matplotlib, which takes a second to import and which the app's charts do not need.
"""

import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrvit_lab.metrics import METRICS

# Series colours: Okabe and Ito's set (safe for the common colour blindnesses), ordered for contrast between neighbours.
COLORS: Mapping[str, str] = {
    "ink": "#1b1f24",
    "muted": "#667080",
    "grid": "#e6e9ee",
    "paper": "#ffffff",
    "series-1": "#0072b2",
    "series-2": "#d55e00",
    "series-3": "#009e73",
    "series-4": "#cc79a7",
    "series-5": "#e69f00",
    "series-6": "#56b4e9",
    "series-7": "#7a6a53",
    "series-8": "#8a94a3",
    "series-9": "#b3a1d6",
    "series-10": "#8f9a3c",
}

INK, MUTED, GRID, PAPER = (COLORS[name] for name in ("ink", "muted", "grid", "paper"))

SERIES = tuple(color for name, color in COLORS.items() if name.startswith("series"))

# Parts of the network have fixed colours in all figures.
PARTS = (
    "attention projection",
    "attention products",
    "parallel convolution",
    "des",
    "ffn",
    "patch embedding",
    "fusion",
    "stem",
    "head",
    "norm",
)

# Parts of the latency table are coarser than those of the cost ledger; each has the colour of its main component.
TIMED_AS = {"attention": "attention products", "shortcut": "des", "residual": "parallel convolution"}


def part_label(part: str) -> str:
    """The displayed name of a part of the network, with acronyms in capitals."""
    return part.upper() if part in ("des", "ffn") else part.replace("_", " ")


def part_colors(parts: Iterable[str]) -> dict[str, str]:
    """Colours of parts, in stacking order; unknown parts are grey."""
    known = dict(zip(PARTS, SERIES, strict=True))

    def place(part: str) -> int:
        listed = TIMED_AS.get(part, part)
        return PARTS.index(listed) if listed in known else len(PARTS)

    return {part: known.get(TIMED_AS.get(part, part), MUTED) for part in sorted(dict.fromkeys(parts), key=place)}


def shorten(name: object, width: int = 30) -> str:
    """One line of at most `width` characters, truncated in the middle, because variants can differ at both ends.

    Control and text-direction characters are replaced by escape sequences.
    """
    line = " ".join(str(name).split())
    text = "".join(ascii(one)[1:-1] if unicodedata.category(one).startswith("C") else one for one in line)
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def counted(numbers: "pd.Series[int]", noun: str) -> str:
    """A range of numbers with a noun.

    >>> counted(pd.Series([3, 2]), "seed"), counted(pd.Series([1, 1]), "seed")
    ('2 to 3 seeds', '1 seed')
    """
    low, high = int(numbers.min()), int(numbers.max())
    span = str(high) if low == high else f"{low} to {high}"
    return f"{span} {noun}{'' if high == 1 else 's'}"


def spread(table: pd.DataFrame, key: str) -> NDArray[np.float64]:
    """Distances from the value to the lower and upper end of its spread, (2, rows); 0 where it is unknown.

    The spread is one standard deviation over seeds (`<key>_std`), else the 10th and 90th percentiles.
    """
    if f"{key}_std" in table:
        down = up = table[f"{key}_std"]
    elif f"{key}_p10" in table and f"{key}_p90" in table:
        down, up = table[key] - table[f"{key}_p10"], table[f"{key}_p90"] - table[key]
    else:
        return np.zeros((2, len(table)))
    return np.nan_to_num(np.stack([down, up]).astype(float)).clip(min=0)


def is_disturbed(table: pd.DataFrame, *keys: str) -> NDArray[np.bool_]:
    """Rows with an unreliable value, (rows,): `<key>_disturbed` has the reason."""
    columns = [table[f"{key}_disturbed"].notna().to_numpy() for key in keys if f"{key}_disturbed" in table]
    return np.any(columns, axis=0) if columns else np.zeros(len(table), dtype=bool)


def pareto_front(table: pd.DataFrame, x: str, y: str) -> NDArray[np.bool_]:
    """Rows that are not dominated in two metrics, (rows,).

    A row is dominated if another is better in one metric and at least equal in the other. Rows without both values, and
    rows with an unreliable one, are never on the front.
    """
    signs = [1 if METRICS[key].better == "higher" else -1 for key in (x, y)]
    return undominated(table[[x, y]].to_numpy(dtype=float) * signs, ~is_disturbed(table, x, y))


def undominated(values: NDArray[np.float64], reliable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Points that no reliable point dominates, (points,).

    Args:
        values: two values of each point, of which higher ones are better, (points, 2); NaN if missing.
        reliable: (points,); unreliable points are never on the front.
    """
    complete = np.flatnonzero(np.isfinite(values).all(-1) & reliable)
    front = np.zeros(len(values), dtype=bool)
    if len(complete):
        order = complete[np.lexsort((-values[complete, 1], -values[complete, 0]))]  # best x first, there best y first
        best = np.maximum.accumulate(values[order, 1])
        leads = np.concatenate(
            [[True], values[order, 1][1:] > best[:-1]]
        )  # better in y than all rows that are better in x
        leader = order[np.flatnonzero(leads)[np.cumsum(leads) - 1]]
        front[order] = (values[order] == values[leader]).all(-1)  # equal points are both on the front or both not
    return front
