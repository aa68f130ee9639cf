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


SIMULATED: Final = "tests/simulation/test_seeds.py::test_nothing_differs_in_the_first_worlds"

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
        name="decide anew after a crash",
        guarantee="what was decided before a crash is repeated after it, whatever Redis and the clock say by then",
        file="streams/notifier/partition.py",
        old="intent = self._intents.decision(case.transition.id)",
        new="intent = None",
        test="tests/notifier/test_partition.py::test_an_alert_that_was_in_time_before_a_crash_is_so_after_it",
    ),
    Bug(
        name="release what the log has resolved",
        guarantee="what was resolved while it was held is not released by the worker that comes after",
        file="streams/notifier/partition.py",
        old="awaited = self._intents.awaited()",
        new="awaited: set[str] = set()",
        test="tests/notifier/test_partition.py::test_a_resolve_that_found_its_firing_held_finds_it_held_when_it_is_replayed",
    ),
    Bug(
        name="forget a release",
        guarantee="a resolve is dispatched where its firing was, also where that was held first",
        file="streams/notifier/partition.py",
        old="if (after := self._intents.next_release()) is not None and after < record.offset:",
        new="if False:",
        test="tests/notifier/test_partition.py::test_a_firing_released_before_a_crash_is_released_before_its_resolve_is_replayed",
    ),
    Bug(
        name="forget what was won without Redis",
        guarantee="a cooldown that began while Redis was away goes on when it is back",
        file="streams/notifier/cooldown.py",
        old="replies = (await self._redis.claim([*owed, *claims]))[len(owed) :]",
        new="replies = await self._redis.claim(claims)",
        test="tests/notifier/test_cooldown.py::test_what_was_won_while_redis_was_away_is_claimed_there_when_it_is_back",
    ),
    Bug(
        name="a stale alert takes the cooldown",
        guarantee="what is decided too late to page holds nothing back",
        file="streams/notifier/policy.py",
        old="if stale or case.cooldown == 0",
        new="if case.cooldown == 0",
        test="tests/notifier/test_partition.py::test_what_is_decided_late_pages_nobody_and_takes_no_cooldown",
    ),
    Bug(
        name="commit past what was not told of",
        guarantee="stale alerts are done with when their digest is delivered",
        file="streams/notifier/channels/delivery.py",
        old="done = done if missed is None else min(done, missed)",
        new="",
        test="tests/notifier/test_delivery_kafka.py::test_stale_alerts_are_told_of_in_one_digest_and_not_one_by_one",
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
        old="    if found not in readable:",
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
        name="marker not restored",
        guarantee="what a restored state has counted is not counted again",
        file="streams/kernel/partition.py",
        old="state.applied, state.stream_time, state.ruleset_id, state.ruleset_seq, origins = _unpack_marker(marker)",
        new="_, state.stream_time, state.ruleset_id, state.ruleset_seq, origins = _unpack_marker(marker)",
        test=SIMULATED,
    ),
    Bug(
        name="state before transitions",
        guarantee="the state is not stored before what it led to is",
        file="streams/runtime/checkpoint.py",
        old="                await asyncio.gather(*acks)\n",
        new="",
        test=SIMULATED,
    ),
    Bug(
        name="fencing off",
        guarantee="a former owner writes nothing after the next has read the changelog",
        file="streams/runtime/producer.py",
        old='self._fences = settings.fencing == "on"',
        new="self._fences = False",
        test=SIMULATED,
    ),
    Bug(
        name="a fence of one's own",
        guarantee="a claim of the changelog ends the epoch of the former owner",
        file="streams/runtime/producer.py",
        old='self._producer(f"{self._settings.group}-{self.topic}-{partition}")',
        new='self._producer(f"{self._settings.group}-{self.topic}-{partition}-{id(self)}")',
        test=SIMULATED,
    ),
    Bug(
        name="barrier after the end was read",
        guarantee="recovery reads to where the changelog ends once nobody else may write",
        file="streams/runtime/partitions.py",
        old="barriers = await self._journal.claim(partitions)\n                    return barriers, await recover(partitions)\n",
        new="ends = await recover(partitions)\n"
        "                    await self._journal.claim(partitions)\n"
        "                    return {}, ends\n",
        test=SIMULATED,
    ),
    Bug(
        name="recovery ends early",
        guarantee="recovery applies every record of the changelog",
        file="streams/runtime/recovery.py",
        old="if await self._consumer.position(place) >= self._ends[place]:",
        new="if await self._consumer.position(place) >= self._ends[place] - 2:",
        test=SIMULATED,
    ),
    Bug(
        name="recovery of the first value",
        guarantee="of a key the record with the highest offset counts",
        file="streams/runtime/store.py",
        old="items.append((record.key, record.value))",
        new="items.insert(0, (record.key, record.value))",
        test=SIMULATED,
    ),
    Bug(
        name="recovery skips parts",
        guarantee="a large checkpoint counts from its commit record on",
        file="streams/runtime/store.py",
        old="if record.key == COMMIT and record.value is not None:",
        new="if record.key is None:",
        test=SIMULATED,
    ),
    Bug(
        name="a large checkpoint in pieces",
        guarantee="a checkpoint counts whole or not at all, whatever its size",
        file="streams/runtime/staging.py",
        old="    parts = 0\n",
        new="    return await complete(journal, partition, items, 0)\n",
        test=SIMULATED,
    ),
    Bug(
        name="an unfinished checkpoint forgotten",
        guarantee="who takes over writes a large checkpoint to its end",
        file="streams/runtime/partitions.py",
        old="if unfinished is not None:",
        new="if unfinished is not None and number < 0:",
        test=SIMULATED,
    ),
    Bug(
        name="cooldown without own id, simulated",
        guarantee="a reply that was lost holds no alert back",
        file="streams/notifier/policy.py",
        old="return not holders or claimant in holders",
        new="return not holders",
        test=SIMULATED,
    ),
    Bug(
        name="held firings forgotten",
        guarantee="a firing that is held back is dispatched when its cooldown ends, also after a restart",
        file="streams/notifier/partition.py",
        old="            self._held.set(key, episode.until)\n",
        new="            self._held.set(key, episode.until) if self._applied < 0 else None\n",
        test=SIMULATED,
    ),
    Bug(
        name="pass over the parts of a checkpoint",
        guarantee="a large checkpoint that was not completed counts whole",
        file="streams/runtime/staging.py",
        old="            items += _ITEMS.decode(part)",
        new="            pass",
        test="tests/golden/test_golden.py::TestEngine::test_a_changelog_is_read_and_gone_on_from",
    ),
    Bug(
        name="read a field of the state as another",
        guarantee="state that another release wrote is read as it was meant, or refused",
        file="streams/notifier/state.py",
        old="return Group(fires, tuple(recent), tuple(ended), cooldown_until, seen_at)",
        new="return Group(fires, tuple(ended), tuple(recent), cooldown_until, seen_at)",
        test="tests/golden/test_golden.py::test_the_state_of_the_notifier_is_read_and_gone_on_from",
    ),
    Bug(
        name="forget what was redriven",
        guarantee="a dead letter counts once, however often it is redriven",
        file="streams/kernel/redriven.py",
        old="if origin.offset in self._held:",
        new="if False:",
        test="tests/kernel/test_partition.py::test_a_redriven_record_counts_once",
    ),
    Bug(
        name="forward what was redriven twice",
        guarantee="a dead letter counts once, also on another partition than its own",
        file="streams/runtime/engine.py",
        old="if forward.origin.offset not in uncounted]",
        new="if forward.origin.offset >= 0]",
        test="tests/runtime/test_engine.py::test_a_redriven_record_that_does_not_count_is_not_forwarded_and_a_refused_one_is_a_dead_letter_again",
    ),
    Bug(
        name="forget an origin too early",
        guarantee="an origin is forgotten only at an age at which it is refused",
        file="streams/kernel/redriven.py",
        old="if origin.append_time <= stream_time - KEEP:",
        new="if origin.append_time <= stream_time - 2 * KEEP:",
        test="tests/kernel/test_partition.py::test_an_origin_is_refused_before_it_is_forgotten",
    ),
)
