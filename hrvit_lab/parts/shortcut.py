"""Closed-form costs and width rules of the shortcut variants."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.parts.ops import Costs, elementwise, linear


class Shortcut(NamedTuple):
    """One row of the ``SHORTCUT`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(dim, height, width)`` → costs at that map.
        width_rule: ``(dim,)`` → why this width does not work, or None.
        live: ``(dim, height, width)`` → most elements of maps alive at once beside its input and attention's output.
    """

    label: str
    source: str
    cost: Callable[[int, int, int], Costs]
    width_rule: Callable[[int], str | None]
    live: Callable[[int, int, int], int]


def kronecker_factors(dim: int) -> tuple[int, int]:
    """Sizes ``(k, p)`` of the two factors of a ``dim`` → ``dim`` map, ``k · p`` = ``dim`` where that divides.

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
    """Two steps at a time, the last of them the sum with attention's output."""
    return 2 * dim * height * width


def des_width_rule(dim: int) -> str | None:
    """The width must factor into k · p."""
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
