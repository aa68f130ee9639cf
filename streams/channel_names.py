"""The names by which rules call channels, and which of them nothing serves."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

LOG: Final = "log"
WEBHOOK: Final = "webhook"
CHANNELS: Final = (LOG, WEBHOOK)
_MAX_SEEN: Final = 1_000


def why_unserved(name: str, *, webhook_url: str) -> str | None:
    """Why nothing is sent to the channel `name`, and what to do; None where it is served."""
    if name not in CHANNELS:
        return f"there is no channel {name!r}; channels are {', '.join(CHANNELS)}"
    if name == WEBHOOK and not webhook_url:
        return "the channel 'webhook' sends nothing while TOCSIN_WEBHOOK_URL is not set; workers need it"
    return None


def unserved(named: Iterable[tuple[str, Iterable[str]]], *, webhook_url: str) -> list[str]:
    """A sentence for each channel among `named` (rule, channels) that nothing serves: why, and who names it."""
    rules: dict[str, list[str]] = {}
    for rule, channels in named:
        for channel in dict.fromkeys(channels):
            rules.setdefault(channel, []).append(rule)
    problems = {channel: why_unserved(channel, webhook_url=webhook_url) for channel in sorted(rules)}
    return [f"{why} ({_who(rules[channel])})" for channel, why in problems.items() if why is not None]


def _who(rules: list[str]) -> str:
    return f"{rules[0]} names it" if len(rules) == 1 else f"{rules[0]} and {len(rules) - 1} more name it"


class UnservedChannels:
    """Warns once of each channel that dispatched alerts name and nothing serves."""

    def __init__(self, log: logging.Logger, webhook_url: str) -> None:
        self._log, self._webhook_url = log, webhook_url
        self._seen: set[str] = set()

    def look(self, rule: str, channels: Iterable[str]) -> None:
        """An alert of `rule` goes to `channels`."""
        for name in channels:
            if name in self._seen or len(self._seen) >= _MAX_SEEN:
                continue
            self._seen.add(name)
            why = why_unserved(name, webhook_url=self._webhook_url)
            if why is not None:
                self._log.warning("alerts of rule %s (and perhaps others) miss a channel: %s", rule, why)
