"""Rows of a chunk as aggregates per group and slice, at array speed and without rounding."""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.number import SCALE, to_fixed
from streams.kernel.aggregates import Aggregate
from streams.kernel.columns import Bool, Columns, Float, Int

_EXACT: Final = 2.0**53
"""Below it float64 holds every integer."""


def reduce_rows(
    columns: Columns, touched: Int, members: Int, numbers: Int, of: Bool | None, values: Float | None
) -> list[dict[int, Aggregate]]:
    """The rows `touched` as aggregates: per member (0 to m - 1) a dict from slice to aggregate."""
    lowest = int(numbers.min()) if len(numbers) else 0
    width = int(numbers.max()) - lowest + 1 if len(numbers) else 1
    distinct, firsts, cells = np.unique(members * width + (numbers - lowest), return_index=True, return_inverse=True)
    size = len(distinct)
    weights, offsets = columns.weight[touched], columns.offset[touched]
    last = np.zeros(size, dtype=np.int64)
    last[cells] = offsets  # rows are in log order, and the last assignment stays
    counts = np.bincount(cells, weights, size)
    events = np.bincount(cells, minlength=size)
    matching = np.zeros(size) if of is None else np.bincount(cells, weights * of[touched], size)
    found: list[dict[int, Aggregate]] = [{} for _ in range(int(members.max()) + 1 if len(members) else 0)]
    measured = None if values is None else _measure(cells, size, weights, values[touched])
    for place, code in enumerate(distinct.tolist()):
        cell = Aggregate()
        cell.count, cell.events, cell.of = int(counts[place]), int(events[place]), int(matching[place])
        cell.first_offset, cell.last_offset = int(offsets[firsts[place]]), int(last[place])
        if measured is not None:
            cell.sum, cell.smallest, cell.largest = measured[place]
        member, number = divmod(code, width)
        found[member][number + lowest] = cell
    return found


def _measure(cells: Int, size: int, weights: Int, values: Float) -> list[tuple[int, int, int]]:
    """Per cell the exact weighted sum, the smallest and the largest value."""
    smallest, largest = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(smallest, cells, values)
    np.maximum.at(largest, cells, values)
    whole = np.trunc(values)
    parts = np.rint((values - whole) * 1e9)
    heaviest = float(weights.max()) * len(values)
    if heaviest * float(np.abs(whole).max()) < _EXACT and heaviest * 1e9 < _EXACT:
        # Below 2**53 float64 adds integers without rounding.
        sums = [
            int(high) * SCALE + int(low)
            for high, low in zip(
                np.bincount(cells, whole * weights, size).tolist(),
                np.bincount(cells, parts * weights, size).tolist(),
                strict=True,
            )
        ]
    else:
        sums = [0] * size
        for cell, weight, value in zip(cells.tolist(), weights.tolist(), values.tolist(), strict=True):
            sums[cell] += weight * to_fixed(value)
    return [
        (total, to_fixed(low), to_fixed(high)) for total, low, high in zip(sums, smallest.tolist(), largest.tolist(), strict=True)
    ]
