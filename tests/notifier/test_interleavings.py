"""Whatever the chunks, crashes, replays and copies: each transition has one decision, and a resolve follows its firing."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alert import Alert, Reason, Transition
from streams.notifier.cooldown import LocalCooldowns
from streams.notifier.partition import NotifierPartition
from streams.notifier.policy import Claim, Claimed
from streams.records import Outgoing
from streams.testing import FakeClock as Clock
from tests.notifier.cases import Episode, Journal, Record, encode

COOLDOWN = "60s"
SERVICES = ("files", "time")


class Redis:
    """Cooldowns that outlive a worker; may be lost, go back to what a replica had, or be away, when few firings pass."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.empty()
        self.replica = self.here

    def empty(self) -> None:
        self.here = LocalCooldowns(self._clock, per_minute=10**6)

    def away(self) -> None:
        self.here = LocalCooldowns(self._clock, per_minute=1)

    def replicate(self) -> None:
        self.replica = copy.deepcopy(self.here, {id(self._clock): self._clock})

    def fail_over(self) -> None:
        self.here = copy.deepcopy(self.replica, {id(self._clock): self._clock})

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed]:
        return await self.here.claim(claims)


class RefusedError(Exception):
    """The changelog took nothing."""


class Changelog(Journal):
    """Refuses when it is told to: the worker dies there, or was replaced."""

    refuses = False

    async def append(self, partition: int, items: list[tuple[bytes, bytes | None]]) -> int:
        if self.refuses:
            raise RefusedError
        return await super().append(partition, items)


@dataclass
class Worker:
    """A worker on one partition: what it is fed, what it sent, its table, and the Redis beside it."""

    clock: Clock = field(default_factory=Clock)
    log: list[Record] = field(default_factory=list)
    sent: list[tuple[str, Alert]] = field(default_factory=list)
    state: dict[bytes | None, bytes | None] = field(default_factory=dict)
    table: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.redis = Redis(self.clock)
        self.crash()

    def append(self, transition: Transition) -> None:
        self.log.append(Record(len(self.log), encode(transition)))

    def process(self, number: int) -> None:
        self._send(asyncio.run(self.fold.process(self.log[self.fold.applied + 1 :][:number])))

    def advance(self, by: str) -> None:
        self.clock.advance(by)
        self._send(asyncio.run(self.fold.wake(self.clock())))

    def checkpoint(self) -> None:
        asyncio.run(self.changelog.append(0, self.fold.take_dirty()))

    def crash(self) -> None:
        self.changelog = Changelog(self.table)
        self.fold = NotifierPartition.restore(
            "", 0, dict(self.table).items(), cooldowns=self.redis, journal=self.changelog, clock=self.clock
        )

    def die(self, number: int, by: str, sends: int | None) -> None:
        """Crash while `number` records are processed and time passes: after so many were sent, or before anything is stored."""
        self.changelog.refuses = sends is None
        try:
            out = list(asyncio.run(self.fold.process(self.log[self.fold.applied + 1 :][:number])))
            self.clock.advance(by)
            out += asyncio.run(self.fold.wake(self.clock()))
            self._send(out[:sends])
        except RefusedError:
            pass
        self.crash()

    def _send(self, out: Sequence[Outgoing]) -> None:
        for item in out:
            if item.topic == "mcp.alerts.state":
                self.state[item.key] = item.value
                continue
            assert item.value is not None
            self.sent.append((item.topic, Alert.model_validate_json(item.value)))
            if item.topic == "mcp.transitions":
                self.log.append(Record(len(self.log), item.value, item.key, item.headers))


class Engine:
    """Writes episodes of each service, one after another; may send its last transitions again, as after a crash."""

    def __init__(self) -> None:
        self.number = 0
        self.open: dict[str, Episode] = {}
        self.written: list[Transition] = []

    def step(self, service: str, at: int, *, rises: bool) -> Transition:
        episode = self.open.get(service)
        if episode is None:
            self.number += 1
            episode = self.open[service] = Episode(f"e{self.number}", service, COOLDOWN)
            episode.at = at
            transition = episode.fire()
        elif rises and episode.ordinal < 3:
            episode.at = at
            transition = episode.rise()
        else:
            episode.at = at
            transition = self.open.pop(service).resolve()
        self.written.append(transition)
        return transition


actions = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.sampled_from(SERVICES), st.booleans()),
        st.tuples(st.just("step"), st.just(SERVICES[0]), st.booleans()),
        st.tuples(st.just("again"), st.integers(1, 6)),
        st.tuples(st.just("process"), st.integers(1, 8)),
        st.tuples(st.just("advance"), st.sampled_from(["1s", "30s", "60s", "6m"])),
        st.tuples(st.just("checkpoint")),
        st.tuples(st.just("crash")),
        st.tuples(st.just("die"), st.integers(0, 8), st.sampled_from(["1s", "60s", "6m"]), st.none() | st.integers(0, 9)),
        st.tuples(st.sampled_from(["empty", "away", "replicate", "fail_over"])),
    ),
    max_size=60,
)


def run(script: list[tuple[Any, ...]]) -> tuple[Worker, Engine]:
    """Play `script`, then all that is left."""
    worker, engine = Worker(), Engine()

    def step(service: str, rises: bool) -> None:
        worker.append(engine.step(service, worker.clock(), rises=rises))

    def again(number: int) -> None:
        for transition in engine.written[-number:]:
            worker.append(transition)

    does: dict[str, Callable[..., None]] = {
        "step": step, "again": again, "advance": worker.advance, "die": worker.die,
        "process": worker.process, "checkpoint": worker.checkpoint, "crash": worker.crash,
        "empty": worker.redis.empty, "away": worker.redis.away,
        "replicate": worker.redis.replicate, "fail_over": worker.redis.fail_over,
    }  # fmt: skip
    for name, *arguments in script:
        does[name](*arguments)
    while (applied := worker.fold.applied) < len(worker.log) - 1:
        worker.process(100)
        assert worker.fold.applied > applied
    for _ in range(4):
        worker.advance(COOLDOWN)
    return worker, engine


HELD_FIRST = {Reason.IN_COOLDOWN, Reason.COOLDOWN_OVER}, {Reason.IN_COOLDOWN, Reason.STALE}


@given(actions)
@settings(deadline=None)
def test_each_transition_has_one_decision_and_its_copies_are_the_same(script: list[tuple[Any, ...]]) -> None:
    worker, engine = run(script)
    decided: dict[str, dict[Reason, set[str]]] = defaultdict(lambda: defaultdict(set))
    for _, alert in worker.sent:
        decided[alert.id][alert.reason].add(alert.model_dump_json())
    assert set(decided) == {transition.id for transition in engine.written}
    for texts in decided.values():
        assert len(texts) == 1 or set(texts) in HELD_FIRST
        assert all(len(copies) == 1 for copies in texts.values())


@given(actions)
@settings(deadline=None)
def test_a_resolve_is_dispatched_where_its_firing_was(script: list[tuple[Any, ...]]) -> None:
    worker, engine = run(script)
    dispatched = [alert for topic, alert in worker.sent if topic == "mcp.alerts"]
    fired = {alert.dedup_key for alert in dispatched if alert.status == "firing"}
    resolved = {alert.dedup_key for alert in dispatched if alert.status == "resolved"}
    ended = {transition.dedup_key for transition in engine.written if transition.status == "resolved"}
    assert resolved == fired & ended


@given(actions)
@settings(deadline=None)
def test_a_resolve_pages_where_its_firing_paged(script: list[tuple[Any, ...]]) -> None:
    worker, engine = run(script)
    paging = [alert for topic, alert in worker.sent if topic == "mcp.alerts" and alert.reason is not Reason.STALE]
    fired = {alert.dedup_key for alert in paging if alert.status == "firing"}
    resolved = {alert.dedup_key for alert in paging if alert.status == "resolved"}
    ended = {transition.dedup_key for transition in engine.written if transition.status == "resolved"}
    assert resolved == fired & ended


@given(actions)
@settings(deadline=None)
def test_what_fires_on_is_dispatched_and_is_in_the_state(script: list[tuple[Any, ...]]) -> None:
    worker, engine = run(script)
    firing = {transition.key.encode() for transition in engine.written} - {
        transition.key.encode() for transition in engine.written if transition.status == "resolved"
    }
    assert {key for key, value in worker.state.items() if value is not None} == firing
    sent = {alert.key.encode() for topic, alert in worker.sent if topic == "mcp.alerts"}
    assert firing <= sent
    assert (worker.fold.open_episodes, worker.fold.held_episodes) == (len(firing), 0)


@given(actions.map(lambda script: [item for item in script if item[0] not in ("crash", "die")]))
@settings(deadline=None)
def test_without_a_crash_nothing_is_said_twice_and_firings_are_counted(script: list[tuple[Any, ...]]) -> None:
    worker, engine = run(script)
    dispatched = [alert.id for topic, alert in worker.sent if topic == "mcp.alerts"]
    assert len(dispatched) == len(set(dispatched))
    recorded = [alert.id for topic, alert in worker.sent if topic == "mcp.transitions"]
    assert len(recorded) == len(set(recorded))
    assert _counts(worker.sent) == _expected_counts(worker.sent, engine.written)


def _counts(sent: list[tuple[str, Alert]]) -> list[tuple[str, int]]:
    return [(alert.id, alert.fire_count) for _, alert in sent if alert.reason in (Reason.FIRST_NOTIFICATION, Reason.IN_COOLDOWN)]


def _expected_counts(sent: list[tuple[str, Alert]], written: list[Transition]) -> list[tuple[str, int]]:
    """Firings since the last one that was dispatched, told from the records alone."""
    kinds = {transition.id: transition.details["kind"] for transition in written}
    counts: dict[str, int] = defaultdict(int)
    expected = []
    for topic, alert in sent:
        first_record = alert.reason in (Reason.FIRST_NOTIFICATION, Reason.IN_COOLDOWN)
        if kinds[alert.id] == "fired" and first_record:
            counts[alert.source] += 1
            expected.append((alert.id, counts[alert.source]))
        if topic == "mcp.alerts" and alert.status == "firing":
            counts[alert.source] = 0
    return expected
