"""A rule as it is judged (native/judging.zig), and what of a judgement is told."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from schemas.condition import SEVERITIES, Threshold
from schemas.measure import Count, Max, Mean, Min, Rate, Ratio, Regression, Sum
from schemas.number import SCALE, exact_fixed
from schemas.rule import Rule, fingerprint_of_aggregate
from streams.kernel.aggregates import Aggregate, Value, result

_QUANTITIES: Final = (Count, Rate, Sum)
_MEASURES: Final = (Count, Rate, Sum, Mean, Min, Max, Ratio, Regression)
_COMPARISONS: Final = ("above", "below", "equal")
"""Both in the order of native/judging.zig."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A threshold in integers: the value compares with [low, high], in units of 10**-9."""

    comparison: str
    low: int
    high: int
    at_least: int
    full_only: bool

    @property
    def shown(self) -> float | tuple[float, float]:
        """The threshold as alerts show it."""
        return self.low / SCALE if self.low == self.high else (self.low / SCALE, self.high / SCALE)


@dataclass(frozen=True, slots=True)
class Windows:
    """What a judgement looks at. `full` is None at a row, and where the group is younger than the window."""

    judged: Aggregate
    full: Aggregate | None
    baseline: tuple[int, int] | None
    boundary: bool


class Plan:
    """A rule, ready to be judged."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.revision = rule.revision
        self.measure = rule.measure
        self.over, self.every = rule.over, rule.every
        self.quantity = isinstance(rule.measure, _QUANTITIES)
        self.levels = tuple(self._bound(level.when) for level in rule.levels)
        self.recover = None if rule.recover is None else self._bound(rule.recover)
        self.baseline_span = rule.measure.baseline // rule.every if isinstance(rule.measure, Regression) else 0
        self.ranks = tuple(SEVERITIES.index(level.severity) for level in rule.levels)

    @cached_property
    def state_id(self) -> bytes:
        """Identity of the state: what is aggregated, for whom; not when it alerts."""
        return bytes.fromhex(fingerprint_of_aggregate(self.rule))

    @property
    def field(self) -> Any:
        """The field that is measured, None for counts and ratios."""
        return self.measure.field if isinstance(self.measure, Sum | Mean | Min | Max | Regression) else None

    @property
    def of(self) -> Any:
        """The predicate of a ratio."""
        return self.measure.of if isinstance(self.measure, Ratio) else None

    def _bound(self, when: Threshold) -> Bound:
        value, tolerance = exact_fixed(when.value), exact_fixed(when.tolerance)
        full_only = self.quantity and when.comparison != "above"
        return Bound(when.comparison, value - tolerance, value + tolerance, when.at_least, full_only)

    def value(self, window: Aggregate, baseline: tuple[int, int] | None) -> Value | None:
        """The value of the measure over `window`."""
        return result(self.measure, window, self.over, baseline)

    def packed(self, max_groups: int, block: int) -> bytes:
        """The rule as native/judging.zig takes it: at most so many groups, judged in blocks of so many rows."""
        rule, unused = self.rule, len(SEVERITIES) - len(self.levels)
        head = _HEAD.pack(
            _MEASURES.index(type(self.measure)), self.over, self.every, self.baseline_span, max_groups, block, self.state_id,
            rule.hold_for, rule.keep_firing_for, rule.no_data_after, any(bound.full_only for bound in self.levels),
            len(self.levels), *self.ranks, *[0] * unused,
        )  # fmt: skip
        nothing = bytes(_BOUND.size)
        levels = [*map(_packed, self.levels), *[nothing] * unused]
        recover = nothing if self.recover is None else _packed(self.recover)
        return b"".join([head, *levels, _FLAG.pack(self.recover is not None), recover])


_HEAD: Final = struct.Struct("=6q8s5q4q")
_FLAG: Final = struct.Struct("=q")
_BOUND: Final = struct.Struct("=qqQqQqq")


def _packed(bound: Bound) -> bytes:
    low, high = ((each >> 64, each & (1 << 64) - 1) for each in (bound.low, bound.high))
    return _BOUND.pack(_COMPARISONS.index(bound.comparison), *low, *high, bound.at_least, bound.full_only)
