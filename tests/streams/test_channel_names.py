"""Channels that rules name and nothing serves."""

from __future__ import annotations

import logging

import pytest

from streams.channel_names import UnservedChannels, unserved


def test_unserved_channels_are_told_once_each_with_who_names_them() -> None:
    named = [("a", ("log", "webhook", "pager")), ("b", ("webhook",))]
    assert unserved(named, webhook_url="") == [
        "there is no channel 'pager'; channels are log, webhook (a names it)",
        "the channel 'webhook' sends nothing while TOCSIN_WEBHOOK_URL is not set; workers need it (a and 1 more name it)",
    ]
    assert unserved(named[1:], webhook_url="http://127.0.0.1/") == []


def test_a_worker_warns_once_per_channel(caplog: pytest.LogCaptureFixture) -> None:
    channels = UnservedChannels(logging.getLogger("tocsin.runtime"), "")
    for _ in range(3):
        channels.look("tool-error-rate", ("log", "pager", "webhook"))
    missed = "alerts of rule tool-error-rate (and perhaps others) miss a channel: "
    assert [record.getMessage() for record in caplog.records] == [
        f"{missed}there is no channel 'pager'; channels are log, webhook",
        f"{missed}the channel 'webhook' sends nothing while TOCSIN_WEBHOOK_URL is not set; workers need it",
    ]
