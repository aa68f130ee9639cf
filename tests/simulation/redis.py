"""Redis in memory: a key may be forgotten, a reply lost, an answer late."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from streams.notifier.cooldown import SEPARATOR, RedisCooldowns
from streams.notifier.policy import Claim


class Redis:
    """The keys with their ends. `mode`: works, loses replies, hangs, or refuses connections."""

    def __init__(self, clock: Callable[[], float], choices: random.Random) -> None:
        self._clock, self.choices = clock, choices
        self._held: dict[str, tuple[str, float]] = {}
        self.mode = "works"
        self.losses = 0

    def restart(self) -> None:
        """Come back empty."""
        self._held.clear()
        self.losses += 1

    def claim(self, key: str, holders: str, seconds: float, *, only_new: bool) -> tuple[bytes | None, int]:
        """SET key holders PX [NX] GET, and PTTL."""
        now = self._clock()
        before, until = self._held.get(key, ("", 0.0))
        if until <= now:
            before = ""
        if not before or not only_new:
            until = now + seconds
            self._held[key] = holders, until
        return before.encode() or None, int((until - now) * 1000)


class SimulatedCooldowns(RedisCooldowns):
    """The product's cooldowns, with a connection to the Redis in memory. `step` is awaited around each request."""

    def __init__(self, redis: Redis, step: Callable[[float], Any]) -> None:
        self.address, self._prefix = "simulated", "cooldown:"
        self._redis, self._step = redis, step
        self._client: Any = self
        self.connection_pool = self

    async def disconnect(self, **_options: object) -> None:
        """Connections cost nothing here."""

    async def _ask(self, claims: Sequence[Claim]) -> list[Any]:
        redis = self._redis
        mode = redis.mode
        await self._step(redis.choices.uniform(0.0005, 0.004))
        if mode == "refuses":
            raise RedisConnectionError("refused")
        if mode == "hangs" and redis.choices.random() < 0.5:
            await self._step(30)
        replies: list[Any] = []
        for claim in claims:
            replies += redis.claim(
                self._prefix + claim.group, SEPARATOR.join(claim.holders), claim.ttl / 1e6, only_new=not claim.takeover
            )
        if mode == "hangs":
            await self._step(30)
        await self._step(redis.choices.uniform(0.0005, 0.004))
        if mode == "loses" and redis.choices.random() < 0.7:
            raise RedisConnectionError("reset by peer")
        return replies
