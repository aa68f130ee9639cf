"""What is dispatched and what is held back: a pure function of a transition, what is remembered, and a claim.

The cooldown of a rule and group is claimed by the firing that wants to be dispatched. Whoever holds it already has won it:
a reply that was lost, and a replay after a crash, must never hold an alert back from itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from pydantic import ValidationError

from schemas.alert import DISPATCHED, VERSION, Reason, Transition, group_fingerprint

DECISION_HEADER: Final = "tocsin.decision"
"""Marks the records of `mcp.transitions` that the notifier wrote itself; its value is the reason."""
MAX_RECENT: Final = 8
"""Dispatched ids that a group remembers: they still count as its own after a later alert took the cooldown."""
MAX_ENDED: Final = 64
"""Ended episodes that a group remembers, so that a second copy of their transitions decides nothing."""


class UnreadableTransitionError(ValueError):
    """A record of `mcp.transitions` that is no transition."""


class Kind(StrEnum):
    """What happened to the episode."""

    FIRED = "fired"
    RAISED = "raised"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Case:
    """A transition to be decided. `ordinal` counts those of its episode; `cooldown` and `append_time` are microseconds."""

    transition: Transition
    group: str
    kind: Kind
    ordinal: int
    cooldown: int
    append_time: int | None

    @property
    def episode(self) -> str:
        """The episode that the transition belongs to."""
        return self.transition.dedup_key


@dataclass(frozen=True, slots=True)
class Group:
    """What is remembered of a rule and group. `fires`: firings since the last dispatched one; times are microseconds.

    `recent` are the ids dispatched last, newest first; `ended` the episodes that ended last, newest last.
    """

    fires: int = 0
    recent: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    cooldown_until: int = 0
    seen_at: int = 0


@dataclass(frozen=True, slots=True)
class Dispatched:
    """An open episode whose firing was dispatched. `ordinal` is that of its last transition.

    `paged`: something of it was dispatched in time, so somebody may be at work on it.
    """

    group: str
    ordinal: int
    fire_count: int
    paged: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """An open episode whose firing waits until `until`. `record` is the transition that fired, as JSON."""

    group: str
    ordinal: int
    until: int
    record: bytes


Episode = Dispatched | Held


@dataclass(frozen=True, slots=True)
class Claim:
    """Asks for the cooldown of `group` for `ttl` microseconds, in the name of the alert `id`.

    `takeover` takes it from whoever holds it. `recent` are dispatched ids of the group that shall go on to count as holders.
    """

    group: str
    id: str
    ttl: int
    takeover: bool = False
    recent: tuple[str, ...] = ()

    @property
    def holders(self) -> tuple[str, ...]:
        """Who holds the cooldown once the claim is won, the claimant first."""
        return (self.id, *(other for other in self.recent if other != self.id))[:MAX_RECENT]


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to a claim: whether it was won, who holds the cooldown, and for how many microseconds from now.

    `source` is who answered: redis, local (Redis is away), or rate_cap (too many alerts while Redis is away).
    """

    won: bool
    holder: str
    remaining: int
    source: str = "redis"


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision, its record, and what is remembered from now on (`episode` None: it ended)."""

    record: Transition
    group: Group
    episode: Episode | None

    @property
    def reason(self) -> Reason:
        """Why the transition was dispatched, or was not."""
        return self.record.reason

    @property
    def dispatch(self) -> bool:
        """Whether the record goes to `mcp.alerts`."""
        return self.reason in DISPATCHED

    @property
    def held_until(self) -> int | None:
        """When the firing is looked at again, if it was held back."""
        return self.episode.until if isinstance(self.episode, Held) else None


def read_case(value: bytes | None) -> Case:
    """The transition in the value of a record. Raises UnreadableTransitionError where it holds none."""
    if value is None:
        raise UnreadableTransitionError("the record is empty")
    try:
        transition = Transition.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UnreadableTransitionError(f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}") from None
    if transition.v != VERSION:
        raise UnreadableTransitionError(f"v: version {transition.v} is not known; this worker reads version {VERSION}")
    details = transition.details
    try:
        kind = Kind(details.get("kind", ""))
    except ValueError:
        raise UnreadableTransitionError("details.kind: is one of fired, raised, resolved") from None
    if (kind is Kind.RESOLVED) != (transition.status == "resolved"):
        raise UnreadableTransitionError(f"details.kind: {kind} does not go with status {transition.status}")
    append_time = details.get("append_time")
    return Case(
        transition=transition,
        group=group_fingerprint(transition.rule, transition.labels),
        kind=kind,
        ordinal=_whole(details, "ordinal"),
        cooldown=_whole(details, "cooldown"),
        append_time=append_time if type(append_time) is int else None,
    )


def _whole(details: dict[str, Any], name: str) -> int:
    value = details.get(name)
    if type(value) is not int or value < 0:
        raise UnreadableTransitionError(f"details.{name}: is a whole number of at least 0")
    return value


# --- claims -------------------------------------------------------------------------------------------------------


def has_won(claimant: str, holders: Sequence[str]) -> bool:
    """Whether the claim of `claimant` is won, where `holders` held the cooldown before it."""
    return not holders or claimant in holders


def judge_claim(claim: Claim, holders: Sequence[str], remaining: int, source: str = "redis") -> Claimed:
    """The answer to `claim`, where `holders` had the cooldown for `remaining` microseconds more."""
    if claim.takeover or not holders:
        return Claimed(won=True, holder=claim.id, remaining=claim.ttl, source=source)
    return Claimed(won=has_won(claim.id, holders), holder=holders[0], remaining=max(remaining, 0), source=source)


def claim_for(case: Case, group: Group, episode: Episode | None, *, stale: bool = False) -> Claim | None:
    """The claim that `case` needs to be decided, if any. What pages nobody takes no cooldown from what will."""
    if stale or case.cooldown == 0 or case.kind is Kind.RESOLVED or is_copy(case, group, episode):
        return None
    return Claim(case.group, case.transition.id, case.cooldown, case.kind is Kind.RAISED, group.recent)


def is_copy(case: Case, group: Group, episode: Episode | None) -> bool:
    """Whether the transition was decided before: the engine sends it again, with the same id, after a crash."""
    if episode is not None:
        return case.ordinal <= episode.ordinal
    return case.episode in group.ended


# --- decisions ----------------------------------------------------------------------------------------------------


def is_stale(case: Case, now: int, page_max_age: int) -> bool:
    """Whether what the transition tells of is past: the deciding event was appended more than `page_max_age` before `now`."""
    return case.append_time is not None and now - case.append_time > page_max_age


def decide(
    case: Case, group: Group, episode: Episode | None, claimed: Claimed | None, now: int, *, stale: bool = False
) -> Decision | None:
    """The decision on `case`; None for a copy of a transition that was decided before.

    `claimed` answers `claim_for`; None means that no cooldown stands in the way. `now` is microseconds; `stale` says
    `is_stale`. A resolve pages whom its firing paged, however late it comes.
    """
    if is_copy(case, group, episode):
        return None
    group = replace(group, seen_at=max(now, group.seen_at))
    match case.kind:
        case Kind.FIRED:
            return _fire(case, replace(group, fires=group.fires + 1), claimed, now, stale)
        case Kind.RAISED:
            count = episode.fire_count if isinstance(episode, Dispatched) else max(group.fires, 1)
            was_paged = isinstance(episode, Dispatched) and episode.paged
            return _dispatch(case, Reason.SEVERITY_RAISED, group, count, claimed, now, stale=stale, was_paged=was_paged)
        case Kind.RESOLVED:
            return _resolve(case, group, episode)


def is_overdue(held: Held, now: int, page_max_age: int) -> bool:
    """Whether a held firing was due more than `page_max_age` ago: the worker was away, and it may be over by now."""
    return now - held.until > page_max_age


def release(held: Held, firing: Case, group: Group, claimed: Claimed | None, now: int, *, stale: bool = False) -> Decision | Held:
    """What becomes of a held firing that is due: it is dispatched, or waits again because another holds the cooldown.

    `stale` says `is_overdue`.
    """
    if claimed is not None and not claimed.won:
        return replace(held, until=now + max(claimed.remaining, 1))
    group = replace(group, seen_at=max(now, group.seen_at))
    count = max(group.fires, 1)
    return _dispatch(firing, Reason.COOLDOWN_OVER, group, count, claimed, now, ordinal=held.ordinal, stale=stale)


def _fire(case: Case, group: Group, claimed: Claimed | None, now: int, stale: bool) -> Decision:
    if claimed is None or claimed.won:
        return _dispatch(case, Reason.FIRST_NOTIFICATION, group, group.fires, claimed, now, stale=stale)
    until = now + claimed.remaining
    details = case.transition.details | {"held_until": until, "held_by": claimed.holder}
    record = _record(case, Reason.IN_COOLDOWN, group.fires, details)
    held = Held(case.group, case.ordinal, until, case.transition.model_dump_json().encode())
    return Decision(record, replace(group, cooldown_until=max(until, group.cooldown_until)), held)


def _dispatch(
    case: Case,
    reason: Reason,
    group: Group,
    count: int,
    claimed: Claimed | None,
    now: int,
    *,
    stale: bool,
    ordinal: int | None = None,
    was_paged: bool = False,
) -> Decision:
    own = case.transition.id
    recent = (own, *(other for other in group.recent if other != own))[:MAX_RECENT]
    until = now + (claimed.remaining if claimed is not None else 0)
    after = replace(group, fires=0, recent=recent, cooldown_until=max(until, group.cooldown_until))
    episode = Dispatched(case.group, case.ordinal if ordinal is None else ordinal, count, was_paged or not stale)
    if stale and case.append_time is not None:
        aged = case.transition.details | {"age": now - case.append_time}
        return Decision(_record(case, Reason.STALE, count, aged), after, episode)
    return Decision(_record(case, Reason.STALE if stale else reason, count), after, episode)


def _resolve(case: Case, group: Group, episode: Episode | None) -> Decision:
    after = replace(group, ended=(*group.ended, case.episode)[-MAX_ENDED:])
    if isinstance(episode, Dispatched):
        reason = Reason.RESOLVED if episode.paged else Reason.STALE
        return Decision(_record(case, reason, episode.fire_count), after, None)
    return Decision(_record(case, Reason.ENDED_WHILE_HELD, max(group.fires, 1)), after, None)


def _record(case: Case, reason: Reason, fire_count: int, details: dict[str, Any] | None = None) -> Transition:
    changed: dict[str, Any] = {"reason": reason, "fire_count": fire_count}
    if details is not None:
        changed["details"] = details
    return case.transition.model_copy(update=changed)
