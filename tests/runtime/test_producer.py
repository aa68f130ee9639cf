"""What goes out waits for brokers that are away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, RecordTooLargeError, UnknownTopicOrPartitionError

from streams.operations.metrics import Metrics
from streams.records import Outgoing
from streams.runtime.producer import Outbox
from streams.settings import Settings


class Client:
    """A producer that answers with what it is given, one by one."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        sent.set_result(answer)
        return sent


def outbox_of(*answers: object) -> Outbox:
    outbox = Outbox(Settings(), Metrics())
    outbox._producer = Client(*answers)
    return outbox


async def test_a_record_is_offered_again_until_there_is_room() -> None:
    outbox = outbox_of(KafkaTimeoutError(), UnknownTopicOrPartitionError(), KafkaTimeoutError(), "sent")
    assert await (await outbox.send(Outgoing("mcp.alerts", b"k", b"v"))) == "sent"


async def test_what_brokers_refuse_is_an_error() -> None:
    with pytest.raises(RecordTooLargeError):
        await outbox_of(RecordTooLargeError()).send(Outgoing("mcp.alerts", b"k", b"v"))
