"""The rulesets that partitions judge by, read from `mcp.rules` and followed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from aiokafka.errors import KafkaError
from pydantic import ValidationError

from schemas.rule import Rule, Ruleset
from streams.ruleset_log import RulesetLog
from streams.settings import Settings
from streams.topic_reader import TopicReader

log = logging.getLogger("tocsin.runtime")

WAIT: Final = 60.0
"""Seconds that a partition waits for the documents of a ruleset."""
MAX_KEPT: Final = 8
"""Rulesets that are kept readily made; partitions keep the rules they judge by themselves."""
_POLL: Final = 0.2
_RETRY: Final = 1.0


class MissingRulesetError(RuntimeError):
    """A ruleset that the log names is not on the topic of rules."""


class Rulesets:
    """What is on `mcp.rules`, and the rulesets that were asked for. `unreadable` is called for what cannot be read."""

    def __init__(self, topic: str, unreadable: Callable[[], None] = lambda: None, wait: float = WAIT) -> None:
        self.waiting = 0
        self._topic, self._unreadable, self._wait = topic, unreadable, wait
        self._log = RulesetLog()
        self._made: dict[str, Ruleset] = {}
        self._broken: set[str] = set()
        self._folded = asyncio.Event()

    async def follow(self, settings: Settings) -> None:
        """Read the topic from its beginning and go on, for ever. Raises MissingTopicError where there is none."""
        async with TopicReader(settings.kafka_client(), self._topic) as reader:
            while True:
                try:
                    async for record in reader.to_end():
                        self._log.fold(record)
                except KafkaError as error:
                    log.warning("rules: %s cannot be read (%s); trying again", self._topic, error)
                    await asyncio.sleep(_RETRY)
                self.folded()
                await asyncio.sleep(_POLL)

    def folded(self) -> None:
        """Look at what was read: tell of what is unreadable, and wake who waits."""
        for what in self._log.unreadable:
            log.warning("rules: a record of %s is no part of a ruleset and is ignored: %s", self._topic, what)
            self._unreadable()
        self._log.unreadable.clear()
        self._folded.set()
        self._folded = asyncio.Event()

    def ruleset(self, id: str) -> Ruleset | None:
        """The ruleset `id`, if all its documents are there and can be read."""
        made = self._made.get(id)
        if made is not None or id in self._broken:
            return made
        manifest = self._log.manifest(id)
        documents = [self._log.document(revision) for revision in (manifest or {}).values()]
        if manifest is None or any(document is None for document in documents):
            return None
        try:
            made = Ruleset(rules=tuple(Rule.model_validate(document) for document in documents))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            self._refuse(id, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
            return None
        if made.id != id:
            self._refuse(id, f"its documents make up ruleset {made.id}")
            return None
        while len(self._made) >= MAX_KEPT:
            del self._made[next(iter(self._made))]
        self._made[id] = made
        return made

    async def wait_for(self, id: str, who: str, abandoned: asyncio.Event) -> Ruleset | None:
        """The ruleset `id` once it is complete; None if it cannot be read, or as soon as `abandoned` is set.

        Raises MissingRulesetError if it does not come in time: to go on without it would make decisions depend on the clock.
        """
        loop = asyncio.get_running_loop()
        until, told = loop.time() + self._wait, False
        try:
            while True:
                found = self.ruleset(id)
                if found is not None or id in self._broken or abandoned.is_set():
                    return found
                if not told:
                    told = True
                    self.waiting += 1
                    log.info("%s: waits for the documents of ruleset %s on %s", who, id, self._topic)
                left = until - loop.time()
                if left <= 0:
                    raise MissingRulesetError(
                        f"{who} needs ruleset {id}, and it is not complete on {self._topic} after {self._wait:.0f} s; "
                        "deploy it again (`tocsin deploy rules/`) from the files it was made of"
                    )
                waits = [asyncio.ensure_future(event.wait()) for event in (self._folded, abandoned)]
                await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
        finally:
            self.waiting -= told

    def _refuse(self, id: str, why: str) -> None:
        self._broken.add(id)
        self._unreadable()
        log.error("rules: ruleset %s cannot be read by this version: %s; the one before stays active", id, why)
