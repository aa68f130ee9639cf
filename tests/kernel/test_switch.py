"""Section 6 of docs/semantics.md in examples worked out by hand: what a switch keeps and what it ends.

Times are seconds since the log began; see `drawing` for how logs and outcomes are drawn.
"""

from __future__ import annotations

from typing import Any

import pytest

from schemas.rule import Rule, Ruleset, above, below, event, max_of, mean, performance_regression, sum_of
from tests.kernel.drawing import WARNING, Fold, drawn, edited, lines, log, micros, row, rule, tick, timed
from tests.kernel.log import SwitchRecord

# --- 6: switch ---


def switch(offset: int, seq: int, *rules: Rule, readable: bool = True) -> SwitchRecord:
    ruleset = Ruleset(rules=rules)
    return SwitchRecord(offset, micros(0), ruleset.id if readable else "unknown", seq, ruleset if readable else None)


def test_a_switch_replaces_the_rules(fold: Fold) -> None:
    assert timed(fold, row(0), [rule("a")], row(0), row(0), [rule("b")], row(0), row(0), row(0)) == drawn(
        "0 b files fired warning 3"
    )


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
    after = edited(
        before, levels=[WARNING | {"when": above(3)}], summary="{value} of {threshold}", cooldown="1h", keep_firing_for="1s"
    )
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
    before, more = (
        rule(),
        {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in changes.items()},
    )
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


def test_what_a_short_window_dropped_is_gone_though_it_was_judged_by_none(fold: Fold) -> None:
    """The window of 4 s is [2, 6) at 5 s, and the rule that has it is replaced before anything happens."""
    long = rule(over="8s", warning=above(1))
    entries = [[edited(long, levels=[WARNING | {"when": above(99)}])], row(0), row(5), [edited(long, over="4s")], [long], row(5)]
    assert timed(fold, *entries) == drawn("5 r files fired warning 2")


def test_silence_is_counted_from_before_the_switch_that_made_it_count(fold: Fold) -> None:
    before = rule(warning=above(1), no_data_after="9s")
    after = edited(before, levels=[WARNING | {"when": below(1)}])
    found = timed(fold, [before], row(0), tick(3), [after], tick(12))
    assert found == drawn("6 r files fired warning 0\n10 r files no_data warning -")


def test_the_last_value_is_remembered_from_when_silence_counted(fold: Fold) -> None:
    """Valued at 4 s for the last time, since one row is too few for the new level."""
    before = rule(warning=above(0), critical=below(0), keep_firing_for="20s", no_data_after="5s")
    after = edited(before, levels=[WARNING | {"when": above(0, at_least=3)}])
    found = timed(fold, [before], row(0), tick(4), [after], tick(20))
    assert found == drawn("0 r files fired warning 1\n10 r files no_data warning -")


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


def test_a_pending_episode_whose_level_is_gone_ends_at_the_next_judgement(fold: Fold) -> None:
    """At 1 s there are two rows, too few for the new level to be known; at 1.5 s it opens an episode of its own."""
    before = rule(measure=max_of("dur_us"), over="10s", warning=above(10), hold_for="2s")
    after = edited(before, levels=[{"severity": "high", "when": above(10, at_least=3)}])
    found = fold(log([before], row(0, dur_us=20), [after], row(1, dur_us=0), row(1.5, dur_us=0), row(3.5, dur_us=0))).transitions
    assert lines(found) == drawn("3.5 r files fired high 20")
    assert found[0].started_at == micros(1.5)


def test_nothing_is_judged_at_a_switch(fold: Fold) -> None:
    before = rule(warning=above(99))
    after = edited(before, levels=[WARNING | {"when": above(0)}])
    found = fold(log([before], row(0), row(1), [after], tick(1.5), tick(2))).transitions
    assert lines(found) == drawn("2 r files fired warning 2")
