"""The engine's fold: raw records to transitions, dead letters and forwards."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from schemas.alert import Transition
from schemas.dead_letter import DeadReason
from schemas.rule import Ruleset
from schemas.time import MICROS
from streams.decode import DeadLetter, Decoded, Source, decode
from streams.fetched import Fetched
from streams.kernel.columns import Chunk, SwitchStep
from streams.kernel.partition import MAX_GROUPS, Changes, PartitionState
from streams.kernel.redriven import KEEP, MAX_REDRIVEN
from streams.operations.metrics import Metrics
from streams.records import Incoming, Outgoing
from streams.runtime.checkpoint import AbandonedError
from streams.runtime.rulesets import MissingRulesetError, Rulesets
from streams.topics import TRANSITIONS

log = logging.getLogger("tocsin.engine")

_DAY: Final = 86_400 * MICROS
_WHY_REFUSED: Final = {
    DeadReason.EXPIRED: f"redriven more than {KEEP // _DAY} days after the record was first appended",
    DeadReason.OVERFLOW: f"{MAX_REDRIVEN:,} redriven records are remembered on this partition, and more would be forgotten",
}
TELL_EVERY: Final = 60.0
"""Seconds between two lines of a partition that tell of dead letters."""
HINT_AFTER: Final = 100
"""Forwarded events of one partition after which the log says how producers avoid them."""


class EngineFold:
    """A Fold over one partition of the event topic."""

    def __init__(
        self, source: Source, state: PartitionState, rulesets: Rulesets, metrics: Metrics, abandoned: asyncio.Event
    ) -> None:
        self._source, self._state, self._rulesets, self._metrics, self._abandoned = source, state, rulesets, metrics, abandoned
        self._who = f"engine: partition {source.partition}"
        self._forwarded = 0
        self._untold = 0
        self._first_untold: DeadLetter | None = None
        self._tell_at = 0.0

    @classmethod
    async def restore(
        cls,
        source: Source,
        items: Iterable[tuple[bytes, bytes]],
        rulesets: Rulesets,
        metrics: Metrics,
        abandoned: asyncio.Event,
        max_groups: int = MAX_GROUPS,
    ) -> EngineFold:
        """The fold over the state that the table `items` hold.

        Raises MissingRulesetError where the ruleset it was written under is not at hand, AbandonedError where it is no longer
        wanted.
        """
        held = list(items)
        ruleset = PartitionState.ruleset_of(held)
        readable: dict[str, Ruleset] = {}
        if ruleset is not None:
            found = await rulesets.wait_for(ruleset, f"engine: partition {source.partition}", abandoned)
            if found is None and abandoned.is_set():
                raise AbandonedError(f"partition {source.partition} goes to another worker")
            if found is None:
                raise MissingRulesetError(
                    f"the state of partition {source.partition} was written under ruleset {ruleset}, which this version cannot "
                    "read; run the version that deployed it"
                )
            readable = {ruleset: found}
        state = PartitionState.restore(source.topic, source.partition, held, readable, max_groups)
        if state.failing:
            names = ", ".join(state.failing)
            log.error("engine: partition %d: rules that failed before and are not judged: %s", source.partition, names)
        metrics.failing.labels(str(source.partition)).set(len(state.failing))
        return cls(source, state, rulesets, metrics, abandoned)

    @property
    def applied(self) -> int:
        """The last offset that was folded."""
        return self._state.applied

    @property
    def dirty_bytes(self) -> int:
        """About how many bytes `take_dirty` would return."""
        return self._state.dirty_bytes

    @property
    def group_count(self) -> int:
        """Groups that the rules hold."""
        return self._state.group_count

    @property
    def ruleset_id(self) -> str | None:
        """The active ruleset."""
        return self._state.ruleset_id

    async def process(self, records: Sequence[Incoming]) -> Sequence[Outgoing]:
        """Fold `records`, after the documents of every ruleset that they switch to have come.

        Raises MissingRulesetError where they do not come, AbandonedError where the partition goes away meanwhile; nothing
        is folded then.
        """
        fetched = Fetched.of(records).after(self.applied)
        if not fetched:
            return ()
        decoded = decode(fetched, self._source)
        readable = await self._readable(decoded.chunk)
        before = self._state.ruleset_id
        changes = self._state.apply(decoded.chunk, readable)
        if self._state.ruleset_id != before and self._state.ruleset_id is not None:
            rules = len(readable[self._state.ruleset_id].rules)
            log.info("%s: ruleset %s is active, %d rules", self._who, self._state.ruleset_id, rules)
        refused = _refused(fetched, changes)
        uncounted = changes.repeated | changes.refused.keys()
        forwards = [forward for forward in decoded.forwards if forward.origin.offset not in uncounted]
        letters = (*decoded.dead_letters, *refused)
        self._count(decoded, changes, len(forwards))
        if letters:
            self._untold += len(letters)
            self._first_untold = self._first_untold or letters[0]
            self._tell_dead_letters()
        return [
            *(_record(transition) for transition in changes.transitions),
            *(letter.outgoing(self._source) for letter in letters),
            *(forward.outgoing(self._source) for forward in forwards),
        ]

    async def wake(self, now: int) -> Sequence[Outgoing]:
        """Nothing becomes due without a record, but the line on dead letters."""
        self._tell_dead_letters()
        return ()

    def take_dirty(self) -> list[tuple[bytes, bytes | None]]:
        """Keys that changed since the last call, with their values (None: deleted) and the marker."""
        return self._state.take_dirty()

    async def _readable(self, chunk: Chunk) -> dict[str, Ruleset]:
        readable: dict[str, Ruleset] = {}
        for step in chunk.steps:
            if isinstance(step, SwitchStep) and step.seq > self._state.ruleset_seq and step.ruleset not in readable:
                self._metrics.waiting.labels(str(self._source.partition)).set(1)
                try:
                    found = await self._rulesets.wait_for(step.ruleset, self._who, self._abandoned)
                finally:
                    self._metrics.waiting.labels(str(self._source.partition)).set(0)
                if found is not None:
                    readable[step.ruleset] = found
                elif self._abandoned.is_set():
                    raise AbandonedError(f"partition {self._source.partition} goes to another worker")
        return readable

    def _count(self, decoded: Decoded, changes: Changes, forwarded: int) -> None:
        metrics, counts = self._metrics, decoded.counts
        metrics.bytes.inc(counts.bytes)
        metrics.events.inc(counts.events)
        metrics.counted.inc(changes.counted)
        metrics.duplicates.inc(changes.duplicates)
        metrics.judged.inc(changes.judged)
        for reason, number in Counter((*(letter.reason for letter in decoded.dead_letters), *changes.refused.values())).items():
            metrics.dead_letters.labels(str(reason)).inc(number)
        for rule, number in changes.late.items():
            metrics.late.labels(rule).inc(number)
        for rule, number in changes.overflow.items():
            metrics.overflow.labels(rule).inc(number)
        for failed in changes.failed:
            metrics.rule_failures.labels(failed.rule).inc()
            log.error(
                "%s: rule %s fails at offset %d and is not judged any more; the other rules go on. Deploy a changed revision of "
                "it, or `tocsin deploy --again`",
                self._who, failed.rule, failed.offset, exc_info=failed.error,
            )  # fmt: skip
        metrics.failing.labels(str(self._source.partition)).set(len(self._state.failing))
        for transition in changes.transitions:
            metrics.transitions.labels(str(transition.reason)).inc()
        if self._state.stream_time:
            metrics.stream_lag.labels(str(self._source.partition)).set(time.time() - self._state.stream_time / MICROS)
        if forwarded:
            self._note_forwards(forwarded)

    def _tell_dead_letters(self) -> None:
        """How many there were since the last time, and where the first of them stands: a line now and then, whatever comes."""
        letter, now = self._first_untold, time.monotonic()
        if letter is None or now < self._tell_at:
            return
        log.warning(
            "%s: %d records could not be processed and went to the dead letters, first the one at offset %d (%s: %s)",
            self._who, self._untold, letter.record.offset, letter.reason, letter.message[:200],
        )  # fmt: skip
        self._untold, self._first_untold, self._tell_at = 0, None, now + TELL_EVERY

    def _note_forwards(self, number: int) -> None:
        self._metrics.forwarded.inc(number)
        before, self._forwarded = self._forwarded, self._forwarded + number
        if before < HINT_AFTER <= self._forwarded:
            log.warning(
                "%s: %d events belonged to other partitions and were sent there; producers that set the key 'tenant|service' "
                "and Java's partitioner (librdkafka: partitioner=murmur2_random) save that step",
                self._who, self._forwarded,
            )  # fmt: skip


def _refused(records: Sequence[Incoming], changes: Changes) -> list[DeadLetter]:
    """The redriven records that were refused, which are dead letters again."""
    if not changes.refused:
        return []
    return [
        DeadLetter(record, "control", changes.refused[record.offset], _WHY_REFUSED[changes.refused[record.offset]])
        for record in records
        if record.offset in changes.refused
    ]


def _record(transition: Transition) -> Outgoing:
    return Outgoing(TRANSITIONS.name, transition.tenant.encode(), transition.model_dump_json().encode())
