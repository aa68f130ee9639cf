"""Judging: what a rule makes of its windows, exactly, and whether a run of events can change it at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from schemas.condition import SEVERITIES, Threshold
from schemas.measure import Count, Max, Mean, Min, Rate, Ratio, Regression, Sum
from schemas.number import SCALE, exact_fixed
from schemas.rule import Rule, fingerprint_of_aggregate
from streams.kernel.aggregates import Aggregate, Value, reach, result
from streams.kernel.lifecycle import Episode, Firing, Pending, Timing, Verdict

_QUANTITIES: Final = (Count, Rate, Sum)


@dataclass(frozen=True, slots=True)
class Bound:
    """A threshold in integers: the value compares with [low, high], in units of 10**-9."""

    comparison: str
    low: int
    high: int
    at_least: int
    full_only: bool

    def holds(self, value: Value) -> bool:
        """Whether `value` compares as the threshold asks."""
        number, per = value[0] * SCALE, value[1]
        if self.comparison == "above":
            return number > self.high * per
        if self.comparison == "below":
            return number < self.low * per
        return self.low * per <= number <= self.high * per

    def holds_throughout(self, least: Value, largest: Value) -> Verdict:
        """Whether every value from `least` to `largest` holds (True), none does (False), or it depends (None)."""
        if self.comparison != "equal":
            first, last = self.holds(least), self.holds(largest)
            return first if first is last else None
        if self.holds(least) and self.holds(largest):
            return True
        outside = largest[0] * SCALE < self.low * largest[1] or least[0] * SCALE > self.high * least[1]
        return False if outside else None

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
        self.span = rule.over // rule.every
        """Slices of the window."""
        self.baseline_span = rule.measure.baseline // rule.every if isinstance(rule.measure, Regression) else 0
        self.timing = Timing(
            rule.hold_for,
            rule.keep_firing_for,
            rule.no_data_after,
            any(level.full_only for level in self.levels),
            tuple(SEVERITIES.index(level.severity) for level in rule.levels),
        )

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

    def verdicts(self, windows: Windows) -> tuple[Verdict, ...]:
        """Per level: holds, fails or unknown."""
        value = self.value(windows.judged, windows.baseline)
        full = None if windows.full is None else self.value(windows.full, windows.baseline)
        return tuple(
            self._verdict(level, windows.full, full) if level.full_only else self._verdict(level, windows.judged, value)
            for level in self.levels
        )

    def recovered(self, windows: Windows, levels: tuple[Verdict, ...]) -> Verdict:
        """Whether a firing episode recovers."""
        window = windows.judged
        if self.quantity:
            if windows.full is None:
                return None
            window = windows.full
            full = self.value(window, windows.baseline)
            levels = tuple(self._verdict(level, window, full) for level in self.levels)
        if True in levels:
            return False
        if None in levels:
            return None
        if self.recover is None:
            return True
        return self._verdict(self.recover, window, self.value(window, windows.baseline))

    @staticmethod
    def _verdict(bound: Bound, window: Aggregate | None, value: Value | None) -> Verdict:
        if window is None or value is None or window.count < bound.at_least:
            return None
        return bound.holds(value)

    def cannot_change(
        self, episode: Episode | None, before: Aggregate, added: Aggregate, baseline: tuple[int, int] | None, until: int
    ) -> bool:
        """Whether judging after each of the events in `added`, up to stream time `until`, surely leaves `episode` as it is.

        `before` is the judged window without them. Full-only thresholds are unknown at rows and change nothing there.
        """
        if isinstance(episode, Pending) and all(start is None for start in episode.since):
            return False  # a deploy took its levels away: it ends at the next judgement
        within = reach(self.measure, before, added, self.over, baseline)
        levels = tuple(self._throughout(level, before, added, within) for level in self.levels)
        if any(level == "depends" for level in levels):
            return False
        since: tuple[int | None, ...] = (None,) * len(levels) if episode is None else episode.since
        for level, (verdict, start) in enumerate(zip(levels, since, strict=True)):
            if verdict is False and start is not None:
                return False
            if verdict is True:
                if start is None:
                    return False
                announced = isinstance(episode, Firing) and self.timing.ranks[level] <= episode.rank
                if not announced and until - start >= self.timing.hold_for:
                    return False
        if not isinstance(episode, Firing) or self.quantity:
            return True
        if True in levels:
            return episode.recovering is None
        if None in levels:
            return True
        return (
            episode.recovering is None
            and self.recover is not None
            and self._throughout(self.recover, before, added, within) is False
        )

    @staticmethod
    def _throughout(bound: Bound, before: Aggregate, added: Aggregate, within: tuple[Value, Value] | None) -> Verdict | str:
        """The verdict of `bound` after every event of `added`, or "depends".

        It may be unknown after the first of them, for want of samples or a value: that changes nothing at a row.
        """
        if bound.full_only or within is None or before.count + added.count < bound.at_least:
            return None
        verdict = bound.holds_throughout(*within)
        return "depends" if verdict is None else verdict
