"""How the HTTP server of the SDK refuses, and what the middleware makes of it: nothing here is made up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
import pytest
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl

from streams.sources.asgi import RefusalMiddleware
from tests.sources.capture import Capture

HOST: Final = "http://127.0.0.1:8000"
BODY: Final = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
META: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "probe", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
MODERN: Final = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
GOOD: Final = {"Authorization": "Bearer good-sentinel"}


class Tokens:
    """Knows a token with every scope, one that lacks a scope, and one that is too old."""

    async def verify_token(self, token: str) -> AccessToken | None:
        name = token.removesuffix("-sentinel")
        if name not in ("good", "weak", "old"):
            return None
        scopes = ["files:read"] if name == "weak" else ["files:read", "files:write"]
        return AccessToken(token=token, client_id="probe", scopes=scopes, expires_at=1 if name == "old" else None)


@pytest.fixture
def sink() -> Capture:
    return Capture()


@asynccontextmanager
async def serving(sink: Capture) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server with bearer authentication, which runs in the task of the caller."""
    url = AnyHttpUrl(f"{HOST}/mcp")
    auth = AuthSettings(
        issuer_url=url, resource_server_url=url, required_scopes=["files:read", "files:write"], validate_token_resource=False
    )
    server: MCPServer[Any] = MCPServer("files", token_verifier=Tokens(), auth=auth)
    inner = server.streamable_http_app()
    transport = httpx2.ASGITransport(app=RefusalMiddleware(inner, sink, secret=b"s"), client=("192.0.2.7", 1))
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    async with (
        inner.router.lifespan_context(inner),
        httpx2.AsyncClient(transport=transport, base_url=HOST, headers=headers) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({}, 401, ("authn", "missing_token")),
        ({"Authorization": "Bearer bad-sentinel"}, 401, ("authn", "invalid_token")),
        ({"Authorization": "Basic sentinel"}, 401, ("authn", "invalid_token")),
        ({"Authorization": "Bearer old-sentinel"}, 401, ("authn", "invalid_token")),  # the SDK does not say that it is too old
        ({"Authorization": "Bearer weak-sentinel"}, 403, ("authz", "insufficient_scope")),
        ({"Origin": "http://sentinel.example"}, 401, ("authn", "missing_token")),
        (GOOD | {"Origin": "http://sentinel.example"}, 403, ("violation", "origin")),
        (GOOD | {"Host": "sentinel.example"}, 421, ("violation", "host")),
        (GOOD | MODERN | {"Mcp-Method": "tools/call"}, 400, ("violation", "header_mismatch")),
    ],
)
async def test_a_refusal_of_the_sdk_is_one_event(
    sink: Capture, headers: dict[str, str], status: int, said: tuple[str, str]
) -> None:
    async with serving(sink) as http:
        answer = await http.post("/mcp", content=json.dumps(BODY | {"params": {"_meta": META}}), headers=headers)
    assert answer.status_code == status, answer.text
    (event,) = sink.events
    assert (event.kind, event.action, event.reason, event.result, event.http_status) == ("security", *said, "fail", status)
    assert not [secret for secret in (b"sentinel", b"192.0.2.7") if secret in sink.raw[0]]


async def test_the_scope_that_is_missing_is_named(sink: Capture) -> None:
    async with serving(sink) as http:
        await http.post("/mcp", content=json.dumps(BODY), headers={"Authorization": "Bearer weak-sentinel"})
    assert [event.required_scope for event in sink.events] == ["files:write"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("POST", "/mcp", GOOD | MODERN, json.dumps(BODY | {"params": {"_meta": META}}), 200),
        ("POST", "/mcp", GOOD | {"Content-Type": "text/plain"}, "x", 400),
        ("POST", "/mcp", GOOD, "{", 400),
        ("GET", "/mcp", GOOD | MODERN, "", 405),
        ("POST", "/elsewhere", GOOD, "", 404),
    ],
)
async def test_what_is_no_refusal_is_no_event(
    sink: Capture, method: str, path: str, headers: dict[str, str], content: str, status: int
) -> None:
    async with serving(sink) as http:
        answer = await http.request(method, path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert not sink.raw
