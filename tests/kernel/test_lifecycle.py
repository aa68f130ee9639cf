"""Section 5 of docs/semantics.md in examples worked out by hand: pending, firing, raised, resolved, forgotten.

Times are seconds since the log began; see `drawing` for how logs and outcomes are drawn.
"""

from __future__ import annotations

from schemas.rule import Rule, above, absence, below, event, max_of, mean, ratio
from tests.kernel.drawing import Fold, drawn, line, lines, log, micros, row, rule, tick, timed

# --- 5: lifecycle ---


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
    rare = rule(warning=below(2), hold_for="4s", no_data_after="1m")
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
    entries = [
        row(0, dur_us=11),
        row(1, dur_us=1),
        row(1, dur_us=1),
        row(2, dur_us=16),
        tick(4),
        row(5, dur_us=0),
        row(5, dur_us=1),
    ]
    # 2 s: 29/4. 4 s: 16. 5 s: 16/2, of two; 17/3, of three, so recovering anew.
    assert timed(fold, [slow], *entries) == drawn("0 r files fired warning 11")


def test_an_episode_that_fires_is_not_resolved_by_the_same_judgement(fold: Fold) -> None:
    """Appended early, the rows of 6.5 s wait until the boundary of 6 s, where [2, 6) was empty: recovered from at 12 s only."""
    entries = [row(0), ([row(6.5)] * 3, -6), tick(6), tick(12)]
    found = fold(log([rule()], *entries)).transitions
    assert lines(found) == drawn("6 r files fired warning 3\n12 r files recovered warning 0")
    assert [each.details["offset"] for each in found] == [3, 4]


def test_an_episode_that_resolves_is_not_raised_by_the_same_judgement(fold: Fold) -> None:
    """At 8 s four rows that waited come into [6, 10), while [4, 8) was as empty as [2, 6)."""
    levels = rule(warning=above(1), high=above(3), keep_firing_for="2s")
    found = fold(log([levels], row(0), row(0), ([row(8.5)] * 4, -6), tick(8))).transitions
    assert lines(found) == drawn("0 r files fired warning 2\n8 r files recovered warning 0")
    assert found[1].threshold == 1


def test_an_episode_that_is_given_up_is_not_raised_by_the_same_judgement(fold: Fold) -> None:
    """At 6 s [2, 6) is empty, which would be critical, but it has been silent for 6 s."""
    levels = rule(warning=above(1), critical=below(1), no_data_after="6s")
    found = fold(log([levels], row(0), row(0), tick(6))).transitions
    assert lines(found) == drawn("0 r files fired warning 2\n6 r files no_data warning -")
    assert found[1].threshold == 1


def test_no_data_counts_from_the_last_boundary_with_a_value(fold: Fold) -> None:
    """[2, 6) at 4 s is the last window with the row of 3 s; 4 + 5 s have passed at 10 s."""
    slow = rule(measure=mean("dur_us"), warning=above(10), no_data_after="5s")
    found = fold(log([slow], row(3, dur_us=20), tick(9.9), tick(10))).transitions
    assert lines(found) == drawn("3 r files fired warning 20\n10 r files no_data warning -")
    last = found[-1]
    assert (last.evidence, last.threshold, last.details["offset"]) == (None, 10, 3)
    assert last.window is not None
    assert (last.window.start, last.window.end) == (micros(8), micros(12))


def test_a_pending_episode_without_data_ends_without_a_word(fold: Fold) -> None:
    """[2, 6) at 4 s is the last window with the row of 3 s: given up at 10 s, so the row of 10.5 s opens another."""
    held = rule(measure=mean("dur_us"), warning=above(10), hold_for="6s", no_data_after="5s")
    entries = [row(3, dur_us=20), tick(9.9), row(10.5, dur_us=20), row(13, dur_us=20), row(15, dur_us=20), row(17, dur_us=20)]
    (fired,) = fold(log([held], *entries)).transitions
    assert (line(fired), fired.started_at) == ("17 r files fired warning 20", micros(10.5))


def test_a_pending_absence_is_given_up_after_silence(fold: Fold) -> None:
    """Pending from 6 s on, it would fire at 10 s. Silent since 0 s, that is too late by then, and since 1 s it is not."""
    quiet = rule(warning=below(1), hold_for="4s", no_data_after="8s")
    assert timed(fold, [quiet], row(0), row(10)) == []
    assert timed(fold, [quiet], row(1), row(10)) == drawn("10 r files fired warning 0")


def test_a_pending_episode_does_not_outlive_its_data_over_years(fold: Fold) -> None:
    held = rule(measure=mean("dur_us"), warning=above(10), hold_for="6s")
    years = 3 * 365 * 86_400
    assert timed(fold, [held], row(0, dur_us=20), row(years, dur_us=20), row(years + 1, dur_us=20)) == []


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
