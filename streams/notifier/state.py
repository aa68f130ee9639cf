"""The table of a notifier partition: what its keys and values hold, with a version."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from streams.kernel.state_version import check_state_version
from streams.notifier.intents import Intent
from streams.notifier.policy import Claimed, Dispatched, Episode, Group, Held

VERSION: Final = 2
READABLE: Final = (1, 2)
MARKER: Final = b"m"
EPISODE: Final = b"e"
GROUP: Final = b"g"
DECISION: Final = b"d"
RELEASE: Final = b"r"


def episode_key(dedup_key: str) -> bytes:
    """The key of an open episode."""
    return EPISODE + dedup_key.encode()


def group_key(group: str) -> bytes:
    """The key of a rule and group."""
    return GROUP + group.encode()


def intent_key(intent: Intent) -> bytes:
    """The key of an intent."""
    return (RELEASE if intent.released else DECISION) + intent.id.encode()


def pack_marker(applied: int, untracked: int) -> bytes:
    """The marker: the last offset that was applied, and the open episodes that found no room."""
    return _pack(applied, untracked)


def pack_episode(episode: Episode | None) -> bytes | None:
    """The value of an episode; None for one that ended."""
    match episode:
        case None:
            return None
        case Dispatched(group, ordinal, fire_count, paged):
            return _pack("dispatched", group, ordinal, fire_count, paged)
        case Held(group, ordinal, until, record):
            return _pack("held", group, ordinal, until, record)


def pack_group(group: Group | None) -> bytes | None:
    """The value of a group; None for one that was forgotten."""
    if group is None:
        return None
    return _pack(group.fires, group.recent, group.ended, group.cooldown_until, group.seen_at)


def pack_intent(intent: Intent) -> bytes:
    """The value of an intent."""
    claimed = intent.claimed
    answer = None if claimed is None else (claimed.won, claimed.holder, claimed.remaining, claimed.source)
    return _pack(intent.id, intent.episode, intent.offset, intent.now, intent.stale, answer, intent.released)


def unpack_marker(value: bytes) -> tuple[int, int]:
    """See `pack_marker`."""
    applied, untracked = _unpack(value)
    return applied, untracked


def unpack_episode(value: bytes) -> Episode:
    """See `pack_episode`."""
    kind, *fields = _unpack(value)
    return Dispatched(*fields) if kind == "dispatched" else Held(*fields)


def unpack_group(value: bytes) -> Group:
    """See `pack_group`."""
    fires, recent, ended, cooldown_until, seen_at = _unpack(value)
    return Group(fires, tuple(recent), tuple(ended), cooldown_until, seen_at)


def unpack_intent(value: bytes) -> Intent:
    """See `pack_intent`."""
    id, episode, offset, now, stale, answer, released = _unpack(value)
    return Intent(id, episode, offset, now, stale, None if answer is None else Claimed(*answer), released)


def _pack(*fields: Any) -> bytes:
    return msgspec.msgpack.encode((VERSION, *fields))


def _unpack(value: bytes) -> list[Any]:
    version, *fields = msgspec.msgpack.decode(value, type=list[Any])
    check_state_version(version, READABLE, "notifier")
    return fields
