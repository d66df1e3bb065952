"""Latency predicted from a profile, which the owner of the server names by ``--profile``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import streamlit as st

from hrvit_lab.app.folders import profile_path
from hrvit_lab.config import ConfigError, HRViTConfig

if TYPE_CHECKING:
    from hrvit_lab.latency.predict import Profile

LATENCY = "latency_ms"
"""The cost, among those that the drawing and the bars show."""
EVERYWHERE = "all branches"


class Predicted(NamedTuple):
    """The predicted latency of a batch.

    Attributes:
        latency_ms, low_ms, high_ms: with the interval of 95 % of networks.
        values: stage, branch and part, with the latency as the column "value".
        conditions: for which the profile predicts.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    values: pd.DataFrame
    conditions: str


def has_profile() -> bool:
    """Whether the server's owner named a profile."""
    return profile_path(sys.argv[1:]) is not None


def predicted(config: HRViTConfig, size: tuple[int, int]) -> Predicted:
    """The predicted latency.

    Raises:
        ConfigError: without a profile, with a broken one, or with one that has no part like one of the network's.
    """
    from hrvit_lab.latency.predict import predict, predict_parts

    path = profile_path(sys.argv[1:])
    if path is None:
        raise ConfigError("there is no profile; measure one with 'hrvit-lab latency profile', and give it by --profile")
    profile = _load(path, _stamp(path))
    estimate = predict(config, profile, size)
    parts = predict_parts(config, profile, size)
    values = pd.DataFrame(
        {
            "stage": [part.stage for part in parts],
            "branch": pd.Series([EVERYWHERE if part.branch is None else part.branch for part in parts], dtype=object),
            "part": [part.part for part in parts],
            "value": [part.latency_ms for part in parts],
        }
    )
    return Predicted(estimate.value, estimate.low, estimate.high, values, str(profile.conditions))


def _stamp(path: Path) -> tuple[int, ...]:
    """Numbers that differ after the file was written again; none if it can't be read, which `_load` describes."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


@st.cache_resource(max_entries=2, show_spinner="Reading the profile")
def _load(path: Path, stamp: tuple[int, ...]) -> "Profile":
    from hrvit_lab.latency.predict import load_profile

    return load_profile(path)
