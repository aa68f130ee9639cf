"""Rows of a chunk as aggregates per group and slice, at array speed and without rounding."""

from __future__ import annotations

import numpy as np

from schemas.number import to_fixed
from streams import native
from streams.kernel.aggregates import Aggregate
from streams.kernel.columns import Bool, Columns, Float, Int
from streams.kernel.distinct import distinct


def reduce_rows(
    columns: Columns, touched: Int, members: Int, numbers: Int, of: Bool | None, values: Float | None
) -> list[dict[int, Aggregate]]:
    """The rows `touched` as aggregates: per member (0 to m - 1) a dict from slice to aggregate."""
    if not len(touched):
        return []
    lowest = int(numbers.min())
    width = int(numbers.max()) - lowest + 1
    cells, firsts = distinct(members * width + (numbers - lowest))
    rows = native.Rows(
        native.at(touched, np.int64), native.at(cells, np.int64), len(touched), len(columns),
        native.at(columns.offset, np.int64), native.at(columns.weight, np.int64),
        None if of is None else native.at(of, np.bool_), None if values is None else native.at(values, np.float64),
    )  # fmt: skip
    size = len(firsts)
    whole = np.zeros((6, size), dtype=np.int64)
    low, extremes = np.zeros(size, dtype=np.uint64), np.zeros((2, size))
    places = [native.at(column, np.int64) for column in whole]
    native.library.tocsin_reduce(
        rows,
        native.Cells(size, *places, native.at(low, np.uint64), *(native.at(column, np.float64) for column in extremes)),
    )
    found: list[dict[int, Aggregate]] = [{} for _ in range(int(members.max()) + 1)]
    columns_ = (members[firsts], numbers[firsts], *whole, low, *extremes)
    for member, number, *totals, high, low_, smallest, largest in zip(*(column.tolist() for column in columns_), strict=True):
        cell = found[member][number] = Aggregate()
        cell.count, cell.events, cell.of, cell.first_offset, cell.last_offset = totals
        if values is not None:
            cell.sum, cell.smallest, cell.largest = (high << 64) + low_, to_fixed(smallest), to_fixed(largest)
    return found
