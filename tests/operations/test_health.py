from __future__ import annotations

import asyncio

import pytest

from streams.operations.health import MAX_LAG, HealthServer, RoleHealth, why_not_ready


def role(**changes: object) -> RoleHealth:
    fields: dict[str, object] = {"role": "engine", "assigned": 4, "recovering": 0, "lag": 0, "is_rebalancing": False}
    return RoleHealth(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ([], "starting"),
        ([role()], None),
        ([role(lag=None, assigned=0)], None),
        ([role(lag=MAX_LAG)], None),
        ([role(), role(role="notifier", lag=MAX_LAG + 1)], "notifier: 10001 records behind, more than 10000"),
        ([role(recovering=2)], "engine: 2 of 4 partitions are being recovered"),
        ([role(is_rebalancing=True)], "engine: partitions are being assigned"),
        ([role(), role(role="notifier", is_cut_off=True)], "notifier: the brokers do not answer"),
    ],
)
def test_why_not_ready(roles: list[RoleHealth], reason: str | None) -> None:
    assert why_not_ready(roles) == reason


def test_a_worker_without_redis_is_not_ready() -> None:
    role = RoleHealth("notifier", assigned=1, recovering=0, lag=0, is_rebalancing=False)
    assert why_not_ready([role]) is None
    assert "Redis does not answer" in (why_not_ready([role], without_redis=True) or "")


async def ask(port: int, request: bytes) -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head.partition("\r\n")[0].partition(" ")[2], body


async def test_the_server_answers_and_survives_nonsense() -> None:
    reasons: list[str | None] = ["starting", None]
    server = HealthServer(0, ready=lambda: reasons.pop(0), metrics=lambda: b"tocsin_x 1\n")
    await server.start()
    try:
        port = server.port
        assert await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n") == ("200 OK", "alive\n")
        assert await ask(port, b"GET /readyz HTTP/1.1\r\n\r\n") == ("503 Service Unavailable", "starting\n")
        assert await ask(port, b"GET /readyz?x HTTP/1.1\r\nHost: y\r\n\r\n") == ("200 OK", "ready\n")
        assert await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n") == ("200 OK", "tocsin_x 1\n")
        assert await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n") == ("200 OK", "")
        assert (await ask(port, b"POST /metrics HTTP/1.1\r\n\r\n"))[0] == "405 Method Not Allowed"
        assert (await ask(port, b"GET / HTTP/1.1\r\n\r\n"))[0] == "404 Not Found"
        assert await ask(port, b"x" * 100_000) == ("", "")
        assert await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n") == ("200 OK", "alive\n")
    finally:
        await server.stop()
