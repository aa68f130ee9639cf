"""Sending one alert until that ends, with a clock that only the waiting moves."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest

from schemas.alert import Alert
from schemas.time import MICROS
from streams.notifier.channels.channel import Rejected, Retryable
from streams.notifier.channels.digest import Digest
from streams.notifier.channels.retry import BASE, CAP, DEADLINE, Outcome, backoff, deliver_one
from streams.testing import FakeClock as Clock
from tests.notifier.cases import Episode


@dataclass
class Tape:
    """A channel that fails as the tape says, then goes on as its end says."""

    faults: list[Exception | None]
    sent: int = 0

    async def send(self, message: Alert | Digest) -> None:
        fault = self.faults[min(self.sent, len(self.faults) - 1)]
        self.sent += 1
        if fault is not None:
            raise fault

    async def close(self) -> None:
        pass


@dataclass
class Run:
    clock: Clock = field(default_factory=Clock)
    waits: list[int] = field(default_factory=list)
    retries: int = 0
    stop_after: int | None = None

    async def pause(self, wait: int) -> bool:
        self.waits.append(wait)
        self.clock.advance(wait)
        return self.stop_after is None or len(self.waits) < self.stop_after

    def retried(self) -> None:
        self.retries += 1

    async def deliver(self, tape: Tape, *, age: int = 0) -> Outcome | None:
        return await deliver_one(
            tape,
            "webhook",
            Episode().fire(),
            dispatched_at=self.clock() - age,
            clock=self.clock,
            jitter=lambda: 0.5,
            pause=self.pause,
            retried=self.retried,
        )


def test_backoff_doubles_to_its_cap_with_full_jitter() -> None:
    assert [backoff(attempt, 1.0) for attempt in range(4)] == [BASE, 2 * BASE, 4 * BASE, 8 * BASE]
    assert backoff(9, 1.0) == backoff(10_000, 1.0) == CAP
    assert backoff(5, 0.0) == 0
    assert backoff(5, 0.25) == 8 * BASE


async def test_it_is_tried_until_it_is_delivered() -> None:
    run = Run()
    assert await run.deliver(Tape([Retryable("503"), Retryable("503"), None])) is Outcome.DELIVERED
    assert run.waits == [BASE // 2, BASE]
    assert run.retries == 2


async def test_it_waits_as_long_as_it_is_told() -> None:
    run = Run()
    assert await run.deliver(Tape([Retryable("429", after=90 * MICROS), None])) is Outcome.DELIVERED
    assert run.waits == [90 * MICROS]


async def test_a_rejected_alert_is_not_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    run, tape = Run(), Tape([Rejected("h answered 400")])
    assert await run.deliver(tape) is Outcome.REJECTED
    assert (tape.sent, run.waits) == (1, [])
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "rejected" in record.getMessage()
    assert "h answered 400" in record.getMessage()


async def test_it_is_given_up_after_the_deadline_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    run = Run()
    start = run.clock()
    assert await run.deliver(Tape([Retryable("503")])) is Outcome.UNDELIVERED
    assert run.clock() - start < DEADLINE <= run.clock() - start + CAP
    assert ["not delivered yet" in caplog.messages[0], "given up" in caplog.messages[1], len(caplog.messages)] == [True, True, 2]


async def test_an_old_alert_is_tried_once() -> None:
    run, tape = Run(), Tape([Retryable("503")])
    assert await run.deliver(tape, age=2 * DEADLINE) is Outcome.UNDELIVERED
    assert tape.sent == 1


async def test_a_stop_leaves_it_open() -> None:
    run, tape = Run(stop_after=2), Tape([Retryable("503")])
    assert await run.deliver(tape) is None
    assert tape.sent == 2


async def test_a_channel_that_breaks_is_told_of_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    assert await Run().deliver(Tape([KeyError("bug")])) is Outcome.REJECTED
    assert "KeyError" in (caplog.text)
