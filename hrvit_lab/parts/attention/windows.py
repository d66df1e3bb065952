"""Division of a map into windows, and costs of attention within them.

The axes are divided independently; windows are all combinations of a part of one axis with a part of the other.
"""

from itertools import product
from math import prod
from typing import NamedTuple

from hrvit_lab.parts.attention.row import num_heads, products, qkv
from hrvit_lab.parts.ops import Cost, Costs


class Span(NamedTuple):
    """Positions ``start`` to ``stop`` of an axis, divided into consecutive pieces of ``size``."""

    start: int
    stop: int
    size: int


def spans(length: int, window_size: int, shift: int = 0) -> tuple[Span, ...]:
    """Divide an axis into windows; the first ends after ``shift`` positions, and the remainder is a smaller window.

    An axis that is no longer than the window is one window, unshifted.

    >>> spans(10, 4)
    (Span(start=0, stop=8, size=4), Span(start=8, stop=10, size=2))
    >>> [span.size for span in spans(12, 4, 2)]
    [2, 4, 2]
    """
    if length <= window_size:
        return (Span(0, length, length),)
    whole = shift + (length - shift) // window_size * window_size
    cuts = (Span(0, shift, shift), Span(shift, whole, window_size), Span(whole, length, length - whole))
    return tuple(span for span in cuts if span.start < span.stop)


def dilated_groups(length: int, window_size: int) -> tuple[tuple[int, int], ...]:
    """(number of groups, positions per group) of positions congruent modulo ``ceil(length / window_size)``, larger
    first.

    >>> dilated_groups(10, 4)  # 0 3 6 9, 1 4 7, 2 5 8
    ((1, 4), (2, 3))
    """
    dilation = -(-length // window_size)
    size, more = divmod(length, dilation)
    return ((more, size + 1), (dilation - more, size)) if more else ((dilation, size),)


def count_windows(length: int, window_size: int, shift: int = 0) -> tuple[tuple[int, int], ...]:
    """(number of windows, positions per window) of ``spans``."""
    return tuple(((span.stop - span.start) // span.size, span.size) for span in spans(length, window_size, shift))


Groups = tuple[tuple[int, int], ...]


def _pairs(rows: Groups, columns: Groups) -> int:
    """Number of pairs of tokens in the same window: the product of the sums of squares of both axes."""
    return prod(sum(count * size**2 for count, size in axis) for axis in (rows, columns))


def _pairs_padded(window_size: int, height: int, width: int) -> int:
    """The same with all windows full, but not larger than the map."""
    sizes = ((side, min(window_size, side)) for side in (height, width))
    return prod(-(-side // size) * size**2 for side, size in sizes)


def _window_products(dim: int, head_dim: int, window_size: int, height: int, width: int, shift: int) -> Cost:
    rows, columns = (count_windows(side, window_size, shift) for side in (height, width))
    padded = _pairs_padded(window_size, height, width)
    biases = num_heads(dim, head_dim) * (2 * window_size - 1) ** 2  # one per head and offset within a window
    return products(dim, head_dim, _pairs(rows, columns), height * width, pairs_padded=padded, params=biases)


def window_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """One linear; attention within windows that start at the map's corner."""
    return qkv(dim, height * width), _window_products(dim, head_dim, window_size, height, width, 0)


def shifted_window_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """The same with shifted windows. The padded count is that of Swin: as many windows as unshifted, all of them
    full."""
    shift = window_size // 2
    return qkv(dim, height * width), _window_products(dim, head_dim, window_size, height, width, shift)


def dilated_window_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """One linear; attention within groups of congruent tokens."""
    rows, columns = (dilated_groups(side, window_size) for side in (height, width))
    padded = _pairs_padded(window_size, height, width)
    pixels = height * width
    return qkv(dim, pixels), products(dim, head_dim, _pairs(rows, columns), pixels, pairs_padded=padded)


def window_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Live elements with windows that start at the map's corner."""
    return _windows_live(dim, head_dim, window_size, height, width, batch_size, 0)


def shifted_window_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Live elements with shifted windows."""
    return _windows_live(dim, head_dim, window_size, height, width, batch_size, window_size // 2)


def _windows_live(
    dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int, shift: int
) -> int:
    """Query, key and value and the outputs so far, and for the current windows of one shape: two copies of their
    biases, shared by the batch; or one copy, the rearranged query, key and value, and the output. At the end, the
    outputs are concatenated."""
    rows, columns = (count_windows(side, window_size, shift) for side in (height, width))
    heads = num_heads(dim, head_dim)
    done = peak = 0
    for (row_count, row_size), (column_count, column_size) in product(rows, columns):
        tokens = row_size * column_size
        out = dim * row_count * column_count * tokens
        # Windows as wide as the map, or with a single row, are contiguous in it; for a batch, only if they cover the
        # map.
        alone = len(rows) == 1 or batch_size == 1 or row_count == 1
        in_place = len(columns) == 1 and (column_count == 1 or row_size == 1) and alone
        biases = heads * tokens**2 // batch_size
        peak = max(peak, done + biases + max(biases, (1 if in_place else 4) * out))
        done += out
    joined = len(rows) * len(columns) > 1
    return 3 * done + max(peak, (1 + joined) * done)


def dilated_window_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Query, key and value and the outputs so far; the longer groups of rows, and within them of columns, gathered; for
    the current groups of one shape, the rearranged query, key and value and the output. At the end, the outputs are
    concatenated."""
    rows, columns = (dilated_groups(side, window_size) for side in (height, width))
    together = 3 * dim * rows[0][0] * rows[0][1] * width * (len(rows) > 1)
    done = peak = 0
    for row_count, row_size in rows:
        row_tokens = row_count * row_size
        beside = together + 3 * dim * row_tokens * columns[0][0] * columns[0][1] * (len(columns) > 1)
        for column_count, column_size in columns:
            out = dim * row_tokens * column_count * column_size
            # Groups are contiguous in the map unless two axes with more than one position are transposed.
            changes = (row_size, row_count), (row_size, column_count), (column_size, column_count)
            in_place = len(rows) == len(columns) == 1 and all(1 in pair for pair in changes)
            peak = max(peak, done + beside + (1 if in_place else 4) * out)
            done += out
    joined = len(rows) > 1 or len(columns) > 1
    return 3 * done + max(peak, (1 + 2 * joined) * done)
