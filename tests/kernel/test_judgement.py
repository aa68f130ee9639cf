"""Section 4 of docs/semantics.md in examples worked out by hand: when a rule is judged, and on which window.

Times are seconds since the log began; see `drawing` for how logs and outcomes are drawn.
"""

from __future__ import annotations

from typing import Any

import pytest

from schemas.measure import Measure
from schemas.rule import Rule, above, absence, attribute, below, count, equal, event, mean, rate, ratio, sum_of
from tests.kernel.drawing import WARNING, Fold, drawn, edited, lines, log, micros, row, rule, tick, timed

# --- 4: when a rule is judged ---


def test_a_jump_judges_every_boundary_that_it_crosses(fold: Fold) -> None:
    """Seen at 0 s and gone: nothing in [2, 6), so the firing of 6 s is recovered from at 12 s, when rows are back."""
    quiet = Rule(name="quiet", condition=absence(for_="4s", every="2s"))
    found = fold(log([quiet], row(0), row(6.5), row(7), tick(11)))
    assert lines(found.transitions) == drawn("6 quiet files fired warning 0\n8 quiet files recovered warning 2")
    assert [each.details["offset"] for each in found.transitions] == [2, 4]


def test_the_first_move_of_time_passes_in_silence(fold: Fold) -> None:
    assert timed(fold, [rule(warning=above(0))], row(0)) == drawn("0 r files fired warning 1")


def test_a_jump_over_years_ends_what_was_open_and_then_passes_in_silence(fold: Fold) -> None:
    quiet = Rule(name="quiet", condition=absence(for_="4s", every="2s", no_data_after="9s"))
    years = 3 * 365 * 86_400
    assert timed(fold, [quiet, rule()], row(0), row(years), tick(years + 4)) == drawn("""
        6        quiet files fired   warning 0
        10       quiet files no_data warning -
    """)


def test_a_row_on_a_boundary_is_counted_after_the_boundary_was_judged(fold: Fold) -> None:
    """At 4 s, by the row of 4 s: full window [0, 4) is not below 2. By the row of 6 s: [2, 6) holds only that of 4 s."""
    rare = rule(warning=below(2))
    found = fold(log([rare], row(0), row(1), row(4), row(6), row(6), row(8)))
    assert lines(found.transitions) == drawn("6 r files fired warning 1\n8 r files recovered warning 3")
    assert [each.details["offset"] for each in found.transitions] == [4, 6]


def test_a_group_that_is_younger_than_the_window_is_not_below(fold: Fold) -> None:
    """first_at = 1 s: [0, 4) at 4 s began before it; [2, 6) at 6 s did not."""
    assert timed(fold, [rule(warning=below(2))], row(1), tick(5.9), tick(6)) == drawn("6 r files fired warning 0")
    assert timed(fold, [rule(warning=below(2))], row(0), tick(3.9), tick(4)) == drawn("4 r files fired warning 1")


@pytest.mark.parametrize("measure", [count(), rate(), sum_of(event.weight)], ids=lambda measure: measure.measure)
def test_a_quantity_is_equal_at_boundaries_only(fold: Fold, measure: Measure) -> None:
    exact = rule(measure=measure, warning=equal(0.5 if measure.measure == "rate" else 2, tolerance=0))
    # Two in [0, 4), but that is not known before 4 s; at 6 s there is one in [2, 6).
    assert [text.split()[:4] for text in timed(fold, [exact], row(0), row(1), row(4), tick(6))] == [
        ["4", "r", "files", "fired"],
        ["6", "r", "files", "recovered"],
    ]


def test_a_ratio_is_below_at_once(fold: Fold) -> None:
    rare = rule(measure=ratio(event.outcome == "ok"), warning=below(0.5))
    assert timed(fold, [rare], row(1, outcome="ok"), row(1.5), row(1.5)) == drawn("1.5 r files fired warning 0.333333")


def test_a_quantity_recovers_on_the_full_window(fold: Fold) -> None:
    """At 4 s the new window [2, 6) holds none, but [0, 4) held three; at 6 s [2, 6) is past."""
    found = fold(log([rule()], row(0), row(0), row(1), tick(4), tick(6)))
    assert lines(found.transitions) == drawn("1 r files fired warning 3\n6 r files recovered warning 0")
    fired, recovered = (each.window for each in found.transitions)
    assert fired is not None
    assert recovered is not None
    assert (fired.start, fired.end, recovered.start, recovered.end) == (micros(-2), micros(2), micros(2), micros(6))


def test_a_mean_recovers_at_a_row(fold: Fold) -> None:
    slow = rule(measure=mean("dur_us"), warning=above(10))
    assert timed(fold, [slow], row(0, dur_us=11), row(0.5, dur_us=9)) == drawn(
        "0 r files fired warning 11\n0.5 r files recovered warning 10"
    )


def test_a_mean_recovers_at_a_boundary_on_the_new_window(fold: Fold) -> None:
    """At 4 s the 20 leaves, and [2, 6) holds the 4."""
    slow = rule(measure=mean("dur_us"), warning=above(10))
    found = fold(log([slow], row(0, dur_us=20), row(2, dur_us=4), tick(4)))
    assert lines(found.transitions) == drawn("0 r files fired warning 20\n4 r files recovered warning 4")


def test_at_least_is_weighted_and_until_then_nothing_is_known(fold: Fold) -> None:
    slow = rule(measure=mean("dur_us"), warning=above(10, at_least=5))
    assert timed(fold, [slow], row(0, dur_us=20, weight=4), row(1, dur_us=20)) == drawn("1 r files fired warning 20")


@pytest.mark.parametrize(
    ("threshold", "values", "fires"),
    [
        (above(0.1), [0.1, 0.1, 0.1], False),
        (above(0.3), [0.2, 0.4], False),
        (above(0.3), [0.2, 0.400000001], True),
        (below(0.3), [0.2, 0.4], False),
        (equal(0.3, tolerance=0), [0.1, 0.2, 0.6], True),
        (equal(0.3, tolerance=0), [0.1, 0.2, 0.600000001], False),
        (equal(0.3, tolerance=0.1), [0.4], True),
        (equal(0.3, tolerance=0.1), [0.2], True),
        (equal(0.3, tolerance=0.1), [0.400000001], False),
        (above(0.333333333), [0, 0, 1], True),
        (above(0.333333334), [0, 0, 1], False),
        (above(2**52), [2**53, 1], True),
        (above(2**52), [2**53, 0], False),
    ],
)
def test_comparisons_are_exact(fold: Fold, threshold: Any, values: list[float], fires: bool) -> None:
    """All values come in one record before the rule can fire, the last after."""
    never = rule(measure=mean(attribute("x")), warning=above(2**53))
    rows = [row(0, x_=value) for value in values]
    entries = [[never], *rows[:-1], [edited(never, levels=[WARNING | {"when": threshold}])], rows[-1]]
    assert (timed(fold, *entries) != []) is fires
