"""Each bug that a guarantee protects from, as a small edit of the source, and the test that must fail under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Bug:
    """Replacing `old` by `new` in `file` plants the bug; `test` (a pytest node) must then fail."""

    name: str
    guarantee: str
    file: str
    old: str
    new: str
    test: str


BUGS: Final = (
    Bug(
        name="judge only at chunk ends",
        guarantee="within a partition a condition is judged as if after every record",
        file="streams/kernel/groups.py",
        old="if not moves_baseline and self.plan.cannot_change(",
        new="if True or self.plan.cannot_change(",
        test="tests/kernel/test_partition.py::test_judging_does_not_depend_on_chunks",
    ),
    Bug(
        name="forget the marker",
        guarantee="a record that was applied is skipped when it is replayed",
        file="streams/kernel/partition.py",
        old='start = int(np.searchsorted(columns.offset, self.applied, side="right"))',
        new="start = 0",
        test="tests/kernel/test_partition.py::test_replayed_records_are_skipped",
    ),
    Bug(
        name="forget the marker of an origin",
        guarantee="a forwarded event counts once",
        file="streams/kernel/partition.py",
        old="return (origin.offset, origin.index) <= self._origins.get(origin.partition, (-1, -1))",
        new="return False",
        test="tests/kernel/test_partition.py::test_a_repeated_forward_counts_once",
    ),
    Bug(
        name="a tick that reads the clock",
        guarantee="time passes by records alone, so replay equals live",
        file="streams/kernel/slices.py",
        old="    return append_time - IDLE_GRACE",
        new="    import time\n\n    return time.time_ns() // 1000 - IDLE_GRACE",
        test="tests/kernel/test_partition.py::test_a_tick_moves_time_by_its_append_time",
    ),
    Bug(
        name="cooldown without own id",
        guarantee="a claim that was won before a crash is won again",
        file="streams/notifier/policy.py",
        old="return not holders or claimant in holders",
        new="return not holders",
        test="tests/integration/test_cooldown_redis.py::test_a_crash_between_claim_and_send_loses_no_alert",
    ),
    Bug(
        name="window off by one slice",
        guarantee="the window ends with the slice of stream time, and is as long as the rule says",
        file="streams/kernel/slices.py",
        old="first = current + 1 - span",
        new="first = current - span",
        test="tests/kernel/test_partition.py::test_an_event_leaves_the_window_on_time",
    ),
    Bug(
        name="take a list of files without its end for whole",
        guarantee="a damaged local table is seen, and never taken for less state",
        file="streams/runtime/store.py",
        old="        if unlisted:",
        new="        if False:",
        test="tests/runtime/test_store.py::test_damage_is_seen_and_never_taken_for_less_state",
    ),
    Bug(
        name="believe an iterator that ends",
        guarantee="a damaged block is seen when a table is read",
        file="streams/runtime/store.py",
        old="            rows.status()  #",
        new="            pass  #",
        test="tests/runtime/test_store.py::test_a_table_that_cannot_be_read_is_put_aside_and_can_be_filled_anew",
    ),
    Bug(
        name="read state of any version",
        guarantee="state that another release wrote is read as it was meant, or refused",
        file="streams/kernel/state_version.py",
        old="    if found != readable:",
        new="    if False:",
        test="tests/kernel/test_partition.py::test_a_state_of_another_version_is_refused",
    ),
    Bug(
        name="rebuild from a log whose beginning expired",
        guarantee="a state is whole, or refused",
        file="streams/runtime/recovery.py",
        old="        if self._begins[place] > 0:",
        new="        if False:",
        test="tests/runtime/test_recovery.py::test_a_log_whose_beginning_expired_is_no_source_of_a_state",
    ),
    Bug(
        name="begin at zero where the state is gone",
        guarantee="a state that is gone is made again from a whole log, or refused",
        file="streams/runtime/app.py",
        old="    if begin > 0:",
        new="    if False:",
        test="tests/runtime/test_recovery.py::test_a_state_that_is_gone_is_made_again_from_a_whole_log_or_refused",
    ),
    Bug(
        name="leave what a rule did before it raised",
        guarantee="a rule that raises fails at a record, with its state as it was before",
        file="streams/kernel/groups.py",
        old="group.first_at, group.last_at, group.episode, group.cells = kept[1:]",
        new="pass",
        test="tests/kernel/test_failing.py::test_dense_logs_with_a_rule_that_raises",
    ),
    Bug(
        name="forget in a restart that a rule fails",
        guarantee="that a rule fails is part of the state",
        file="streams/kernel/partition.py",
        old="by_id[split_failing_key(table_key)].restore_failure(value)",
        new="pass",
        test="tests/kernel/test_failing.py::test_dense_logs_with_a_rule_that_raises",
    ),
)
