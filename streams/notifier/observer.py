"""Who is told what the notifier does: the metrics."""

from __future__ import annotations

from schemas.alert import Reason
from streams.notifier.policy import Claimed


class Observer:
    """Told what the notifier decides. This one does nothing; what wants to know overrides."""

    def claimed(self, claimed: Claimed) -> None:
        """A claim was answered."""

    def decided(self, reason: Reason) -> None:
        """A transition was decided."""

    def dispatched(self, reason: Reason, since_append: int | None, since_decided: int) -> None:
        """A record goes out, so many µs after the deciding event was appended, and after the stream time of the decision.

        Not called for firings that were held first.
        """

    def addressed(self, rule: str, channels: tuple[str, ...]) -> None:
        """An alert of `rule` is dispatched to `channels`."""

    def copied(self) -> None:
        """A transition came that was decided before."""

    def unreadable(self) -> None:
        """A record became a dead letter."""

    def overflowed(self) -> None:
        """A transition was dispatched without being remembered, for want of room."""
