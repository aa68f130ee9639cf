"""Refusals of a streamable HTTP server as security events. No SDK reports them: they happen before a request is one.

    app = RefusalMiddleware(server.streamable_http_app(), sink, secret=b"...")

It stands outside the authentication layer, and passes every byte through untouched.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from streams.sources.operation import clean
from streams.sources.outlet import Sink, offer_safely

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
HEAD: Final = 4_096
"""Bytes of a refusal's body that are looked at."""
_SCOPE: Final = re.compile(r'(?:\bscope="|="Required scope: )([^"]{1,256})"')
"""The attribute of RFC 6750, or what the SDK writes in its place."""
_HEADER_MISMATCH: Final = re.compile(rb'"code"\s*:\s*-32020\b')


def refusal_fields(status: int, headers: dict[bytes, bytes], challenge: str, body: bytes) -> dict[str, Any] | None:
    """What a refusal says, None for an answer that is none. `challenge` is `WWW-Authenticate`, `body` the head of the answer."""
    if status == 401:
        if b"authorization" not in headers:
            return {"action": "authn", "reason": "missing_token"}
        return {"action": "authn", "reason": "expired" if "expired" in challenge.lower() else "invalid_token"}
    if status == 403:
        if "insufficient_scope" in challenge:
            scope = _SCOPE.search(challenge)
            return {"action": "authz", "reason": "insufficient_scope", "required_scope": clean(scope[1]) if scope else None}
        if b"origin" in headers:
            return {"action": "violation", "reason": "origin"}
        return {"action": "authz", "reason": "policy"}
    if status == 421:
        return {"action": "violation", "reason": "host"}
    if status == 400 and _HEADER_MISMATCH.search(body):
        return {"action": "violation", "reason": "header_mismatch"}
    return None


class RefusalMiddleware:
    """ASGI middleware that offers a `security` event for each refused request. `secret` keys the hash of addresses."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        sink: Sink,
        *,
        secret: bytes,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._app, self._sink, self._secret, self._clock = app, sink, secret, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and look at how its answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, challenge, body = 0, "", b""

        async def watch(message: MutableMapping[str, Any]) -> None:
            nonlocal status, challenge, body
            if message["type"] == "http.response.start":
                status = message["status"]
                challenges = [value for name, value in message.get("headers", ()) if name.lower() == b"www-authenticate"]
                challenge = b", ".join(challenges).decode("latin-1")
            elif status == 400 and len(body) < HEAD:
                body += bytes(message.get("body", b""))[: HEAD - len(body)]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            fields = refusal_fields(status, {name.lower(): value for name, value in scope["headers"]}, challenge, body)
            if fields is not None:
                offer_safely(self._sink, self._event(scope, status, fields))

    def _event(self, scope: Scope, status: int, fields: dict[str, Any]) -> dict[str, Any]:
        address = (scope.get("client") or ("",))[0]
        hashed = hmac.new(self._secret, str(address).encode(), hashlib.sha256).hexdigest()[:16]
        return {
            "v": 1, "kind": "security", "ts": self._clock(), "side": "server", "transport": "tcp", "app_proto": "http",
            "result": "fail", "http_status": status, "addr_hash": f"h:{hashed}",
        } | fields  # fmt: skip
