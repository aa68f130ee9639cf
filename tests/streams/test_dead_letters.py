"""Dead letters as they are read back, and whether they may be sent once more."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import HEADER, Forward, Redrive, parse_control
from schemas.dead_letter import DeadReason
from streams.dead_letters import Extent, Letter, NoDeadLetterError, Place, Redriver, read_letter
from streams.decode import DeadLetter, Source, decode
from streams.partitioner import partition_of
from streams.records import Outgoing

NOW = time.time_ns() // 1_000_000
PARTITIONS = 4
HOME = partition_of("default", "files", PARTITIONS)
KEY = b"a long random text"
SOURCE = Source("mcp.events", HOME, PARTITIONS, KEY)
HELD = Extent(5, 200, NOW - 1_000)
REDRIVER = Redriver("mcp.events", dict.fromkeys(range(PARTITIONS), HELD), KEY)


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = NOW
    key: bytes | None = b"default|files"
    partition: int = HOME
    timestamp_type: int = 1


def event(**fields: Any) -> bytes:
    return json.dumps({"ts": NOW * 1000, "kind": "operation", "service": "files"} | fields).encode()


def letter_of(record: Record) -> Letter:
    """The dead letter of a record that the decoder refuses, as it is read back."""
    (dead,) = decode([record], SOURCE).dead_letters
    return buried(dead)


def buried(dead: DeadLetter) -> Letter:
    out = dead.outgoing(SOURCE)
    return read_letter(Record(3, out.value, out.headers, NOW, out.key, 2))


def of(record: Record) -> Letter:
    """A dead letter of any record."""
    return buried(DeadLetter(record, "decode", DeadReason.UNDECODABLE, "x"))


def sent(letter: Letter, value: bytes | None = None, redriver: Redriver = REDRIVER) -> Outgoing:
    made = redriver.outgoing(letter, value)
    assert isinstance(made, Outgoing), made
    return made


def again(made: Outgoing, offset: int = 100) -> Record:
    return Record(offset, made.value, made.headers, NOW, made.key)


def test_a_letter_is_read_back_as_it_was_written() -> None:
    headers = (("trace", b"\x00\xff"), ("dlq.reason", b"told by a publisher"))
    letter = letter_of(Record(7, b"{", headers))
    assert (letter.place, letter.source, letter.appended) == (Place(2, 3), Place(HOME, 7), NOW)
    assert (letter.stage, letter.reason, letter.value, letter.headers) == ("decode", "undecodable", b"{", headers)
    with pytest.raises(NoDeadLetterError):
        read_letter(Record(3, b"{", headers))


def test_a_redriven_record_is_accepted_and_keeps_place_key_and_headers() -> None:
    letter = of(Record(7, event(), (("trace", b"x"),)))
    made = sent(letter)
    assert (made.topic, made.partition, made.key, made.value) == ("mcp.events", HOME, b"default|files", event())
    assert made.headers[0] == ("trace", b"x")
    control = parse_control(dict(made.headers)[HEADER])
    assert isinstance(control, Redrive)
    assert (control.offset, control.timestamp) == (7, NOW)
    decoded = decode([again(made)], SOURCE)
    assert (decoded.dead_letters, decoded.counts.events) == ((), 1)


def test_what_is_refused_once_more_keeps_its_origin() -> None:
    first = sent(of(Record(7, event())))
    letter = of(again(first))
    control = parse_control(dict(sent(letter).headers)[HEADER])
    assert isinstance(control, Redrive)
    assert control.offset == 7
    forged = replace(letter, value=event(tool="x"))
    assert "control record" in str(REDRIVER.outgoing(forged)), "the origin was signed for another value"


def test_a_letter_that_would_be_refused_is_not_sent() -> None:
    cut = of(Record(7, b"x" * (1 << 21)))
    forward = Forward(partition=1, offset=2, index=0).model_dump_json().encode()
    for letter, why in (
        (of(Record(7, b"{")), "undecodable"),
        (of(Record(7, event(dur_us="x"))), "ill_typed"),
        (of(Record(7, event(ts=NOW * 1000 + 3_600_000_000))), "future"),
        (of(Record(7, None)), "empty"),
        (of(Record(7, b"[]")), "no event"),
        (of(Record(7, event() + b" " * 900_000, (("trace", b"x" * 240_000),))), "oversized"),
        (of(Record(7, event(), ((HEADER, forward),))), "control record"),
        (cut, "--value FILE"),
        (of(Record(200, event())), "another topic of the same name"),
        (replace(of(Record(7, event())), topic="mcp.transitions"), "only records of mcp.events"),
        (replace(of(Record(7, event())), source=Place(9, 7)), "there is no record 9/7"),
        (replace(of(Record(5, event())), appended=NOW - 1_001), "deleted and created again"),
        (replace(of(Record(4, event())), appended=NOW - 14 * 86_400_000), "expired"),
    ):
        made = REDRIVER.outgoing(letter)
        assert isinstance(made, str)
        assert why in made
    assert sent(cut, event()).value == event()
    gone = replace(of(Record(4, event())), appended=NOW - 1_001)
    assert sent(gone).value == event(), "retention has removed what came before the first record"
    unknown = Redriver("mcp.events", dict.fromkeys(range(PARTITIONS), Extent(5, 200)), KEY)
    assert sent(replace(of(Record(5, event())), appended=NOW - 1_001), redriver=unknown).value == event()


TEXTS = st.text(max_size=10)


@given(
    st.one_of(st.none(), st.binary(max_size=40), st.builds(lambda text: event(service=text), TEXTS)),
    st.lists(st.tuples(st.sampled_from(["tocsin", "dlq.truncated", "x", "dlq.reason"]), st.binary(max_size=40)), max_size=3),
    st.integers(0, 200),
)
def test_no_letter_breaks_the_redrive(value: bytes | None, headers: list[tuple[str, bytes]], offset: int) -> None:
    made = REDRIVER.outgoing(of(Record(offset, value, tuple(headers))))
    if isinstance(made, Outgoing):
        assert decode([again(made, 200)], SOURCE).dead_letters == ()


@given(st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=12)), max_size=9), st.integers(0, 8))
def test_what_is_no_letter_is_named(headers: list[tuple[str, bytes]], put: int) -> None:
    ours = of(Record(7, event()))
    out = DeadLetter(Record(7, event()), "decode", DeadReason.EMPTY, "x").outgoing(SOURCE).headers
    mixed = (*headers, *out[: put + 1], *headers[:1])
    with contextlib.suppress(NoDeadLetterError):
        assert read_letter(Record(3, ours.value, mixed)).source == Place(HOME, 7)
