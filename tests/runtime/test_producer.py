"""What goes out waits for brokers that are away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, NodeNotReadyError, RecordTooLargeError, UnknownTopicOrPartitionError

from streams.operations.metrics import Metrics
from streams.records import Outgoing
from streams.runtime.producer import FencedProducer, Outbox
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


class Batches(Client):
    """A producer whose batches hold three records each; `batches` are those that were sent, by partition."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, list[tuple[bytes | None, bytes | None]]]] = []

    async def partitions_for(self, _topic: str) -> set[int]:
        return {0, 1, 2}

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, _topic: str, *, partition: int) -> asyncio.Future[Any]:
        assert batch.is_closed
        self.batches.append((partition, batch.records))
        self.answers.append("sent")
        return await self.send()


class Batch:
    def __init__(self) -> None:
        self.records: list[tuple[bytes | None, bytes | None]] = []
        self.is_closed = False

    def append(self, *, key: bytes | None, value: bytes | None, headers: list[Any], timestamp: int) -> object:
        assert (headers, timestamp > 0) == ([("h", b"x")], True)
        if len(self.records) == 3:
            return None
        self.records.append((key, value))
        return self

    def close(self) -> None:
        self.is_closed = True


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


async def test_many_dead_letters_go_in_batches_to_one_partition_after_the_other() -> None:
    outbox, client = outbox_of(), Batches()
    outbox._producer, client.answers = client, ["transition"]
    letters = [Outgoing("mcp.events.dlq", None, b"%d" % number or None, (("h", b"x"),)) for number in range(10)]
    letters.append(Outgoing("mcp.events.dlq", None, None, (("h", b"x"),)))
    sent = await outbox.send_all([*letters[:5], Outgoing("mcp.transitions", b"k", b"v"), *letters[5:]])
    assert await asyncio.gather(*sent) == ["transition", *["sent"] * 4]
    assert [partition for partition, _ in client.batches] == [0, 1, 2, 0]
    assert [value for _, records in client.batches for _, value in records] == [*(b"%d" % number for number in range(10)), b""]


async def test_few_dead_letters_stay_in_their_place() -> None:
    outbox = outbox_of(1, 2, 3)
    sent = await outbox.send_all([Outgoing(topic, None, b"v") for topic in ("mcp.alerts", "mcp.events.dlq", "mcp.alerts")])
    assert await asyncio.gather(*sent) == [1, 2, 3]


async def test_brokers_that_know_of_no_broker_are_asked_again_later() -> None:
    """As a broker answers that was suspended until its cluster had forgotten it: what claims a partition tries again."""
    producer = FencedProducer(fence="group-changelog-0", bootstrap_servers="127.0.0.1:1")
    with pytest.raises(NodeNotReadyError):
        await producer._init_producer_id(None)
    await producer.stop()
