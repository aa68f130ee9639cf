"""Dead letters as they are read back, and what it takes to send one once more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from schemas.control import HEADER, Redrive, is_signed, parse_control, sign
from schemas.dead_letter import DeadReason, Headers
from streams.decode import Source, decode
from streams.kernel.redriven import KEEP
from streams.records import Incoming, Outgoing
from streams.settings import Settings
from streams.topic_reader import Read, TopicReader
from streams.topics import DEAD_LETTERS, EVENTS, MAX_RECORD

_OURS: Final = (
    "dlq.source.topic", "dlq.source.partition", "dlq.source.offset", "dlq.source.timestamp",
    "dlq.stage", "dlq.reason", "dlq.message",
)  # fmt: skip
_TRUNCATED: Final = "dlq.truncated"
_APPENDED: Final = 1
"""The type of a timestamp that the broker set."""


class NoDeadLetterError(ValueError):
    """There is none at this place, or what is there is none."""


class Place(NamedTuple):
    """A record of a topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: the record as it was, where it stood, and why it could not be processed. Times are in milliseconds."""

    place: Place
    at: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    topic: str
    source: Place
    appended: int
    stage: str
    reason: str
    message: str
    truncated: str = ""


def read_letter(record: Read) -> Letter:
    """What a record of the dead letters says. Raises NoDeadLetterError."""
    place = Place(record.partition, record.offset)
    headers = tuple((name, value or b"") for name, value in record.headers)
    said = headers[-len(_OURS) :]
    if tuple(name for name, _ in said) != _OURS:
        raise NoDeadLetterError(f"{place} does not end with the headers of a dead letter")
    # A publisher may send headers of these names as well; ours are the last.
    topic, partition, offset, appended, stage, reason, message = (value.decode("utf-8", "replace") for _, value in said)
    own, truncated = headers[: -len(_OURS)], ""
    if own and own[-1][0] == _TRUNCATED:
        own, truncated = own[:-1], own[-1][1].decode("utf-8", "replace")
    try:
        source, at = Place(int(partition), int(offset)), int(appended)
    except ValueError:
        raise NoDeadLetterError(f"{place} does not say where the record stood") from None
    return Letter(
        place, record.timestamp, record.key, record.value, own, topic, source, at, stage, reason, message, truncated
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant. `since` is in milliseconds; None stands for any."""

    reasons: frozenset[str] = frozenset()
    partition: int | None = None
    since: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether `letter` is meant."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (self.partition is None or letter.source.partition == self.partition)
            and (self.since is None or letter.at >= self.since)
        )


async def letters(reader: TopicReader) -> AsyncIterator[Letter]:
    """Every dead letter up to now, in order per partition; records that are none are left out."""
    async for record in reader.to_end():
        try:
            yield read_letter(record)
        except NoDeadLetterError:
            continue


async def letter_at(settings: Settings, place: Place) -> Letter:
    """The dead letter at `place`. Raises NoDeadLetterError where there is none."""
    topic = settings.topic_prefix + DEAD_LETTERS.name
    async with TopicReader(settings.kafka_client(), topic, [place.partition]) as reader:
        bounds = await reader.bounds()
        if place.partition not in bounds:
            count = len(reader.partitions_of(topic))
            raise NoDeadLetterError(f"there is no dead letter {place}: {topic} has {count} partitions, from 0")
        begin, end = bounds[place.partition]
        if not begin <= place.offset < end:
            held = f"partition {place.partition} holds offsets {begin} to {end - 1}" if end > begin else "its partition is empty"
            raise NoDeadLetterError(f"there is no dead letter {place}: {held}")
        reader.seek(place.partition, place.offset)
        async for record in reader.to_end({place.partition: place.offset + 1}):
            return read_letter(record)
    raise NoDeadLetterError(f"there is no dead letter {place}")


class _Again(NamedTuple):
    """The record that a redrive would append, as the decoder would see it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Extent(NamedTuple):
    """What a partition of the event topic holds: from `begin`, appended at `since` (ms; None: unknown), to before `end`."""

    begin: int
    end: int
    since: int | None = None


async def extents_of(settings: Settings, topic: str) -> dict[int, Extent]:
    """What each partition of `topic` holds now."""
    async with TopicReader(settings.kafka_client(), topic) as reader:
        found = {number: Extent(begin, end) for number, (begin, end) in (await reader.bounds()).items()}
        async for record in reader.to_end({number: each.begin + 1 for number, each in found.items()}):
            if record.timestamp_type == _APPENDED:
                found[record.partition] = found[record.partition]._replace(since=record.timestamp)
    return found


@dataclass(frozen=True, slots=True)
class Redriver:
    """Makes the records that send dead letters once more. `held` is what the event topic's partitions hold."""

    topic: str
    held: dict[int, Extent]
    control_key: bytes | None

    def outgoing(self, letter: Letter, value: bytes | None = None) -> Outgoing | str:
        """The record for `letter`, with `value` in place of its own; or why it would be refused."""
        source = Source(self.topic, letter.source.partition, len(self.held), self.control_key)
        why = self._why_not(letter, value, source)
        if why:
            return why
        body = letter.value if value is None else value
        control = self._origin(letter, source)
        if isinstance(control, str):
            return control
        if control.timestamp * 1000 <= time.time_ns() // 1000 - KEEP:
            return f"{DeadReason.EXPIRED}: the record was first appended more than 14 days ago"
        if self.control_key:
            control = sign(control, self.control_key, topic=self.topic, partition=source.partition, value=body or b"")
        headers = (
            *((name, held) for name, held in letter.headers if name != HEADER),
            (HEADER, control.model_dump_json().encode()),
        )
        why = self._refused(
            _Again(self.held[source.partition].end, time.time_ns() // 1_000_000, letter.key, body, headers), source
        )
        return why or Outgoing(EVENTS.name, letter.key, body, headers, source.partition)

    def _why_not(self, letter: Letter, value: bytes | None, source: Source) -> str:
        if letter.topic != self.topic:
            return f"it comes from {letter.topic}; only records of {self.topic} are redriven"
        held = self.held.get(source.partition)
        if held is None or letter.source.offset >= held.end:
            return f"there is no record {letter.source} on {self.topic} (yet): is it another topic of the same name?"
        if held.since is not None and letter.source.offset >= held.begin and letter.appended < held.since:
            return (
                f"record {letter.source} of {self.topic} is another, appended later: the topic was deleted and created again. "
                "If its event is to count, write it to a file with `tocsin dlq show --raw` and publish it"
            )
        if letter.truncated and value is None:
            return f"it was cut ({letter.truncated} bytes), so the record is not whole; give it by --value FILE"
        return ""

    def _origin(self, letter: Letter, source: Source) -> Redrive | str:
        """Where the record stood first: one that was redriven and refused keeps its origin."""
        controls = [value for name, value in letter.headers if name == HEADER]
        if not controls:
            return Redrive(offset=letter.source.offset, timestamp=letter.appended)
        try:
            control = parse_control(controls[0])
        except ValueError:
            control = None
        if isinstance(control, Redrive) and len(controls) == 1:
            key, value = self.control_key, letter.value or b""
            if not key or is_signed(control, key, topic=self.topic, partition=source.partition, value=value):
                return Redrive(offset=control.offset, timestamp=control.timestamp)
        return (
            f"it is a control record (header `{HEADER}`), or pretends to be one; if its event is to count, "
            "write it to a file with `tocsin dlq show --raw` and publish it"
        )

    @staticmethod
    def _refused(record: Incoming, source: Source) -> str:
        decoded = decode([record], source)
        if decoded.dead_letters:
            return f"{decoded.dead_letters[0].reason}: {decoded.dead_letters[0].message}"
        size = sum(len(name) + len(value) for name, value in record.headers) + len(record.key or b"") + len(record.value or b"")
        if size > int(EVENTS.config["max.message.bytes"]) - 1_024:
            return f"{DeadReason.OVERSIZED}: with key and headers it has {size} bytes, and about {MAX_RECORD} are allowed"
        return "" if decoded.counts.events else "it holds no event"
