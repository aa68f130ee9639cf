"""Records to columns, dead letters and forwards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import HEADER, Forward, Redrive, RulesetRecord, parse_control, sign
from schemas.dead_letter import MAX_HEADER_COUNT, DeadReason
from schemas.expression import FieldReference
from streams.decode import MAX_FUTURE, Decoded, Source, decode
from streams.kernel.columns import Columns, Origin, Redriven, SwitchStep, TickStep
from streams.partitioner import partition_of
from streams.runtime.batches import read_batches
from streams.topics import MAX_RECORD
from streams.wire import parse_values

NOW_MS = 1_795_303_740_000
NOW = NOW_MS * 1000
KEY = b"a control key"
ONE = Source("mcp.events", 0, 1)
Signed = TypeVar("Signed", RulesetRecord, Forward, Redrive)
TICK = ((HEADER, b'{"control":"tick"}'),)


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: int = NOW_MS
    key: bytes | None = None


def event(**fields: Any) -> bytes:
    return json.dumps({"ts": NOW, "kind": "operation", "service": "files"} | fields, separators=(",", ":")).encode()


def array(*events: bytes) -> bytes:
    return b"[" + b",".join(events) + b"]"


def columns_of(decoded: Decoded) -> Columns:
    (columns,) = decoded.chunk.steps
    assert isinstance(columns, Columns)
    return columns


def reasons(decoded: Decoded) -> list[tuple[int, str]]:
    return [(letter.record.offset, letter.reason.value) for letter in decoded.dead_letters]


def service_on(partition: int, partitions: int = 8) -> str:
    return next(
        name for name in (f"s{number}" for number in range(1000)) if partition_of("default", name, partitions) == partition
    )


# --- columns -----------------------------------------------------------------------------------------------------------


def test_events_become_columns_in_the_order_of_the_log() -> None:
    values = [
        event(tool="a", dur_us=7),
        array(event(ts="2026-11-21T23:28:00.5Z", weight=3), event(tenant="t", attributes={"x": True})),
        event(tool=None),
    ]
    decoded = decode([Record(5, values[0]), Record(7, values[1], timestamp=NOW_MS + 1), Record(9, values[2])], ONE)
    columns = columns_of(decoded)
    assert columns.offset.tolist() == [5, 7, 7, 9]
    assert columns.index.tolist() == [0, 0, 1, 0]
    assert columns.append_time.tolist() == [NOW, NOW + 1000, NOW + 1000, NOW]
    assert columns.ts.tolist() == [NOW, NOW - 59_500_000, NOW, NOW]
    assert columns.weight.tolist() == [1, 3, 1, 1]
    assert columns.local.tolist() == [True] * 4
    assert columns.origins == {}
    assert columns.values(FieldReference(field="ts")) == columns.ts.tolist()
    assert columns.values(FieldReference(field="tenant")) == ["default", "default", "t", "default"]
    assert columns.values(FieldReference(field="weight")) == [1, 3, 1, 1]
    assert columns.values(FieldReference(field="tool")) == ["a", None, None, None]
    assert columns.values(FieldReference(field="dur_us")) == [7, None, None, None]
    assert columns.values(FieldReference(field="x", attribute=True)) == [None, None, True, None]
    assert (decoded.chunk.last_offset, decoded.forwards, decoded.dead_letters) == (9, (), ())
    assert decoded.counts == (3, sum(map(len, values)), 4, 0)


def test_no_records_are_no_steps() -> None:
    assert decode([], ONE).chunk.steps == ()


def test_an_empty_array_is_nothing() -> None:
    decoded = decode([Record(3, b"[]"), Record(4, b" [ ] ")], ONE)
    assert (decoded.chunk.steps, decoded.chunk.last_offset, decoded.dead_letters) == ((), 4, ())


def test_an_array_is_taken_whole_or_not_at_all() -> None:
    decoded = decode([Record(0, event()), Record(1, array(event(), event(kind="no"), event())), Record(2, event())], ONE)
    assert columns_of(decoded).offset.tolist() == [0, 2]
    assert reasons(decoded) == [(1, "ill_typed")]
    assert decoded.dead_letters[0].message == "Invalid enum value 'no' - at `$[1].kind`"


def test_other_headers_are_ignored() -> None:
    decoded = decode([Record(0, event(), (("traceparent", b"\xff"), ("Tocsin", b"x"), ("dlq.reason", b"")))], ONE)
    assert len(columns_of(decoded)) == 1


def test_a_record_with_too_many_headers_is_a_dead_letter_that_can_be_sent() -> None:
    decoded = decode([Record(0, event(), (("", b""),) * 5_000), Record(1, event(), (("", b""),) * 1_000)], ONE)
    assert reasons(decoded) == [(0, "oversized")]
    assert columns_of(decoded).offset.tolist() == [1]
    assert decoded.dead_letters[0].message == "the record has more than 1,000 headers"
    assert len(decoded.dead_letters[0].outgoing(ONE).headers) < 10


def test_of_very_many_headers_few_are_read() -> None:
    """Whatever their number is, they are not worth the time."""
    batch = DefaultRecordBatchBuilder(
        2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 20
    )
    batch.append(0, NOW_MS, b"k", event(), [("", b"")] * 100_000)
    fetched, _ = read_batches(bytes(batch.build()), TopicPartition("mcp.events", 0), 0, check=True)
    assert len(fetched.headers(0)) == MAX_HEADER_COUNT + 1
    assert reasons(decode(fetched, ONE)) == [(0, "oversized")]


def test_records_that_take_the_slow_way_are_counted() -> None:
    decoded = decode([Record(0, event()), Record(1, event(unknown=1)), Record(2, event(tool='"'))], ONE)
    assert (len(columns_of(decoded)), decoded.counts.strict) == (3, 2)


def test_one_record_in_doubt_leaves_the_others_alone() -> None:
    values = [event(tool=f"t{number}") for number in range(500)]
    values[77] = values[77][:-1] + b',"tool":"again"}'
    values[300] = event(unknown={"a": [1, ":"]})
    parsed = parse_values(values)
    assert list(parsed.problems) == [77]
    assert parsed.strict == 2


def test_what_one_value_lacks_another_cannot_make_up() -> None:
    """A value that is cut where the next goes on is no array, however they are joined."""
    whole = array(event(), event())
    for values in ([whole[:40], whole[40:]], [event() + b"," + event(), event()[:-1], b"}"], [b"[" + event(), event() + b"]"]):
        decoded = decode([Record(offset, value) for offset, value in enumerate(values)], ONE)
        assert len(decoded.dead_letters) == len(values)


# --- dead letters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason", "stage", "message"),
    [
        (None, "empty", "decode", "the record has no value"),
        (b"", "empty", "decode", "the record has no value"),
        (b"x" * (MAX_RECORD + 1), "oversized", "decode", "the value has 1048577 bytes, and 1048576 are allowed"),
        (b"{", "undecodable", "decode", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b'{"a":"\xff"}', "undecodable", "decode", "'utf-8' codec can't decode byte 0xff in position 6: invalid start byte"),
        (b"[" * 100_000, "undecodable", "decode", "nested deeper than 8 levels"),
        (event()[:-1] + b',"tool":1,"tool":2}', "undecodable", "decode", "the name 'tool' occurs twice in an object"),
        (b'{"a":NaN}', "undecodable", "decode", "NaN is no JSON number"),
        (b'{"a":"\\udfff"}', "undecodable", "decode", "text holds half of a surrogate pair, which is no character"),
        (b'{"kind":"perf","ts":1700000000000000}', "ill_typed", "validate", "Object missing required field `service`"),
        (event(dur_us="5"), "ill_typed", "validate", "Expected `int | null`, got `str` - at `$.dur_us`"),
        (event(outcome="OK"), "ill_typed", "validate", "Invalid enum value 'OK' - at `$.outcome`"),
        (
            event(attributes={"a": []}), "ill_typed", "validate",
            "Expected `bool | int | float | str`, got `array` - at `$.attributes[...]`",
        ),
        (event(unknown=2**53 + 1), "ill_typed", "validate", "the integer 9007199254740993 lies beyond +-2**53"),
        (event(dur_us=2**53 + 1), "ill_typed", "validate", "Expected `int` <= 9007199254740992 - at `$.dur_us`"),
        (
            event(ts=NOW * 1000), "ill_typed", "validate",
            "Expected `int` <= 9007199254740992 - at `$.ts`; a time is integer microseconds since the epoch or RFC 3339 text",
        ),
        (
            event(ts="10:00"), "ill_typed", "validate",
            "a time is integer microseconds since the epoch or RFC 3339 text with a zone - at `$.ts`",
        ),
        (
            array(event(), event(ts="2026-02-30T00:00:00Z")), "ill_typed", "validate",
            "'2026-02-30T00:00:00Z' is no valid time: day is out of range for month - at `$[1].ts`",
        ),
        (
            event(ts=NOW + MAX_FUTURE + 1_500_000), "future", "validate",
            "ts lies 302 s after the time at which the record was appended; at most 300 s are allowed - at `$.ts`",
        ),
    ],
)  # fmt: skip
def test_why_a_record_is_a_dead_letter(value: bytes | None, reason: str, stage: str, message: str) -> None:
    decoded = decode([Record(0, event()), Record(1, value, (("a", b"b"),)), Record(2, event())], ONE)
    assert columns_of(decoded).offset.tolist() == [0, 2]
    assert reasons(decoded) == [(1, reason)]
    (letter,) = decoded.dead_letters
    assert (letter.stage, letter.message) == (stage, message)
    assert decoded.chunk.last_offset == 2


def test_a_value_of_the_largest_size_is_taken() -> None:
    value = event(unknown="")
    value = value.replace(b'""', b'"' + b"x" * (MAX_RECORD - len(value)) + b'"')
    assert len(value) == MAX_RECORD
    assert len(columns_of(decode([Record(0, value)], ONE))) == 1


def test_the_future_begins_after_five_minutes() -> None:
    decoded = decode([Record(0, event(ts=NOW + MAX_FUTURE)), Record(1, event(ts=NOW + MAX_FUTURE + 1))], ONE)
    assert (columns_of(decoded).offset.tolist(), reasons(decoded)) == ([0], [(1, "future")])


def test_one_event_of_the_future_takes_its_array_along() -> None:
    ahead = event(ts="2026-11-22T02:00:00Z")
    decoded = decode([Record(0, array(event(), event())), Record(1, array(event(), ahead, event())), Record(2, event())], ONE)
    assert list(zip(columns_of(decoded).offset.tolist(), columns_of(decoded).index.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (2, 0),
    ]
    assert reasons(decoded) == [(1, "future")]
    assert decoded.dead_letters[0].message.endswith("- at `$[1].ts`")


def test_a_dead_letter_is_sent_whole_with_where_and_why() -> None:
    source = Source("prefix.mcp.events", 3, 8)
    (letter,) = decode([Record(41, b"\xff", (("traceparent", b"00"),), key=b"k")], source).dead_letters
    sent = letter.outgoing(source)
    assert (sent.topic, sent.key, sent.value, sent.partition) == ("mcp.events.dlq", b"k", b"\xff", None)
    assert sent.headers == (
        ("traceparent", b"00"),
        ("dlq.source.topic", b"prefix.mcp.events"),
        ("dlq.source.partition", b"3"),
        ("dlq.source.offset", b"41"),
        ("dlq.source.timestamp", str(NOW_MS).encode()),
        ("dlq.stage", b"decode"),
        ("dlq.reason", b"undecodable"),
        ("dlq.message", b"'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    )


def test_dead_letters_come_in_the_order_of_the_log() -> None:
    records = [
        Record(0, b"{"),
        Record(1, None),
        Record(2, None, TICK),
        Record(3, b"{"),
        Record(4, event(), ((HEADER, b""),)),
        Record(5, b"{"),
    ]
    assert [offset for offset, _ in reasons(decode(records, ONE))] == [0, 1, 3, 4, 5]


# --- control records ---------------------------------------------------------------------------------------------------


def header(control: Signed, *, key: bytes | None = None, source: Source = ONE, value: bytes = b"") -> tuple[tuple[str, bytes]]:
    if key is not None:
        control = sign(control, key, topic=source.topic, partition=source.partition, value=value)
    return ((HEADER, control.model_dump_json().encode()),)


def test_control_records_divide_the_events() -> None:
    ruleset = header(RulesetRecord(id="abc", seq=4))
    records = [
        Record(0, event()),
        Record(1, event()),
        Record(2, None, TICK, timestamp=NOW_MS + 5),
        Record(3, b"", ruleset),
        Record(4, event()),
        Record(6, b"anything", TICK),
    ]
    decoded = decode(records, ONE)
    first, *between, last, tick = decoded.chunk.steps
    assert isinstance(first, Columns)
    assert isinstance(last, Columns)
    assert (first.offset.tolist(), last.offset.tolist()) == ([0, 1], [4])
    assert between == [TickStep(2, NOW + 5000), SwitchStep(3, NOW, "abc", 4)]
    assert tick == TickStep(6, NOW)
    assert decoded.chunk.last_offset == 6
    assert decoded.counts.events == 3


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (((HEADER, b""),), "the header `tocsin` is no control record: Invalid JSON"),
        (((HEADER, None),), "the header `tocsin` is no control record: JSON input should be"),
        (((HEADER, b"\xff"),), "the header `tocsin` is no control record: Invalid JSON"),
        (((HEADER, b"[" * 100_000),), "the header `tocsin` is no control record: Invalid JSON"),
        (((HEADER, b'{"control":"stop"}'),), "the header `tocsin` is no control record: Input tag 'stop'"),
        (((HEADER, b'{"control":"tick","at":1}'),), "the header `tocsin` is no control record: tick.at: Extra inputs"),
        (((HEADER, b'{"control":"ruleset","id":"a","seq":0}'),), "the header `tocsin` is no control record: ruleset.seq: "),
        (
            ((HEADER, b'{"control":"forward","partition":0,"offset":-1,"index":0}'),),
            "the header `tocsin` is no control record: forward.offset",
        ),
        (
            ((HEADER, b'{"control":"forward","partition":0,"offset":9223372036854775808,"index":0}'),),
            "the header `tocsin` is no control",
        ),
        (((HEADER, b'{"control":"forward","partition":1,"offset":0,"index":0}'),), "the origin is partition 1, and there are 1"),
        (TICK * 2, "the header `tocsin` occurs 2 times"),
    ],
)
def test_a_control_header_that_is_wrong(headers: Any, message: str) -> None:
    decoded = decode([Record(0, event(), headers)], ONE)
    assert reasons(decoded) == [(0, "bad_control")]
    assert decoded.dead_letters[0].message.startswith(message)
    assert decoded.chunk.steps == ()


def test_with_a_key_rulesets_must_be_signed_for_their_place() -> None:
    source = replace(ONE, control_key=KEY)
    ruleset = RulesetRecord(id="abc", seq=1)
    good = header(ruleset, key=KEY, value=b"{}")
    decoded = decode([Record(0, b"{}", good)], source)
    assert decoded.chunk.steps == (SwitchStep(0, NOW, "abc", 1),)
    for place in (
        replace(source, partition=1, partitions=2),
        replace(source, topic="other"),
        replace(source, control_key=b"other"),
    ):
        assert reasons(decode([Record(0, b"{}", good)], place)) == [(0, "unsigned")]
    for record in (
        Record(0, b"{} ", good),
        Record(0, b"{}", header(ruleset)),
        Record(0, b"{}", header(ruleset.model_copy(update={"mac": "é"}))),
    ):
        assert reasons(decode([record], source)) == [(0, "unsigned")]
    assert decode([Record(0, b"{}", header(ruleset))], source).dead_letters[0].message.startswith("the ruleset record has no MAC")
    assert decode([Record(0, None, TICK)], source).chunk.steps == (TickStep(0, NOW),)


# --- forwards ----------------------------------------------------------------------------------------------------------


def test_a_misplaced_event_is_forwarded_as_it_was_written() -> None:
    here, there = service_on(2), service_on(5)
    source = Source("mcp.events", 2, 8, KEY)
    spaced = b'  { "ts":1795303740000000,"kind":"perf", "service":"%s" , "unknown":[1] } \n' % there.encode()
    records = [
        Record(10, event(service=there)),
        Record(11, event(service=here)),
        Record(12, b" \n" + array(event(service=here), spaced, event(service=there, tool="\n"))),
    ]
    decoded = decode(records, source)
    columns = columns_of(decoded)
    assert columns.local.tolist() == [False, True, True, False, False]
    assert columns.origins == {}
    assert [forward.origin for forward in decoded.forwards] == [Origin(2, 10, 0), Origin(2, 12, 1), Origin(2, 12, 2)]
    assert [forward.value for forward in decoded.forwards] == [
        event(service=there),
        spaced.strip(),
        event(service=there, tool="\n"),
    ]
    assert {forward.partition for forward in decoded.forwards} == {5}


@pytest.mark.parametrize("key", [None, KEY])
def test_a_forward_arrives_with_its_origin(key: bytes | None) -> None:
    there = service_on(5)
    source, target = Source("mcp.events", 2, 8, key), Source("mcp.events", 5, 8, key)
    sent = [
        forward.outgoing(source)
        for forward in decode([Record(10, array(event(service=there), event(service=there)))], source).forwards
    ]
    assert {(each.topic, each.partition, each.key) for each in sent} == {("mcp.events", 5, f"default|{there}".encode())}
    records = [
        Record(3, event(service=there)),
        *(Record(4 + at, each.value, each.headers, NOW_MS + 9) for at, each in enumerate(sent)),
    ]
    decoded = decode(records, target)
    columns = columns_of(decoded)
    assert columns.origins == {1: Origin(2, 10, 0), 2: Origin(2, 10, 1)}
    assert columns.local.tolist() == [True, True, True]
    assert columns.append_time.tolist() == [NOW, NOW + 9000, NOW + 9000]
    assert (decoded.dead_letters, decoded.forwards) == ((), ())


def test_origins_stay_with_their_rows_when_others_are_refused() -> None:
    control = Forward(partition=0, offset=7, index=1)
    three = array(event(), event(), event())
    records = [
        Record(0, three),
        Record(1, b"{"),
        Record(2, event(), header(control)),
        Record(3, event(ts=NOW * 2)),
        Record(4, event()),
    ]
    decoded = decode(records, ONE)
    assert columns_of(decoded).offset.tolist() == [0, 0, 0, 2, 4]
    assert columns_of(decoded).origins == {3: Origin(0, 7, 1)}
    assert reasons(decoded) == [(1, "undecodable"), (3, "future")]


def test_a_forward_that_is_forged_misrouted_or_damaged() -> None:
    here, there = service_on(5), service_on(6)
    target = Source("mcp.events", 5, 8, KEY)
    control = Forward(partition=2, offset=10, index=0)

    def signed(value: bytes) -> Record:
        return Record(0, value, header(control, key=KEY, source=target, value=value))

    assert len(columns_of(decode([signed(event(service=here))], target))) == 1
    for record, reason in (
        (Record(0, event(service=here), header(control)), "unsigned"),
        (replace(signed(event(service=here)), value=event(service=here, tool="x")), "unsigned"),
        (signed(event(service=there)), "misrouted"),
        (signed(array(event(service=here))), "bad_control"),
        (signed(b""), "empty"),
        (signed(b"{"), "undecodable"),
        (signed(event(service=here, ts=NOW + 2 * MAX_FUTURE)), "future"),
    ):
        decoded = decode([record], target)
        assert reasons(decoded) == [(0, reason)]
        assert (decoded.chunk.steps, decoded.forwards) == ((), ())


def test_a_signed_forward_is_for_its_value_and_partition() -> None:
    there = service_on(5)
    source = Source("mcp.events", 2, 8, KEY)
    (forward,) = decode([Record(10, event(service=there))], source).forwards
    control = parse_control(forward.outgoing(source).headers[0][1])
    assert isinstance(control, Forward)
    assert control == sign(
        Forward(partition=2, offset=10, index=0), KEY, topic="mcp.events", partition=5, value=event(service=there)
    )


def test_a_redriven_record_keeps_its_origin_and_may_be_an_array() -> None:
    here, there = service_on(5), service_on(6)
    target = Source("mcp.events", 5, 8, KEY)
    control = Redrive(offset=3, timestamp=7)
    value = array(event(service=here), event(service=there))
    good = Record(9, value, header(control, key=KEY, source=target, value=value))
    decoded = decode([Record(8, event(service=here)), good], target)
    assert columns_of(decoded).redriven == {1: Redriven(3, 7000), 2: Redriven(3, 7000)}
    assert [(forward.partition, forward.origin) for forward in decoded.forwards] == [(6, Origin(5, 9, 1))]
    for record, reason in (
        (replace(good, headers=header(control)), "unsigned"),
        (replace(good, value=event(service=here)), "unsigned"),
        (replace(good, offset=3), "bad_control"),
        (Record(9, b"{", header(control, key=KEY, source=target, value=b"{")), "undecodable"),
        (Record(9, b"", header(control, key=KEY, source=target, value=b"")), "empty"),
    ):
        assert reasons(decode([record], target)) == [(record.offset, reason)]


# --- whatever comes ----------------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.sampled_from(
        [
            event(),
            event(service="other"),
            array(event(), event(service="x")),
            b"[]",
            event(unknown=1),
            b"[" * 50_000,
            event(ts=2**53),
        ]
    ),
    st.integers(0, 60).map(lambda at: event()[:at]),
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([HEADER, "other"]),
        st.one_of(
            st.binary(max_size=10),
            st.sampled_from(
                [
                    TICK[0][1],
                    b'{"control":"ruleset","id":"a","seq":1}',
                    b'{"control":"forward","partition":1,"offset":5,"index":0}',
                ]
            ),
        ),
    ),
    max_size=2,
).map(tuple)
RECORDS = st.lists(st.tuples(VALUES, HEADERS, st.sampled_from([NOW_MS, 0, -1, 2**50])), max_size=12)


@given(RECORDS, st.integers(0, 7), st.sampled_from([None, KEY]), st.integers(1, 12))
def test_nothing_is_raised_nothing_vanishes_and_chunking_changes_nothing(
    made: list[tuple[bytes | None, Any, int]], partition: int, key: bytes | None, size: int
) -> None:
    source = Source("mcp.events", partition, 8, key)
    records = [Record(offset, value, headers, timestamp) for offset, (value, headers, timestamp) in enumerate(made)]
    whole = decode(records, source)
    dead = {letter.record.offset for letter in whole.dead_letters}
    alive = set()
    for step in whole.chunk.steps:
        alive |= set(step.offset.tolist()) if isinstance(step, Columns) else {step.offset}
    assert not dead & alive
    assert {record.offset for record in records if record.value != b"[]"} <= dead | alive
    parts = [decode(records[start : start + size], source) for start in range(0, len(records), size)]
    assert [row for part in parts for row in rows_of(part)] == rows_of(whole)
    assert [each for part in parts for each in part.forwards] == list(whole.forwards)
    assert [each for part in parts for each in reasons(part)] == reasons(whole)


def rows_of(decoded: Decoded) -> list[Any]:
    rows: list[Any] = []
    for step in decoded.chunk.steps:
        if isinstance(step, Columns):
            table = zip(
                step.offset.tolist(),
                step.index.tolist(),
                step.append_time.tolist(),
                step.ts.tolist(),
                step.local.tolist(),
                strict=True,
            )
            rows.extend((*row, step.origins.get(at)) for at, row in enumerate(table))
        else:
            rows.append(step)
    return rows


def test_every_reason_of_decoding_is_one_of_the_metric() -> None:
    assert {"empty", "oversized", "undecodable", "ill_typed", "future", "bad_control", "unsigned", "misrouted"} <= set(DeadReason)
