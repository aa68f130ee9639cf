"""Cooldowns: who has notified lately, in Redis, and in memory while Redis is away.

A cooldown saves people from repetition and nothing else. Losing one costs a notification too many; believing in one that
is not there would cost an alert. So every doubt ends in a dispatch: a call that takes too long, an error, a key without an
end. Only a rate cap stands between a dead Redis and a flood.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from schemas.time import MICROS
from streams.notifier.policy import Claim, Claimed, judge_claim
from streams.settings import Settings

log = logging.getLogger("tocsin.notifier")

DEADLINE: Final = 0.2
"""Seconds for one call, whatever the number of claims."""
CHECK_DEADLINE: Final = 5.0
RETRY_EVERY: Final = MICROS
"""Microseconds between attempts while Redis is away."""
MAX_LOCAL: Final = 10_000
MAX_OWED: Final = 200
"""Cooldowns won in memory that are claimed in Redis with one call."""
PER_MINUTE: Final = 100
"""Firings that are dispatched per minute and process while Redis is away."""
CAP_HOLD: Final = 5 * MICROS
"""Microseconds for which a firing beyond the cap is held."""
CAP: Final = "rate_cap"
SEPARATOR: Final = ","
WATCH_EVERY: Final = 5.0
"""Seconds between two looks at Redis where no alert asks it."""
_UNTIMED: Final = -1  # what PTTL answers for a key without an end
_PROBE: Final = Claim("probe", "probe", MICROS, takeover=True)


class CooldownError(RuntimeError):
    """Redis answers and cannot be used; names the address and the remedy."""


class CooldownStore(Protocol):
    """Answers claims, in order. It never fails: what cannot be asked is answered in favour of the alert."""

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed]:
        """The answer to each of `claims`; a later one sees the earlier ones."""
        ...


def monotonic() -> int:
    """Microseconds of a clock that never goes back; for durations."""
    return time.monotonic_ns() // 1000


class RedisCooldowns:
    """Cooldowns in Redis: `<group>:cooldown:<fingerprint>` holds the ids of who has it, the last to take it first.

    The client retries nothing by itself. A closed connection is replaced once, within the deadline: to claim again what
    was won, its reply lost, is harmless, since own ids win.
    """

    def __init__(self, url: str, group: str, *, address: str | None = None) -> None:
        self.address = address or url
        self._prefix = f"{group}:cooldown:"
        self._client = Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=CHECK_DEADLINE, socket_timeout=CHECK_DEADLINE
        )

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed | RedisError]:
        """The answer to each of `claims`, or what went wrong with it, in one round trip.

        Raises RedisError, OSError or TimeoutError where the whole call fails; it takes at most DEADLINE.
        """
        async with asyncio.timeout(DEADLINE):
            try:
                replies = await self._ask(claims)
            except RedisConnectionError:
                await self._client.connection_pool.disconnect(inuse_connections=False)
                replies = await self._ask(claims)
            untimed = [claim for claim, remaining in zip(claims, replies[1::2], strict=True) if remaining == _UNTIMED]
            if untimed:
                await self._ask([replace(claim, takeover=True) for claim in untimed])
        return [_answer(*asked) for asked in zip(claims, replies[::2], replies[1::2], strict=True)]

    async def _ask(self, claims: Sequence[Claim]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for claim in claims:
                key, ttl = self._prefix + claim.group, math.ceil(claim.ttl / 1000)
                pipe.set(key, SEPARATOR.join(claim.holders), px=ttl, nx=not claim.takeover, get=True)
                pipe.pttl(key)
            return await pipe.execute(raise_on_error=False)

    async def check(self) -> str | None:
        """Whether Redis will keep cooldowns: None, or a warning.

        Raises CooldownError where it cannot be used; RedisError, OSError or TimeoutError where it is away.
        """
        try:
            async with asyncio.timeout(CHECK_DEADLINE):
                info = await self._client.info("server", "memory")
        except ResponseError as error:
            return f"Redis at {self.address} does not answer INFO ({error}); it must be 7.0 or later and evict nothing"
        version = str(info.get("redis_version", "0"))
        if int(version.split(".", 1)[0]) < 7:
            raise CooldownError(f"Redis at {self.address} is version {version}; cooldowns need 7.0 or later")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            return (
                f"Redis at {self.address} evicts keys (maxmemory-policy {policy}): a cooldown that is evicted costs a "
                "notification too many; set `maxmemory-policy noeviction`, or give tocsin a Redis of its own"
            )
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _answer(claim: Claim, holders: Any, remaining: Any) -> Claimed | RedisError:
    for reply in (holders, remaining):
        if isinstance(reply, RedisError):
            return reply
    if holders is None or remaining == _UNTIMED:
        return judge_claim(claim, (), 0)
    return judge_claim(claim, holders.decode("utf-8", "replace").split(SEPARATOR), remaining * 1000)


class LocalCooldowns:
    """Cooldowns in memory, the oldest forgotten first. Firings that find no cooldown pass a token bucket."""

    def __init__(self, clock: Callable[[], int] = monotonic, *, size: int = MAX_LOCAL, per_minute: int = PER_MINUTE) -> None:
        self._clock, self._size = clock, size
        self._held: OrderedDict[str, tuple[tuple[str, ...], int]] = OrderedDict()
        self._bucket = _Bucket(per_minute, clock())

    def __len__(self) -> int:
        return len(self._held)

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed]:
        """The answer to each of `claims`, in order."""
        return [self._claim(claim, self._clock()) for claim in claims]

    def remember(self, claim: Claim, claimed: Claimed, now: int) -> None:
        """Keep what Redis answered to a call of `now`, for when it goes away, or forgets. It ends no later here than there."""
        holders = claim.holders if claimed.won else (claimed.holder,)
        self._hold(claim.group, holders, now + claimed.remaining)

    def recall(self, group: str, now: int) -> Claim | None:
        """The claim that holds the cooldown of `group` for as long as it still lasts, None where nothing is known of any."""
        holders, until = self._held.get(group, ((), now))
        return Claim(group, holders[0], until - now, recent=holders[1:]) if until > now else None

    def _claim(self, claim: Claim, now: int) -> Claimed:
        holders, until = self._held.get(claim.group, ((), now))
        if until <= now:
            holders = ()
        if not holders and not claim.takeover and not self._bucket.take(now):
            return Claimed(won=False, holder=CAP, remaining=CAP_HOLD, source=CAP)
        claimed = judge_claim(claim, holders, until - now, "local")
        if claim.takeover or not holders:
            self._hold(claim.group, claim.holders, now + claim.ttl)
        return claimed

    def _hold(self, group: str, holders: tuple[str, ...], until: int) -> None:
        self._held[group] = (holders, until)
        self._held.move_to_end(group)
        if len(self._held) > self._size:
            self._held.popitem(last=False)


class _Bucket:
    """`per_minute` tokens, which come back evenly over a minute."""

    def __init__(self, per_minute: int, now: int) -> None:
        self._size = per_minute * 60 * MICROS  # in token-microseconds per minute, so that all is whole numbers
        self._rate = per_minute
        self._level, self._at = self._size, now

    def take(self, now: int) -> bool:
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 60 * MICROS:
            return False
        self._level -= 60 * MICROS
        return True


class FailOpenCooldowns:
    """Cooldowns in Redis, and in memory while Redis is away; asked again once per second, so that nothing waits for it.

    What was won in memory is claimed in Redis when it answers again: a call that came too late, because this process was
    busy, must not cost a notification too many. And what Redis once knew is told to it again before it is asked: it may have
    evicted it, have been restarted empty, or be a replica that never heard of it.
    """

    def __init__(self, redis: RedisCooldowns, local: LocalCooldowns, clock: Callable[[], int] = monotonic) -> None:
        self._redis, self._local, self._clock = redis, local, clock
        self._retry_at: int | None = None
        self._owed: OrderedDict[str, tuple[Claim, int]] = OrderedDict()

    @property
    def is_degraded(self) -> bool:
        """Whether the last call to Redis failed."""
        return self._retry_at is not None

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed]:
        """The answer to each of `claims`, in order."""
        if not claims:
            return []
        now = self._clock()
        if self._retry_at is not None:
            if now < self._retry_at:
                return await self._claim_locally(claims)
            self._retry_at = now + RETRY_EVERY  # one call tries; those beside it do not wait
        owed = self._owed_first(claims, now)
        known = [*owed, *self._remembered(claims, now)]
        try:
            replies = (await self._redis.claim([*known, *claims]))[len(known) :]
        except (RedisError, OSError, TimeoutError) as error:
            self._fail(error)
            return await self._claim_locally(claims)
        errors = [reply for reply in replies if isinstance(reply, RedisError)]
        if len(errors) == len(claims):
            self._fail(errors[0])
        else:
            self._recover()
            for claim in owed:  # another partition's call may have done the same meanwhile, or won anew
                if claim.group in self._owed and self._owed[claim.group][0].id == claim.id:
                    del self._owed[claim.group]
        return [await self._settle(claim, reply, now) for claim, reply in zip(claims, replies, strict=True)]

    async def check(self) -> str | None:
        """See RedisCooldowns.check. A Redis that is away keeps nobody from starting: alerts are dispatched without it."""
        try:
            return await self._redis.check()
        except (RedisError, OSError, TimeoutError) as error:
            self._fail(error)
            return None

    async def watch(self) -> None:
        """Look now and then whether Redis takes claims, so that readiness knows before an alert does. Ends by being cancelled."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            try:
                (reply,) = await self._redis.claim([_PROBE])
            except (RedisError, OSError, TimeoutError) as error:
                self._fail(error)
                continue
            if isinstance(reply, RedisError):
                self._fail(reply)
            else:
                self._recover()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.close()

    async def _settle(self, claim: Claim, reply: Claimed | RedisError, now: int) -> Claimed:
        if isinstance(reply, RedisError):
            return (await self._claim_locally((claim,)))[0]
        self._local.remember(claim, reply, now)
        return reply

    def _remembered(self, claims: Sequence[Claim], now: int) -> list[Claim]:
        """The cooldowns of the groups of `claims`, as far as they are known and not owed. A takeover does not ask who had it."""
        groups = dict.fromkeys(claim.group for claim in claims if not claim.takeover and claim.group not in self._owed)
        return [claim for group in groups if (claim := self._local.recall(group, now)) is not None]

    async def _claim_locally(self, claims: Sequence[Claim]) -> list[Claimed]:
        answers = await self._local.claim(claims)
        for claim, claimed in zip(claims, answers, strict=True):
            if claimed.won and claimed.remaining == claim.ttl:
                self._owed[claim.group] = (claim, self._clock() + claim.ttl)
                self._owed.move_to_end(claim.group)
        while len(self._owed) > MAX_LOCAL:
            self._owed.popitem(last=False)
        return answers

    def _owed_first(self, claims: Sequence[Claim], now: int) -> list[Claim]:
        """What is to be claimed before `claims`: first what was won of their groups, then some of the rest."""
        if not self._owed:
            return []
        for group in [group for group, (_, until) in self._owed.items() if until <= now]:
            del self._owed[group]
        asked = dict.fromkeys(claim.group for claim in claims if claim.group in self._owed)
        groups = [*asked, *(group for group in list(self._owed)[:MAX_OWED] if group not in asked)]
        return [replace(claim, ttl=until - now) for claim, until in (self._owed[group] for group in groups)]

    def _fail(self, error: Exception) -> None:
        if self._retry_at is None:
            log.warning(
                "cooldowns degraded: Redis at %s fails (%s); alerts are dispatched without it, at most %d firings a minute; is "
                "TOCSIN_REDIS_URL right?",
                self._redis.address, _said(error), PER_MINUTE,
            )  # fmt: skip
        self._retry_at = self._clock() + RETRY_EVERY

    def _recover(self) -> None:
        if self._retry_at is not None:
            log.info("cooldowns restored: Redis at %s answers again", self._redis.address)
        self._retry_at = None


def open_cooldowns(settings: Settings) -> FailOpenCooldowns:
    """The cooldowns of `settings`; nothing is connected yet. One per process: the rate cap counts per object."""
    address = settings.shown()["TOCSIN_REDIS_URL"]
    return FailOpenCooldowns(RedisCooldowns(settings.redis_url, settings.group, address=address), LocalCooldowns())


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
