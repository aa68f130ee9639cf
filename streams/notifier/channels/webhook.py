"""The channel `webhook`: one POST per alert, in the shape of Alertmanager's webhook, version 4, with our record beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from schemas.alert import Alert, group_fingerprint
from schemas.time import MICROS, to_rfc3339
from streams.notifier.channels.channel import Rejected, Retryable
from streams.notifier.channels.digest import Digest
from streams.settings import SettingsError

TIMEOUT: Final = 10.0
TOTAL_TIMEOUT: Final = 30.0
MAX_ANSWER: Final = 500
"""Bytes of a refusal that are read and shown."""
MAX_RETRY_AFTER: Final = 15 * 60 * MICROS
ID_HEADER: Final = "Idempotency-Key"
DIGEST_NAME: Final = "tocsin-missed"
NEVER: Final = "0001-01-01T00:00:00Z"


class WebhookChannel:
    """Posts to `url`. Redirects are not followed and answers hardly read: the endpoint decides nothing here but success."""

    def __init__(self, url: str, clock: Callable[[], int], *, receiver: str = "webhook", timeout: float = TIMEOUT) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("TOCSIN_WEBHOOK_URL: give the whole address, like https://host/path")
        self._url, self._host, self._receiver, self._clock = url, parts.hostname, receiver, clock
        self._timeout = aiohttp.ClientTimeout(total=max(TOTAL_TIMEOUT, timeout), connect=timeout, sock_read=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, alert: Alert) -> None:
        """POST `alert`. Raises Retryable for 408, 429, 5xx and network trouble, Rejected for any other refusal."""
        await self._post(alert.id, webhook_body(alert, self._receiver))

    async def send_digest(self, digest: Digest) -> None:
        """POST `digest`, as an alert of the name tocsin-missed. Raises as `send` does."""
        await self._post(digest.id, digest_body(digest, self._receiver))

    async def _post(self, id: str, content: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", ID_HEADER: id}
        body = msgspec.json.encode(content)
        try:
            async with self._opened().post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                if 200 <= response.status < 300:
                    return
                answer = await response.content.read(MAX_ANSWER)
                status, after = response.status, response.headers.get("Retry-After")
        except TimeoutError:
            raise Retryable(f"{self._host} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(f"{self._host}: {type(error).__name__}") from error
        except ValueError:
            raise Rejected("the alert's id does not go into a header") from None
        said = f"{self._host} answered {status}: {answer.decode('utf-8', 'replace')!r}"
        if status >= 500 or status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT):
            raise Retryable(said, retry_after(after, self._clock()))
        if 300 <= status < 400:
            raise Rejected(
                f"{self._host} answered {status}: redirects are not followed; set TOCSIN_WEBHOOK_URL to the final address"
            )
        raise Rejected(said)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"User-Agent": "tocsin"},
            )
        return self._session


def webhook_body(alert: Alert, receiver: str) -> dict[str, Any]:
    """The body for `alert`: a group of one, as Alertmanager would send it, and the record under `tocsin`."""
    group = {"alertname": alert.rule, **{name: text for name, text in alert.labels.items() if name != "alertname"}}
    labels = group | {"severity": alert.severity, "tenant": alert.tenant, "service": alert.source}
    annotations = {"summary": alert.message, **alert.annotations}
    times = to_rfc3339(alert.started_at), NEVER if alert.resolved_at is None else to_rfc3339(alert.resolved_at)
    mark = group_fingerprint(alert.rule, alert.labels)[:16]
    body = _body(receiver, alert.status, group, labels, annotations, times, mark)
    return body | {"tocsin": alert.model_dump(mode="json")}


def digest_body(digest: Digest, receiver: str) -> dict[str, Any]:
    """The body for `digest`; what is under `tocsin` has the key `digest`."""
    group = {"alertname": DIGEST_NAME}
    labels, annotations = group | {"severity": digest.severity}, {"summary": digest.text}
    body = _body(receiver, "firing", group, labels, annotations, (to_rfc3339(digest.began), NEVER), digest.id[:16])
    return body | {"tocsin": {"digest": asdict(digest)}}


def _body(
    receiver: str,
    status: str,
    group: dict[str, str],
    labels: dict[str, str],
    annotations: dict[str, str],
    times: tuple[str, str],
    mark: str,
) -> dict[str, Any]:
    named = ", ".join(f'{name}="{_quoted(text)}"' for name, text in sorted(group.items()))
    return {
        "version": "4",
        "groupKey": f"{{}}:{{{named}}}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [
            {
                "status": status,
                "labels": labels,
                "annotations": annotations,
                "startsAt": times[0],
                "endsAt": times[1],
                "generatorURL": "",
                "fingerprint": mark,
            }
        ],
    }


def retry_after(header: str | None, now: int) -> int | None:
    """Microseconds to wait by a Retry-After header (seconds or a date), at most MAX_RETRY_AFTER; None where it says nothing."""
    if header is None:
        return None
    if header.isascii() and header.isdigit() and len(header) < 12:
        wait = int(header) * MICROS
    else:
        try:
            at = parsedate_to_datetime(header)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            wait = int(at.timestamp()) * MICROS - now
        except (ValueError, OverflowError):
            return None
    return min(max(wait, 0), MAX_RETRY_AFTER)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
