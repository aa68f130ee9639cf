"""Stale alerts until they are told of: when, how many, and from where a restart reads again."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from schemas.alert import Alert, Reason
from schemas.time import MICROS
from streams.notifier.channels import digest as module
from streams.notifier.channels.digest import Missed
from streams.testing import FakeClock as Clock
from tests.notifier.cases import MINUTE, Episode

ONE, TWO = TopicPartition("mcp.alerts", 0), TopicPartition("mcp.alerts", 1)


def fired(name: str, age: int = 6 * MINUTE) -> tuple[Alert, Alert]:
    episode = Episode(name, service=name)
    firing, resolved = episode.fire(), episode.resolve()
    stale = {"reason": Reason.STALE}
    return (
        firing.model_copy(update=stale | {"details": firing.details | {"age": age}}),
        resolved.model_copy(update=stale),
    )


def test_a_digest_counts_episodes_and_names_those_that_still_fire(clock: Clock) -> None:
    missed = Missed("log")
    for offset, (alert, resolved) in enumerate([fired("a"), fired("b", 12 * MINUTE), fired("c")]):
        missed.add(ONE if offset else TWO, 10 * offset, alert, clock())
        if alert.source != "b":
            missed.add(ONE if offset else TWO, 10 * offset + 1, resolved, clock())
    clock.advance("5s")
    assert missed.is_due(clock())
    digest = missed.take()
    assert digest is not None
    assert digest.text == "while 12 min behind: 3 alerts, 2 already resolved; still firing: tool-error-rate acme/b"
    assert digest.severity == "warning"


def test_a_digest_is_due_when_no_more_come_or_at_last(clock: Clock) -> None:
    missed = Missed("log")
    assert not missed.is_due(clock())
    for number in range(60):
        missed.add(ONE, number, fired(f"s{number}")[0], clock())
        assert not missed.is_due(clock.advance("1s")) or number == 59
    assert missed.is_due(clock())
    assert missed.take() is not None
    missed.add(ONE, 60, fired("later")[0], clock())
    clock.advance("1m")
    assert not missed.is_due(clock()), "one digest at a time"
    missed.done()
    assert missed.is_due(clock())


def test_a_digest_under_way_stays_so_where_its_partition_goes_and_comes_back(clock: Clock) -> None:
    """Else its end would be taken for that of the next one, and what that tells of would be done with untold."""
    missed = Missed("log")
    missed.add(ONE, 4, fired("a")[0], clock())
    clock.advance("1m")
    assert missed.take() is not None
    missed.forget(ONE)
    missed.add(ONE, 4, fired("a")[0], clock())
    clock.advance("1m")
    assert not missed.is_due(clock())
    missed.done()
    assert missed.first(ONE) == 4
    assert missed.is_due(clock())


def test_what_is_not_told_of_is_read_again(clock: Clock) -> None:
    missed = Missed("log")
    missed.add(ONE, 4, fired("a")[0], clock())
    missed.add(ONE, 5, fired("b")[0], clock())
    assert (missed.first(ONE), missed.first(TWO)) == (4, None)
    first = missed.take()
    missed.add(ONE, 6, fired("c")[0], clock())
    assert missed.first(ONE) == 4
    missed.done()
    assert missed.first(ONE) == 6
    second = missed.take()
    assert first is not None
    assert second is not None
    assert first.id != second.id
    missed.forget(ONE)
    assert missed.first(ONE) is None


def test_a_digest_that_is_made_again_has_the_same_id(clock: Clock) -> None:
    ids = set()
    for _ in range(2):
        missed = Missed("log")
        missed.add(ONE, 4, fired("a")[0], clock())
        digest = missed.take()
        assert digest is not None
        ids.add(digest.id)
    assert len(ids) == 1


def test_the_end_of_what_was_told_of_before_makes_no_digest(clock: Clock) -> None:
    missed = Missed("log")
    missed.add(ONE, 4, fired("a")[1], clock())
    assert missed.take() is None
    assert missed.first(ONE) is None


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EPISODES", 3)
    missed = Missed("log")
    for number in range(20):
        missed.add(ONE, number, fired(f"s{number}", 6 * 60 * MICROS)[0], clock())
    digest = missed.take()
    assert digest is not None
    assert (
        digest.text
        == "while 6 min behind: 20 alerts, 0 already resolved; still firing: "
        + ", ".join(f"tool-error-rate acme/s{number}" for number in range(3))
        + " and 17 more"
    )
