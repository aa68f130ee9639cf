"""What can be done to the state from outside: compared with the log, rebuilt from it, copied and brought back."""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from schemas.rule import Ruleset
from streams.kernel.group import split_cell_key, split_group_key
from streams.kernel.judge import Plan
from streams.kernel.partition import PartitionState
from streams.runtime.changelog_table import MARKER, ChangelogTable, applied_of, read_table
from streams.runtime.producer import Changelog
from streams.runtime.recomputation import Recomputation
from streams.runtime.staging import append_whole
from streams.settings import Settings
from streams.state_copy import CopyReader, CopyWriter, Covered, Header, Pair, Part, StateCopyError, fingerprint_of
from streams.topic_reader import TopicReader
from streams.topics import ENGINE, EVENTS, NOTIFIER, RULES, TRANSITIONS, changelog_name, group_name

_MARKER_FIELDS: Final = ("version", "offset", "stream time", "ruleset", "deploy", "origins")
_DOCUMENTS: Final = (b"rule/", b"ruleset/")


class RepairError(RuntimeError):
    """It cannot be done; says why, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The table of a partition at offset `applied`, key by key. `differences` are sentences."""

    partition: int
    applied: int
    keys: int
    differences: tuple[str, ...]


def topics_of(settings: Settings) -> dict[str, str]:
    """The topic that each role reads."""
    return {ENGINE: settings.topic_prefix + EVENTS.name, NOTIFIER: settings.topic_prefix + TRANSITIONS.name}


async def partitions_of(settings: Settings) -> int:
    """How many partitions the event topic has. Raises MissingTopicError."""
    topic = topics_of(settings)[ENGINE]
    async with TopicReader(settings.kafka_client(), topic, [0]) as reader:
        return len(reader.partitions_of(topic))


async def table_in(settings: Settings, copy: CopyReader, partition: int) -> dict[bytes, bytes] | None:
    """The engine's table of a partition in a copy. Raises RepairError where it is of another log, StateCopyError."""
    topic = topics_of(settings)[ENGINE]
    if copy.header.topics[ENGINE] != topic or copy.header.partitions <= partition:
        raise RepairError(f"the copy is of another event topic than {topic}")
    part = copy.part(ENGINE, partition)
    if part is None:
        return None
    if part.covered.applied >= 0:
        await _check_log(settings, topic, part)
    return dict(part.items)


# --- verify --------------------------------------------------------------------------------------------------------


async def compared(
    settings: Settings, recomputation: Recomputation, partition: int, base: Mapping[bytes, bytes] | None
) -> Comparison:
    """The changelog of `partition` against what the log says. Raises UnreachableError, MissingRulesetError, KafkaError."""
    found = (await read_table(settings, ENGINE, partition)).items
    applied = applied_of(found)
    if applied is None:
        return Comparison(partition, -1, 0, ("the state has no marker that can be read",) if found else ())
    expected = await recomputation.table(partition, applied, base)
    ruleset = PartitionState.ruleset_of(expected.items())
    names = _names(None if ruleset is None else recomputation.rulesets.ruleset(ruleset))
    differences = [
        _difference(key, expected.get(key), found.get(key), names)
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
    return Comparison(partition, applied, len(expected), tuple(differences))


def _names(ruleset: Ruleset | None) -> dict[bytes, str]:
    return {Plan(rule).state_id: rule.name for rule in ruleset.rules} if ruleset else {}


def _difference(key: bytes, expected: bytes | None, found: bytes | None, names: Mapping[bytes, str]) -> str:
    if key == MARKER and expected and found:
        pairs = zip(_MARKER_FIELDS, msgspec.msgpack.decode(expected), msgspec.msgpack.decode(found), strict=False)
        return "marker: " + "; ".join(
            f"{name} {is_found}, by the log {wanted}" for name, wanted, is_found in pairs if wanted != is_found
        )
    return f"{_name_of(key, names)}: state has {_shown(found)}, by the log {_shown(expected)}"


def _name_of(key: bytes, names: Mapping[bytes, str]) -> str:
    try:
        match key[:1]:
            case b"g":
                state_id, group = split_group_key(key)
                return f"rule {names.get(state_id, state_id.hex())}, group {'|'.join(group)}"
            case b"c":
                state_id, group, number = split_cell_key(key)
                return f"rule {names.get(state_id, state_id.hex())}, group {'|'.join(group)}, slice {number}"
            case b"r":
                return f"redriven origin {int.from_bytes(key[1:], 'big')}"
    except (msgspec.MsgspecError, ValueError, IndexError):
        pass
    return f"key {key!r}"


def _shown(value: bytes | None) -> str:
    if value is None:
        return "nothing"
    try:
        return str(msgspec.msgpack.decode(value))
    except (msgspec.DecodeError, ValueError):
        return repr(value)


# --- rebuild -------------------------------------------------------------------------------------------------------


async def rebuilt(settings: Settings, recomputation: Recomputation, partition: int, base: Mapping[bytes, bytes] | None) -> int:
    """Put what the log says in the place of the state of `partition`; the offset up to which it goes.

    The running owner is shut out, as by a worker that takes the partition over. What it has covered is covered, and
    nothing beyond: its transitions were sent.
    Raises RepairError, FencedError, UnreachableError, MissingRulesetError, KafkaError.
    """
    if settings.fencing != "on":
        raise RepairError("with TOCSIN_FENCING=off nothing shuts out a running worker, so the state cannot be replaced safely")
    first = await _covered(settings, partition, await read_table(settings, ENGINE, partition))
    table = await recomputation.table(partition, first, base)
    journal = Changelog(settings, ENGINE)
    try:
        await journal.claim([partition])
        held = await read_table(settings, ENGINE, partition)  # what the owner saved before it was shut out
        last = await _covered(settings, partition, held)
        if last > first:
            table = await recomputation.table(partition, last, table)
        gone = [(key, None) for key in held.items.keys() - table.keys()]
        await append_whole(journal, partition, [*held.unfinished, *gone, *table.items()])
    finally:
        await journal.close()
    return last


async def _covered(settings: Settings, partition: int, table: ChangelogTable) -> int:
    """The last offset whose transitions are known to have been sent."""
    applied = applied_of(table.items)
    if applied is None:
        admin = AIOKafkaAdminClient(**settings.kafka_client())
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(group_name(settings.group, ENGINE))
        except GroupCoordinatorNotAvailableError as error:
            raise RepairError(
                f"partition {partition} has no state, and the brokers keep no offsets of groups: either no worker has ever run "
                "there, and there is nothing to rebuild, or they are starting; try again then"
            ) from error
        finally:
            await admin.close()
        topic = topics_of(settings)[ENGINE]
        applied = next(
            (held.offset - 1 for place, held in offsets.items() if (place.topic, place.partition) == (topic, partition)), -1
        )
    if applied < 0:
        raise RepairError(
            f"partition {partition} has neither state nor a committed offset: a worker begins at the beginning of the log"
        )
    return applied


# --- export --------------------------------------------------------------------------------------------------------


async def exported(settings: Settings, writer: CopyWriter) -> dict[str, int]:
    """Write all state into a copy; how many items of each role. Works beside running workers."""
    partitions, topics = await partitions_of(settings), topics_of(settings)
    now = time.time_ns() // 1_000_000
    writer.header(Header(_version(), settings.group, topics, partitions, now))
    writer.rules(sorted((await _documents(settings)).items()))
    counts = dict.fromkeys(topics, 0)
    for role, topic in topics.items():
        for partition in range(partitions):
            items = (await read_table(settings, role, partition)).items
            applied = applied_of(items)
            if items and applied is None:
                raise RepairError(
                    f"the {role}'s state of partition {partition} has no marker that can be read; see `tocsin state verify`"
                )
            covered = Covered(-1 if applied is None else applied, "")
            if applied is not None and applied >= 0:
                covered = Covered(applied, await _fingerprint(settings, topic, partition, applied))
            writer.part(Part(role, partition, sorted(items.items()), covered))
            counts[role] += len(items)
    return counts


async def _documents(settings: Settings) -> dict[bytes, bytes]:
    held: dict[bytes, bytes] = {}
    async with TopicReader(settings.kafka_client(), settings.topic_prefix + RULES.name) as reader:
        async for record in reader.to_end():
            if record.key and record.key.startswith(_DOCUMENTS):
                held.pop(record.key, None)
                if record.value is not None:
                    held[record.key] = record.value
    return held


async def _fingerprint(settings: Settings, topic: str, partition: int, offset: int) -> str:
    """That of a record; empty where the log no longer has it. Raises RepairError where the log ends before it."""
    async with TopicReader(settings.kafka_client(), topic, [partition]) as reader:
        begin, end = (await reader.bounds())[partition]
        if offset >= end:
            raise RepairError(
                f"{topic}[{partition}] ends at offset {end}, and the state covers {offset}: it is another topic of that name"
            )
        if offset < begin:
            return ""
        reader.seek(partition, offset)
        async for record in reader.to_end({partition: offset + 1}):
            return fingerprint_of(record)
    return ""


def _version() -> str:
    try:
        return importlib.metadata.version("tocsin")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# --- import --------------------------------------------------------------------------------------------------------


async def imported(settings: Settings, copy: CopyReader) -> dict[str, int]:
    """Bring a copy back into an empty group; how many items of each role. Nothing is written before all was checked.

    Raises RepairError, StateCopyError, KafkaError. One that was stopped half-way is completed by calling it again.
    """
    await _check_target(settings, copy.header)
    places: set[tuple[str, int]] = set()
    for part in copy.parts():
        places.add((part.role, part.partition))
        await _check_part(settings, copy.header.topics[part.role], part)
    wanted = set(itertools.product(copy.header.topics, range(copy.header.partitions)))
    if places != wanted:
        raise StateCopyError(f"the copy lacks partitions: {sorted(wanted - places)}")
    await _add_documents(settings, dict(copy.rules()))
    counts = dict.fromkeys(copy.header.topics, 0)
    for role, parts in itertools.groupby(copy.parts(), lambda part: part.role):
        journal = Changelog(settings, role)
        try:
            for part in parts:
                counts[role] += len(part.items)
                await journal.claim([part.partition])
                # Only now can nobody else write; a worker may have, since the table was looked at.
                held = (await read_table(settings, role, part.partition)).items
                _check_empty(settings, part, held)
                if held != dict(part.items):
                    await append_whole(journal, part.partition, list(part.items))
        finally:
            await journal.close()
    return counts


async def _check_target(settings: Settings, header: Header) -> None:
    topics, partitions = topics_of(settings), await partitions_of(settings)
    if header.topics != topics:
        theirs, ours = ", ".join(header.topics.values()), ", ".join(topics.values())
        raise RepairError(f"the copy is of {theirs}, and these settings name {ours}: alerts are known by the name of the topic")
    if header.partitions != partitions:
        raise RepairError(f"the copy has {header.partitions} partitions, and {topics[ENGINE]} has {partitions}")


async def _check_part(settings: Settings, topic: str, part: Part) -> None:
    _check_empty(settings, part, (await read_table(settings, part.role, part.partition)).items)
    if part.covered.applied < 0:
        return
    async with TopicReader(settings.kafka_client(), topic, [part.partition]) as reader:
        begin, _ = (await reader.bounds())[part.partition]
    if begin > part.covered.applied + 1:
        raise RepairError(
            f"{topic}[{part.partition}] begins at offset {begin}, and the copy ends at {part.covered.applied}: the records "
            "between are gone, so what follows cannot be counted right"
        )
    await _check_log(settings, topic, part)


def _check_empty(settings: Settings, part: Part, held: Mapping[bytes, bytes]) -> None:
    """Raise RepairError where a partition holds anything but the copy, which an import that was stopped half-way left there."""
    if held and held != dict(part.items):
        raise RepairError(
            f"{changelog_name(settings.group, part.role)}[{part.partition}] holds state already; a copy is brought back into an "
            "empty group, of which no worker runs: set a new TOCSIN_GROUP and run `tocsin topics`"
        )


async def _check_log(settings: Settings, topic: str, part: Part) -> None:
    """Raise RepairError where the log is not the one that the copy was made from."""
    fingerprint = await _fingerprint(settings, topic, part.partition, part.covered.applied)
    if fingerprint and part.covered.fingerprint and fingerprint != part.covered.fingerprint:
        raise RepairError(
            f"{topic}[{part.partition}] holds another record at offset {part.covered.applied} than the copy was made from: "
            "it is another topic of that name"
        )


async def _add_documents(settings: Settings, documents: Mapping[bytes, bytes]) -> None:
    """Put the documents on the topic of rules that it lacks."""
    held = await _documents(settings)
    missing: list[Pair] = [(key, value) for key, value in documents.items() if key not in held]
    if not missing:
        return
    options: dict[str, Any] = {"acks": "all", "max_request_size": int(RULES.config["max.message.bytes"])}
    async with AIOKafkaProducer(**settings.kafka_client(), **options) as producer:
        topic = settings.topic_prefix + RULES.name
        await asyncio.gather(*[producer.send_and_wait(topic, value, key=key) for key, value in missing])
