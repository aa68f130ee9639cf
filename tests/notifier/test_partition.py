"""The fold: from records to what is sent and remembered."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from schemas.alert import Alert, Reason
from schemas.time import MICROS
from streams.kernel.state_version import StateVersionError
from streams.notifier import partition as module
from streams.notifier.cooldown import LocalCooldowns
from streams.notifier.former import Former
from streams.notifier.observer import Observer
from streams.notifier.partition import Limits, NotifierPartition, make_fold
from streams.notifier.policy import DECISION_HEADER, Claim, Claimed
from streams.records import Outgoing
from streams.settings import Settings
from streams.testing import FakeClock as Clock
from tests.notifier.cases import MINUTE, Episode, Journal, Record, case, log, reasons, told

ALERTS, TRANSITIONS, STATE = "mcp.alerts", "mcp.transitions", "mcp.alerts.state"


class Store(LocalCooldowns):
    """Cooldowns that outlive the partition, as those in Redis do; keeps what was asked, call by call."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, per_minute=10**6)
        self.calls: list[Sequence[Claim]] = []

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed]:
        self.calls.append(claims)
        return await super().claim(claims)


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock)


def fresh(store: Store, clock: Clock, items: dict[bytes, bytes] | None = None, limits: Limits | None = None) -> NotifierPartition:
    table = {} if items is None else items
    return NotifierPartition.restore("t.", 3, table.items(), cooldowns=store, journal=Journal(table), clock=clock, limits=limits)


def saved(fold: NotifierPartition, table: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
    table = {} if table is None else table
    for key, value in fold.take_dirty():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    return table


def decisions(out: Sequence[Outgoing]) -> list[tuple[str, str, Reason, int]]:
    """Topic, id, reason and count of every decision, in order."""
    found = [
        (item.topic, Alert.model_validate_json(item.value)) for item in out if item.topic != STATE and item.value is not None
    ]
    return [(topic, alert.id, alert.reason, alert.fire_count) for topic, alert in found]


async def test_a_firing_and_its_resolve_are_dispatched(store: Store, clock: Clock) -> None:
    episode = Episode()
    fired, resolved = episode.fire(), episode.resolve()
    out = await fresh(store, clock).process(log(fired, resolved))
    assert [(item.topic, item.key, item.headers, item.partition) for item in out] == [
        (ALERTS, fired.key.encode(), (), None),
        (STATE, fired.key.encode(), (), None),
        (ALERTS, fired.key.encode(), (), None),
        (STATE, fired.key.encode(), (), None),
    ]
    assert [item.value is None for item in out] == [False, False, False, True]
    assert [alert.reason for alert in told(out, ALERTS)] == [Reason.FIRST_NOTIFICATION, Reason.RESOLVED]


async def test_a_second_firing_within_the_cooldown_is_recorded_and_not_dispatched(store: Store, clock: Clock) -> None:
    first, second = Episode("e1"), Episode("e2")
    out = await fresh(store, clock).process(log(first.fire(), first.resolve(), second.fire(), second.resolve()))
    assert reasons(out) == [
        (ALERTS, Reason.FIRST_NOTIFICATION),
        (ALERTS, Reason.RESOLVED),
        (TRANSITIONS, Reason.IN_COOLDOWN),
        (TRANSITIONS, Reason.ENDED_WHILE_HELD),
    ]
    record = next(item for item in out if item.topic == TRANSITIONS)
    assert (record.key, record.partition) == (b"acme", 3)
    assert record.headers == ((DECISION_HEADER, b"in_cooldown"),)
    assert len(store.calls) == 1, "the claims of a chunk are asked in one call"


async def test_the_claims_of_a_large_chunk_are_asked_some_hundreds_at_a_time(store: Store, clock: Clock) -> None:
    await fresh(store, clock).process(log(*(Episode(service=f"s{number}").fire() for number in range(1_200))))
    assert [len(claims) for claims in store.calls] == [module.MAX_CLAIMS, module.MAX_CLAIMS, 200]


async def test_a_held_firing_is_dispatched_once_when_the_cooldown_is_over(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    first, second = Episode("e1"), Episode("e2")
    await fold.process(log(first.fire(), first.resolve(), second.fire()))
    assert fold.held_episodes == 1
    assert not await fold.wake(clock.advance("14m"))
    out = await fold.wake(clock.advance("1m"))
    assert reasons(out) == [(ALERTS, Reason.COOLDOWN_OVER)]
    assert told(out, ALERTS)[0].fire_count == 1
    assert not await fold.wake(clock.advance("15m"))
    assert reasons(await fold.process(log(second.resolve(), first=3))) == [(ALERTS, Reason.RESOLVED)]
    assert fold.open_episodes == 0


async def test_a_held_firing_is_dispatched_after_a_restart(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    first, second = Episode("e1"), Episode("e2")
    await fold.process(log(first.fire(), first.resolve(), second.fire()))
    restored = fresh(store, clock, saved(fold))
    assert restored.applied == 2
    assert restored.dirty_bytes == 0
    assert reasons(await restored.wake(clock.advance("15m"))) == [(ALERTS, Reason.COOLDOWN_OVER)]


async def test_a_rise_in_severity_dispatches_what_was_held(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    first, second, third = Episode("e1"), Episode("e2"), Episode("e3")
    await fold.process(log(first.fire(), first.resolve(), second.fire()))
    second.at = clock.advance("10m")
    out = await fold.process(log(second.rise(), second.resolve(), first=3))
    assert reasons(out) == [(ALERTS, Reason.SEVERITY_RAISED), (ALERTS, Reason.RESOLVED)]
    third.at = clock.advance("10m")  # the cooldown of the first is over, but the rise took it over
    assert reasons(await fold.process(log(third.fire(), first=5))) == [(TRANSITIONS, Reason.IN_COOLDOWN)]
    assert reasons(await fold.wake(clock.advance("5m"))) == [(ALERTS, Reason.COOLDOWN_OVER)]


async def test_a_replay_after_a_crash_decides_the_same(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    first, second, third = Episode("e1"), Episode("e2"), Episode("e3")
    records = log(
        first.fire(), first.rise(), first.resolve(), second.fire(), second.rise(), second.resolve(), third.fire(), third.resolve()
    )
    sent = decisions(await fold.process(records))
    assert [reason for _, _, reason, _ in sent] == [
        Reason.FIRST_NOTIFICATION, Reason.SEVERITY_RAISED, Reason.RESOLVED,
        Reason.IN_COOLDOWN, Reason.SEVERITY_RAISED, Reason.RESOLVED,
        Reason.IN_COOLDOWN, Reason.ENDED_WHILE_HELD,
    ]  # fmt: skip
    assert decisions(await fresh(store, clock).process(records)) == sent
    assert not await fresh(store, clock, saved(fold)).process(records), "what was applied is skipped"


async def test_a_replay_after_the_claim_was_won_and_nothing_was_sent_dispatches(store: Store, clock: Clock) -> None:
    fired = Episode().fire()
    await store.claim([Claim(case(fired).group, fired.id, 15 * MINUTE)])
    assert reasons(await fresh(store, clock).process(log(fired))) == [(ALERTS, Reason.FIRST_NOTIFICATION)]


async def test_a_firing_released_before_a_crash_is_released_before_its_resolve_is_replayed(store: Store, clock: Clock) -> None:
    table: dict[bytes, bytes] = {}
    fold = fresh(store, clock, table)
    first, second = Episode("e1"), Episode("e2")
    await fold.process(log(first.fire(), first.resolve(), second.fire()))
    saved(fold, table)
    assert reasons(await fold.wake(clock.advance("15m"))) == [(ALERTS, Reason.COOLDOWN_OVER)]
    out = await fresh(store, clock, table).process(log(second.resolve(), first=3))
    assert reasons(out) == [(ALERTS, Reason.COOLDOWN_OVER), (ALERTS, Reason.RESOLVED)]


async def test_a_resolve_that_found_its_firing_held_finds_it_held_when_it_is_replayed(store: Store, clock: Clock) -> None:
    table: dict[bytes, bytes] = {}
    fold = fresh(store, clock, table)
    first, second = Episode("e1"), Episode("e2")
    await fold.process(log(first.fire(), first.resolve(), second.fire()))
    saved(fold, table)
    replayed = log(second.resolve(), first=3)
    assert reasons(await fold.process(replayed)) == [(TRANSITIONS, Reason.ENDED_WHILE_HELD)]
    restored = fresh(store, clock, table)
    assert not await restored.wake(clock.advance("16m")), "the cooldown is over, but the log says more of the episode"
    assert reasons(await restored.process(replayed)) == [(TRANSITIONS, Reason.ENDED_WHILE_HELD)]


async def test_a_firing_and_its_resolve_are_replayed_as_they_were_in_two_chunks_too(store: Store, clock: Clock) -> None:
    table: dict[bytes, bytes] = {}
    fold = fresh(store, clock, table)
    first, second = Episode("e1"), Episode("e2")
    await fold.process(log(first.fire(), first.resolve()))
    saved(fold, table)
    fired, resolved = log(second.fire(), second.resolve(), first=2)
    sent = [*await fold.process([fired, resolved])]
    assert [reason for _, reason in reasons(sent)] == [Reason.IN_COOLDOWN, Reason.ENDED_WHILE_HELD]
    restored = fresh(store, clock, table)
    clock.advance("16m")
    assert [*await restored.process([fired]), *await restored.wake(clock()), *await restored.process([resolved])] == sent


async def test_what_is_held_is_released_where_the_log_lost_what_was_decided_of_it(store: Store, clock: Clock) -> None:
    table: dict[bytes, bytes] = {}
    fold = fresh(store, clock, table)
    first, second, third = Episode("e1"), Episode("e2"), Episode("e3", service="time")
    await fold.process(log(first.fire(), first.resolve(), second.fire()))
    saved(fold, table)
    await fold.process(log(second.resolve(), first=3))
    restored = fresh(store, clock, table)
    third.at = clock.advance("16m")
    assert not await restored.wake(clock())
    await restored.process(log(third.fire(), first=4))
    assert reasons(await restored.wake(clock.advance("1s"))) == [(ALERTS, Reason.COOLDOWN_OVER)]


async def test_nothing_is_returned_to_be_sent_that_the_changelog_refused(store: Store, clock: Clock) -> None:
    class Fenced(Journal):
        async def append(self, partition: int, items: list[tuple[bytes, bytes | None]]) -> int:
            raise PermissionError

    fold = NotifierPartition("t.", 3, cooldowns=store, journal=Fenced(), clock=clock)
    with pytest.raises(PermissionError):
        await fold.process(log(Episode(cooldown=0).fire()))


async def test_intents_are_gone_after_the_checkpoint_that_covers_them(store: Store, clock: Clock) -> None:
    table: dict[bytes, bytes] = {}
    fold = fresh(store, clock, table)
    first, second = Episode("e1"), Episode("e2")
    records = log(first.fire(), first.resolve(), second.fire())
    await fold.process(records)
    assert sorted(key[:1] for key in table) == [b"d", b"d", b"d"]
    restored = fresh(store, clock, table)
    await restored.process(records[:1])
    assert sorted(key[:1] for key in saved(restored, table)) == [b"d", b"d", b"e", b"g", b"m"], "the rest is still to be replayed"
    await restored.process(records[1:])
    assert sorted(key[:1] for key in saved(restored, table)) == [b"e", b"g", b"m"]


# --- staleness ---


async def test_what_is_decided_late_pages_nobody_and_takes_no_cooldown(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    old, new = Episode("e1"), Episode("e2")
    fired, raised, resolved = old.fire(), old.rise(), old.resolve()
    new.at = clock.advance("6m")
    out = await fold.process(log(fired, raised, resolved, new.fire()))
    assert reasons(out) == [
        (ALERTS, Reason.STALE), (ALERTS, Reason.STALE), (ALERTS, Reason.STALE), (ALERTS, Reason.FIRST_NOTIFICATION),
    ]  # fmt: skip
    assert told(out, ALERTS)[0].details["age"] == 6 * MINUTE
    assert [claim.id for call in store.calls for claim in call] == [told(out, ALERTS)[-1].id]


async def test_an_alert_of_the_greatest_age_still_pages(store: Store, clock: Clock) -> None:
    fired = Episode().fire()
    clock.advance("5m")
    assert reasons(await fresh(store, clock).process(log(fired))) == [(ALERTS, Reason.FIRST_NOTIFICATION)]
    clock.advance(1)
    assert reasons(await fresh(store, clock).process(log(fired))) == [(ALERTS, Reason.STALE)]


async def test_a_resolve_pages_whom_its_firing_paged_however_late(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    episode = Episode()
    await fold.process(log(episode.fire()))
    resolved = episode.resolve()
    clock.advance("1d")
    assert reasons(await fold.process(log(resolved, first=1))) == [(ALERTS, Reason.RESOLVED)]


async def test_a_rise_in_time_pages_for_a_stale_firing_and_so_does_its_resolve(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    episode = Episode()
    fired = episode.fire()
    episode.at = clock.advance("6m")
    out = await fold.process(log(fired, episode.rise(), episode.resolve()))
    assert [reason for _, reason in reasons(out)] == [Reason.STALE, Reason.SEVERITY_RAISED, Reason.RESOLVED]


async def test_a_held_firing_that_was_due_long_ago_pages_nobody(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    first, second = Episode("e1"), Episode("e2")
    await fold.process(log(first.fire(), first.resolve(), second.fire()))
    assert reasons(await fold.wake(clock.advance("21m"))) == [(ALERTS, Reason.STALE)]
    assert reasons(await fold.process(log(second.resolve(), first=3))) == [(ALERTS, Reason.STALE)]


async def test_an_alert_that_was_in_time_before_a_crash_is_so_after_it(store: Store, clock: Clock) -> None:
    table: dict[bytes, bytes] = {}
    episode = Episode(cooldown=0)
    records = log(episode.fire(), episode.resolve())
    sent = list(await fresh(store, clock, table).process(records))
    clock.advance("6m")
    assert list(await fresh(store, clock, table).process(records)) == sent


async def test_state_of_the_version_before_is_read(store: Store, clock: Clock) -> None:
    pack = msgspec.msgpack.encode
    group = case(Episode().fire()).group
    episode = Episode()
    episode.fire()
    resolved = episode.resolve()
    table = {
        b"m": pack((1, 0, 0)),
        b"e" + resolved.dedup_key.encode(): pack((1, "dispatched", group, 0, 2)),
        b"g" + group.encode(): pack((1, 0, ["x"], [], 0, 0)),
    }
    out = await fresh(store, clock, table).process(log(resolved, first=1))
    assert [(alert.reason, alert.fire_count) for alert in told(out, ALERTS)] == [(Reason.RESOLVED, 2)]


async def test_copies_that_the_engine_sends_again_decide_nothing(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    first, second = Episode("e1"), Episode("e2", service="time")
    transitions = [first.fire(), first.resolve(), second.fire(), second.rise()]
    assert len(reasons(await fold.process(log(*transitions, *transitions)))) == 4
    assert not await fold.process(log(*transitions, first=8))
    restored = fresh(store, clock, saved(fold))
    assert not await restored.process(log(*transitions, first=12))
    assert restored.applied == 15


async def test_its_own_records_are_skipped_but_move_the_marker(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    own = Record(0, b"anything", headers=((DECISION_HEADER, b"in_cooldown"),))
    assert not await fold.process([own])
    assert fold.applied == 0
    assert fold.dirty_bytes > 0


async def test_unreadable_records_are_dead_letters_and_harm_nothing(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    bad = Record(0, b'{"v":1}', key=b"k", headers=(("x", b"y"),))
    letter, *rest = await fold.process([bad, Record(1, None), *log(Episode().fire(), first=2)])
    assert (letter.topic, letter.key, letter.value, letter.partition) == ("mcp.events.dlq", b"k", b'{"v":1}', None)
    headers = dict(letter.headers)
    assert headers["x"] == b"y"
    assert headers["dlq.source.topic"] == b"t.mcp.transitions"
    assert (headers["dlq.source.partition"], headers["dlq.source.offset"]) == (b"3", b"0")
    assert (headers["dlq.stage"], headers["dlq.reason"]) == (b"notify", b"unreadable")
    assert rest[0].topic == "mcp.events.dlq"
    assert reasons(rest) == [(ALERTS, Reason.FIRST_NOTIFICATION)]
    assert fold.applied == 2


async def test_without_a_cooldown_everything_is_dispatched(store: Store, clock: Clock) -> None:
    first, second = Episode("e1", cooldown=0), Episode("e2", cooldown=0)
    out = await fresh(store, clock).process(log(first.fire(), first.resolve(), second.fire(), second.resolve()))
    assert {topic for topic, _ in reasons(out)} == {ALERTS}
    assert not store.calls


# --- memory ---


async def test_a_group_is_forgotten_when_its_cooldown_and_the_time_for_copies_are_over(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    episode = Episode(cooldown="2h")
    await fold.process(log(episode.fire(), episode.resolve()))
    table = saved(fold)
    assert len(table) == 2, "marker and group"
    await fold.wake(clock.advance("119m"))
    assert len(saved(fold, table)) == 2
    await fold.wake(clock.advance("1m"))
    assert list(saved(fold, table)) == [b"m"]


async def test_a_group_that_fires_is_not_forgotten(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    await fold.process(log(Episode().fire()))
    await fold.wake(clock.advance("30d"))
    assert len(saved(fold)) == 3


async def test_idle_groups_are_bounded(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock, limits=Limits(idle_groups=10))
    transitions = []
    for number in range(50):
        episode = Episode(service=f"s{number}")
        transitions += [episode.fire(), episode.resolve()]
    await fold.process(log(*transitions))
    assert len(saved(fold)) == 11


async def test_episodes_beyond_the_bound_are_dispatched_and_so_are_their_resolves(store: Store, clock: Clock) -> None:
    seen = Seen()
    limits = Limits(episodes=2)
    fold = NotifierPartition("t.", 3, cooldowns=store, journal=Journal(), clock=clock, observer=seen, limits=limits)
    episodes = [Episode(f"e{number}", service="files" if number > 2 else f"s{number}") for number in range(5)]
    out = await fold.process(log(*(episode.fire() for episode in episodes)))
    assert {reason for _, reason in reasons(out)} == {Reason.FIRST_NOTIFICATION}
    assert (fold.open_episodes, seen.overflows) == (2, 3)
    restored = fresh(store, clock, saved(fold), limits)
    out = await restored.process(log(*(episode.resolve() for episode in episodes), first=5))
    assert [reason for _, reason in reasons(out)] == [Reason.RESOLVED] * 5
    unknown = Episode("unknown", service="elsewhere")
    unknown.fire()
    assert reasons(await restored.process(log(unknown.resolve(), first=10))) == [(TRANSITIONS, Reason.ENDED_WHILE_HELD)]


async def test_state_of_another_version_is_refused(store: Store, clock: Clock) -> None:
    with pytest.raises(StateVersionError, match="version 3"):
        fresh(store, clock, {b"m": b"\x93\x03\x00\x00"})


async def test_dirty_bytes_are_about_what_is_taken(store: Store, clock: Clock) -> None:
    fold = fresh(store, clock)
    assert fold.dirty_bytes == 0
    fires = [Episode(f"e{number}", service=f"s{number // 2}").fire() for number in range(40)]
    await fold.process(log(*fires))
    estimate = fold.dirty_bytes
    taken = sum(len(key) + len(value or b"") for key, value in fold.take_dirty())
    assert taken / 2 < estimate < taken * 3
    assert fold.dirty_bytes == 0


# --- what it tells ---


class Seen(Observer):
    def __init__(self) -> None:
        self.claims: list[tuple[bool, str]] = []
        self.reasons: list[Reason] = []
        self.latencies: list[tuple[Reason, int | None, int]] = []
        self.copies = self.unreadables = self.overflows = 0

    def claimed(self, claimed: Claimed) -> None:
        self.claims.append((claimed.won, claimed.source))

    def decided(self, reason: Reason) -> None:
        self.reasons.append(reason)

    def dispatched(self, reason: Reason, since_append: int | None, since_decided: int) -> None:
        self.latencies.append((reason, since_append, since_decided))

    def copied(self) -> None:
        self.copies += 1

    def unreadable(self) -> None:
        self.unreadables += 1

    def overflowed(self) -> None:
        self.overflows += 1


async def test_the_observer_is_told(store: Store, clock: Clock) -> None:
    seen = Seen()
    fold = make_fold(Settings(topic_prefix="t."), store, Journal(), clock, seen)(3, ())
    first, second = Episode("e1"), Episode("e2")
    fired = first.fire()
    clock.advance("2s")
    await fold.process([*log(fired, fired, first.resolve(), second.fire()), Record(4, b"")])
    await fold.wake(clock.advance("15m"))
    assert seen.claims == [(True, "local"), (False, "local"), (True, "local")]
    assert seen.reasons == [Reason.FIRST_NOTIFICATION, Reason.RESOLVED, Reason.IN_COOLDOWN, Reason.COOLDOWN_OVER]
    assert seen.latencies == [(Reason.FIRST_NOTIFICATION, 2 * MICROS, 2 * MICROS), (Reason.RESOLVED, 2 * MICROS, 2 * MICROS)]
    assert (seen.copies, seen.unreadables) == (1, 1)


async def test_what_was_dispatched_before_the_state_was_lost_is_known_and_resolved(store: Store, clock: Clock) -> None:
    lost, other, later = Episode("e1"), Episode("e2"), Episode("e3")
    fired, resolved = lost.fire(), lost.resolve()
    held, ended = other.fire(), other.resolve()

    async def read() -> Former:
        return Former({fired.id: False}, frozenset({held.dedup_key}))

    fold = NotifierPartition("t.", 3, cooldowns=store, journal=Journal(), clock=clock, former=read)
    out = [*await fold.process(log(held, fired)), *await fold.process(log(ended, first=2))]
    assert {item.topic for item in out} == {STATE}, "it was sent before"
    assert store.calls == [], "and takes no cooldown once more"
    out = [*await fold.process(log(resolved, later.fire(), first=3))]
    assert decisions(out)[0][:2] == (ALERTS, resolved.id)
    assert reasons(out) == [(ALERTS, Reason.RESOLVED), (ALERTS, Reason.FIRST_NOTIFICATION)]


async def test_a_state_that_is_there_asks_for_none_before_it(store: Store, clock: Clock) -> None:
    async def read() -> Former:
        raise AssertionError("there is a state")

    episode = Episode()
    before = fresh(store, clock)
    await before.process(log(episode.fire()))
    table = saved(before)
    journal = Journal(table)
    fold = NotifierPartition.restore("t.", 3, table.items(), cooldowns=store, journal=journal, clock=clock, former=read)
    assert reasons(await fold.process(log(episode.resolve(), first=1))) == [(ALERTS, Reason.RESOLVED)]
