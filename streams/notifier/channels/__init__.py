"""Channels: where alerts go. Each reads `mcp.alerts` in a consumer group of its own, so a dead one delays only itself."""

from __future__ import annotations

from collections.abc import Callable

from streams.channel_names import LOG, WEBHOOK
from streams.notifier.channels.channel import Channel
from streams.notifier.channels.log import LogChannel
from streams.notifier.channels.webhook import WebhookChannel
from streams.settings import Settings


def open_channels(settings: Settings, clock: Callable[[], int]) -> dict[str, Channel]:
    """The channels that `settings` provide, by the name that rules call them. Raises SettingsError for an unusable one."""
    channels: dict[str, Channel] = {LOG: LogChannel()}
    if settings.webhook_url:
        channels[WEBHOOK] = WebhookChannel(settings.webhook_url, clock)
    return channels
