"""One small HTTP server on the loopback: /healthz, /readyz and /metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

HOST: Final = "127.0.0.1"
MAX_LAG: Final = 10_000
"""Records per partition beyond which a worker is not ready."""
_MAX_REQUEST: Final = 8_192
_PATIENCE: Final = 5.0
_TEXT: Final = "text/plain; charset=utf-8"
_METRICS: Final = "text/plain; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class RoleHealth:
    """How a role stands.

    `recovering`: partitions that are assigned and not open yet. `lag`: of its worst partition, None if unknown.
    `is_cut_off`: the brokers do not answer, or do not take what a partition sends.
    """

    role: str
    assigned: int
    recovering: int
    lag: int | None
    is_rebalancing: bool
    is_cut_off: bool = False


def why_not_ready(roles: list[RoleHealth], *, without_redis: bool = False, max_lag: int = MAX_LAG) -> str | None:
    """None if the worker is ready, else the reason. `without_redis`: cooldowns are kept in memory."""
    if not roles:
        return "starting"
    for role in roles:
        if role.is_cut_off:
            return f"{role.role}: the brokers do not answer"
        if role.is_rebalancing:
            return f"{role.role}: partitions are being assigned"
        if role.recovering:
            return f"{role.role}: {role.recovering} of {role.assigned} partitions are being recovered"
        if role.lag is not None and role.lag > max_lag:
            return f"{role.role}: {role.lag} records behind, more than {max_lag}"
    return "Redis does not answer, or refuses: cooldowns are kept in memory, and alerts dispatched" if without_redis else None


class HealthServer:
    """Serves on the loopback. `port` 0 takes a free one, which `port` then tells."""

    def __init__(self, port: int, *, ready: Callable[[], str | None], metrics: Callable[[], bytes]) -> None:
        self.port = port
        self._ready, self._metrics = ready, metrics
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen. Raises OSError where the port is taken."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port, limit=_MAX_REQUEST)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_PATIENCE):
                request = await reader.readuntil(b"\r\n\r\n")
                method, _, rest = request.decode("latin-1").partition(" ")
                status, kind, body = self._answer(method, rest.split(" ", 1)[0].partition("?")[0])
                head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + (b"" if method == "HEAD" else body))
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def _answer(self, method: str, path: str) -> tuple[str, str, bytes]:
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", _TEXT, b"only GET\n"
        match path:
            case "/healthz":
                return "200 OK", _TEXT, b"alive\n"
            case "/readyz":
                reason = self._ready()
                return (
                    ("200 OK", _TEXT, b"ready\n")
                    if reason is None
                    else ("503 Service Unavailable", _TEXT, f"{reason}\n".encode())
                )
            case "/metrics":
                return "200 OK", _METRICS, self._metrics()
            case _:
                return "404 Not Found", _TEXT, b"/healthz, /readyz and /metrics\n"
