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
        old="        if lost:",
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
        old="_, state.applied, state.stream_time, state.ruleset_id,",
        new="_, _applied, state.stream_time, state.ruleset_id,",
        test=SIMULATED,
    ),
    Bug(
        name="state before transitions",
        guarantee="the state is not stored before what it led to is",
        file="streams/runtime/checkpoint.py",
        old="            await asyncio.gather(*acks)\n",
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
        old="barriers = await self._journal.claim(partitions)\n        ends = await recover(partitions)",
        new="barriers: dict[int, int] = {}\n        ends = await recover(partitions)\n        await self._journal.claim(partitions)",
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
)
