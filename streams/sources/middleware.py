"""Telemetry of a server of the official Python SDK: one event per request, and a heartbeat.

    telemetry = Telemetry(Outlet(settings, service="files"))
    server = MCPServer("files", middleware=[telemetry.middleware])

`mcp` marks its middleware as provisional; tests/sources/test_middleware.py holds what is used of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ValidationError

from streams.sources.operation import (
    INVALID_PARAMS,
    MODERN,
    clean,
    error_fields,
    exception_fields,
    request_fields,
    result_fields,
    size,
)
from streams.sources.outlet import Sink, offer_safely

HEARTBEAT: Final = 30.0
logger = logging.getLogger("tocsin.source")


class Telemetry:
    """Makes events of what a server does. `heartbeat` is in seconds; `clock` gives µs since the epoch."""

    def __init__(
        self, sink: Sink, *, heartbeat: float = HEARTBEAT, clock: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        self._sink, self._heartbeat, self._clock = sink, heartbeat, clock
        self._conn = uuid.uuid4().hex
        self._opened_at = clock()
        self._in_flight = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = threading.Event()
        self._tell("connection", action="open")
        threading.Thread(target=self._beat, name="tocsin-heartbeat", daemon=True).start()

    async def middleware(self, ctx: Any, call_next: Callable[[Any], Any]) -> Any:
        """A ServerMiddleware: sees each request and notification, and its answer as it was given."""
        self._loop = asyncio.get_running_loop()
        started = time.perf_counter_ns()
        self._in_flight += 1
        in_flight = self._in_flight
        outcome: dict[str, Any] = {}
        try:
            result = await call_next(ctx)
        except MCPError as error:
            code, message = error.error.code, error.error.message
            outcome = self._safely(lambda: error_fields(code, message))
            raise
        except ValidationError:
            outcome = error_fields(INVALID_PARAMS, "")
            raise
        except BaseException as error:
            raised = error
            outcome = self._safely(lambda: exception_fields(raised))
            raise
        else:
            outcome = self._safely(lambda: {"res_bytes": _result_size(result)}) | self._safely(
                lambda: result_fields(ctx.method, result)
            )
            return result
        finally:
            self._in_flight -= 1
            elapsed = (time.perf_counter_ns() - started) // 1000
            fields: dict[str, Any] = {"dur_us": elapsed, "in_flight": in_flight}
            for part in _PARTS:
                fields |= self._safely(partial(part, ctx))
            self._tell("operation", **(fields | outcome))

    def close(self, reason: str = "exit") -> None:
        """The server ends: say so, once."""
        if not self._closed.is_set():
            self._closed.set()
            self._tell("connection", action="close", reason=reason, dur_us=self._clock() - self._opened_at)

    def _beat(self) -> None:
        while not self._closed.wait(self._heartbeat):
            if self._loop is None:
                self._heart()
                continue
            # Through the server's own loop: one that is stuck has no heartbeat.
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._heart)

    def _heart(self) -> None:
        self._tell("connection", action="heartbeat", in_flight=self._in_flight)

    def _tell(self, kind: str, **fields: Any) -> None:
        offer_safely(self._sink, {"v": 1, "kind": kind, "ts": self._clock(), "side": "server", "conn": self._conn} | fields)

    def _safely(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `make` gives; nothing if it fails: telemetry must not break an answer."""
        try:
            return make()
        except Exception:
            logger.exception("an event lacks fields")
            return {}


def _envelope(ctx: Any) -> dict[str, Any]:
    return {
        "proto": clean(str(ctx.protocol_version)),
        "era": "modern" if str(ctx.protocol_version) >= MODERN else "legacy",
        "transport": "pipe" if ctx.request is None else "tcp",
        "app_proto": None if ctx.request is None else "http",
        "msg": "notification" if ctx.request_id is None else "request",
        "req_id": None if ctx.request_id is None else clean(str(ctx.request_id)),
    }


def _client(ctx: Any) -> dict[str, Any]:
    client = getattr(ctx.session.client_params, "client_info", None)
    return {} if client is None else {"client_name": clean(client.name), "client_ver": clean(client.version)}


def _request(ctx: Any) -> dict[str, Any]:
    return request_fields(ctx.method, ctx.params)


def _request_size(ctx: Any) -> dict[str, Any]:
    return {"req_bytes": size(ctx.params)}


def _result_size(result: Any) -> int:
    if isinstance(result, BaseModel):
        return len(result.model_dump_json(by_alias=True, exclude_none=True).encode())
    return size(result)


_PARTS: Final = (_envelope, _client, _request, _request_size)
"""Apart, so that one that fails takes nothing with it."""
