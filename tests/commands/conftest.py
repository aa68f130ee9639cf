"""Topics made by the command that makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from streams.settings import Settings
from tests.commands.running import KEY, delete_topics, tocsin


@pytest.fixture
def own(settings: Settings) -> Iterator[Settings]:
    """Settings whose topics `tocsin topics` has made, three partitions each."""
    own = replace(settings, control_key=KEY)
    result = tocsin(own, "topics", "--partitions", "3")
    assert result.exit_code == 0, result.output
    yield own
    asyncio.run(delete_topics(own))
