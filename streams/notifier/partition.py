"""One partition of `mcp.transitions`: the fold that decides what is dispatched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.alert import Reason
from schemas.dead_letter import DeadReason, dead_letter_headers, kept
from schemas.time import MICROS
from streams.notifier.cooldown import CooldownStore
from streams.notifier.former import Former
from streams.notifier.intents import Intent, Intents, Journal
from streams.notifier.observer import Observer
from streams.notifier.policy import (
    DECISION_HEADER,
    Case,
    Claim,
    Claimed,
    Decision,
    Dispatched,
    Episode,
    Group,
    Held,
    Kind,
    UnreadableTransitionError,
    claim_for,
    decide,
    is_copy,
    is_overdue,
    is_stale,
    read_case,
    release,
)
from streams.notifier.state import (
    DECISION,
    EPISODE,
    GROUP,
    MARKER,
    RELEASE,
    episode_key,
    group_key,
    intent_key,
    pack_episode,
    pack_group,
    pack_intent,
    pack_marker,
    unpack_episode,
    unpack_group,
    unpack_intent,
    unpack_marker,
)
from streams.notifier.timers import Timers
from streams.records import Incoming, Outgoing
from streams.settings import Settings
from streams.topics import ALERT_STATE, ALERTS, DEAD_LETTERS, TRANSITIONS

MAX_CLAIMS: Final = 500
"""Claims in one round trip."""
PAGE_MAX_AGE: Final = 300 * MICROS
"""How old an alert may be that pages somebody."""
REMEMBER: Final = 3_600 * MICROS
"""How long a group is remembered after its last decision or a restart: copies of what was decided may still come."""
LOOK_AGAIN: Final = MICROS
"""How long what is held waits for the log to be replayed."""
_KEY_BYTES: Final = 300


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a partition's memory: open episodes, and groups that have none but are still remembered."""

    episodes: int = 20_000
    idle_groups: int = 20_000


@dataclass(frozen=True, slots=True)
class _Asked:
    """A case at `offset`, with the claim that it needs, and the intent where it was decided before a crash.

    `known`: it was decided before the state was lost, and what came of it is sent already.
    """

    case: Case
    offset: int
    stale: bool
    claim: Claim | None = None
    intent: Intent | None = None
    known: bool = False


@dataclass(slots=True)
class _Batch:
    """Cases that wait for the answers to their claims; `offset` is the last record among them."""

    offset: int = -1
    asked: list[_Asked] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    claims: int = 0

    def add(self, asked: _Asked) -> None:
        self.asked.append(asked)
        self.ids.add(asked.case.transition.id)
        if asked.claim is not None:
            self.groups.add(asked.claim.group)
            self.claims += 1


class NotifierPartition:
    """A Fold: `process` decides transitions, `wake` releases held firings; `take_dirty` and `restore` keep the state.

    `former` is asked, before the first record, where the table holds nothing: see streams/notifier/former.py.
    What depends on Redis or the clock is appended to `journal` before it is returned to be sent, see streams/notifier/intents.py.

    If `process` or `wake` is cancelled or raises, the partition must be restored anew: its state may be ahead of what was sent.
    """

    def __init__(
        self,
        prefix: str,
        partition: int,
        *,
        cooldowns: CooldownStore,
        journal: Journal,
        clock: Callable[[], int],
        observer: Observer | None = None,
        limits: Limits | None = None,
        page_max_age: int = PAGE_MAX_AGE,
        former: Callable[[], Awaitable[Former]] | None = None,
    ) -> None:
        self._read_former, self._former = former, Former()
        self._topic, self._partition = prefix + TRANSITIONS.name, partition
        self._cooldowns, self._journal, self._clock = cooldowns, journal, clock
        self._page_max_age = page_max_age
        self._intents = Intents()
        self._observer = observer or Observer()
        self._limits = limits or Limits()
        self._restored_at = clock()
        self._applied = -1
        self._untracked = 0
        self._episodes: dict[str, Episode] = {}
        self._groups: dict[str, Group] = {}
        self._open: Counter[str] = Counter()
        self._held, self._idle = Timers(), Timers()
        self._dirty_episodes: set[str] = set()
        self._dirty_groups: set[str] = set()
        self._dirty_marker = False
        self._turn = asyncio.Lock()

    @property
    def applied(self) -> int:
        """The last offset that was folded; -1 before the first."""
        return self._applied

    @property
    def open_episodes(self) -> int:
        """Episodes that fire now, held ones among them."""
        return len(self._episodes)

    @property
    def held_episodes(self) -> int:
        """Episodes whose firing is held back."""
        return len(self._held)

    # --- folding ---------------------------------------------------------------------------------------------------

    async def process(self, records: Sequence[Incoming]) -> Sequence[Outgoing]:
        """Decide the transitions among `records`; those at or below `applied` are skipped, as are the notifier's own."""
        async with self._turn:
            if records and (read := self._read_former) is not None:
                self._read_former = None
                if self._applied < 0:
                    self._former = await read()
            out: list[Outgoing] = []
            batch = _Batch()
            for record in records:
                if record.offset <= self._applied:
                    continue
                # What was released before a crash counts as dispatched where what resolves it is replayed.
                if (after := self._intents.next_release()) is not None and after < record.offset:
                    await self._settle(batch, out)
                    batch = _Batch(record.offset - 1)
                    self._release_again(record.offset - 1, out)
                if not any(name == DECISION_HEADER for name, _ in record.headers):
                    try:
                        case = read_case(record.value)
                    except UnreadableTransitionError as error:
                        out.append(self._dead_letter(record, error))
                    else:
                        batch = await self._enqueue(case, record.offset, batch, out)
                batch.offset = record.offset
            await self._settle(batch, out)
            await self._release(self._clock(), out)
            return out

    async def wake(self, now: int) -> Sequence[Outgoing]:
        """Release the held firings that are due at `now` (µs), and forget idle groups."""
        async with self._turn:
            out: list[Outgoing] = []
            await self._release(now, out)
            for key in self._idle.due(now, MAX_CLAIMS):
                self._forget(key)
            return out

    async def _release(self, now: int, out: list[Outgoing]) -> None:
        """Release what is due at `now`."""
        self._release_again(self._applied, out)
        awaited = self._intents.awaited()
        while keys := self._held.due(now, MAX_CLAIMS):
            for key in awaited.intersection(keys):
                self._held.set(key, now + LOOK_AGAIN)
            held_keys = [key for key in keys if key not in awaited]
            due = [(held, read_case(held.record)) for key in held_keys if isinstance(held := self._episodes[key], Held)]
            asked = []
            for held, firing in due:
                stale = is_overdue(held, now, self._page_max_age)
                claim = claim_for(firing, self._group(firing), None, stale=stale)
                asked.append(_Asked(firing, self._applied, stale, claim))
            answers = await self._claim(asked)
            intents = [
                Intent(each.case.transition.id, each.case.episode, self._applied, now, each.stale, claimed, released=True)
                for each, claimed in zip(asked, answers, strict=True)
                if claimed is None or claimed.won
            ]
            await self._store(intents)
            for (held, firing), each, claimed in zip(due, asked, answers, strict=True):
                self._release_one(held, firing, claimed, now, each.stale, out)

    def _release_again(self, applied: int, out: list[Outgoing]) -> None:
        """Release what was released after `applied` before a crash."""
        for intent in self._intents.releases(applied):
            held = self._episodes.get(intent.episode)
            if isinstance(held, Held):
                self._release_one(held, read_case(held.record), intent.claimed, intent.now, intent.stale, out)

    def _release_one(self, held: Held, firing: Case, claimed: Claimed | None, now: int, stale: bool, out: list[Outgoing]) -> None:
        outcome = release(held, firing, self._group(firing), claimed, now, stale=stale)
        if isinstance(outcome, Held):
            self._keep_episode(firing.episode, outcome)
        else:
            self._keep(firing, outcome)
            self._tell(firing, outcome, now, out)

    async def _enqueue(self, case: Case, offset: int, batch: _Batch, out: list[Outgoing]) -> _Batch:
        """Add `case` to `batch`, or to a new one after `batch` was settled."""
        # A rise in severity takes the cooldown in the name of all that were dispatched, so those must be known.
        if batch.claims >= MAX_CLAIMS or (case.kind is Kind.RAISED and case.group in batch.groups):
            await self._settle(batch, out)
            batch = _Batch()
        intent = self._intents.decision(case.transition.id)
        if intent is not None:
            batch.add(_Asked(case, offset, intent.stale, intent=intent))
            return batch
        former = self._former
        if case.transition.id in former.dispatched or case.episode in former.ended:
            batch.add(_Asked(case, offset, former.dispatched.get(case.transition.id, False), known=True))
            return batch
        stale = is_stale(case, self._clock(), self._page_max_age)
        claim = None
        if case.transition.id not in batch.ids:
            claim = claim_for(case, self._group(case), self._episodes.get(case.episode), stale=stale)
        batch.add(_Asked(case, offset, stale, claim))
        return batch

    async def _settle(self, batch: _Batch, out: list[Outgoing]) -> None:
        answers = await self._claim(batch.asked)
        now = self._clock()
        await self._store(self._intended(batch, answers, now))
        for asked, claimed in zip(batch.asked, answers, strict=True):
            if asked.known:
                self._adopt(asked, now, out)
            elif asked.intent is None:
                self._decide(asked.case, claimed, now, asked.stale, out)
            else:
                self._decide(asked.case, asked.intent.claimed, asked.intent.now, asked.stale, out)
        if batch.offset > self._applied:
            self._applied = batch.offset
            self._intents.applied(batch.offset)
            self._dirty_marker = True

    def _intended(self, batch: _Batch, answers: Sequence[Claimed | None], now: int) -> list[Intent]:
        """The decisions in `batch` that a replay would not make of itself: all but resolves of what was dispatched."""
        fresh = {asked.case.episode for asked in batch.asked if asked.case.kind is Kind.FIRED}
        intents: dict[str, Intent] = {}
        for asked, claimed in zip(batch.asked, answers, strict=True):
            case, episode = asked.case, self._episodes.get(asked.case.episode)
            if asked.intent is not None or asked.known or is_copy(case, self._group(case), episode):
                continue
            if case.kind is not Kind.RESOLVED or isinstance(episode, Held) or case.episode in fresh:
                id = case.transition.id
                intents.setdefault(id, Intent(id, case.episode, asked.offset, now, asked.stale, claimed))
        return list(intents.values())

    async def _store(self, intents: Sequence[Intent]) -> None:
        """Store `intents`: from here on the decisions stand, whatever happens."""
        if intents:
            await self._journal.append(self._partition, [(intent_key(each), pack_intent(each)) for each in intents])
            self._intents.stored(intents)

    async def _claim(self, asked: Sequence[_Asked]) -> list[Claimed | None]:
        """The answers to the claims among `asked`, in their places."""
        claims = [each.claim for each in asked if each.claim is not None]
        answers = iter(await self._cooldowns.claim(claims) if claims else [])
        placed = [None if each.claim is None else next(answers) for each in asked]
        for claimed in placed:
            if claimed is not None:
                self._observer.claimed(claimed)
        return placed

    def _decide(self, case: Case, claimed: Claimed | None, now: int, stale: bool, out: list[Outgoing]) -> None:
        group = self._group(case)
        episode = self._episodes.get(case.episode)
        if is_copy(case, group, episode):
            self._observer.copied()
            return
        tracked = episode is not None or len(self._episodes) < self._limits.episodes
        if episode is None and case.kind is Kind.RESOLVED and self._untracked > 0:
            # Episodes that found no room were all dispatched, and so must be what resolves them.
            self._untracked -= 1
            episode = Dispatched(case.group, -1, 1)
        decision = decide(case, group, episode, claimed if tracked else None, now, stale=stale)
        if decision is None:
            return
        if decision.episode is not None and not tracked:
            self._untracked += case.kind is Kind.FIRED
            self._observer.overflowed()
        self._keep(case, decision, tracked=tracked)
        self._tell(case, decision, now, out)

    def _adopt(self, asked: _Asked, now: int, out: list[Outgoing]) -> None:
        """Decide as it was decided before the state was lost. Only the view of what fires is told of it once more."""
        was_held = asked.case.episode in self._former.ended
        # Its end stands in the log, so nothing may release it before.
        answer = Claimed(won=False, holder="", remaining=REMEMBER, source="log") if was_held else None
        told: list[Outgoing] = []
        self._decide(asked.case, answer, now, asked.stale, told)
        out += [record for record in told if record.topic == ALERT_STATE.name]

    def _group(self, case: Case) -> Group:
        return self._groups.get(case.group) or Group()

    # --- memory ----------------------------------------------------------------------------------------------------

    def _keep(self, case: Case, decision: Decision, *, tracked: bool = True) -> None:
        self._groups[case.group] = decision.group
        self._dirty_groups.add(case.group)
        if tracked or decision.episode is None:
            self._keep_episode(case.episode, decision.episode)
        self._time_group(case.group)
        while len(self._idle) > self._limits.idle_groups and (first := self._idle.first()) is not None:
            self._forget(first[1])

    def _keep_episode(self, key: str, episode: Episode | None) -> None:
        before = self._episodes.pop(key, None)
        if episode is not None:
            self._episodes[key] = episode
        if before is None and episode is None:
            return
        self._dirty_episodes.add(key)
        if before is None and episode is not None:
            self._open[episode.group] += 1
        elif before is not None and episode is None:
            self._open[before.group] -= 1
            if not self._open[before.group]:
                del self._open[before.group]
        if isinstance(episode, Held):
            self._held.set(key, episode.until)
        else:
            self._held.discard(key)

    def _time_group(self, key: str) -> None:
        if self._open[key]:
            self._idle.discard(key)
        else:
            del self._open[key]
            group = self._groups[key]
            self._idle.set(key, max(group.cooldown_until, max(group.seen_at, self._restored_at) + REMEMBER))

    def _forget(self, key: str) -> None:
        self._idle.discard(key)
        del self._groups[key]
        self._dirty_groups.add(key)

    # --- records ---------------------------------------------------------------------------------------------------

    def _tell(self, case: Case, decision: Decision, now: int, out: list[Outgoing]) -> None:
        record = decision.record
        value = record.model_dump_json().encode()
        key = record.key.encode()
        if decision.dispatch:
            out.append(Outgoing(ALERTS.name, key, value))
        else:
            mark = ((DECISION_HEADER, decision.reason.encode()),)
            out.append(Outgoing(TRANSITIONS.name, record.tenant.encode(), value, mark, self._partition))
        out.append(Outgoing(ALERT_STATE.name, key, None if case.kind is Kind.RESOLVED else value))
        self._observer.decided(decision.reason)
        if decision.dispatch:
            self._observer.addressed(record.rule, record.channels)
        if decision.dispatch and decision.reason is not Reason.COOLDOWN_OVER:
            since = None if case.append_time is None else now - case.append_time
            self._observer.dispatched(decision.reason, since, now - record.decided_at)

    def _dead_letter(self, record: Incoming, error: UnreadableTransitionError) -> Outgoing:
        self._observer.unreadable()
        key, value, held = kept(record.key, record.value, tuple(record.headers))
        headers = dead_letter_headers(
            held,
            topic=self._topic,
            partition=self._partition,
            offset=record.offset,
            timestamp=record.timestamp,
            stage="notify",
            reason=DeadReason.UNREADABLE,
            message=str(error),
        )
        return Outgoing(DEAD_LETTERS.name, key, value, headers)

    # --- the table -------------------------------------------------------------------------------------------------

    @property
    def dirty_bytes(self) -> int:
        """About how many bytes `take_dirty` would return; 0 if nothing changed."""
        held = (self._episodes.get(key) for key in self._dirty_episodes)
        records = sum(len(episode.record) for episode in held if isinstance(episode, Held))
        keys = len(self._dirty_episodes) + len(self._dirty_groups) + self._intents.spent + self._dirty_marker
        return records + _KEY_BYTES * keys

    def take_dirty(self) -> list[tuple[bytes, bytes | None]]:
        """Every key that changed since the last call with its value (None: gone), the marker among them."""
        episodes, self._dirty_episodes = self._dirty_episodes, set()
        groups, self._dirty_groups = self._dirty_groups, set()
        self._dirty_marker = False
        return [
            *((episode_key(key), pack_episode(self._episodes.get(key))) for key in sorted(episodes)),
            *((group_key(key), pack_group(self._groups.get(key))) for key in sorted(groups)),
            *((intent_key(intent), None) for intent in self._intents.take_spent()),
            (MARKER, pack_marker(self._applied, self._untracked)),
        ]

    @classmethod
    def restore(
        cls,
        prefix: str,
        partition: int,
        items: Iterable[tuple[bytes, bytes]],
        *,
        cooldowns: CooldownStore,
        journal: Journal,
        clock: Callable[[], int],
        observer: Observer | None = None,
        limits: Limits | None = None,
        page_max_age: int = PAGE_MAX_AGE,
        former: Callable[[], Awaitable[Former]] | None = None,
    ) -> NotifierPartition:
        """The partition whose table holds `items`; a fresh one if they hold no marker."""
        state = cls(
            prefix,
            partition,
            cooldowns=cooldowns,
            journal=journal,
            clock=clock,
            observer=observer,
            limits=limits,
            page_max_age=page_max_age,
            former=former,
        )
        for key, value in items:
            if key == MARKER:
                state._applied, state._untracked = unpack_marker(value)
            elif key[:1] == EPISODE:
                state._keep_episode(key[1:].decode(), unpack_episode(value))
            elif key[:1] == GROUP:
                state._groups[key[1:].decode()] = unpack_group(value)
            elif key[:1] in (DECISION, RELEASE):
                state._intents.restore(unpack_intent(value))
        for group in state._groups:
            state._time_group(group)
        state._dirty_episodes.clear()
        return state


def make_fold(
    settings: Settings,
    cooldowns: CooldownStore,
    journal: Journal,
    clock: Callable[[], int],
    observer: Observer | None = None,
    former: Callable[[], Awaitable[Former]] | None = None,
) -> Callable[[int, Iterable[tuple[bytes, bytes]]], NotifierPartition]:
    """A function of (partition, items of its table) that gives the restored fold."""

    def restore(partition: int, items: Iterable[tuple[bytes, bytes]]) -> NotifierPartition:
        return NotifierPartition.restore(
            settings.topic_prefix,
            partition,
            items,
            cooldowns=cooldowns,
            journal=journal,
            clock=clock,
            observer=observer,
            page_max_age=int(settings.page_max_age) * MICROS,
            former=former,
        )

    return restore
