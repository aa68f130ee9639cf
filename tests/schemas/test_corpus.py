"""The pydantic contract, the fast decoder and the JSON Schema agree, on the corpus and on what random changes make of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas.dead_letter import DeadReason
from schemas.event import Event, parse_event, parse_events
from schemas.strict_json import strict_loads
from streams.decode import Source, decode
from streams.kernel.columns import Columns
from tests.columns import events_of
from tests.schemas.corpus import BAD, GOOD, OPERATION, event, raw

SOURCE = Source("mcp.events", 0, 1)
YEAR_10000_MS = 253_402_300_800_000


@dataclass(frozen=True)
class Record:
    value: bytes | None
    offset: int = 0
    timestamp: int = YEAR_10000_MS
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = field(default=())


def decoded(value: bytes) -> list[dict[str, Any]] | DeadReason:
    """What the fast decoder makes of a value: the fields of its events, or why it is a dead letter."""
    result = decode([Record(value)], SOURCE)
    if result.dead_letters:
        assert not result.chunk.steps
        return result.dead_letters[0].reason
    found = []
    for step in result.chunk.steps:
        assert isinstance(step, Columns)
        found += events_of(step)
    return found


def validated(value: bytes) -> list[dict[str, Any]] | None:
    """What the contract makes of a value; None where it refuses."""
    try:
        events = parse_events(value)
    except ValueError:
        return None
    # Absent attributes are an empty object to one side and nothing to the other, and mean the same.
    return [dict(each) | {"attributes": each.attributes or None} for each in events]


def assert_agreement(value: bytes) -> None:
    contract, fast = validated(value), decoded(value)
    if isinstance(fast, DeadReason):
        assert contract is None, f"only the fast decoder refuses: {fast}"
    else:
        fast = [each | {"attributes": each["attributes"] or None} for each in fast]
        # repr tells 1 from 1.0 and from True, and 0.0 from -0.0.
        assert repr(contract) == repr(fast)


@pytest.mark.parametrize("name", GOOD)
def test_both_take_what_is_good_and_read_the_same(name: str) -> None:
    assert validated(GOOD[name]) is not None
    assert_agreement(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_both_refuse_what_is_bad(name: str) -> None:
    value, reason = BAD[name]
    assert validated(value) is None
    assert decoded(value) == reason


def test_the_corpus_is_large() -> None:
    assert len(set(GOOD.values())) >= 60
    assert len({value for value, _ in BAD.values()}) >= 120


def test_every_field_is_in_the_corpus_or_read_alike() -> None:
    for name in Event.model_fields:
        values: list[Any] = ["x", "", 1, 1.5, True, None, [], {}, {"a": 1}]
        for value in values:
            assert_agreement(event(**{name: value}))


def test_one_chunk_of_the_whole_corpus_is_sorted_out() -> None:
    values = [*GOOD.values(), *(value for value, _ in BAD.values())]
    values = [value for pair in zip(values, reversed(values), strict=True) for value in pair]
    result = decode([Record(value, offset=offset) for offset, value in enumerate(values)], SOURCE)
    good = set(GOOD.values())
    assert [letter.record.offset for letter in result.dead_letters] == [
        at for at, value in enumerate(values) if value not in good
    ]
    expected = [(at, index) for at, value in enumerate(values) if value in good for index in range(len(parse_events(value)))]
    (columns,) = result.chunk.steps
    assert isinstance(columns, Columns)
    assert list(zip(columns.offset.tolist(), columns.index.tolist(), strict=True)) == expected


def test_the_json_schema_takes_what_is_good() -> None:
    schema = Event.model_json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for name, value in GOOD.items():
        document = json.loads(value)
        for each in document if isinstance(document, list) else [document]:
            assert not list(validator.iter_errors(each)), name


def test_the_json_schema_refuses_wrong_types() -> None:
    validator = Draft202012Validator(Event.model_json_schema())
    for fields in ({"kind": "no"}, {"service": ""}, {"dur_us": "1"}, {"attributes": {"a": None}}, {"weight": 0}, {"ts": 1.5}):
        assert list(validator.iter_errors(json.loads(event(**fields)))), fields


def test_one_event_is_no_array() -> None:
    assert parse_event(GOOD["only what is required"]) == parse_events(GOOD["array of one"])[0]
    with pytest.raises(ValueError, match="Input should be"):
        parse_event(GOOD["array of one"])


# --- random changes --------------------------------------------------------------------------------------------------

PIECES = [
    *(b":", b",", b'"', b"{", b"}", b"[", b"]", b"\\", b" ", b"\n", b"\x00", b"\xff", b"\xef\xbb\xbf", "é".encode()),
    *(b"\\u003a", b"\\ud800", b"\\n", b"null", b"true", b"NaN", b"1e400", b"-0", b"1.0", b"0", b"9007199254740993", b"[]", b"{}"),
    *(b'"ts":1,', b'"tool":"a",', b'"x":1,', b'"attributes":{"a":1},', b'"a":1,'),
    *(b'"ts":"2026-11-23T00:43:10Z",', b'"value":9007199254740992,'),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    value = draw(st.sampled_from(list(GOOD.values())))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(value)))
        stop = draw(st.integers(start, min(len(value), start + 12)))
        value = value[:start] + draw(st.sampled_from([*PIECES, b"", value[start:stop] * 2])) + value[stop:]
    return value


@given(mutated())
@example(raw('"value":9007199254740993'))
@example(raw('"tool":"a","tool":"b"'))
@example(raw(r'"x":1,"tool":"\u003a"'))
def test_they_agree_on_damaged_events(value: bytes) -> None:
    assert_agreement(value)


NAMES = st.sampled_from([*Event.model_fields, "x", ":", "", "é", 'a"b', "a\\b"])
EDGES = st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, float(2**53), 0.1])
NUMBERS = st.one_of(st.integers(-3, 3), st.integers(), st.floats(), EDGES)
WORDS = st.sampled_from(["ok", "perf", ":", "2026-11-23T00:43:10Z"])
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5), WORDS)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(NAMES, SCALARS, max_size=2))
EVENTS = st.builds(lambda members: OPERATION | members, st.dictionaries(NAMES, VALUES, max_size=3))


@given(st.lists(EVENTS, max_size=3), st.booleans(), st.booleans())
def test_they_agree_on_made_up_events(events: list[dict[str, Any]], ascii_only: bool, spaced: bool) -> None:
    document = events[0] if len(events) == 1 else events
    separators = (" , ", "\n:\t") if spaced else (",", ":")
    assert_agreement(json.dumps(document, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "surrogatepass"))


@given(st.lists(st.tuples(NAMES, SCALARS), min_size=1, max_size=6))
def test_no_repetition_passes(pairs: list[tuple[str, Any]]) -> None:
    """Members written in any order, some of them twice: what is taken has no name twice."""
    text = ",".join(f"{json.dumps(name, ensure_ascii=False)}:{json.dumps(value, ensure_ascii=False)}" for name, value in pairs)
    value = raw(text)
    assert_agreement(value)
    names = ["ts", "kind", "service", *(name for name, _ in pairs)]
    if len(set(names)) < len(names):
        assert isinstance(decoded(value), DeadReason)


@given(st.binary(min_size=1, max_size=64))
def test_they_agree_on_bytes(value: bytes) -> None:
    assert_agreement(value)


@given(st.binary(max_size=200) | mutated())
def test_strict_parsing_raises_value_errors_only(value: bytes) -> None:
    try:
        strict_loads(value)
    except ValueError:
        return
    assert json.loads(value.decode()) == strict_loads(value)
