"""Intents: what Redis and the clock said of a transition, stored before anything is sent of it.

A replay of the log after a crash meets another clock, and perhaps another Redis, so it would decide otherwise than what
was sent already. It is given the same answers instead. They go to the changelog under the epoch of its owner, so a worker
that was replaced while it stood still can append none, and then sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from streams.notifier.policy import Claimed


@dataclass(frozen=True, slots=True)
class Intent:
    """A decision that will be made. `id` is that of its transition in `episode`, `now` (µs) when it was made.

    `offset` is that of the record that was decided, or, for the release of a held firing, of the record before it.
    """

    id: str
    episode: str
    offset: int
    now: int
    stale: bool
    claimed: Claimed | None
    released: bool = False


class Journal(Protocol):
    """Where intents are stored: the changelog of the notifier's table."""

    async def append(self, partition: int, items: list[tuple[bytes, bytes | None]]) -> int:
        """Store `items` whole or not at all; the offset of the last."""
        ...


class Intents:
    """Those of an owner before, which are to be repeated, and those of this one, which the next checkpoint covers."""

    def __init__(self) -> None:
        self._decisions: dict[str, Intent] = {}
        self._releases: list[Intent] = []
        self._spent: list[Intent] = []

    @property
    def spent(self) -> int:
        """How many the next checkpoint covers."""
        return len(self._spent)

    def restore(self, intent: Intent) -> None:
        """Take in what an owner before stored."""
        if intent.released:
            self._releases.append(intent)
            self._releases.sort(key=lambda each: (each.offset, each.now))
        else:
            self._decisions[intent.id] = intent

    def decision(self, id: str) -> Intent | None:
        """What was said of the transition `id`, if it was said before."""
        return self._decisions.get(id)

    def awaited(self) -> set[str]:
        """The episodes of which something is to be repeated; what is held of them must not be released on its own before."""
        return {intent.episode for intent in (*self._decisions.values(), *self._releases)}

    def releases(self, applied: int) -> list[Intent]:
        """The releases that followed the records up to `applied`, in order. They are given once."""
        number = sum(1 for each in self._releases if each.offset <= applied)
        due, self._releases = self._releases[:number], self._releases[number:]
        self._spent += due
        return due

    def next_release(self) -> int | None:
        """The offset after which the next release followed."""
        return self._releases[0].offset if self._releases else None

    def stored(self, intents: Iterable[Intent]) -> None:
        """`intents` are in the changelog."""
        self._spent += intents

    def applied(self, offset: int) -> None:
        """The records up to `offset` are decided."""
        for id in [id for id, intent in self._decisions.items() if intent.offset <= offset]:
            self._spent.append(self._decisions.pop(id))

    def take_spent(self) -> list[Intent]:
        """Those that the state covers now, given once."""
        spent, self._spent = self._spent, []
        return spent
