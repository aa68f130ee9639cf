"""What a channel is."""

from __future__ import annotations

from typing import Protocol

from schemas.alert import Alert
from streams.notifier.channels.digest import Digest


class Channel(Protocol):
    """Tells people or systems of an alert."""

    async def send(self, alert: Alert) -> None:
        """Tell of `alert` once. Raises Retryable or Rejected where that failed."""
        ...

    async def send_digest(self, digest: Digest) -> None:
        """Tell once of what was missed, in place of alerts that are past. Raises as `send` does."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Retryable(Exception):  # noqa: N818 - says what to do, not what it is
    """It failed, and may succeed later: not before `after` microseconds, if given."""

    def __init__(self, message: str, after: int | None = None) -> None:
        super().__init__(message)
        self.after = after


class Rejected(Exception):  # noqa: N818 - says what to do, not what it is
    """It failed, and would fail again."""
