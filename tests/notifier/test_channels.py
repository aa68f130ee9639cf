"""The channels: a log line, and a POST against a server that follows a script."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web

from schemas.alert import Alert
from schemas.time import MICROS
from streams.notifier.channels import open_channels
from streams.notifier.channels.channel import Rejected, Retryable
from streams.notifier.channels.digest import Digest
from streams.notifier.channels.log import MAX_LINE, LogChannel, line
from streams.notifier.channels.webhook import MAX_RETRY_AFTER, NEVER, WebhookChannel, retry_after, webhook_body
from streams.settings import Settings, SettingsError
from streams.testing import START
from streams.testing import FakeClock as Clock
from tests.notifier.cases import Episode

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Endpoint:
    """Answers the requests as `tape` says, one after another, and keeps what it was sent."""

    tape: list[Answer] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        return await self.tape.pop(0)(request)


def answer(status: int, text: str = "", **headers: str) -> Answer:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return respond


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/hook", endpoint.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield endpoint
    await runner.cleanup()


@pytest.fixture
async def webhook(endpoint: Endpoint) -> AsyncIterator[WebhookChannel]:
    channel = WebhookChannel(endpoint.url, Clock(), timeout=0.3)
    yield channel
    await channel.close()


def alert(**labels: str) -> Alert:
    return Episode().fire().model_copy(update={"labels": {"tenant": "acme", "service": "files"} | labels})


async def test_an_alert_is_posted_as_alertmanager_does(endpoint: Endpoint, webhook: WebhookChannel) -> None:
    endpoint.tape = [answer(200), answer(204)]
    episode = Episode()
    fired, resolved = episode.fire(), episode.resolve()
    await webhook.send(fired)
    await webhook.send(resolved)
    first, second = endpoint.bodies
    labels = {"alertname": "tool-error-rate", "severity": "warning", "tenant": "acme", "service": "files"}
    assert first["version"] == "4"
    assert first["groupKey"] == '{}:{alertname="tool-error-rate", service="files", tenant="acme"}'
    assert (first["status"], first["receiver"], first["externalURL"], first["truncatedAlerts"]) == ("firing", "webhook", "", 0)
    assert first["groupLabels"] == {"alertname": "tool-error-rate", "tenant": "acme", "service": "files"}
    assert first["commonLabels"] == labels
    assert first["commonAnnotations"] == {"summary": "files fails"}
    (told,) = first["alerts"]
    assert told | {"fingerprint": ""} == {
        "status": "firing", "labels": labels, "annotations": {"summary": "files fails"},
        "startsAt": "2026-01-01T00:00:00.000000Z", "endsAt": NEVER, "generatorURL": "", "fingerprint": "",
    }  # fmt: skip
    assert second["status"] == second["alerts"][0]["status"] == "resolved"
    assert second["alerts"][0]["endsAt"] == "2026-01-01T00:00:00.000000Z"
    assert second["alerts"][0]["fingerprint"] == told["fingerprint"]
    assert first["tocsin"] == json.loads(fired.model_dump_json())
    assert [headers["Idempotency-Key"] for headers in endpoint.headers] == [fired.id, resolved.id]
    assert endpoint.headers[0]["Content-Type"] == "application/json"


def test_labels_of_telemetry_do_not_replace_ours() -> None:
    body = webhook_body(alert(alertname="forged", severity="info", tool='a"b\n'), "webhook")
    assert body["commonLabels"]["alertname"] == "tool-error-rate"
    assert body["commonLabels"]["severity"] == "warning"
    assert 'tool="a\\"b\\n"' in body["groupKey"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_retryable(endpoint: Endpoint, webhook: WebhookChannel, status: int) -> None:
    endpoint.tape = [answer(status, "busy", Retry_After="7")]
    with pytest.raises(Retryable, match=f"127.0.0.1 answered {status}: 'busy'") as caught:
        await webhook.send(alert())
    assert caught.value.after == 7 * MICROS


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
async def test_what_will_not_pass_is_rejected(endpoint: Endpoint, webhook: WebhookChannel, status: int) -> None:
    endpoint.tape = [answer(status, "no\n")]
    with pytest.raises(Rejected, match=f"answered {status}: 'no\\\\n'"):
        await webhook.send(alert())


async def test_redirects_are_not_followed(endpoint: Endpoint, webhook: WebhookChannel) -> None:
    endpoint.tape = [answer(302, Location=endpoint.url), answer(200)]
    with pytest.raises(Rejected, match="redirects are not followed; set TOCSIN_WEBHOOK_URL"):
        await webhook.send(alert())
    assert len(endpoint.bodies) == 1


async def test_a_server_that_does_not_answer_is_retryable(endpoint: Endpoint, webhook: WebhookChannel) -> None:
    async def stall(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    endpoint.tape = [stall, answer(200)]
    with pytest.raises(Retryable, match="did not answer in time"):
        await webhook.send(alert())
    await webhook.send(alert())


async def test_a_server_that_hangs_up_is_retryable(endpoint: Endpoint, webhook: WebhookChannel) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    endpoint.tape = [hang_up]
    with pytest.raises(Retryable, match=r"ServerDisconnectedError|ClientOSError"):
        await webhook.send(alert())


async def test_a_server_that_is_not_there_is_retryable() -> None:
    channel = WebhookChannel("http://127.0.0.1:1/hook?token=hunter2", Clock())
    with pytest.raises(Retryable, match="ClientConnectorError") as caught:
        await channel.send(alert())
    assert "hunter2" not in str(caught.value)
    await channel.close()


async def test_an_endless_answer_is_not_read(endpoint: Endpoint, webhook: WebhookChannel) -> None:
    written = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while written < 100 << 20:
            await response.write(b"x" * 65_536)
            written += 65_536
        return response

    endpoint.tape = [pour]
    with pytest.raises(Retryable) as caught:
        await webhook.send(alert())
    assert len(str(caught.value)) < 600
    assert written < 20 << 20


async def test_an_id_that_is_no_header_is_rejected(webhook: WebhookChannel) -> None:
    with pytest.raises(Rejected, match="header"):
        await webhook.send(alert().model_copy(update={"id": "a\r\nX-Forged: 1"}))


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, None),
        ("7", 7 * MICROS),
        ("0", 0),
        ("99999999999", MAX_RETRY_AFTER),
        ("1" * 5_000, None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("²", None),
        ("Mon, 01 Jan 2024 00:00:99999999999999999999 GMT", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
        (formatdate(START / MICROS + 90, usegmt=True), 90 * MICROS),
        (formatdate(START / MICROS - 90, usegmt=True), 0),
        (formatdate(START / MICROS + 90), 90 * MICROS),
    ],
)
def test_retry_after(header: str | None, wait: int | None) -> None:
    assert retry_after(header, START) == wait


@pytest.mark.parametrize("url", ["ftp://host/", "host/path", "http:///path", "https://"])
def test_an_unusable_address_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="TOCSIN_WEBHOOK_URL"):
        WebhookChannel(url, Clock())


async def test_channels_are_those_that_are_set_up() -> None:
    assert set(open_channels(Settings(), Clock())) == {"log"}
    assert set(open_channels(Settings(webhook_url="http://127.0.0.1/"), Clock())) == {"log", "webhook"}


# --- log ---


@pytest.mark.parametrize(
    ("status", "severity", "level"),
    [
        ("firing", "info", logging.INFO), ("firing", "warning", logging.WARNING), ("firing", "high", logging.WARNING),
        ("firing", "critical", logging.ERROR), ("resolved", "critical", logging.INFO),
    ],
)  # fmt: skip
async def test_a_line_per_alert(caplog: pytest.LogCaptureFixture, status: str, severity: str, level: int) -> None:
    caplog.set_level(logging.INFO, "tocsin.alerts")
    await LogChannel().send(alert(tool="read").model_copy(update={"status": status, "severity": severity}))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tocsin.alerts", level)
    start = f"{status.upper()} {severity} tool-error-rate acme/files tool=read: files fails (condition_met; "
    assert record.getMessage().startswith(start)


def test_telemetry_does_not_forge_lines() -> None:
    forged = alert(tool="a\nERROR b\x1b[31m").model_copy(update={"message": "x" * 5_000})
    assert "\n" not in line(forged)
    assert "\x1b" not in line(forged)
    assert len(line(forged)) == MAX_LINE


# --- digests ---

DIGEST = Digest("0" * 32, 12, 9, 10 * 60 * MICROS, START, ("tool-error-rate acme/files",), "critical")


async def test_a_digest_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tocsin.alerts")
    await LogChannel().send_digest(DIGEST)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "MISSED while 10 min behind: 12 alerts, 9 already resolved; still firing: tool-error-rate acme/files and 2 more "
        f"({DIGEST.id})"
    )


async def test_a_digest_is_posted_as_an_alert_of_its_own(endpoint: Endpoint, clock: Clock) -> None:
    endpoint.tape = [answer(200)]
    channel = WebhookChannel(endpoint.url, clock)
    await channel.send_digest(DIGEST)
    await channel.close()
    (body,) = endpoint.bodies
    assert endpoint.headers[0]["Idempotency-Key"] == DIGEST.id
    assert (body["version"], body["status"], body["groupLabels"]) == ("4", "firing", {"alertname": "tocsin-missed"})
    assert body["alerts"][0]["annotations"]["summary"] == DIGEST.text
    assert body["tocsin"]["digest"]["alerts"] == 12
