"""Refusals become security events; everything passes through untouched."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import pytest

from streams.sources.asgi import HEAD, RefusalMiddleware, refusal_fields
from streams.testing import START
from streams.testing import FakeClock as Clock
from tests.sources.capture import Broken, Capture

TOKEN = {b"authorization": b"Bearer abc"}
LACKS = {"action": "authz", "reason": "insufficient_scope"}
SCOPE = 'Bearer error="insufficient_scope", scope="files:write", resource_metadata="..."'
MISMATCH = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"no"}}'


@pytest.mark.parametrize(
    ("status", "headers", "challenge", "body", "said"),
    [
        (401, {}, 'Bearer error="invalid_token"', b"", {"action": "authn", "reason": "missing_token"}),
        (401, TOKEN, 'Bearer error="invalid_token"', b"", {"action": "authn", "reason": "invalid_token"}),
        (401, TOKEN, 'Bearer error_description="The token Expired"', b"", {"action": "authn", "reason": "expired"}),
        (401, TOKEN, "", b"", {"action": "authn", "reason": "invalid_token"}),
        (403, TOKEN, SCOPE, b"", LACKS | {"required_scope": "files:write"}),
        (403, TOKEN, 'error="insufficient_scope"', b"", LACKS | {"required_scope": None}),
        (403, TOKEN, 'error="insufficient_scope", error_description="Required scope: a"', b"", LACKS | {"required_scope": "a"}),
        (403, {b"origin": b"http://x"}, SCOPE, b"", LACKS | {"required_scope": "files:write"}),
        (403, {b"origin": b"http://x"}, "", b"", {"action": "violation", "reason": "origin"}),
        (403, TOKEN, "", b"", {"action": "authz", "reason": "policy"}),
        (421, {}, "", b"", {"action": "violation", "reason": "host"}),
        (400, {}, "", MISMATCH, {"action": "violation", "reason": "header_mismatch"}),
        (400, {}, "", MISMATCH.replace(b":-", b" : -"), {"action": "violation", "reason": "header_mismatch"}),
        (400, {}, "", MISMATCH.replace(b"-32020", b"-32600"), None),
        (400, {}, "", MISMATCH.replace(b"-32020", b"-320201"), None),
        (400, {}, "", b"", None),
        (200, {}, "", MISMATCH, None),
        (202, {}, "", b"", None),
        (404, {}, "", b"", None),
        (405, {}, "", b"", None),
        (500, {}, "", b"", None),
        (0, {}, "", b"", None),
    ],
)  # fmt: skip
def test_refusals(status: int, headers: dict[bytes, bytes], challenge: str, body: bytes, said: dict[str, Any] | None) -> None:
    assert refusal_fields(status, headers, challenge, body) == said


def test_a_scope_is_made_printable() -> None:
    said = refusal_fields(403, {}, 'error="insufficient_scope", scope="a\x1b[0mb"', b"")
    assert said is not None
    assert said["required_scope"] == "a?[0mb"


Message = MutableMapping[str, Any]


class Server:
    """An application that answers with prepared messages."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        for message in self.messages:
            await send(message)


def start(status: int, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def exchange(app: RefusalMiddleware, **scope: Any) -> list[Message]:
    passed: list[Message] = []

    async def send(message: Message) -> None:
        passed.append(message)

    async def receive() -> Message:
        raise AssertionError("the middleware reads nothing")

    await app({"type": "http", "headers": [], "client": ("192.0.2.7", 1234)} | scope, receive, send)
    return passed


async def test_a_refusal_is_an_event_and_passes_through() -> None:
    sink, messages = Capture(), (start(401, (b"WWW-Authenticate", b"Bearer")), part(b"no"))
    app = RefusalMiddleware(Server(*messages), sink, secret=b"s", clock=Clock())
    assert await exchange(app, headers=[(b"Authorization", b"Bearer sentinel-token")]) == list(messages)
    (event,) = sink.events
    assert (event.kind, event.ts, event.side, event.action, event.reason, event.result, event.http_status) == (
        "security", START, "server", "authn", "invalid_token", "fail", 401,
    )  # fmt: skip
    assert b"sentinel" not in sink.raw[0]


async def test_every_challenge_is_looked_at() -> None:
    sink = Capture()
    challenges = (b"WWW-Authenticate", SCOPE.encode()), (b"www-authenticate", b"Basic")
    await exchange(RefusalMiddleware(Server(start(403, *challenges)), sink, secret=b"s"))
    assert [(event.reason, event.required_scope) for event in sink.events] == [("insufficient_scope", "files:write")]


async def test_addresses_are_hashed_with_the_secret() -> None:
    hashes = []
    for secret, client in (
        (b"s", ("192.0.2.7", 1)),
        (b"s", ("192.0.2.7", 2)),
        (b"s", ("192.0.2.8", 1)),
        (b"t", ("192.0.2.7", 1)),
        (b"s", None),
    ):
        sink = Capture()
        await exchange(RefusalMiddleware(Server(start(421)), sink, secret=secret), client=client)
        assert b"192.0.2" not in sink.raw[0]
        hashes.append(sink.events[0].addr_hash)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
    assert all(each is not None and len(each) == 18 and each.startswith("h:") for each in hashes)


async def test_an_answer_that_is_no_refusal_is_no_event() -> None:
    sink, messages = Capture(), (start(200), part(b"a", more=True), part(b"b"))
    assert await exchange(RefusalMiddleware(Server(*messages), sink, secret=b"s")) == list(messages)
    assert not sink.raw


async def test_a_header_mismatch_is_found_in_a_body_in_pieces() -> None:
    sink = Capture()
    app = RefusalMiddleware(Server(start(400), part(MISMATCH[:30], more=True), part(MISMATCH[30:])), sink, secret=b"s")
    await exchange(app)
    assert [event.reason for event in sink.events] == ["header_mismatch"]


async def test_only_the_head_of_a_body_is_looked_at() -> None:
    sink = Capture()
    await exchange(RefusalMiddleware(Server(start(400), part(b" " * HEAD, more=True), part(MISMATCH)), sink, secret=b"s"))
    assert not sink.raw


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_not_http_passes_by(kind: str) -> None:
    sink, messages = Capture(), (start(401),)
    assert await exchange(RefusalMiddleware(Server(*messages), sink, secret=b"s"), type=kind) == list(messages)
    assert not sink.raw


async def test_an_application_that_fails_still_fails() -> None:
    class Failing(Server):
        async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
            await super().__call__(scope, receive, send)
            raise RuntimeError("broken after the refusal")

    sink = Capture()
    with pytest.raises(RuntimeError, match="after the refusal"):
        await exchange(RefusalMiddleware(Failing(start(403)), sink, secret=b"s"))
    assert [event.reason for event in sink.events] == ["policy"]


async def test_a_broken_sink_does_not_break_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "tocsin.source"):
        assert await exchange(RefusalMiddleware(Server(start(401)), Broken(), secret=b"s")) == [start(401)]
    assert "an event is lost" in caplog.text
