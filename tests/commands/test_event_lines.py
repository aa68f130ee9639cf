"""Lines of events: cut, checked, keyed, moved in time."""

from __future__ import annotations

import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.commands.event_lines import Line, LineSplitter, RefusedLineError, lines_of, newest, records_of
from streams.topics import MAX_RECORD

NOW = 1_767_225_600_000_000
EVENT = {"ts": NOW, "kind": "metric", "service": "files", "name": "depth", "value": 0.1}


def line(value: object) -> Line:
    return Line(1, value if isinstance(value, bytes) else json.dumps(value).encode())


@given(st.lists(st.sampled_from([b"{}", b"ab", b"", b"  ", b"x" * 9])), st.integers(1, 7), st.booleans())
def test_any_cut_gives_the_same_lines(given: list[bytes], size: int, ended: bool) -> None:
    data = b"\n".join(given) + (b"\n" if ended else b"")
    splitter = LineSplitter()
    lines = [line for at in range(0, len(data), size) for line in splitter.feed(data[at : at + size])] + splitter.feed(b"")
    assert lines == [Line(number, text.strip()) for number, text in enumerate(data.split(b"\n"), 1) if text.strip()]


def test_a_line_that_is_too_long_is_dropped_and_the_next_is_read() -> None:
    splitter = LineSplitter()
    lines = []
    for _ in range(40):
        lines += splitter.feed(b"x" * 100_000)
        assert len(splitter._rest) <= MAX_RECORD + 100_000
    lines += splitter.feed(b"\n{}\n" + b"y" * MAX_RECORD + b"\n" + b"z" * (MAX_RECORD + 1) + b"\n") + splitter.feed(b"")
    assert [(line.number, line.raw and len(line.raw)) for line in lines] == [(1, None), (2, 2), (3, MAX_RECORD), (4, None)]


async def test_a_pipe_is_read_as_it_comes() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb", buffering=0) as sink:
        lines = lines_of(source)
        sink.write(b"one\ntw")
        assert await anext(lines) == Line(1, b"one")
        sink.write(b"o\n")
        assert await anext(lines) == Line(2, b"two")
        sink.close()
        assert [line async for line in lines] == []


def test_an_object_goes_out_as_it_is() -> None:
    raw = b'{"ts": 1767225600000000, "kind":"metric","service":"files","tenant":"a","mine":[1e3]}'
    (record,) = records_of(line(raw), shift=0, now=NOW)
    assert (record.key, record.value, record.ts) == (b"a|files", raw, NOW)


def test_an_array_becomes_a_record_per_event() -> None:
    records = records_of(line([EVENT, EVENT | {"service": "mail"}]), shift=0, now=NOW)
    assert [record.key for record in records] == [b"default|files", b"default|mail"]
    assert json.loads(records[0].value) == EVENT


def test_times_move_by_the_shift() -> None:
    (record,) = records_of(line(EVENT | {"ts": "2026-01-01T00:00:00.5Z"}), shift=-1_000, now=NOW)
    assert json.loads(record.value) == EVENT | {"ts": NOW + 499_000}
    assert record.ts == NOW + 499_000


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"{", "expecting property name"),
        (b'{"ts":1,"ts":2,"kind":"metric","service":"x"}', "ts"),
        (EVENT | {"kind": "other"}, "kind: "),
        ({"ts": NOW, "kind": "metric"}, "service: is missing"),
        ([EVENT, EVENT | {"value": "7"}], "value: "),
        (EVENT | {"ts": NOW + 301_000_000}, "ts: lies 301 s in the future"),
        (b'{"ts":1,"kind":"metric","service":"x","value":NaN}', ""),
        (7, ""),
    ],
)
def test_what_breaks_the_contract_is_refused_with_field_and_reason(value: object, told: str) -> None:
    with pytest.raises(RefusedLineError) as refused:
        records_of(line(value), shift=0, now=NOW)
    assert told.lower() in str(refused.value).lower()
    assert "\n" not in str(refused.value)


def test_a_line_too_long_is_refused() -> None:
    with pytest.raises(RefusedLineError, match="longer than 1048576 bytes"):
        records_of(Line(1, None), shift=0, now=NOW)


async def test_newest_copies_what_it_reads() -> None:
    source = (
        b'{"bad\n'
        + json.dumps(EVENT | {"ts": NOW + 5}).encode()
        + b"\n"
        + json.dumps([EVENT | {"ts": NOW + 9}, EVENT | {"ts": NOW + 7}]).encode()
    )
    spool = io.BytesIO()
    assert await newest(io.BytesIO(source), spool) == NOW + 9
    assert spool.read() == source


async def test_newest_of_nothing_is_none() -> None:
    assert await newest(io.BytesIO(b"\n\n"), io.BytesIO()) is None
