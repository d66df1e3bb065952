"""The size of the space, compared with an enumeration of small grids by the validation."""

import random
from collections.abc import Iterator
from dataclasses import fields, replace
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from random_configs import random_fields

from hrvit_lab.config import PER_BRANCH, ConfigError, HRViTConfig
from hrvit_lab.search.space_size import Grid, count_depths, count_networks, main

POINT = Grid(
    branches=(2,), stages=1, depth=1, widths=(8,), head_dims=(4,), window_sizes=(2,), mlp_ratios=(2,),
    attention=("cross_shaped",), ffn=("mixcfn",), parallel_conv=(True,), attn_activation=(True,),
    attn_batch_norm=(True,), shortcut=("des",), patch_embed=("efficient",), fusion=("dense",), upsample=("nearest",),
    branch_norm=(True,), stem=("two_conv",), stem_width=(8,), head=("none",),
)  # fmt: skip
"""A network of either topology."""

STRUCTURES: dict[str, Any] = {"branches": (1, 2, 3), "stages": 3, "depth": 2, "drop_path_rate": (0.0, 0.1)}
PARTS: dict[str, Any] = {
    "patch_embed": ("efficient", "none"),
    "fusion": ("dense", "late"),
    "upsample": ("nearest", "bilinear"),
}
SWITCHES: dict[str, Any] = {
    name: (True, False)
    for name in ("parallel_conv", "attn_activation", "attn_batch_norm", "branch_norm", "grad_checkpointing")
}
ONE_BRANCH: dict[str, Any] = {
    "branches": (1,), "widths": (6, 8, 10, 18), "head_dims": (2, 3, 8), "window_sizes": (1, 2),
    "attention": ("cross_shaped", "global", "depthwise_conv"), "ffn": ("mixcfn", "mlp", "none"),
    "mlp_ratios": (0.1, 0.5, 0.51), "shortcut": ("des", "none"), "stem": ("two_conv",),
}  # fmt: skip
TWO_BRANCHES: dict[str, Any] = {
    "widths": (6, 8, 10), "head_dims": (3, 8), "ffn": ("mixcfn", "none"), "shortcut": ("des", "linear"),
    "stem": ("two_conv", "patchify"), "stem_width": (7, 8, 10),
}  # fmt: skip
HEADS: dict[str, Any] = {
    "head": ("classifier", "pool", "segformer", "none"), "head_widths": (2, 3), "head_features": (4, 5, 6),
    "segformer_width": (3, 4), "num_classes": (0, 5), "drop_rate": (0.0, 0.1),
}  # fmt: skip


def all_depths(grid: Grid, branches: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Every list of stages whose last stage has that many branches, whether the number of branches decreases or not."""
    blocks = range(1, grid.depth + 1)
    stages = [depths for n in range(1, branches + 1) for depths in product(blocks, repeat=n)]
    for length in range(1, grid.stages + 1):
        yield from (depths for depths in product(stages, repeat=length) if len(depths[-1]) == branches)


def enumerated(grid: Grid) -> set[str]:
    """Ids of all configs on the grid that the validation accepts."""
    ids = set()
    singles = [f.name for f in fields(grid) if f.name not in (*PER_BRANCH, "branches", "stages", "depth")]
    for branches in grid.branches:
        choices = [
            *(product(getattr(grid, name), repeat=branches) for name in PER_BRANCH),
            *(getattr(grid, name) for name in singles),
            all_depths(grid, branches),
        ]
        for values in product(*choices):
            try:
                ids.add(HRViTConfig(**dict(zip([*PER_BRANCH, *singles, "depths"], values, strict=True))).id)
            except ConfigError:
                continue
    return ids


@pytest.mark.parametrize(
    "freedom",
    [{}, STRUCTURES, PARTS | {"branches": (1, 2)}, SWITCHES, ONE_BRANCH, TWO_BRANCHES, HEADS],
    ids=["a point", "structures", "parts", "switches", "one branch", "two branches", "heads"],
)
def test_the_count_equals_that_of_an_enumeration(freedom: dict[str, Any]) -> None:
    grid = replace(POINT, **freedom)
    found = len(enumerated(grid))
    assert count_networks(grid) == found >= 2
    assert found > 10 or not freedom


def test_depths_against_hand_computation() -> None:
    """One branch: sequences of 1 to 3 numbers up to 2. Two branches: a pair, after a number or a pair."""
    assert count_depths(3, 2, 1) == 2 + 4 + 8
    assert count_depths(2, 2, 2) == 4 + 4 * (2 + 4)
    assert count_depths(2, 3, 3) == 27 + 27 * (3 + 9 + 27)


def test_random_configs_are_members_of_the_default_grid() -> None:
    """The configs of the property tests are in the space, except for settings that only scale numbers."""
    grid = Grid()
    free = {"stem_width", "head_widths", "head_features", "segformer_width", "upernet_width", "in_chans", "num_classes"}
    for seed in range(200):
        for name, value in random_fields(random.Random(seed)).items():
            if name in free or name.endswith("_rate") or name in ("depths", "grad_checkpointing"):
                continue
            values = value if name in PER_BRANCH else (value,)
            assert set(values) <= set(getattr(grid, name)), (name, value)


def test_the_docs_give_the_computed_number() -> None:
    digits, exponent = f"{Decimal(count_networks(Grid())):.1e}".split("e+")
    power = exponent.translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    page = (Path(__file__).parents[1] / "docs" / "space.md").read_text(encoding="utf-8")
    assert f"{digits} · 10{power} different networks" in page


def test_the_command_prints_grid_and_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "depth                1 to 64" in out and f"exactly: {count_networks(Grid())}\n" in out


def test_the_command_refuses_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("--depth", "9", "hrvit_nano"):
        assert main([argument]) == 2
        output, errors = capsys.readouterr()
        assert output == "" and f"unrecognized arguments: {argument}" in errors and len(errors.splitlines()) == 1
