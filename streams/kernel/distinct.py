"""What is distinct among the rows of a chunk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams import native


def distinct(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for each of n values, int64[n], in the order in which they first occur, and the first row of each number."""
    rows = len(values)
    table = native.hash_table(rows)
    codes, firsts = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.int64)
    count = native.library.tocsin_distinct(
        native.at(values, np.int64), rows, native.at(table, np.int32), len(table),
        native.at(codes, np.int64), native.at(firsts, np.int64),
    )  # fmt: skip
    return codes, firsts[:count]
