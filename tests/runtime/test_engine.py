"""The engine's fold: from raw records to what goes out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from schemas.alert import Reason, Transition
from schemas.control import HEADER, Redrive, RulesetRecord, Tick
from schemas.rule import Rule, Ruleset, above, count
from schemas.time import MICROS
from streams.decode import Source
from streams.operations.metrics import Metrics
from streams.partitioner import partition_of
from streams.records import Outgoing
from streams.runtime.checkpoint import AbandonedError
from streams.runtime.engine import EngineFold
from streams.runtime.rulesets import MissingRulesetError
from tests.kernel.raising import Raising, planted
from tests.runtime.fakes import Record
from tests.runtime.test_rulesets import Bench

APPENDED = 1_767_225_600_000  # milliseconds
PARTITIONS = 4
HOME = partition_of("acme", "files", PARTITIONS)
RULE = Rule(
    name="many", by=("tenant", "service"), measure=count(), over="10s", every="1s", warning=above(3), summary="{value} of them"
)
RULESET = Ruleset(rules=(RULE,))


def event(offset: int, *, service: str = "files", after: float = 0.0, **fields: Any) -> Record:
    ts = APPENDED * 1000 + int(after * MICROS)
    body = {"ts": ts, "kind": "metric", "service": service, "tenant": "acme", **fields}
    return Record(offset, b"acme|files", json.dumps(body).encode(), (), APPENDED + int(after * 1000))


def switch(offset: int, ruleset: Ruleset = RULESET, seq: int = 1) -> Record:
    control = RulesetRecord(id=ruleset.id, seq=seq).model_dump_json().encode()
    return Record(offset, None, b"", ((HEADER, control),), APPENDED)


def tick(offset: int, after: float) -> Record:
    return Record(offset, None, b"", ((HEADER, Tick().model_dump_json().encode()),), APPENDED + int(after * 1000))


def redriven(record: Record, origin: Redrive) -> Record:
    return record._replace(headers=((HEADER, origin.model_dump_json().encode()),))


class Engine(Bench):
    """An engine fold of the home partition of acme's files."""

    def __init__(self, wait: float = 5, *, deployed: bool = True) -> None:
        super().__init__(wait)
        self.metrics = Metrics()
        if deployed:
            self.topic.put_rule(RULE)
            self.topic.put_ruleset(RULESET)

    async def fold(self, items: list[tuple[bytes, bytes]] | None = None) -> EngineFold:
        source = Source("mcp.events", HOME, PARTITIONS)
        return await EngineFold.restore(source, items or [], self.rulesets, self.metrics, self.abandoned)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"tocsin_{name}", labels)


def transitions(outgoing: list[Outgoing]) -> list[Transition]:
    return [Transition.model_validate_json(record.value or b"") for record in outgoing if record.topic == "mcp.transitions"]


async def test_a_rule_fires_and_its_transition_goes_out_by_tenant() -> None:
    engine = Engine()
    fold = await engine.fold()
    out = list(await fold.process([switch(0), *(event(offset) for offset in range(1, 6))]))
    assert [record.key for record in out] == [b"acme"]
    (fired,) = transitions(out)
    assert (fired.rule, fired.reason, fired.details["offset"]) == ("many", Reason.CONDITION_MET, 4)
    assert fold.applied == 5
    assert fold.ruleset_id == RULESET.id
    assert engine.value("events_counted_total") == 5
    assert engine.value("transitions_total", reason="condition_met") == 1


async def test_dead_letters_and_forwards_go_out_beside_it() -> None:
    engine = Engine()
    fold = await engine.fold()
    elsewhere = next(name for name in ("a", "b", "c", "d", "e", "f") if partition_of("acme", name, PARTITIONS) != HOME)
    out = list(await fold.process([Record(0, b"k", b"nonsense"), event(1, service=elsewhere), Record(2, None, None)]))
    assert [record.topic for record in out] == ["mcp.events.dlq", "mcp.events.dlq", "mcp.events"]
    assert out[2].partition == partition_of("acme", elsewhere, PARTITIONS)
    assert engine.value("dead_letters_total", reason="undecodable") == 1
    assert engine.value("dead_letters_total", reason="empty") == 1
    assert engine.value("forwarded_events_total") == 1


async def test_a_redriven_record_that_does_not_count_is_not_forwarded_and_a_refused_one_is_a_dead_letter_again() -> None:
    engine = Engine()
    fold = await engine.fold()
    elsewhere = next(name for name in ("a", "b", "c", "d", "e", "f") if partition_of("acme", name, PARTITIONS) != HOME)
    origin = Redrive(offset=3, timestamp=APPENDED)
    old = Redrive(offset=4, timestamp=APPENDED - 14 * 86_400_000)
    out = list(await fold.process([redriven(event(offset, service=elsewhere), origin) for offset in (5, 6)]))
    assert [(record.topic, record.partition) for record in out] == [("mcp.events", partition_of("acme", elsewhere, PARTITIONS))]
    assert engine.value("duplicate_events_total") == 1
    (letter,) = await fold.process([redriven(event(7, service=elsewhere), old)])
    said = dict(letter.headers)
    assert (letter.topic, said["dlq.reason"], said["dlq.source.offset"]) == ("mcp.events.dlq", b"expired", b"7")
    assert said[HEADER] == old.model_dump_json().encode(), "it may be redriven again, and is still itself"
    assert engine.value("dead_letters_total", reason="expired") == 1


async def test_records_that_were_folded_are_neither_counted_nor_sent_again() -> None:
    engine = Engine()
    fold = await engine.fold()
    chunk = [switch(0), *(event(offset) for offset in range(1, 4)), Record(4, b"k", b"nonsense")]
    assert len(await fold.process(chunk)) == 1
    assert await fold.process(chunk) == ()
    assert engine.value("events_counted_total") == 3
    assert engine.value("dead_letters_total", reason="undecodable") == 1


async def test_the_state_comes_back_whole() -> None:
    engine = Engine()
    chunk = [switch(0), *(event(offset, after=offset / 10) for offset in range(1, 8)), tick(8, 30.0), event(9, after=31.0)]
    whole = await engine.fold()
    expected = transitions(list(await whole.process(chunk)))
    assert [one.reason for one in expected] == [Reason.CONDITION_MET, Reason.RECOVERED]
    for cut in range(len(chunk)):
        first = await engine.fold()
        found = transitions(list(await first.process(chunk[:cut])))
        items = [(key, value) for key, value in first.take_dirty() if value is not None]
        second = await engine.fold(items)
        assert second.applied == cut - 1
        found += transitions(list(await second.process(chunk)))
        assert found == expected, cut


async def test_a_switch_waits_for_its_documents() -> None:
    engine = Engine(deployed=False)
    fold = await engine.fold()
    processing = asyncio.ensure_future(fold.process([switch(0), *(event(offset) for offset in range(1, 6))]))
    await asyncio.sleep(0.01)
    assert not processing.done()
    assert engine.value("waiting_for_ruleset", partition=str(HOME)) == 1
    engine.topic.put_ruleset(RULESET)
    engine.topic.put_rule(RULE)
    assert len(transitions(list(await processing))) == 1
    assert engine.value("waiting_for_ruleset", partition=str(HOME)) == 0


async def test_a_switch_whose_documents_do_not_come_folds_nothing() -> None:
    engine = Engine(wait=0.05, deployed=False)
    fold = await engine.fold()
    with pytest.raises(MissingRulesetError):
        await fold.process([event(0), switch(1)])
    assert fold.applied == -1


async def test_a_partition_that_is_taken_away_while_it_waits_folds_nothing() -> None:
    engine = Engine(deployed=False)
    fold = await engine.fold()
    processing = asyncio.ensure_future(fold.process([event(0), switch(1)]))
    await asyncio.sleep(0.01)
    engine.abandoned.set()
    with pytest.raises(AbandonedError):
        await processing
    assert fold.applied == -1


async def test_a_ruleset_that_cannot_be_read_leaves_the_one_before() -> None:
    engine = Engine()
    fold = await engine.fold()
    await fold.process([switch(0)])
    unreadable = Ruleset(rules=(RULE, Rule(**(RULE.document() | {"name": "new"}))))
    engine.topic.put_ruleset(unreadable)
    engine.topic.put(f"rule/{unreadable.rules[1].revision}", {"name": "from a later version"})
    await fold.process([switch(1, unreadable, seq=2)])
    assert fold.applied == 1
    assert fold.ruleset_id == RULESET.id
    assert engine.unreadable == 1


async def test_a_switch_to_what_was_left_behind_waits_for_nothing() -> None:
    engine = Engine(wait=0.05)
    fold = await engine.fold()
    await fold.process([switch(0, seq=5)])
    never = Ruleset(rules=(Rule(**(RULE.document() | {"name": "never"})),))
    await fold.process([switch(1, never, seq=4)])
    assert fold.applied == 1


async def test_a_rule_that_fails_is_logged_and_counted_and_the_alert_goes_out(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine()
    fold = await engine.fold()
    with planted(Raising(RULE.revision, offset=2)):
        out = list(await fold.process([switch(0), event(1), event(2), event(3)]))
    (failing,) = transitions(out)
    assert (failing.rule, failing.reason, failing.labels["rule"]) == ("tocsin.rule_failing", Reason.RULE_FAILING, "many")
    assert f"engine: partition {HOME}: rule many fails at offset 2 and is not judged any more" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert engine.value("rule_failures_total", rule="many") == 1
    items = [(key, value) for key, value in fold.take_dirty() if value is not None]
    caplog.clear()
    await engine.fold(items)
    assert f"partition {HOME}: rules that failed before and are not judged: many" in caplog.text
    assert engine.value("rules_failing", partition=str(HOME)) == 1


async def test_state_under_a_ruleset_that_is_gone_is_not_restored() -> None:
    engine = Engine()
    fold = await engine.fold()
    await fold.process([switch(0), event(1)])
    items = [(key, value) for key, value in fold.take_dirty() if value is not None]
    with pytest.raises(MissingRulesetError, match=RULESET.id):
        await Engine(wait=0.05, deployed=False).fold(items)


async def test_dead_letters_are_told_in_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("streams.runtime.engine.time.monotonic", lambda: now)
    fold = await Engine().fold()
    for offset in range(1, 100):
        await fold.process([switch(0), Record(offset, None, b"{\x00\n" + str(offset).encode(), (), APPENDED)])
    assert [record.levelname for record in caplog.records if "dead letters" in record.message] == ["WARNING"]
    assert f"partition {HOME}: 1 records could not be processed" in caplog.text
    assert "first the one at offset 1 (undecodable: " in caplog.text
    now += 60
    await fold.wake(0)
    await fold.wake(0)
    assert "98 records could not be processed and went to the dead letters, first the one at offset 2" in caplog.text
    assert caplog.text.count("dead letters") == 2
