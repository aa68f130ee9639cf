"""A notifier that breaks at a chosen step of a decision: `python -m tests.faults.breaking_notifier run --only notifier`.

The variables are those of tests.faults.breaking_worker.
"""

from __future__ import annotations

from typing import Any, Final

from streams.notifier import cooldown
from streams.notifier.state import DECISION, RELEASE
from streams.records import Outgoing
from streams.runtime import producer, transport
from streams.topics import ALERTS, TRANSITIONS
from tests.faults.breaking_worker import Breaking, run, watch_table

NOTIFIER_STEPS: Final = (
    "before claim",
    "after claim",
    "before intents",
    "after intents",
    "before alert",
    "after alert",
    "before record",
    "after record",
    "after acks",
    "after changelog",
    "after table",
    "before commit",
    "after commit",
)
"""In the order of a decision. A "record" tells what was held back; "after acks" is before the changelog."""


def install(breaking: Breaking) -> None:
    """Watch every step of a decision."""
    breaking.around(cooldown.FailOpenCooldowns, "claim", "before claim", "after claim")
    breaking.around(transport.Consumer, "_commit", "before commit", "after commit")
    watch_table(breaking)
    append: Any = producer.Changelog.append
    send: Any = producer.Outbox.send

    async def appended(self: producer.Changelog, partition: int, items: producer.Items) -> int:
        key, value = items[0]
        intends = key[:1] in (DECISION, RELEASE) and value is not None
        steps = ("before intents", "after intents") if intends else ("after acks", "after changelog")
        if key == producer.BARRIER:
            steps = ("", "")
        breaking.passing(steps[0])
        offset: int = await append(self, partition, items)
        breaking.passing(steps[1])
        return offset

    async def sent(self: producer.Outbox, outgoing: Outgoing) -> Any:
        name = {ALERTS.name: "alert", TRANSITIONS.name: "record"}.get(outgoing.topic, "")
        breaking.passing(f"before {name}")
        acked = await send(self, outgoing)
        if name == breaking.at.removeprefix("after "):
            await acked  # the broker has it
        breaking.passing(f"after {name}")
        return acked

    setattr(producer.Changelog, "append", appended)  # noqa: B010 - mypy takes no assignment to a method
    setattr(producer.Outbox, "send", sent)  # noqa: B010


if __name__ == "__main__":
    run(install)
