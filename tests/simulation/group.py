"""A consumer group: members join, a generation is formed, the partitions are shared out; who is silent is left out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

SESSION: Final = 1.5
"""Seconds after which a silent member is left out."""


class Group:
    """`joined` are those who wait for the next generation; `members` those of the present one."""

    def __init__(self, partitions: int, choices: random.Random, notify: Callable[[], None]) -> None:
        self._partitions, self._choices, self._notify = partitions, choices, notify
        self.generation = 0
        self.assigned: dict[str, list[int]] = {}
        self._known: set[str] = set()
        self._joined: dict[str, asyncio.Future[tuple[int, list[int]]]] = {}
        self._rebalancing = False
        self.rebalances = 0

    def is_current(self, member: str, generation: int) -> bool:
        """Whether what a member was given is still its own."""
        return generation == self.generation and member in self._known and not self._rebalancing

    async def join(self, member: str) -> tuple[int, list[int]]:
        """The next generation and what it gives to `member`."""
        self._known.add(member)
        given: asyncio.Future[tuple[int, list[int]]] = asyncio.get_running_loop().create_future()
        self._joined[member] = given
        self._begin()
        self._form()
        return await given

    def leave(self, member: str) -> None:
        """`member` is gone, or silent for too long."""
        self._joined.pop(member, None)
        if member in self._known:
            self._known.discard(member)
            self._begin()
            self._form()

    def _begin(self) -> None:
        if not self._rebalancing:
            self._rebalancing = True
            self._notify()
            asyncio.get_running_loop().call_later(SESSION, self._expire, self.generation)

    def _expire(self, generation: int) -> None:
        """Who has not joined in time is left out."""
        if self._rebalancing and generation == self.generation:
            self._known &= self._joined.keys()
            self._form()

    def _form(self) -> None:
        if not self._rebalancing or self._known - self._joined.keys():
            return
        self.generation += 1
        self.rebalances += 1
        self._rebalancing = False
        members = sorted(self._joined)
        self.assigned = {member: [] for member in members}
        numbers = list(range(self._partitions))
        self._choices.shuffle(members)
        for at, number in enumerate(numbers if members else ()):
            self.assigned[members[at % len(members)]].append(number)
        joined, self._joined = self._joined, {}
        for member, future in joined.items():
            if not future.done():
                future.set_result((self.generation, sorted(self.assigned[member])))
        self._notify()
