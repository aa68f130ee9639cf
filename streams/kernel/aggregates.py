"""The events of a window, as native/aggregates.zig added them up, and what a measure makes of them, to be told.

Everything is an integer: weights and counts as they are, values in units of 10**-9.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.measure import Count, Max, Mean, Measure, Min, Rate, Ratio, Regression, Sum
from schemas.number import SCALE
from schemas.time import MICROS

Value = tuple[int, int]
"""An exact rational: numerator and positive denominator."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The events of a window: sums of weights, of all events and of those that match the ratio's `of`, and of values.

    `smallest` and `largest` mean something where values were added.
    """

    count: int
    events: int
    of: int
    first_offset: int
    last_offset: int
    sum: int
    smallest: int
    largest: int


def result(measure: Measure, window: Aggregate, over: int, baseline: tuple[int, int] | None) -> Value | None:
    """The value of `measure` over a window of length `over`; None is no value.

    `baseline` is (sum, count) of the baseline window of a regression.
    """
    match measure:
        case Count():
            return window.count, 1
        case Rate():
            return window.count * MICROS, over
        case Sum():
            return window.sum, SCALE
        case _ if window.count == 0:
            return None
        case Ratio():
            return window.of, window.count
        case Mean():
            return window.sum, SCALE * window.count
        case Min():
            return window.smallest, SCALE
        case Max():
            return window.largest, SCALE
        case Regression():
            return regression(window.sum, window.count, baseline)


def regression(total: int, count: int, baseline: tuple[int, int] | None) -> Value | None:
    """Mean (`total` / `count`) relative to the baseline's mean, less one; None without a positive baseline."""
    if baseline is None or baseline[1] == 0 or baseline[0] <= 0:
        return None
    base_sum, base_count = baseline
    return total * base_count - base_sum * count, base_sum * count
