"""Sending one alert until that ends: delivered, rejected, or given up."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, Protocol

from schemas.alert import Alert
from schemas.time import MICROS, duration_text
from streams.notifier.channels.channel import Rejected, Retryable
from streams.notifier.channels.digest import Digest

log = logging.getLogger("tocsin.channels")

BASE: Final = MICROS
CAP: Final = 5 * 60 * MICROS
DEADLINE: Final = 24 * 3_600 * MICROS


class Sends(Protocol):
    """What a message goes to."""

    async def send(self, message: Alert | Digest) -> None:
        """See Channel."""
        ...


class Outcome(StrEnum):
    """How it ended; the label of the metric."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    UNDELIVERED = "undelivered"
    UNREADABLE = "unreadable"
    DIGESTED = "digested"


def backoff(attempt: int, jitter: float) -> int:
    """Microseconds to wait after failed attempt number `attempt` (from 0), with full jitter: `jitter` lies in [0, 1)."""
    return int(min(CAP, BASE << min(attempt, 20)) * jitter)


async def deliver_one(
    channel: Sends,
    name: str,
    alert: Alert | Digest,
    *,
    dispatched_at: int,
    clock: Callable[[], int],
    jitter: Callable[[], float],
    pause: Callable[[int], Awaitable[bool]],
    retried: Callable[[], None],
) -> Outcome | None:
    """Send `alert` until that ends; None if `pause` says that the worker stops. No attempt begins DEADLINE after `dispatched_at`.

    `pause` waits so many microseconds and tells whether to go on. The first attempt is made whatever the age.
    """
    attempt = 0
    while True:
        try:
            await channel.send(alert)
        except Retryable as error:
            wait = max(backoff(attempt, jitter()), error.after or 0)
            if clock() + wait - dispatched_at >= DEADLINE:
                log.error(
                    "channel %s: alert %s is undelivered and given up after %d attempts in %s: %s",
                    name, alert.id, attempt + 1, duration_text(DEADLINE), error,
                )  # fmt: skip
                return Outcome.UNDELIVERED
            if attempt == 0:
                log.warning("channel %s: alert %s is not delivered yet, will be tried again: %s", name, alert.id, error)
        except Rejected as error:
            log.error("channel %s: alert %s is rejected and will not be sent again: %s", name, alert.id, error)
            return Outcome.REJECTED
        except Exception:  # one channel's mistake must harm neither the others nor the next alert
            log.exception("channel %s: alert %s made it fail; it will not be sent again", name, alert.id)
            return Outcome.REJECTED
        else:
            return Outcome.DELIVERED
        retried()
        if not await pause(wait):
            return None
        attempt += 1
