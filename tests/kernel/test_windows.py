"""Windows on a fine grid: where they lie, what is in them, what is late and what waits, by arithmetic alone."""

from __future__ import annotations

from fractions import Fraction

import pytest

from schemas.rule import Rule, Ruleset, above, max_of, performance_regression
from tests.kernel import drawing
from tests.kernel.drawing import edited
from tests.kernel.folds import Outcome, by_kernel
from tests.kernel.log import SECOND, T0, EventsRecord, Record, Row, SwitchRecord

QUARTER = SECOND // 4
WINDOWS = [(2, 1), (2, 2), (6, 2), (3, 3), (7.5, 2.5), (9, 3)]
"""(over, every) in seconds; T0 is no multiple of 3 s."""


def at(ts: int, service: str = "a", dur: int = 1) -> Row:
    return Row(ts, {"service": service, "tenant": "acme", "kind": "operation", "dur_us": dur})


def folded(rule: Rule, rows: list[Row], append_time: int = T0 + 100 * SECOND) -> Outcome:
    ruleset = Ruleset(rules=(rule,))
    switch = SwitchRecord(0, T0, ruleset.id, 1, ruleset)
    records: list[Record] = [switch, *(EventsRecord(n, append_time, (row,)) for n, row in enumerate(rows, 1))]
    return by_kernel(records)[0]


def counting(over: float, every: float) -> Rule:
    return drawing.rule(over=round(over * SECOND), every=round(every * SECOND), warning=above(0))


@pytest.mark.parametrize(("over", "every"), WINDOWS)
def test_a_window_ends_with_the_slice_of_stream_time(over: float, every: float) -> None:
    for now in range(T0, T0 + 12 * SECOND, QUARTER):
        (fired,) = folded(counting(over, every), [at(now)]).transitions
        assert fired.window is not None
        start, end = fired.window.start, fired.window.end
        assert end - start == over * SECOND
        assert start % (every * SECOND) == end % (every * SECOND) == 0
        assert 0 < end - now <= every * SECOND


@pytest.mark.parametrize(("over", "every"), WINDOWS)
def test_a_row_is_late_counted_or_waits_by_its_slice(over: float, every: float) -> None:
    """Stream time stands at `now`, since a row of another service was appended 10 s before; a row lies before it or ahead."""
    rule = counting(over, every)
    for now in (T0 + 40 * QUARTER, T0 + 41 * QUARTER, T0 + 47 * QUARTER):
        end = (now // rule.every + 1) * rule.every
        for ts in range(now - 12 * SECOND, now + 12 * SECOND, QUARTER):
            found = folded(rule, [at(now, "clock"), at(ts, "row")], append_time=now - 10 * SECOND)
            begin = ts // rule.every * rule.every
            assert found.late == ({"r": 1} if begin < end - rule.over else {})
            assert ("row" in {each.source for each in found.transitions}) is (end - rule.over <= begin < end)


@pytest.mark.parametrize("baseline", [1, 2, 3])
@pytest.mark.parametrize(("over", "every"), WINDOWS)
def test_a_baseline_lies_before_its_window(over: float, every: float, baseline: int) -> None:
    """One row a slice, each of another value, so the value of the first firing tells which slices were where."""
    plain = counting(over, every)
    measure = performance_regression("dur_us", 1, plain.every * baseline, current="1s", every="1s").measure
    rule = edited(plain, measure=measure.model_dump(), levels=[{"severity": "info", "when": above(-1)}])
    begin = T0 // rule.every * rule.every + QUARTER
    rows = [at(begin + n * rule.every, dur=3 ** (n % 5) + n) for n in range(12)]
    for skipped in range(4):
        fired = folded(rule, rows[skipped:]).transitions[0]
        assert fired.window is not None
        known = [row for row in rows[skipped:] if row.ts <= fired.decided_at]
        current, before = (
            [row.fields["dur_us"] for row in known if start <= row.ts < end]
            for start, end in (
                (fired.window.start, fired.window.end),
                (fired.window.start - rule.every * baseline, fired.window.start),
            )
        )
        assert fired.value == float(Fraction(sum(current) * len(before), len(current) * sum(before)) - 1)


def test_the_largest_of_a_window_goes_when_its_slice_goes() -> None:
    rule = edited(counting(6, 2), measure=max_of("dur_us").model_dump(), levels=[{"severity": "info", "when": above(5)}])
    rows = [at(T0 + seconds * SECOND, dur=dur) for seconds, dur in ((0, 9), (2, 1), (4, 2), (5, 3), (6, 4))]
    fired, recovered = folded(rule, rows).transitions
    assert (fired.value, recovered.value) == (9, 3)
    assert recovered.decided_at == T0 + 6 * SECOND
