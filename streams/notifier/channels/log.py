"""The channel `log`: one line per alert."""

from __future__ import annotations

import logging
from typing import Final

from schemas.alert import Alert
from streams.notifier.channels.digest import Digest

log = logging.getLogger("tocsin.alerts")

MAX_LINE: Final = 1_000
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "high": logging.WARNING, "critical": logging.ERROR}


class LogChannel:
    """Writes alerts to the logger `tocsin.alerts`."""

    async def send(self, alert: Alert) -> None:
        """Write one line; it never fails."""
        level = logging.INFO if alert.status == "resolved" else _LEVELS[alert.severity]
        log.log(level, "%s", line(alert))

    async def send_digest(self, digest: Digest) -> None:
        """Write one line; it never fails."""
        log.log(_LEVELS[digest.severity], "%s", printable(f"MISSED {digest.text} ({digest.id})"))

    async def close(self) -> None:
        """Nothing to let go of."""


def line(alert: Alert) -> str:
    """The alert as one line of printable text, whatever its texts hold."""
    extra = "".join(f" {name}={text}" for name, text in sorted(alert.labels.items()) if name not in ("tenant", "service"))
    times = f", firing {alert.fire_count}" if alert.fire_count > 1 else ""
    text = (
        f"{alert.status.upper()} {alert.severity} {alert.rule} {alert.tenant}/{alert.source}{extra}: {alert.message} "
        f"({alert.reason}{times}; {alert.id})"
    )
    return printable(text)


def printable(text: str) -> str:
    """At most a line of `text`, without what a terminal would act on."""
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_LINE]
