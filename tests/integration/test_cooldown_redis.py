"""Cooldowns in a real Redis: who wins, for how long, and what happens when it stops, stalls, fills up or starts again."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from schemas.alert import Reason
from schemas.time import MICROS
from streams.notifier.cooldown import FailOpenCooldowns, LocalCooldowns, RedisCooldowns
from streams.notifier.partition import NotifierPartition
from streams.notifier.policy import Claim, Claimed
from streams.testing import FakeClock as Clock
from tests.notifier.cases import Episode, Journal, log, reasons
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.integration

MINUTE = 60 * MICROS
TTL = 15 * MINUTE


@pytest.fixture
def group() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def store(redis_server: RedisServer, group: str) -> AsyncIterator[RedisCooldowns]:
    store = RedisCooldowns(redis_server.url, group)
    yield store
    await store.close()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.from_url(redis_server.url)
    yield client
    await client.aclose()


@pytest.fixture
async def own(own_redis: RedisServer, group: str) -> AsyncIterator[FailOpenCooldowns]:
    """Cooldowns on a Redis that the test may stop."""
    store = FailOpenCooldowns(RedisCooldowns(own_redis.url, group), LocalCooldowns())
    yield store
    await store.close()


def ask(fingerprint: str, claimant: str, ttl: int = TTL, *, takeover: bool = False, recent: tuple[str, ...] = ()) -> Claim:
    return Claim(fingerprint, claimant, ttl, takeover, recent)


async def one(store: RedisCooldowns | FailOpenCooldowns, claim: Claim) -> Claimed:
    (claimed,) = await store.claim([claim])
    assert isinstance(claimed, Claimed)
    return claimed


async def test_claims(store: RedisCooldowns, client: redis.asyncio.Redis, group: str) -> None:
    assert await one(store, ask("f", "a")) == Claimed(won=True, holder="a", remaining=TTL)
    assert await client.get(f"{group}:cooldown:f") == b"a"
    assert 0 < await client.pttl(f"{group}:cooldown:f") <= TTL // 1000
    refused = await one(store, ask("f", "b"))
    assert (refused.won, refused.holder) == (False, "a")
    assert TTL - 10 * MICROS < refused.remaining <= TTL


async def test_own_id_wins_and_does_not_renew(store: RedisCooldowns, client: redis.asyncio.Redis, group: str) -> None:
    await one(store, ask("f", "a"))
    await client.pexpire(f"{group}:cooldown:f", 5_000)
    again = await one(store, ask("f", "a"))
    assert again.won
    assert again.remaining <= 5 * MICROS
    assert await client.pttl(f"{group}:cooldown:f") <= 5_000


async def test_claims_of_one_call_see_each_other(store: RedisCooldowns) -> None:
    claims = [
        ask("f", "a"),
        ask("f", "b"),
        ask("f", "b", takeover=True, recent=("a",)),
        ask("f", "c"),
        ask("f", "a"),
        ask("g", "d"),
    ]
    answers = await store.claim(claims)
    assert all(isinstance(answer, Claimed) for answer in answers)
    assert [(answer.won, answer.holder) for answer in answers if isinstance(answer, Claimed)] == [
        (True, "a"), (False, "a"), (True, "b"), (False, "b"), (True, "b"), (True, "d"),
    ]  # fmt: skip


async def test_a_cooldown_ends(store: RedisCooldowns) -> None:
    await one(store, ask("f", "a", 20_000))
    deadline = time.monotonic() + 5
    while not (await one(store, ask("f", "b", 20_000))).won:
        assert time.monotonic() < deadline
    assert (await one(store, ask("g", "a", 1))).won, "less than a millisecond is one"


async def test_a_key_without_an_end_holds_nothing_back(store: RedisCooldowns, client: redis.asyncio.Redis, group: str) -> None:
    await client.set(f"{group}:cooldown:f", "forever")
    assert (await one(store, ask("f", "a"))).won


async def test_a_key_of_another_type_spoils_only_itself(
    redis_server: RedisServer, client: redis.asyncio.Redis, group: str
) -> None:
    await client.lpush(f"{group}:cooldown:f", "x")
    store = FailOpenCooldowns(RedisCooldowns(redis_server.url, group), LocalCooldowns())
    assert [claimed.source for claimed in await store.claim([ask("f", "a"), ask("g", "a")])] == ["local", "redis"]
    await store.close()


async def test_a_thousand_claims_are_answered_together(store: RedisCooldowns) -> None:
    await one(store, ask("warm", "a"))
    for attempt in range(5):  # the deadline counts, and the machine may be busy
        with contextlib.suppress(TimeoutError):
            answers = await store.claim([ask(f"f{attempt}-{number}", "a") for number in range(1_000)])
            assert len(answers) == 1_000
            assert all(isinstance(answer, Claimed) and answer.won for answer in answers)
            return
    pytest.fail("a thousand claims took longer than the deadline, five times")


async def test_a_redis_that_is_gone_fails_open(own_redis: RedisServer, own: FailOpenCooldowns) -> None:
    assert (await one(own, ask("f", "a"))).source == "redis"
    own_redis.kill()
    assert not (await one(own, ask("f", "b"))).won, "what was known is still known"
    assert (await one(own, ask("g", "b"))).won
    assert own.is_degraded


async def test_a_redis_that_stalls_fails_open_within_the_deadline_and_once_per_second(
    own_redis: RedisServer, own: FailOpenCooldowns
) -> None:
    await one(own, ask("warm", "a"))
    own_redis.pause()
    before = time.monotonic()
    assert (await one(own, ask("f", "a"))).source == "local"
    assert time.monotonic() - before < 0.5
    before = time.monotonic()
    for number in range(50):
        assert (await one(own, ask(f"f{number}", "a"))).source == "local"
    assert time.monotonic() - before < 0.5
    own_redis.resume()
    deadline = time.monotonic() + 10
    while (claimed := await one(own, ask("later", "a"))).source != "redis":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert claimed.won


async def test_after_a_stall_replies_still_belong_to_their_claims(own_redis: RedisServer, group: str) -> None:
    store = RedisCooldowns(own_redis.url, group)
    await one(store, ask("f", "a"))
    own_redis.pause()
    with pytest.raises((TimeoutError, redis.asyncio.RedisError)):
        await store.claim([ask("f", "late")])
    own_redis.resume()
    await one(store, ask("g", "b"))
    assert (await one(store, ask("h", "c"))).holder == "c"
    assert (await one(store, ask("f", "d"))).holder == "a"
    await store.close()


async def test_the_first_claim_after_a_restart_is_answered(own_redis: RedisServer, own: FailOpenCooldowns) -> None:
    await one(own, ask("f", "a"))
    own_redis.kill()
    own_redis.start()
    assert (await one(own, ask("g", "a"))).source == "redis"


async def test_a_full_redis_fails_open(own_redis: RedisServer, own: FailOpenCooldowns) -> None:
    client = redis.asyncio.from_url(own_redis.url)
    await client.config_set("maxmemory", "1")
    assert (await one(own, ask("f", "a"))).source == "local"
    assert own.is_degraded
    await client.aclose()


async def test_check_warns_of_eviction(own_redis: RedisServer, own: FailOpenCooldowns) -> None:
    assert await own.check() is None
    client = redis.asyncio.from_url(own_redis.url)
    await client.config_set("maxmemory-policy", "allkeys-lru")
    warning = await own.check()
    assert warning is not None
    assert own_redis.url in warning
    assert "noeviction" in warning
    await client.aclose()


async def test_a_redis_that_is_away_keeps_nobody_from_starting(own_redis: RedisServer, own: FailOpenCooldowns) -> None:
    own_redis.kill()
    assert await own.check() is None
    assert own.is_degraded
    own_redis.start()
    assert (await one(own, ask("f", "a"))).won


async def test_a_cooldown_is_ended_by_hand_by_taking_its_end_away(redis_server: RedisServer, group: str) -> None:
    store = FailOpenCooldowns(RedisCooldowns(redis_server.url, group), LocalCooldowns())
    client = redis.asyncio.from_url(redis_server.url)
    assert (await one(store, ask("f", "a"))).won
    assert not (await one(store, ask("f", "b"))).won
    assert await client.persist(f"{group}:cooldown:f")
    assert (await one(store, ask("f", "b"))).won
    assert (await one(store, ask("f", "c"))).holder == "b", "from here on it is b's"
    await client.aclose()
    await store.close()


async def test_a_crash_between_claim_and_send_loses_no_alert(redis_server: RedisServer, group: str, clock: Clock) -> None:
    store = FailOpenCooldowns(RedisCooldowns(redis_server.url, group), LocalCooldowns(clock), clock)
    records = log(Episode("e1").fire(), Episode("e2").fire())
    expected = [("mcp.alerts", Reason.FIRST_NOTIFICATION), ("mcp.transitions", Reason.IN_COOLDOWN)]
    for _ in range(2):  # the second is a new worker, which knows nothing of the first
        fold = NotifierPartition("", 0, cooldowns=store, journal=Journal(), clock=clock)
        assert reasons(await fold.process(records)) == expected
    await store.close()
