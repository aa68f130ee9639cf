"""Cooldowns in memory, and what happens while Redis is away; the real Redis is in tests/integration/test_cooldown_redis.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest
from redis.exceptions import OutOfMemoryError, RedisError

from schemas.time import MICROS
from streams.notifier.cooldown import CAP_HOLD, FailOpenCooldowns, LocalCooldowns, RedisCooldowns, open_cooldowns
from streams.notifier.policy import Claim, Claimed
from streams.settings import Settings
from streams.testing import FakeClock as Clock

MINUTE = 60 * MICROS


def ask(group: str, claimant: str, *, takeover: bool = False) -> Claim:
    return Claim(group, claimant, 15 * MINUTE, takeover)


async def one(store: LocalCooldowns | FailOpenCooldowns, claim: Claim) -> Claimed:
    (claimed,) = await store.claim([claim])
    return claimed


class FakeRedis(RedisCooldowns):
    """Fails as told; answers that every claim is held by `other` for a minute."""

    def __init__(self) -> None:
        super().__init__("redis://127.0.0.1:1/0", "tocsin")
        self.error: Exception | None = None
        self.replies: list[Claimed | RedisError] = []
        self.calls = 0

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed | RedisError]:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.replies or [Claimed(won=False, holder="other", remaining=MINUTE)] * len(claims)


# --- in memory ---


async def test_local_cooldowns_end(clock: Clock) -> None:
    local = LocalCooldowns(clock)
    assert await one(local, ask("g", "a")) == Claimed(won=True, holder="a", remaining=15 * MINUTE, source="local")
    clock.advance("5m")
    assert await one(local, ask("g", "b")) == Claimed(won=False, holder="a", remaining=10 * MINUTE, source="local")
    assert (await one(local, ask("g", "a"))).won
    clock.advance("10m")
    assert (await one(local, ask("g", "b"))).won


async def test_a_local_takeover_replaces_the_holder(clock: Clock) -> None:
    local = LocalCooldowns(clock)
    await local.claim([ask("g", "a"), ask("g", "b", takeover=True)])
    assert (await one(local, ask("g", "c"))).holder == "b"


async def test_local_cooldowns_are_bounded_and_the_oldest_goes_first(clock: Clock) -> None:
    local = LocalCooldowns(clock, size=3, per_minute=1_000)
    await local.claim([ask(group, "a") for group in ("1", "2", "3", "4")])
    assert len(local) == 3
    assert not (await one(local, ask("2", "b"))).won
    assert (await one(local, ask("1", "b"))).won


async def test_firings_beyond_the_cap_are_held_for_a_moment_and_not_lost(clock: Clock) -> None:
    local = LocalCooldowns(clock, per_minute=60)
    won = [claimed.won for claimed in await local.claim([ask(str(number), "a") for number in range(61)])]
    assert won == [True] * 60 + [False]
    assert await one(local, ask("60", "a")) == Claimed(won=False, holder="rate_cap", remaining=CAP_HOLD, source="rate_cap")
    clock.advance("1s")
    assert (await one(local, ask("60", "a"))).won
    assert not (await one(local, ask("61", "a"))).won
    clock.advance("1h")
    assert sum(claimed.won for claimed in await local.claim([ask(f"later {number}", "a") for number in range(100)])) == 60


async def test_own_cooldowns_and_takeovers_pass_the_cap(clock: Clock) -> None:
    local = LocalCooldowns(clock, per_minute=1)
    await local.claim([ask("g", "a")])
    assert [claimed.won for claimed in await local.claim([ask("g", "a"), ask("h", "b", takeover=True), ask("i", "c")])] == [
        True,
        True,
        False,
    ]


# --- Redis away ---


@pytest.mark.parametrize("error", [RedisError("gone"), ConnectionRefusedError(), TimeoutError()])
async def test_every_failure_fails_open(clock: Clock, error: Exception) -> None:
    redis = FakeRedis()
    redis.error = error
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    assert await one(store, ask("g", "a")) == Claimed(won=True, holder="a", remaining=15 * MINUTE, source="local")
    assert not (await one(store, ask("g", "b"))).won
    assert store.is_degraded


async def test_redis_is_tried_again_once_per_second(clock: Clock) -> None:
    redis = FakeRedis()
    redis.error = RedisError("gone")
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    for _ in range(20):  # 100 ms each
        await one(store, ask("g", "a"))
        clock.advance("100ms")
    assert redis.calls == 2
    redis.error = None
    assert (await one(store, ask("g", "a"))).source == "redis"
    assert not store.is_degraded
    await one(store, ask("g", "a"))
    assert redis.calls == 4


async def test_what_redis_said_is_known_when_it_goes_away(clock: Clock) -> None:
    redis = FakeRedis()
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    await one(store, ask("g", "a"))
    redis.error = RedisError("gone")
    assert await one(store, ask("g", "a")) == Claimed(won=False, holder="other", remaining=MINUTE, source="local")
    clock.advance("1m")
    assert (await one(store, ask("g", "a"))).won


async def test_an_error_of_one_claim_leaves_the_others_alone(clock: Clock) -> None:
    redis = FakeRedis()
    redis.replies = [RedisError("WRONGTYPE"), Claimed(won=False, holder="other", remaining=MINUTE)]
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    assert [(claimed.won, claimed.source) for claimed in await store.claim([ask("g", "a"), ask("h", "b")])] == [
        (True, "local"),
        (False, "redis"),
    ]
    assert not store.is_degraded


async def test_a_redis_that_refuses_everything_is_away(clock: Clock) -> None:
    redis = FakeRedis()
    redis.replies = [OutOfMemoryError("OOM"), OutOfMemoryError("OOM")]
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    assert all(claimed.won for claimed in await store.claim([ask("g", "a"), ask("h", "b")]))
    assert store.is_degraded


async def test_one_line_tells_that_redis_went_and_one_that_it_came_back(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tocsin.notifier")
    redis = FakeRedis()
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    redis.error = RedisError("gone")
    for _ in range(5):
        await one(store, ask("g", "a"))
        clock.advance("1s")
    redis.error = None
    await one(store, ask("g", "a"))
    first, second = (record.getMessage() for record in caplog.records)
    assert "cooldowns degraded" in first
    assert "redis://127.0.0.1:1/0" in first
    assert "cooldowns restored" in second


class Remote(FakeRedis):
    """A Redis that keeps what is claimed."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.held = LocalCooldowns(clock, per_minute=10**6)

    async def claim(self, claims: Sequence[Claim]) -> list[Claimed | RedisError]:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return [*await self.held.claim(claims)]


async def test_what_was_won_while_redis_was_away_is_claimed_there_when_it_is_back(clock: Clock) -> None:
    redis = Remote(clock)
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    redis.error = TimeoutError()
    assert (await one(store, ask("g", "a"))).won
    await one(store, ask("h", "c"))
    clock.advance("5m")
    redis.error = None
    refused = await one(store, ask("g", "b"))
    assert (refused.won, refused.holder, refused.remaining) == (False, "a", 10 * MINUTE)
    assert not (await redis.held.claim([ask("h", "d")]))[0].won, "the others are claimed too"
    clock.advance("10m")
    assert (await one(store, ask("g", "b"))).won


async def test_partitions_may_claim_at_the_same_time_when_redis_is_back(clock: Clock) -> None:
    redis = Remote(clock)
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    redis.error = TimeoutError()
    await one(store, ask("g", "a"))
    clock.advance("5m")
    redis.error = None
    await one(store, ask("other", "a"))  # Redis is in use again
    redis.error = TimeoutError()
    await one(store, ask("h", "a"))
    clock.advance("1m")
    redis.error = None
    store._retry_at = None  # as it is between two answers of calls that overlap
    answers = await asyncio.gather(*[one(store, ask("h", claimant)) for claimant in ("b", "c", "d")])
    assert [claimed.won for claimed in answers] == [False] * 3


async def test_what_redis_forgot_is_told_to_it_again(clock: Clock) -> None:
    redis = Remote(clock)
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    assert (await one(store, ask("g", "a"))).won
    redis.held = LocalCooldowns(clock, per_minute=10**6)  # evicted, restarted empty, or failed over
    clock.advance("5m")
    refused = await one(store, ask("g", "b"))
    assert (refused.won, refused.holder, refused.remaining) == (False, "a", 10 * MINUTE)
    assert not (await redis.held.claim([ask("g", "c")]))[0].won, "other workers meet it too"
    clock.advance("10m")
    assert (await one(store, ask("g", "b"))).won


async def test_what_redis_forgot_stands_in_no_takeovers_way(clock: Clock) -> None:
    redis = Remote(clock)
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    await one(store, ask("g", "a"))
    redis.held = LocalCooldowns(clock, per_minute=10**6)
    assert (await one(store, ask("g", "b", takeover=True))).won
    assert (await one(store, ask("g", "c"))).holder == "b"


async def test_a_cooldown_is_remembered_for_no_longer_than_redis_keeps_it(clock: Clock) -> None:
    class Slow(Remote):
        async def claim(self, claims: Sequence[Claim]) -> list[Claimed | RedisError]:
            answers = await super().claim(claims)
            clock.advance("1s")
            return answers

    store = FailOpenCooldowns(Slow(clock), LocalCooldowns(clock), clock)
    await one(store, ask("g", "a"))
    clock.advance("14m59s")
    assert (await one(store, ask("g", "b"))).won


async def test_what_ended_while_redis_was_away_is_not_claimed(clock: Clock) -> None:
    redis = Remote(clock)
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    redis.error = TimeoutError()
    await one(store, ask("g", "a"))
    clock.advance("15m")
    redis.error = None
    assert (await one(store, ask("g", "b"))).won


async def test_no_claims_are_no_call(clock: Clock) -> None:
    redis = FakeRedis()
    assert await FailOpenCooldowns(redis, LocalCooldowns(clock), clock).claim([]) == []
    assert redis.calls == 0


async def test_the_password_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    store = open_cooldowns(Settings(redis_url="redis://user:hunter2@127.0.0.1:1/0"))
    assert await store.check() is None, "a Redis that is away keeps nobody from starting"
    assert store.is_degraded
    (line,) = [record.getMessage() for record in caplog.records]
    assert "Redis at redis://" in line
    assert "TOCSIN_REDIS_URL" in line
    assert "hunter2" not in line


async def test_that_redis_is_away_is_known_without_an_alert(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.notifier.cooldown.WATCH_EVERY", 0.001)
    redis = Remote(clock)
    store = FailOpenCooldowns(redis, LocalCooldowns(clock), clock)
    redis.error = TimeoutError()
    watching = asyncio.create_task(store.watch())

    async def becomes(degraded: bool) -> None:
        async with asyncio.timeout(5):
            while store.is_degraded != degraded:
                await asyncio.sleep(0.001)

    await becomes(degraded=True)
    redis.error = None
    await becomes(degraded=False)
    watching.cancel()
