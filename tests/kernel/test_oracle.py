"""Each clause of docs/semantics.md in an example worked out by hand, which holds the oracle and the kernel alike.

Times are seconds since the log began; see `drawing` for how logs and outcomes are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest

from schemas.alert import fingerprint
from schemas.rule import (
    Measure,
    Rule,
    Ruleset,
    above,
    absence,
    attribute,
    below,
    count,
    equal,
    error_rate,
    event,
    max_of,
    mean,
    metric_threshold,
    min_of,
    performance_regression,
    rate,
    ratio,
    security_violation,
    sum_of,
)
from tests.kernel.drawing import drawn, edited, lines, log, micros, row, tick
from tests.kernel.folds import Outcome, Plan, by_kernel, by_oracle
from tests.kernel.log import Record, Row, SwitchRecord

Fold = Callable[..., Outcome]
WARNING: dict[str, Any] = {"severity": "warning"}


@pytest.fixture(params=["plainly", "kernel at once", "kernel by record", "kernel restored"])
def fold(request: pytest.FixtureRequest) -> Fold:
    """Folds records; every way of doing so must say what the example says."""

    def folded(records: Sequence[Record], max_groups: int = 100_000) -> Outcome:
        every = (1,) * len(records)
        match request.param:
            case "plainly":
                return by_oracle(records, max_groups)
            case "kernel at once":
                return by_kernel(records, Plan(), max_groups)[0]
            case "kernel by record":
                return by_kernel(records, Plan(every), max_groups)[0]
            case _:
                return by_kernel(records, Plan(every, restored=frozenset(range(len(records)))), max_groups)[0]

    return folded


def rule(name: str = "r", **said: Any) -> Rule:
    """A rule that counts over 4 s, in slices of 2 s, and warns above 2 where no level is given."""
    given = {"measure": count(), "over": "4s", "every": "2s", "summary": "{value}"} | said
    if not {"info", "warning", "high", "critical", "levels", "condition"} & set(given):
        given["warning"] = above(2)
    return Rule(name=name, **given)


def timed(fold: Fold, *entries: Any) -> list[str]:
    return lines(fold(log(*entries)).transitions)


# --- 1: input -----------------------------------------------------------------------------------------------------


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


# --- 2: stream time -----------------------------------------------------------------------------------------------


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


# --- 3: what a rule counts ----------------------------------------------------------------------------------------


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
    "measure", [ratio(event.outcome == "ok"), mean("dur_us"), min_of("dur_us"), max_of("dur_us")], ids=lambda measure: measure.measure
)
def test_nothing_has_no_ratio_mean_min_or_max(fold: Fold, measure: Measure) -> None:
    """So that a firing episode neither holds nor recovers in silence: there is no data."""
    lasting = rule(measure=measure, warning=below(999), no_data_after="6s")
    assert [text.split()[3] for text in timed(fold, [lasting], row(0, dur_us=1), tick(20))] == ["fired", "no_data"]


@pytest.mark.parametrize("measure", [count(), rate(), sum_of("dur_us")], ids=lambda measure: measure.measure)
def test_of_nothing_there_are_none(fold: Fold, measure: Measure) -> None:
    assert timed(fold, [rule(measure=measure, warning=above(0))], row(0, dur_us=1), tick(20))[1:] == drawn("6 r files recovered warning 0")


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
    entries = [row(0, dur_us=10), row(4, dur_us=20), *(row(at, dur_us=20) for at in range(5, 30)), row(30, dur_us=10), row(32, dur_us=10)]
    # 4 s: 20 / 10. Twenties for half a minute stay twice the ten of then. 32 s, the boundary: [30, 34) holds one ten; 10 / 10.
    assert timed(fold, [slower], *entries) == drawn("4 r files fired warning 1\n32 r files recovered warning 0")


@pytest.mark.parametrize(
    ("value", "text"),
    [("eu", "eu"), (5, "5"), (5.0, "5.0"), (True, "true"), (False, "false"), (None, ""), ("", ""), (1e-7, "1e-07"), (-0.0, "-0.0")],
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


# --- 4: when a rule is judged -------------------------------------------------------------------------------------


def test_a_jump_judges_every_boundary_that_it_crosses(fold: Fold) -> None:
    """Seen at 0 s and gone: nothing in [2, 6), so the firing of 6 s is recovered from at 12 s, when rows are back."""
    quiet = Rule(name="quiet", condition=absence(for_="4s", every="2s"))
    found = fold(log([quiet], row(0), row(6.5), row(7), tick(11)))
    assert lines(found.transitions) == drawn("6 quiet files fired warning 0\n8 quiet files recovered warning 2")
    assert [each.details["offset"] for each in found.transitions] == [2, 4]


def test_the_first_move_of_time_crosses_no_boundary(fold: Fold) -> None:
    assert timed(fold, [rule(warning=above(0))], row(0)) == drawn("0 r files fired warning 1")


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


# --- 5: lifecycle -------------------------------------------------------------------------------------------------


def test_an_episode_is_pending_for_hold_for(fold: Fold) -> None:
    held = rule(measure=mean("dur_us"), warning=above(10), hold_for="3s")
    found = fold(log([held], row(1, dur_us=20), row(3.9, dur_us=20), row(4.5, dur_us=20)))
    assert lines(found.transitions) == drawn("4 r files fired warning 20")
    assert found.transitions[0].started_at == micros(1)
    assert found.transitions[0].details["offset"] == 3, "by the boundary that the row of 4.5 s crosses"


def test_a_pending_episode_ends_without_a_word(fold: Fold) -> None:
    held = rule(measure=mean("dur_us"), warning=above(10), hold_for="3s")
    entries = [row(0, dur_us=20), row(1, dur_us=0), row(1.5, dur_us=20), row(2, dur_us=20), row(4, dur_us=20), row(5, dur_us=20)]
    # 1 s: the mean is 10, and the episode of 0 s ends. 1.5 s: 40/3, another; it is 3 s old at 5 s.
    found = fold(log([held], *entries)).transitions
    assert lines(found) == drawn("5 r files fired warning 20")
    assert found[0].started_at == micros(1.5)


def test_a_level_holds_since_it_held_and_the_episode_is_as_old_as_its_first(fold: Fold) -> None:
    """warning from 0 s, high from 1 s on; each ripe 2 s later. The first to be seen ripe is high, since no row comes between."""
    levels = rule(measure=max_of("dur_us"), over="10s", warning=above(10), high=above(20), hold_for="2s")
    assert timed(fold, [levels], row(1, dur_us=11), row(1.5, dur_us=21), row(3, dur_us=0), row(3.5, dur_us=0)) == drawn(
        "3 r files fired warning 21\n3.5 r files raised high 21"
    )
    assert timed(fold, [levels], row(1, dur_us=11), row(1.5, dur_us=21), row(3.5, dur_us=0)) == drawn("3.5 r files fired high 21")


def test_a_severity_is_raised_and_never_lowered(fold: Fold) -> None:
    levels = rule(measure=mean("dur_us"), info=above(10), warning=above(20), critical=above(40))
    entries = [row(0, dur_us=15), row(0, dur_us=85), row(0, dur_us=-25), row(0, dur_us=0), row(1, dur_us=0)]
    # means: 15, 50, 25, 18.75, 15
    found = fold(log([levels], *entries, tick(2), row(2, dur_us=-15))).transitions
    assert lines(found) == drawn("0 r files fired info 15\n0 r files raised critical 50\n2 r files recovered critical 10")
    assert [each.details["ordinal"] for each in found] == [0, 1, 2]
    assert [each.threshold for each in found] == [10, 40, 40]


def test_a_level_that_is_unknown_keeps_its_since(fold: Fold) -> None:
    """Below 2 in [0, 4) since 4 s; no row makes that untrue, only [2, 6) at 6 s and [4, 8) at 8 s can."""
    rare = rule(warning=below(2), hold_for="4s")
    assert timed(fold, [rare], row(0), row(4.5), row(5), row(6), tick(8)) == []
    assert timed(fold, [rare], row(0), row(4.5), row(7), tick(8)) == []
    assert timed(fold, [rare], row(0), row(4.5), row(8), tick(8)) == drawn("8 r files fired warning 1")


def test_recover_keeps_an_episode_firing_below_its_level(fold: Fold) -> None:
    failing = rule(measure=ratio(event.outcome == "timeout"), warning=above(0.5), recover=below(0.3))
    entries = [row(0, outcome="timeout"), row(0), row(0), row(0)]
    # 1, 1/2, 1/3, 1/4
    found = fold(log([failing], *entries)).transitions
    assert lines(found) == drawn("0 r files fired warning 1\n0 r files recovered warning 0.25")
    assert [(each.threshold, each.details["offset"]) for each in found] == [(0.5, 1), (0.3, 4)]


def test_keep_firing_for_counts_from_the_first_recovery_without_a_relapse(fold: Fold) -> None:
    slow = rule(measure=mean("dur_us"), over="10s", warning=above(10), keep_firing_for="3s")
    entries = [
        row(0, dur_us=20),  # 20: fires
        row(1, dur_us=0),  # 10: recovering since 1 s
        row(2, dur_us=20),  # 40/3, at the row; at the boundary before it still 10
        row(3, dur_us=0),  # 10: recovering since 3 s
        row(5.5, dur_us=10),  # 10
        row(5.9, dur_us=10),  # 10
        row(6, dur_us=10),  # and at the boundary of 6 s for 3 s
    ]
    assert timed(fold, [slow], *entries) == drawn("0 r files fired warning 20\n6 r files recovered warning 10")


def test_unknown_neither_recovers_nor_relapses(fold: Fold) -> None:
    """9 is known, then nothing, then 9: recovering all the while."""
    slow = rule(measure=mean("dur_us"), warning=above(10), keep_firing_for="8s", no_data_after="60s")
    entries = [row(0, dur_us=11), row(1, dur_us=7), tick(8.5), row(8.75, dur_us=9), row(9, dur_us=9)]
    assert timed(fold, [slow], *entries) == drawn("0 r files fired warning 11\n9 r files recovered warning 9")


def test_recovery_needs_every_level_to_be_known(fold: Fold) -> None:
    slow = rule(measure=mean("dur_us"), warning=above(10), critical=above(50, at_least=3))
    entries = [row(0, dur_us=11), row(0, dur_us=1), row(0, dur_us=1)]
    assert timed(fold, [slow], *entries[:2]) == drawn("0 r files fired warning 11")
    assert timed(fold, [slow], *entries) == drawn("0 r files fired warning 11\n0 r files recovered warning 4.33333")


def test_a_level_that_holds_ends_a_recovery_though_another_is_unknown(fold: Fold) -> None:
    """Recovering since 1 s on three rows. At 4 s there is one, of 16: critical is unknown, but warning holds."""
    slow = rule(measure=mean("dur_us"), warning=above(10), critical=above(50, at_least=3), keep_firing_for="4s")
    entries = [row(0, dur_us=11), row(1, dur_us=1), row(1, dur_us=1), row(2, dur_us=16), tick(4), row(5, dur_us=0), row(5, dur_us=1)]
    # 2 s: 29/4. 4 s: 16. 5 s: 16/2, of two; 17/3, of three, so recovering anew.
    assert timed(fold, [slow], *entries) == drawn("0 r files fired warning 11")


def test_an_episode_that_fires_is_not_resolved_by_the_same_judgement(fold: Fold) -> None:
    """At the boundary of 4 s the rows that waited come into [2, 6), while [0, 4) holds one: recovery is put off to 6 s."""
    entries = [row(0), *[(row(4.5), 0)] * 3, tick(4), tick(6), tick(8)]
    # 6 s: [2, 6) holds the three, so it is not recovered from before 8 s... whose [4, 8) holds them too, and 10 s has none.
    assert timed(fold, [rule()], *entries, tick(10)) == drawn("4.5 r files fired warning 3\n10 r files recovered warning 0")


def test_no_data_counts_from_the_last_boundary_with_a_value(fold: Fold) -> None:
    """[2, 6) at 4 s is the last window with the row of 3 s; 4 + 5 s have passed at 10 s."""
    slow = rule(measure=mean("dur_us"), warning=above(10), no_data_after="5s")
    found = fold(log([slow], row(3, dur_us=20), tick(9.9), tick(10))).transitions
    assert lines(found) == drawn("3 r files fired warning 20\n10 r files no_data warning -")
    last = found[-1]
    assert (last.evidence, last.threshold, last.details["offset"]) == (None, 10, 3)
    assert last.window is not None
    assert (last.window.start, last.window.end) == (micros(8), micros(12))


def test_too_few_rows_are_no_data(fold: Fold) -> None:
    slow = rule(measure=mean("dur_us"), warning=above(10, at_least=2), no_data_after="4s")
    # Two in [0, 4) at 2 s, and never two again.
    entries = [row(0, dur_us=20), row(0, dur_us=20), row(4, dur_us=20), tick(5.9), tick(6)]
    assert timed(fold, [slow], *entries) == drawn("0 r files fired warning 20\n6 r files no_data warning -")


def test_absence_is_given_up_after_silence(fold: Fold) -> None:
    quiet = Rule(name="quiet", condition=absence(for_="4s", every="2s", no_data_after="9s"))
    assert timed(fold, [quiet], row(0.5), tick(60)) == drawn("6 quiet files fired warning 0\n10 quiet files no_data warning -")


def test_a_group_that_is_given_up_is_forgotten_and_new_when_it_comes_back(fold: Fold) -> None:
    quiet = Rule(name="quiet", condition=absence(for_="4s", every="2s", no_data_after="9s"))
    entries = [row(0.5), tick(30), row(31), tick(33), tick(35.9), tick(36)]
    assert timed(fold, [quiet], *entries) == drawn("""
        6  quiet files fired   warning 0
        10 quiet files no_data warning -
        36 quiet files fired   warning 0
    """)


def test_a_group_without_an_episode_is_forgotten_once_its_last_slice_has_left(fold: Fold) -> None:
    """The place of the group of 0 s, [0, 2), is free at 4 s, when the new window begins at 2 s."""
    entries = [row(0, "a"), row(3.9, "b"), row(4, "c"), row(4, "d")]
    assert fold(log([rule()], *entries), max_groups=1).overflow == {"r": 2}


def test_a_group_with_rows_that_wait_is_not_idle(fold: Fold) -> None:
    entries = [row(0, "a"), (row(10, "a"), 0), tick(8), row(8, "b"), row(14, "b")]
    # The row of 10 s moves stream time to 10 s: [8, 12). It leaves at 14 s, where "b" may come.
    assert fold(log([rule()], *entries), max_groups=1).overflow == {"r": 1}


def test_a_group_with_an_episode_is_not_forgotten(fold: Fold) -> None:
    held = rule(measure=mean("dur_us"), warning=above(10), no_data_after="10s")
    entries = [row(0, "a", dur_us=20), row(8, "b", dur_us=1), row(12, "b", dur_us=1)]
    found = fold(log([held], *entries), max_groups=1)
    assert found.overflow == {"r": 1}
    assert lines(found.transitions) == drawn("0 r a fired warning 20\n12 r a no_data warning -")


def test_the_rules_of_a_ruleset_do_not_see_each_other(fold: Fold) -> None:
    rules = [rule("a"), rule("b", over="10s", every="5s"), rule("c", by=("tenant", "service", "tool"))]
    entries = [row(at, tool=str(at % 2)) for at in range(12)]
    together = fold(log(rules, *entries, tick(40))).texts
    apart = [text for each in rules for text in fold(log([each], *entries, tick(40))).texts]
    assert sorted(together) == sorted(apart)


# --- 6: switch ----------------------------------------------------------------------------------------------------

def switch(offset: int, seq: int, *rules: Rule, readable: bool = True) -> SwitchRecord:
    ruleset = Ruleset(rules=rules)
    return SwitchRecord(offset, micros(0), ruleset.id if readable else "unknown", seq, ruleset if readable else None)


def test_a_switch_replaces_the_rules(fold: Fold) -> None:
    assert timed(fold, row(0), [rule("a")], row(0), row(0), [rule("b")], row(0), row(0), row(0)) == drawn("0 b files fired warning 3")


def test_a_switch_with_an_old_number_is_skipped(fold: Fold) -> None:
    entries = [switch(0, 5, rule("a")), switch(1, 5, rule("b")), switch(2, 4, rule("b")), row(0), row(0), row(0)]
    assert timed(fold, *entries) == drawn("0 a files fired warning 3")


def test_a_switch_to_an_unreadable_ruleset_takes_its_number_and_changes_nothing(fold: Fold) -> None:
    entries = [switch(0, 1, rule("a")), row(0), switch(2, 3, readable=False), switch(3, 2, rule("b")), row(0), row(0)]
    found = fold(log(*entries))
    assert lines(found.transitions) == drawn("0 a files fired warning 3")
    assert found.unreadable == ["unknown"]


def test_an_edit_keeps_groups_slices_and_episodes(fold: Fold) -> None:
    before = rule()
    after = edited(before, levels=[WARNING | {"when": above(3)}], summary="{value} of {threshold}", cooldown="1h", keep_firing_for="1s")
    assert timed(fold, [before], row(0), row(0), [after], row(0), row(0)) == drawn("0 r files fired warning 4")
    found = fold(log([before], row(0), row(0), row(0), [after], tick(8))).transitions
    assert lines(found) == drawn("0 r files fired warning 3\n6 r files recovered warning 0")
    assert found[0].dedup_key == found[1].dedup_key
    assert (found[0].revision, found[1].revision) == (before.revision, after.revision)


@pytest.mark.parametrize(
    "changes",
    [
        {"select": event.kind == "operation"},
        {"by": ("service", "tenant")},
        {"every": "1s"},
        {"measure": sum_of(event.weight)},
        {"name": "another"},
    ],
    ids=str,
)
def test_what_aggregates_otherwise_starts_anew_and_ends_its_episodes(fold: Fold, changes: dict[str, Any]) -> None:
    before, more = rule(), {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in changes.items()}
    after = edited(before, **more)
    found = fold(log([before], row(0), row(1), row(1), row(0, "b"), row(0, "b"), [after], row(1, "b"), row(1))).transitions
    assert lines(found) == drawn("1 r files fired warning 3\n1 r files rule_removed warning -")
    removed = found[1]
    assert (removed.window, removed.threshold, removed.evidence, removed.value) == (None, None, None, None)
    assert (removed.revision, removed.details["offset"]) == (before.revision, 6)


def test_another_baseline_starts_anew(fold: Fold) -> None:
    def slower(baseline: str) -> Rule:
        return rule(measure=performance_regression("dur_us", 0.5, baseline, current="4s").measure, warning=above(0.5))

    found = timed(fold, [slower("4s")], row(0, dur_us=1), row(4, dur_us=2), [slower("6s")], row(4, dur_us=9))
    assert found == drawn("4 r files fired warning 1\n4 r files rule_removed warning -")


def test_a_pending_episode_of_a_removed_rule_ends_without_a_word(fold: Fold) -> None:
    assert timed(fold, [rule(hold_for="5s")], row(0), row(0), row(0), [], tick(20)) == []


def test_slices_that_the_old_rule_dropped_stay_dropped(fold: Fold) -> None:
    """At 6.5 s the old window is [4, 8): the two rows of 0 s are gone, that of 5 s is not."""
    before = rule(warning=above(99), no_data_after="1m")
    after = edited(before, over="8s", levels=[WARNING | {"when": above(2)}])
    entries = [[before], row(0), row(0), row(5), row(6.5), [after], row(6.5)]
    found = fold(log(*entries)).transitions
    assert lines(found) == drawn("6.5 r files fired warning 3")
    assert found[0].window is not None
    assert (found[0].window.start, found[0].window.end) == (micros(0), micros(8))


def test_a_longer_window_takes_rows_that_were_late(fold: Fold) -> None:
    before = rule(warning=above(99))
    after = edited(before, over="8s")
    found = fold(log([before], row(6.5), row(0), [after], row(0), row(0), row(1)))
    assert found.late == {"r": 1}


def test_levels_keep_their_since_by_severity(fold: Fold) -> None:
    before = rule(measure=max_of("dur_us"), over="10s", warning=above(10), critical=above(50), hold_for="4s")
    after = edited(before, levels=[WARNING | {"when": above(5)}, {"severity": "high", "when": above(5)}])
    entries = [[before], row(1, dur_us=20), [after], row(3, dur_us=0), row(5, dur_us=0), row(7, dur_us=0)]
    # warning holds since 1 s under either rule, high only since the boundary of 2 s.
    assert timed(fold, *entries) == drawn("5 r files fired warning 20\n6 r files raised high 20")


def test_an_episode_keeps_a_severity_that_has_no_level_any_more(fold: Fold) -> None:
    before = rule(measure=mean("dur_us"), warning=above(10), critical=above(50))
    after = edited(before, levels=[WARNING | {"when": above(10)}])
    found = fold(log([before], row(0, dur_us=90), [after], row(0, dur_us=20), row(0, dur_us=-110))).transitions
    assert lines(found) == drawn("0 r files fired critical 90\n0 r files recovered critical 0")
    assert found[1].threshold is None


def test_a_pending_episode_whose_level_is_gone_ends(fold: Fold) -> None:
    before = rule(measure=max_of("dur_us"), warning=above(10), hold_for="2s")
    after = edited(before, levels=[{"severity": "high", "when": above(10)}])
    found = fold(log([before], row(0, dur_us=20), [after], row(1, dur_us=0), row(3, dur_us=0))).transitions
    # high holds since the row of 1 s, in the episode that is open since 0 s.
    assert lines(found) == drawn("3 r files fired high 20")
    assert found[0].started_at == micros(0)


def test_nothing_is_judged_at_a_switch(fold: Fold) -> None:
    before = rule(warning=above(99))
    after = edited(before, levels=[WARNING | {"when": above(0)}])
    found = fold(log([before], row(0), row(1), [after], tick(1.5), tick(2))).transitions
    assert lines(found) == drawn("2 r files fired warning 2")


# --- 7: transitions -----------------------------------------------------------------------------------------------


def test_transitions_of_one_row_come_by_time_then_rule_then_group(fold: Fold) -> None:
    """All quiet since 0 s. b looks every second, and a every two."""
    rules = [
        Rule(name="b", condition=absence(for_="4s", every="1s")),
        Rule(name="a", condition=absence(for_="4s", every="2s")),
        rule("c", measure=count(), warning=above(0)),
    ]
    entries = [row(0.5, "y"), row(0.5, "x"), row(6, "y")]
    assert timed(fold, rules, *entries) == drawn("""
        0.5 c y fired warning 1
        0.5 c x fired warning 1
        5 b x fired warning 0
        5 b y fired warning 0
        6 a x fired warning 0
        6 a y fired warning 0
        6 c x recovered warning 0
        6 c y recovered warning 0
        6 c y fired warning 1
    """)


def test_groups_are_ordered_by_their_texts_in_the_order_of_by(fold: Fold) -> None:
    quiet = Rule(name="quiet", condition=absence(by=("tool", "service", "tenant"), for_="4s", every="2s"))
    entries = [row(0, "z", tool="a"), row(0, "a", tool="b"), row(0, "é", tool="a"), row(0, "Z", tool="a")]
    assert [text.split()[2] for text in timed(fold, [quiet], *entries, tick(6))] == ["Z", "z", "é", "a"]


def test_a_transition_says_all_there_is_to_say(fold: Fold) -> None:
    failing = Rule(
        name="failing",
        by=("tenant", "service", "attributes.region"),
        measure=ratio(event.outcome == "timeout"),
        over="4s",
        every="2s",
        warning=equal(0.5, tolerance=0.1),
        cooldown="7s",
        channels=("log", "webhook"),
        summary="{service} in {region}: {value:.0%}, {threshold}, {severity}",
        runbook="https://runbooks/failing",
        annotations={"team": "a", "summary": "replaced"},
        unit="share",
    )
    found = fold(log([failing], row(1, region_="eu\n"), row(2, region_="eu\n", outcome="timeout"), row(3, region_="eu\n")))
    fired, resolved = found.transitions
    assert fired.model_dump(mode="json") == {
        "v": 1,
        "id": fired.id,
        "dedup_key": fired.dedup_key,
        "rule": "failing",
        "revision": failing.revision,
        "status": "firing",
        "severity": "warning",
        "source": "files",
        "tenant": "acme",
        "labels": {"tenant": "acme", "service": "files", "region": "eu\n"},
        "annotations": {
            "team": "a",
            "summary": "files in eu?: 50%, 0.4 to 0.6, warning",
            "runbook": "https://runbooks/failing",
        },
        "message": "files in eu?: 50%, 0.4 to 0.6, warning",
        "details": {
            "cooldown": 7_000_000,
            "kind": "fired",
            "ordinal": 0,
            "partition": 3,
            "offset": 2,
            "index": 0,
            "append_time": micros(2),
        },
        "value": 0.5,
        "threshold": [0.4, 0.6],
        "unit": "share",
        "window": {"start": "2023-11-14T22:13:20.000000Z", "end": "2023-11-14T22:13:24.000000Z"},
        "started_at": "2023-11-14T22:13:22.000000Z",
        "timestamp": "2023-11-14T22:13:22.000000Z",
        "decided_at": "2023-11-14T22:13:22.000000Z",
        "resolved_at": None,
        "reason": "condition_met",
        "fire_count": 1,
        "channels": ["log", "webhook"],
        "evidence": [{"topic": "mcp.events", "partition": 3, "first_offset": 1, "last_offset": 2, "events": 2}],
    }
    assert (resolved.status, resolved.reason, resolved.details["ordinal"], resolved.value) == ("resolved", "recovered", 1, 1 / 3)
    assert resolved.message == resolved.annotations["summary"] == "Resolved: files in eu?: 33%, 0.4 to 0.6, warning"
    assert resolved.resolved_at == resolved.decided_at == micros(3)
    assert resolved.started_at == fired.started_at
    assert resolved.dedup_key == fired.dedup_key


def test_ids_are_of_the_episode_and_of_what_is_said(fold: Fold) -> None:
    slow = rule(measure=mean("dur_us"), warning=above(10), critical=above(50))
    values = [20, 200, -999, 9999]
    found = fold(log([slow], *(row(0, dur_us=value) for value in values))).transitions
    labels = [["service", "files"], ["tenant", "acme"]]
    first = fingerprint("r", labels, "mcp.events", 3, 1, 0, micros(0))
    second = fingerprint("r", labels, "mcp.events", 3, 4, 0, micros(0))
    assert [(each.dedup_key, each.id) for each in found] == [
        (first, fingerprint(first, slow.revision, "fired", 0)),
        (first, fingerprint(first, slow.revision, "raised", 1)),
        (first, fingerprint(first, slow.revision, "resolved", 2)),
        (second, fingerprint(second, slow.revision, "fired", 0)),
    ]


# --- the constructors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "entries", "expected"),
    [
        (metric_threshold("dur_us", ">", 10, "4s", every="2s"), [row(0, dur_us=11)], "0 r files fired high 11"),
        (metric_threshold("rss", "<", 10, "4s", every="2s"), [row(0, kind="metric", name="rss", value=9.5)], "0 r files fired high 9.5"),
        (metric_threshold("attributes.x", "==", 1, "4s", every="2s", tolerance=0.5), [row(0, x_=1.5)], "0 r files fired high 1.5"),
        (metric_threshold("dur_us", "above", 10, "4s", every="2s", service="other"), [row(0, dur_us=11)], ""),
        (error_rate("*", 0.5, "4s", at_least=2, every="2s"), [row(0, outcome="timeout")] * 2, "0 r files fired high 1"),
        (error_rate("*", 0.5, "4s", at_least=2, every="2s"), [row(0, outcome="timeout", kind="perf")] * 2, ""),
        (security_violation("authn", 1, "4s", every="2s"), [row(0, kind="security", result="fail", reason="authn")] * 2, "0 r files fired high 2"),
        (security_violation("*", 1, "4s", every="2s"), [row(0, kind="security", result="ok", reason="authn")] * 2, ""),
        (performance_regression("dur_us", 0.5, "4s", current="2s", every="2s", at_least=2), [row(0, dur_us=2), *[row(2, dur_us=4)] * 2], "2 r files fired high 1"),
        (absence(for_="4s", every="2s"), [row(0), tick(6)], "6 r files fired high 0"),
    ],
)  # fmt: skip
def test_the_conditions_of_the_specification(fold: Fold, condition: Any, entries: list[Any], expected: str) -> None:
    assert timed(fold, [Rule(name="r", condition=condition, severity="high", summary="{value}")], *entries) == drawn(expected)
