"""What was decided before the state was lost, read from topics to which anybody may have written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

import pytest

from schemas.alert import Reason
from streams.notifier import former
from streams.notifier.former import Former, FormerDecisions
from streams.notifier.policy import DECISION_HEADER
from streams.settings import Settings

ENDED = ((DECISION_HEADER, Reason.ENDED_WHILE_HELD.encode()),)


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def said(id: str, reason: str = "recovered") -> bytes:
    return b'{"id":"%b","dedup_key":"of %b","reason":"%b"}' % (id.encode(), id.encode(), reason.encode())


class Reader:
    """A reader of topics that hold `records`."""

    records: dict[str, list[Record]] = {}  # noqa: RUF012 - set by the test

    def __init__(self, _client: Any, topic: str) -> None:
        self._topic = topic

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def to_end(self) -> AsyncIterator[Record]:
        for record in self.records[self._topic]:
            yield record


async def test_what_is_no_decision_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Else one record would keep a notifier without state from ever starting."""
    junk = [Record(1, b"garbage"), Record(2, None), Record(3, b"{}"), Record(4, b'{"id":1}')]
    alerts = [*junk, Record(5, said("a")), Record(6, said("b", "stale")), Record(7, said("c", "stale")), Record(8, said("c"))]
    transitions = [*(Record(each.offset, each.value, ENDED) for each in junk), Record(5, said("d"), ENDED), Record(6, said("e"))]
    monkeypatch.setattr(Reader, "records", {"mcp.alerts": alerts, "mcp.transitions": transitions})
    monkeypatch.setattr(former, "TopicReader", Reader)
    found = await FormerDecisions(Settings(), lambda: 0.0).read()
    assert found == Former({"a": False, "b": True, "c": False}, frozenset({"of d"}))
    assert caplog.text.count("no decision at offset") == 2 * len(junk)
