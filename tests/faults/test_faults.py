"""The short form of every fault, with a fixed seed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.faults.__main__ import modules
from tests.faults.stage import Servers
from tests.servers.kafka import KafkaServer
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.integration
SEED = 20_261


@pytest.fixture
def servers(tmp_path: Path, kafka: KafkaServer, redis_server: RedisServer) -> Servers:
    return Servers(tmp_path / "servers", kafka, redis_server)


@pytest.mark.parametrize("scenario", modules().values(), ids=modules())
async def test_nothing_differs_after(scenario: ModuleType, servers: Servers, tmp_path: Path) -> None:
    row = await scenario.run(servers, SEED, tmp_path / "stage", long=False)
    assert not row.differences, "\n".join(row.differences)
