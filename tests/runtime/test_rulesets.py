from __future__ import annotations

import asyncio
import json
import logging

import pytest

from schemas.rule import Rule, Ruleset, above, count
from streams.runtime.rulesets import MissingRulesetError, Rulesets
from tests.runtime.fakes import Record

RULE = Rule(
    name="many", by=("tenant", "service"), measure=count(), over="10s", every="1s", warning=above(3), summary="{value} of them"
)
RULESET = Ruleset(rules=(RULE,))


class Topic:
    """Writes records and has them read."""

    def __init__(self, rulesets: Rulesets) -> None:
        self.rulesets = rulesets
        self.end = 0

    def put(self, key: str, value: object) -> None:
        self.rulesets._log.fold(Record(self.end, key.encode(), None if value is None else json.dumps(value).encode()))
        self.end += 1
        self.rulesets.folded()

    def put_ruleset(self, ruleset: Ruleset) -> None:
        self.put(f"ruleset/{ruleset.id}", {"id": ruleset.id, "rules": {rule.name: rule.revision for rule in ruleset.rules}})

    def put_rule(self, rule: Rule) -> None:
        self.put(f"rule/{rule.revision}", rule.document())


class Bench:
    def __init__(self, wait: float = 5) -> None:
        self.unreadable = 0
        self.rulesets = Rulesets("mcp.rules", self.count, wait)
        self.topic = Topic(self.rulesets)
        self.abandoned = asyncio.Event()

    def count(self) -> None:
        self.unreadable += 1

    async def wait(self) -> Ruleset | None:
        return await self.rulesets.wait_for(RULESET.id, "partition 0", self.abandoned)


async def test_a_ruleset_is_there_when_all_its_documents_are() -> None:
    bench = Bench()
    waiting = asyncio.ensure_future(bench.wait())
    await asyncio.sleep(0.01)
    bench.topic.put_ruleset(RULESET)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert bench.rulesets.waiting == 1
    bench.topic.put_rule(RULE)
    assert await waiting == RULESET
    assert bench.rulesets.waiting == 0
    assert await bench.wait() is bench.rulesets.ruleset(RULESET.id)


async def test_one_that_does_not_come_is_no_reason_to_decide_otherwise() -> None:
    bench = Bench(wait=0.05)
    with pytest.raises(MissingRulesetError, match=f"partition 0 needs ruleset {RULESET.id}, .*deploy it again"):
        await bench.wait()
    assert bench.rulesets.waiting == 0


async def test_whoever_is_abandoned_waits_no_longer() -> None:
    bench = Bench()
    waiting = asyncio.ensure_future(bench.wait())
    await asyncio.sleep(0.01)
    bench.abandoned.set()
    assert await waiting is None


async def test_what_cannot_be_read_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.WARNING, "tocsin.runtime"):
        bench.topic.put("nonsense", 1)
        bench.topic.put_ruleset(RULESET)
        bench.topic.put(f"rule/{RULE.revision}", RULE.document() | {"over": "soon"})
        assert await bench.wait() is None
        assert await bench.wait() is None
    assert bench.unreadable == 2
    assert "is no part of a ruleset" in caplog.text
    assert caplog.text.count(f"ruleset {RULESET.id} cannot be read by this version") == 1


async def test_documents_of_another_ruleset_are_refused() -> None:
    bench = Bench()
    other = Rule(**(RULE.document() | {"name": "other"}))
    bench.topic.put_ruleset(RULESET)
    bench.topic.put(f"rule/{RULE.revision}", other.document())
    assert await bench.wait() is None
    assert bench.unreadable == 1
