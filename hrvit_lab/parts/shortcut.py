"""Closed-form costs and width rules of the shortcut variants."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.parts.ops import Costs, elementwise, linear


class Shortcut(NamedTuple):
    """One row of the ``SHORTCUT`` table.

    Attributes:
        label: text shown to users.
        source: paper and section.
        cost: ``(dim, height, width)`` → costs on such a map.
        width_rule: ``(dim,)`` → the reason why a width is invalid, or None.
        live: ``(dim, height, width)`` → maximum number of live elements without its input and attention's output.
    """

    label: str
    source: str
    cost: Callable[[int, int, int], Costs]
    width_rule: Callable[[int], str | None]
    live: Callable[[int, int, int], int]


def kronecker_factors(dim: int) -> tuple[int, int]:
    """Sizes ``(k, p)`` of the two factors of a ``dim`` → ``dim`` map; ``k · p`` = ``dim`` for valid widths.

    >>> kronecker_factors(32), kronecker_factors(240)
    ((4, 8), (15, 16))
    """
    exponent = dim.bit_length() - 1
    p = 2 ** (exponent - exponent // 2)
    return dim // p, p


def des_cost(dim: int, height: int, width: int) -> Costs:
    """Diversity-enhanced shortcut: a p → p and a k → k linear, on k and p rows per token."""
    k, p = kronecker_factors(dim)
    pixels = height * width
    right, left = linear("des", p, p, k * pixels), linear("des", k, k, p * pixels)
    return right, elementwise("des", "gelu", dim * pixels), left


def des_live(dim: int, height: int, width: int) -> int:
    """The maps of two steps; the last step is the sum with attention's output."""
    return 2 * dim * height * width


def des_width_rule(dim: int) -> str | None:
    """Width rule: the width equals k · p."""
    k, p = kronecker_factors(dim)
    return f"DES needs a width divisible by {p}" if k * p != dim else None


def linear_cost(dim: int, height: int, width: int) -> Costs:
    """One linear of full rank."""
    return (linear("shortcut", dim, dim, height * width),)


def linear_live(dim: int, height: int, width: int) -> int:
    """The product, and the sum with attention's output."""
    return 2 * dim * height * width


SHORTCUT: dict[str, Shortcut] = {
    "des": Shortcut("DES (Kronecker, GELU)", "arXiv 2111.01236, section 3.2", des_cost, des_width_rule, des_live),
    "linear": Shortcut(
        "linear (full rank)",
        "arXiv 2106.15067",
        linear_cost,
        lambda dim: None,
        linear_live,
    ),
    "none": Shortcut(
        "none",
        "arXiv 2111.01236, section 4.4",
        lambda dim, height, width: (),
        lambda dim: None,
        lambda dim, height, width: 0,
    ),
}
