"""The command line in the process of the test, and what it leaves on the broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner, Result

from streams.cli import main
from streams.settings import Settings, variable
from streams.topic_reader import Read, TopicReader

KEY = "a long random text"


def invoke(*arguments: str, env: dict[str, str] | None = None, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), env=env, input=stdin, prog_name="tocsin")


def environment(settings: Settings) -> dict[str, str]:
    return {variable(item.name): getattr(settings, item.name) for item in fields(settings)}


def tocsin(settings: Settings, *arguments: str, stdin: str | bytes | None = None) -> Result:
    return invoke(*arguments, env=environment(settings), stdin=stdin)


async def delete_topics(settings: Settings) -> None:
    async def delete(admin: AIOKafkaAdminClient) -> None:
        await admin.delete_topics([name for name in await admin.list_topics() if name.startswith(settings.group)])

    await with_admin(settings, delete)


async def with_admin(settings: Settings, act: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> None:
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    try:
        await act(admin)
    finally:
        await admin.close()


def records(settings: Settings, topic: str) -> list[Read]:
    async def read() -> list[Read]:
        async with TopicReader(settings.kafka_client(), settings.topic_prefix + topic) as reader:
            return [record async for record in reader.to_end()]

    return asyncio.run(read())


def send(settings: Settings, topic: str, *pairs: tuple[str, bytes | None]) -> None:
    async def write() -> None:
        async with AIOKafkaProducer(**settings.kafka_client()) as producer:
            for key, value in pairs:
                await producer.send_and_wait(settings.topic_prefix + topic, value, key=key.encode())

    asyncio.run(write())


def module(folder: Path, **rules: str) -> str:
    """A folder with a rule per name, and the window of each."""
    folder.mkdir(exist_ok=True)
    text = "from schemas.rule import Rule, above, count\n"
    for name, over in rules.items():
        text += f"{name} = Rule(name='{name}', measure=count(), over='{over}', warning=above(1), summary='x')\n"
    (folder / "module.py").write_text(text)
    return str(folder)


def event(**changes: Any) -> dict[str, Any]:
    return {"ts": time.time_ns() // 1000, "kind": "metric", "service": "files", "name": "depth", "value": 1.0} | changes


def lines(*values: Any) -> bytes:
    return b"".join((value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n" for value in values)
