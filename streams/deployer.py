"""A deploy, carried out: documents, intent, ruleset records on every partition, and the record that it is done.

It may be stopped between any two steps. Until the intent nothing has changed; after it, the same deploy run again goes on.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from types import TracebackType
from typing import Final, Self

from aiokafka import AIOKafkaProducer

from schemas.control import HEADER, RulesetRecord, sign
from streams.ruleset_log import Deploy, DeployError, Plan, RulesetLog, came_between, to_json
from streams.settings import Settings
from streams.topic_reader import MissingTopicError, TopicReader
from streams.topics import ENGINE, EVENTS, NOTIFIER, RULES, changelog_name

MAX_REQUEST: Final = int(RULES.config["max.message.bytes"])
_AT_ONCE: Final = 500
"""Documents that are sent together: all that wait for room in a batch are woken by each that goes, which thousands outlast."""


class Deployer:
    """Connects on entry.

    Raises MissingTopicError where `tocsin topics` has not been run, DeployError where the changelogs do not fit the events.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = settings.topic_prefix + RULES.name
        self._events = settings.topic_prefix + EVENTS.name
        self._reader = TopicReader(settings.kafka_client(), self._rules)
        self._producer = AIOKafkaProducer(
            **settings.kafka_client(),
            acks="all",
            enable_idempotence=settings.fencing == "on",
            compression_type="lz4",
            max_request_size=MAX_REQUEST,
        )
        self._log = RulesetLog()
        self.partitions: list[int] = []
        """The partitions of the event topic."""

    async def __aenter__(self) -> Self:
        try:
            await self._reader.__aenter__()
            self.partitions = self._reader.partitions_of(self._events)
            self._check_changelogs()
            await self._producer.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._producer.stop()
        await self._reader.__aexit__(kind, error, trace)

    def _check_changelogs(self) -> None:
        """A changelog has a partition for each of the events; a new partition of those would be judged by nobody."""
        for name in (changelog_name(self._settings.group, role) for role in (ENGINE, NOTIFIER)):
            try:
                found = len(self._reader.partitions_of(name))
            except MissingTopicError:
                continue
            if found != len(self.partitions):
                raise DeployError(
                    f"{self._events} has {len(self.partitions)} partitions, and {name} has {found}: the number is fixed, since "
                    "state and the place of every service depend on it. Set a new TOCSIN_TOPIC_PREFIX and TOCSIN_GROUP, run "
                    "`tocsin topics`, and deploy there"
                )

    async def read(self) -> RulesetLog:
        """What `mcp.rules` says now."""
        async for record in self._reader.to_end():
            self._log.fold(record)
        return self._log

    async def carry_out(self, plan: Plan) -> Deploy:
        """Make the ruleset of `plan` active. Raises DeployError where another deploy came between."""
        now = time.time_ns() // 1_000_000
        documents = self._log.lacks(plan.ruleset, now)
        for first in range(0, len(documents), _AT_ONCE):
            await asyncio.gather(*[self._send(key, value) for key, value in documents[first : first + _AT_ONCE]])
        deploy = await self._claim(plan)
        await self.announce(deploy)
        await self._send(f"deployed/{deploy.seq:010}", to_json({"seq": deploy.seq, "id": deploy.id}))
        log = await self.read()
        for key in log.unused(now):
            await self._send(key, None)
        return deploy

    async def _claim(self, plan: Plan) -> Deploy:
        claim = None
        if plan.claims:
            claim = f"deploy/{plan.seq:010}/{uuid.uuid4().hex}"
            await self._send(claim, to_json({"seq": plan.seq, "id": plan.ruleset.id, "based_on": plan.based_on}))
        current = (await self.read()).current
        if current is None or current.seq != plan.seq or claim not in (None, current.claim):
            raise DeployError(came_between(plan.based_on, current))
        return current

    async def announce(self, deploy: Deploy) -> None:
        """Append the ruleset record of `deploy` to every partition of the event topic."""
        await asyncio.gather(*[self._announce(deploy, partition) for partition in self.partitions])

    async def _announce(self, deploy: Deploy, partition: int) -> None:
        control = RulesetRecord(id=deploy.id, seq=deploy.seq)
        if self._settings.control_key:
            key = self._settings.control_key.encode()
            control = sign(control, key, topic=self._events, partition=partition, value=b"")
        headers = [(HEADER, control.model_dump_json().encode())]
        await self._producer.send_and_wait(self._events, b"", partition=partition, headers=headers)

    async def _send(self, key: str, value: bytes | None) -> None:
        await self._producer.send_and_wait(self._rules, value, key=key.encode())
