"""Sections 1 to 3 of docs/semantics.md in examples worked out by hand, which hold the oracle and the kernel alike.

Times are seconds since the log began; see `drawing` for how logs and outcomes are drawn.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from schemas.measure import Measure
from schemas.rule import (
    Rule,
    above,
    absence,
    attribute,
    below,
    count,
    event,
    max_of,
    mean,
    min_of,
    performance_regression,
    rate,
    ratio,
    sum_of,
)
from tests.kernel.drawing import WARNING, Fold, drawn, edited, lines, log, micros, row, rule, tick, timed
from tests.kernel.log import Row

# --- 1: input ---


def test_the_rows_of_an_array_are_taken_one_by_one(fold: Fold) -> None:
    found = fold(log([rule()], [row(0), row(1), row(1.5), row(1.5)]))
    assert lines(found.transitions) == drawn("1.5 r files fired warning 3")
    assert (found.transitions[0].details["offset"], found.transitions[0].details["index"]) == (1, 2)


def test_records_at_or_below_the_applied_offset_are_skipped_whole(fold: Fold) -> None:
    records = log([rule()], row(0), [row(1), row(1)], tick(9))
    once, twice = fold(records), fold([*records[:3], *records[1:3], *records[2:4], *records])
    assert once == twice
    assert once.counted == 3


def test_nothing_moves_the_applied_offset_alone(fold: Fold) -> None:
    found = fold(log([rule()], row(0), None, row(0), None, row(0), None))
    assert lines(found.transitions) == drawn("0 r files fired warning 3")
    assert found.applied == 6


def test_a_row_at_or_below_the_marker_of_its_origin_is_a_duplicate(fold: Fold) -> None:
    entries = [
        row(0, origin=(5, 7, 0)),
        row(0, origin=(5, 7, 0)),  # again
        row(0, origin=(4, 1, 0)),  # another partition, another marker
        row(0, origin=(5, 6, 9)),  # an earlier record
        row(0, origin=(5, 8, 0)),  # a later one
        row(0, origin=(5, 7, 3)),  # earlier than that
    ]
    found = fold(log([rule()], *entries))
    assert (found.duplicates, found.counted) == (3, 3)
    assert lines(found.transitions) == drawn("0 r files fired warning 3")
    assert found.transitions[0].details["offset"] == 5


def test_rows_that_are_not_local_or_duplicates_move_time_and_are_not_counted(fold: Fold) -> None:
    absent = Rule(name="quiet", condition=absence(for_="4s", every="2s"))
    entries = [row(0, origin=(5, 7, 0)), row(4.5, local=False), row(6, origin=(5, 7, 0))]
    found = fold(log([absent], *entries))
    assert lines(found.transitions) == drawn("6 quiet files fired warning 0")
    assert (found.duplicates, found.counted) == (1, 1)


def test_a_row_that_is_not_local_moves_the_marker_of_its_origin(fold: Fold) -> None:
    found = fold(log([rule()], row(0, local=False, origin=(5, 7, 1)), row(0, origin=(5, 7, 0)), row(0, origin=(5, 7, 2))))
    assert (found.duplicates, found.counted) == (1, 1)


# --- 2: stream time ---


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([row(3)], 3),
        ([row(3), row(2)], 3),
        ([(row(30), 5)], 15),
        ([(row(15), 5)], 15),
        ([(row(1), 50)], 1),
        ([tick(7)], 7),
        ([row(9), tick(7)], 9),
        ([row(9), ([], 100)], 9),
        ([[row(1), row(5), row(2)]], 5),
        ([row(1, local=False)], 1),
    ],
)
def test_stream_time_is_the_largest_candidate(fold: Fold, entries: list[Any], expected: float) -> None:
    assert fold(log([rule()], *entries)).stream_time == micros(expected)


def test_a_tick_stands_for_silence_up_to_three_seconds_before_it(fold: Fold) -> None:
    found = fold(log([Rule(name="quiet", condition=absence(for_="4s", every="2s"))], row(0), tick(5.9), tick(6)))
    assert lines(found.transitions) == drawn("6 quiet files fired warning 0")
    assert found.transitions[0].details["append_time"] == micros(9)


# --- 3: what a rule counts ---


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (3.999999, "3.999999 r files fired warning 3"),  # window [0, 4): all three
        (4.0, ""),  # window [2, 6): the slice of 0 s has left
    ],
)
def test_a_window_ends_with_the_slice_of_stream_time(fold: Fold, last: float, expected: str) -> None:
    assert timed(fold, [rule()], row(0), row(1.999999), row(last)) == drawn(expected)


def test_windows_are_aligned_to_multiples_of_every(fold: Fold) -> None:
    """3 s do not divide the start of the log, which is 2 s after a multiple of 3 s."""
    found = fold(log([rule(over="3s", every="3s")], row(0), row(0.9), row(0.999999), row(1), row(1), row(3.9)))
    assert lines(found.transitions) == drawn("0.999999 r files fired warning 3")
    assert found.transitions[0].window is not None
    assert (found.transitions[0].window.start, found.transitions[0].window.end) == (micros(-2), micros(1))


def test_a_row_ahead_of_stream_time_waits_in_its_slice(fold: Fold) -> None:
    """Appended at 0 s, a row of 13 s moves stream time to 10 s only and is in no window before [10, 14)."""
    entries = [(row(13), 0), (row(13), 0), (row(13), 0), (row(11), 11), tick(12)]
    assert timed(fold, [rule()], *entries) == drawn("12 r files fired warning 4")


def test_a_row_whose_slice_has_left_is_late_and_ignored(fold: Fold) -> None:
    found = fold(log([rule()], row(0), row(6), row(3.9), row(3.9), row(3.9), row(4), row(4)))
    assert found.late == {"r": 3}
    assert lines(found.transitions) == drawn("6 r files fired warning 3")


def test_a_row_is_late_only_once_it_has_moved_time(fold: Fold) -> None:
    """Its own move makes no row late; in an array it is the rows before that do."""
    assert fold(log([rule()], [row(0), row(6), row(0)])).late == {"r": 1}


def test_a_late_row_creates_no_group(fold: Fold) -> None:
    entries = [row(10), row(1, "old"), row(10, "new"), row(10, "new"), row(10, "new")]
    found = fold(log([rule()], *entries), max_groups=2)
    assert (found.late, found.overflow) == ({"r": 1}, {})
    assert lines(found.transitions) == drawn("10 r new fired warning 3")


def test_the_baseline_of_a_regression_keeps_rows_from_being_late(fold: Fold) -> None:
    slower = performance_regression("dur_us", 0.5, "4s", current="4s", every="2s")
    found = fold(log([rule(), Rule(name="slow", condition=slower)], row(9, dur_us=1), row(2, dur_us=1), row(1.9, dur_us=1)))
    assert found.late == {"r": 2, "slow": 1}


def test_rows_that_do_not_touch_a_rule_are_not_late_for_it(fold: Fold) -> None:
    rules = [rule("other", select=event.tool == "write"), rule("average", measure=mean("dur_us"))]
    found = fold(log(rules, row(9), row(1), row(9, dur_us=5), row(1, dur_us=5)))
    assert found.late == {"average": 1}


def test_groups_beyond_the_bound_are_counted_as_overflow(fold: Fold) -> None:
    rules = [rule("a"), rule("b", select=event.service != "s1")]
    entries = [row(0, f"s{n}") for n in (1, 2, 3, 3, 3, 1, 1)]
    found = fold(log(rules, *entries), max_groups=2)
    assert found.overflow == {"a": 3}
    assert lines(found.transitions) == drawn("0 b s3 fired warning 3\n0 a s1 fired warning 3")


MEASURED = [
    row(0.5, weight=3, outcome="ok", dur_us=10, load_=0.25),
    row(1.0, weight=1, outcome="timeout", dur_us=20, load_=True),
    row(1.5, weight=2, outcome="ok", dur_us=None, load_="9"),
    row(1.9, weight=2, outcome="timeout", dur_us=-6, load_=-1.5),
]


@pytest.mark.parametrize(
    ("measure", "value", "events"),
    [
        (count(), "8", 4),
        (rate(), "2", 4),
        (ratio(event.outcome == "timeout"), "3/8", 4),
        (sum_of("dur_us"), "38", 3),
        (mean("dur_us"), "38/6", 3),
        (min_of("dur_us"), "-6", 3),
        (max_of("dur_us"), "20", 3),
        (sum_of(attribute("load")), "-9/4", 2),
        (mean(attribute("load")), "-9/20", 2),
        (max_of(attribute("load")), "1/4", 2),
        (min_of(event.weight), "1", 4),
    ],
)
def test_measures_are_weighted(fold: Fold, measure: Measure, value: str, events: int) -> None:
    """Three rows come before the rule can fire, so the firing at the last shows the whole window."""
    never = rule(measure=measure, warning=above(9999))
    entries = [[never], *MEASURED[:3], [edited(never, levels=[WARNING | {"when": above(-9999)}])], MEASURED[3]]
    (fired,) = fold(log(*entries)).transitions
    assert fired.value == float(Fraction(value))
    assert fired.evidence is not None
    assert fired.evidence[0].events == events


@pytest.mark.parametrize(
    "measure",
    [ratio(event.outcome == "ok"), mean("dur_us"), min_of("dur_us"), max_of("dur_us")],
    ids=lambda measure: measure.measure,
)
def test_nothing_has_no_ratio_mean_min_or_max(fold: Fold, measure: Measure) -> None:
    """So that a firing episode neither holds nor recovers in silence: there is no data."""
    lasting = rule(measure=measure, warning=below(999), no_data_after="6s")
    assert [text.split()[3] for text in timed(fold, [lasting], row(0, dur_us=1), tick(20))] == ["fired", "no_data"]


@pytest.mark.parametrize("measure", [count(), rate(), sum_of("dur_us")], ids=lambda measure: measure.measure)
def test_of_nothing_there_are_none(fold: Fold, measure: Measure) -> None:
    assert timed(fold, [rule(measure=measure, warning=above(0))], row(0, dur_us=1), tick(20))[1:] == drawn(
        "6 r files recovered warning 0"
    )


def test_a_regression_compares_with_the_window_before(fold: Fold) -> None:
    slower = rule(measure=performance_regression("dur_us", 0.5, "4s", current="4s").measure, warning=above(0.5))
    entries = [row(0, dur_us=10), row(3, dur_us=12), row(4, dur_us=30)]
    # 3 s: no baseline before [0, 4). 4 s: at the boundary 12 / 10, with the row 21 / 10: window [2, 6), baseline [-2, 2).
    assert timed(fold, [slower], *entries) == drawn("4 r files fired warning 1.1")


@pytest.mark.parametrize("before", [[], [row(0, dur_us=0)], [row(0, dur_us=-5)], [row(0, dur_us=-5), row(0, dur_us=5)]])
def test_a_regression_needs_a_baseline_above_zero(fold: Fold, before: list[Row]) -> None:
    slower = rule(measure=performance_regression("dur_us", 0.5, "4s", current="4s").measure, warning=above(-2))
    assert timed(fold, [slower], *before, row(4, dur_us=50)) == []
    assert timed(fold, [slower], row(0, dur_us=50), *before, row(4, dur_us=50)) != []


def test_the_baseline_stands_still_while_an_episode_is_open(fold: Fold) -> None:
    slower = rule(measure=performance_regression("dur_us", 0.5, "4s", current="4s").measure, warning=above(0.5))
    entries = [
        row(0, dur_us=10),
        row(4, dur_us=20),
        *(row(at, dur_us=20) for at in range(5, 30)),
        row(30, dur_us=10),
        row(32, dur_us=10),
    ]
    # 4 s: 20 / 10. Twenties for half a minute stay twice the ten of then. 32 s, the boundary: [30, 34) holds one ten; 10 / 10.
    assert timed(fold, [slower], *entries) == drawn("4 r files fired warning 1\n32 r files recovered warning 0")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("eu", "eu"),
        (5, "5"),
        (5.0, "5.0"),
        (True, "true"),
        (False, "false"),
        (None, ""),
        ("", ""),
        (1e-7, "1e-07"),
        (-0.0, "-0.0"),
    ],
)
def test_a_group_is_named_by_the_texts_of_its_fields(fold: Fold, value: Any, text: str) -> None:
    grouped = rule(by=("service", "attributes.region", "tenant", "tool"), warning=above(0))
    (fired,) = fold(log([grouped], row(0, region_=value, tool="read"))).transitions
    assert list(fired.labels.items()) == [("service", "files"), ("region", text), ("tenant", "acme"), ("tool", "read")]


def test_what_has_the_same_text_is_one_group(fold: Fold) -> None:
    grouped = rule(by=("tenant", "service", "attributes.x"))
    entries = [row(0, x_="1"), row(0, x_=1), row(0, x_=True), row(0, x_=1.0), row(0, x_=1), row(0, x_="true"), row(0, x_=True)]
    found = fold(log([grouped], *entries)).transitions
    assert [(each.labels["x"], each.details["offset"]) for each in found] == [("1", 5), ("true", 7)]


def test_absent_and_empty_are_one_group(fold: Fold) -> None:
    grouped = rule(by=("tenant", "service", "attributes.x"))
    found = fold(log([grouped], row(0), row(0, x_=""), row(0, x_=None), row(0, x_=""), row(0))).transitions
    assert [(each.labels["x"], each.value, each.details["offset"]) for each in found] == [("", 3, 3)]


@pytest.mark.parametrize(
    ("select", "hits"),
    [
        (event.attributes["x"] == 1, ["int", "float"]),
        (event.attributes["x"] == True, ["true"]),  # noqa: E712
        (event.attributes["x"] == "1", ["text"]),
        (event.attributes["x"] != 1, ["true", "text", "absent", "two"]),
        (event.attributes["x"].in_(1, "2"), ["int", "float"]),
        (event.attributes["x"].in_(True, 2), ["true", "two"]),
        (event.attributes["x"] >= 1, ["int", "float", "two"]),
        (event.attributes["x"] < 2, ["int", "float"]),
        (~(event.attributes["x"] < 2), ["true", "text", "absent", "two"]),
        (event.attributes["x"].exists(), ["int", "float", "true", "text", "two"]),
        ((event.attributes["x"] > 1) | (event.attributes["x"] == "1"), ["text", "two"]),
        ((event.attributes["x"] > 0) & ~(event.attributes["x"] == 1), ["two"]),
    ],
)
def test_values_of_different_kinds_are_never_equal(fold: Fold, select: Any, hits: list[str]) -> None:
    values = {"int": 1, "float": 1.0, "true": True, "text": "1", "absent": None, "two": 2}
    entries = [row(0, service, x_=value) for service, value in values.items()]
    found = fold(log([rule(select=select, warning=above(0))], *entries)).transitions
    assert [each.source for each in found] == hits
