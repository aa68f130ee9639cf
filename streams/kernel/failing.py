"""A rule that cannot be folded: where it failed, how the table holds that, and the alert that tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from schemas.alert import RULE_FAILING, Reason, Transition, fingerprint
from schemas.rule import Rule
from streams.kernel.transition import Decider

FAILING: Final = b"f"
SOURCE: Final = "tocsin"
"""Service and tenant of the alert: it is about the engine, not about anybody's telemetry."""
_REMEDY: Final = "deploy a changed revision of it, or the same once more with `tocsin deploy --again`"


@dataclass(frozen=True, slots=True)
class Failure:
    """The record at which a rule failed, stream time then, and the type of what was raised."""

    offset: int
    at: int
    error: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A rule that failed now, for the log: `error` is what was raised."""

    rule: str
    offset: int
    error: Exception


def failing_key(state_id: bytes) -> bytes:
    """Table key of a failure."""
    return FAILING + state_id


def encode_failure(failure: Failure) -> bytes:
    """The table value of a failure."""
    return msgspec.msgpack.encode([failure.offset, failure.at, failure.error])


def decode_failure(value: bytes) -> Failure:
    """The failure that `encode_failure` wrote."""
    return Failure(*msgspec.msgpack.decode(value))


def failing_transition(
    rule: Rule, revision: str, failure: Failure, decider: Decider, reason: Reason, source: tuple[str, int]
) -> Transition:
    """The transition that says that `rule` fails (reason `rule_failing`), or no longer does. `source` is (topic, partition)."""
    topic, partition = source
    labels = {"tenant": SOURCE, "service": SOURCE, "rule": rule.name}
    dedup_key = fingerprint(RULE_FAILING, sorted(map(list, labels.items())), topic, partition, failure.offset, 0, failure.at)
    fires = reason is Reason.RULE_FAILING
    kind, ordinal = ("fired", 0) if fires else ("resolved", 1)
    text = (
        f"Rule '{rule.name}' fails on partition {partition} with {failure.error} at offset {failure.offset}, and is not judged "
        f"there any more; {_REMEDY}"
    )
    message = text if fires else f"Resolved: {text}"
    return Transition(
        id=fingerprint(dedup_key, revision, kind, ordinal),
        dedup_key=dedup_key,
        rule=RULE_FAILING,
        revision=revision,
        status="firing" if fires else "resolved",
        severity="critical",
        source=SOURCE,
        tenant=SOURCE,
        labels=labels,
        annotations={"summary": message},
        message=message,
        details={
            "cooldown": Rule.model_fields["cooldown"].default,
            "kind": kind,
            "ordinal": ordinal,
            "partition": partition,
            "offset": decider.offset,
            "index": decider.index,
            "append_time": decider.append_time,
        },
        value=None,
        threshold=None,
        window=None,
        started_at=failure.at,
        timestamp=decider.at,
        decided_at=decider.at,
        resolved_at=None if fires else decider.at,
        reason=reason,
        channels=rule.channels,
    )
