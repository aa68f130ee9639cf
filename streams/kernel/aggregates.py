"""What is kept of the events of a slice, and what a measure makes of a window of slices.

Everything is an integer, so merging needs no order: weights and counts as they are, values in units of 10**-9.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Self

from schemas.measure import Count, Max, Mean, Measure, Min, Rate, Ratio, Regression, Sum
from schemas.number import SCALE
from schemas.time import MICROS

Value = tuple[int, int]
"""An exact rational: numerator and positive denominator."""

LIMB: Final = 10**18
"""Sums are stored as two numbers, of which the lower lies below this one: each fits 64 bits."""


class Aggregate:
    """The events of one slice, or of several merged. `smallest` and `largest` are None where no value was added."""

    __slots__ = ("count", "events", "first_offset", "largest", "last_offset", "of", "smallest", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.events = 0
        self.first_offset = -1
        self.last_offset = -1
        self.of = 0
        self.sum = 0
        self.smallest: int | None = None
        self.largest: int | None = None

    def add(self, offset: int, weight: int, of: bool, value: int | None) -> None:
        """Count one event: its offset, weight, whether it matches the ratio's `of`, and its value."""
        self.count += weight
        self.events += 1
        if self.first_offset < 0:
            self.first_offset = offset
        self.last_offset = offset
        if of:
            self.of += weight
        if value is not None:
            self.sum += weight * value
            if self.smallest is None or value < self.smallest:
                self.smallest = value
            if self.largest is None or value > self.largest:
                self.largest = value

    def merge(self, other: Aggregate) -> None:
        """Add what `other` holds."""
        self.count += other.count
        self.events += other.events
        if other.events:
            if self.first_offset < 0 or other.first_offset < self.first_offset:
                self.first_offset = other.first_offset
            self.last_offset = max(self.last_offset, other.last_offset)
        self.of += other.of
        self.sum += other.sum
        if other.smallest is not None and (self.smallest is None or other.smallest < self.smallest):
            self.smallest = other.smallest
        if other.largest is not None and (self.largest is None or other.largest > self.largest):
            self.largest = other.largest

    def encode(self) -> list[Any]:
        """The aggregate as a list of integers that fit 64 bits."""
        high, low = divmod(self.sum, LIMB)
        extremes = (
            (None, None)
            if self.smallest is None or self.largest is None
            else (divmod(self.smallest, LIMB), divmod(self.largest, LIMB))
        )
        return [self.count, self.events, self.first_offset, self.last_offset, self.of, high, low, *extremes]

    @classmethod
    def decode(cls, held: list[Any]) -> Self:
        """The aggregate that `encode` wrote."""
        found = cls()
        found.count, found.events, found.first_offset, found.last_offset, found.of, high, low, smallest, largest = held
        found.sum = high * LIMB + low
        if smallest is not None:
            found.smallest = smallest[0] * LIMB + smallest[1]
            found.largest = largest[0] * LIMB + largest[1]
        return found


def merged(aggregates: Iterable[Aggregate]) -> Aggregate:
    """The sum of `aggregates`."""
    total = Aggregate()
    for aggregate in aggregates:
        total.merge(aggregate)
    return total


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
            return (window.smallest or 0), SCALE
        case Max():
            return (window.largest or 0), SCALE
        case Regression():
            return regression(window.sum, window.count, baseline)


def regression(total: int, count: int, baseline: tuple[int, int] | None) -> Value | None:
    """Mean (`total` / `count`) relative to the baseline's mean, less one; None without a positive baseline."""
    if baseline is None or baseline[1] == 0 or baseline[0] <= 0:
        return None
    base_sum, base_count = baseline
    return total * base_count - base_sum * count, base_sum * count


def reach(
    measure: Measure, before: Aggregate, added: Aggregate, over: int, baseline: tuple[int, int] | None
) -> tuple[Value, Value] | None:
    """The least and the largest value that the measure may have after any prefix of the events in `added`.

    `before` is the window without them. Prefixes without a value are left out; None if all are.
    """
    total = before.count + added.count
    match measure:
        case Count() | Rate():
            scale, per = (1, 1) if isinstance(measure, Count) else (MICROS, over)
            return (before.count * scale, per), (total * scale, per)
        case Sum():
            worst = added.count * min(added.smallest or 0, 0)
            best = added.count * max(added.largest or 0, 0)
            return (before.sum + worst, SCALE), (before.sum + best, SCALE)
        case _ if total == 0:
            return None
        case Ratio():
            misses = added.count - added.of
            if before.count == 0:
                return (0, 1), (1, 1)
            return (before.of, before.count + misses), (before.of + added.of, before.count + added.of)
        case Min() | Max():
            if before.count == 0:
                return ((added.smallest or 0), SCALE), ((added.largest or 0), SCALE)
            if isinstance(measure, Min):
                held = before.smallest or 0
                return (min(held, added.smallest or 0) if added.events else held, SCALE), (held, SCALE)
            held = before.largest or 0
            return (held, SCALE), (max(held, added.largest or 0) if added.events else held, SCALE)
        case Mean() | Regression():
            corners = [
                (before.sum + added.count * (added.smallest or 0), total),
                (before.sum + added.count * (added.largest or 0), total),
            ]
            if before.count:
                corners += [(before.sum, before.count)]
            else:
                corners += [(value, 1) for value in (added.smallest or 0, added.largest or 0)]
            values: list[Value] = []
            for sum_, count in corners:
                value = (sum_, SCALE * count) if isinstance(measure, Mean) else regression(sum_, count, baseline)
                if value is None:
                    return None
                values.append(value)
            return _least(values), _largest(values)


def _least(values: list[Value]) -> Value:
    least = values[0]
    for value in values[1:]:
        if value[0] * least[1] < least[0] * value[1]:
            least = value
    return least


def _largest(values: list[Value]) -> Value:
    largest = values[0]
    for value in values[1:]:
        if value[0] * largest[1] > largest[0] * value[1]:
            largest = value
    return largest
