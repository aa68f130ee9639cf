"""The scanner beside the decoder that makes objects: what it takes, both read alike, and ordinary events it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.event import Event
from schemas.expression import FieldReference
from streams import native
from streams.fetched import DamagedBatchError, joined, split
from streams.fields import ScannedFields
from streams.kernel.columns import Structs, groups_of
from streams.partitioner import partition_of
from streams.scanner import Scanned, scan
from streams.wire import parse_values
from tests.command import ROOT

TS: Final = 1_767_225_600_000_000
PLAIN: Final[dict[str, Any]] = {
    "ts": TS, "kind": "operation", "service": "files", "tenant": "t", "tool": "read", "outcome": "ok", "dur_us": 7, "weight": 3,
    "unknown_target": False, "value": -1.5, "attributes": {"a": 1, "b": "x", "c": True, "d": 0.25},
}  # fmt: skip

TEXTS = st.one_of(
    st.sampled_from(["", "a", "é", "𝄞", "x" * 256, "x" * 257, 'q"', "\\", "\n", "\x7f", ":", "true"]), st.text(max_size=12)
)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 2**53, 2**53 + 1, -(2**53), 10**15, 10**16, 1.5, -0.0, 1e3, 0.1, 123456.789012345, 5e-324]),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
)
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans(), st.none())
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=1), st.dictionaries(TEXTS, SCALARS, max_size=3))
NAMES = st.sampled_from([*Event.model_fields, "unknown", "Ts", ""])
OBJECTS = st.builds(
    lambda kept, more: {name: PLAIN[name] for name in kept} | more,
    st.sets(st.sampled_from(list(PLAIN))).map(lambda names: names | {"ts", "kind", "service"}),
    st.dictionaries(NAMES, VALUES, max_size=2),
)


def written(item: Any, separators: tuple[str, str], ascii_only: bool, cut: int, put: tuple[int, int] | None) -> bytes:
    """`item` as JSON, perhaps damaged."""
    text = bytearray(json.dumps(item, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    if put is not None:
        text[put[0] % len(text)] = put[1]
    return bytes(text[:cut] if cut < len(text) else text)


TEXT_OF = st.builds(
    written,
    st.one_of(OBJECTS, st.lists(OBJECTS, max_size=3)),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")]),
    st.booleans(),
    st.one_of(st.just(10_000), st.just(10_000), st.integers(0, 300)),
    st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 400), st.integers(0, 255))),
)


def scanned(values: list[bytes]) -> Scanned:
    sizes = np.array([len(value) for value in values], dtype=np.int64)
    return scan(np.frombuffer(b"".join(values), dtype=np.uint8), np.cumsum(sizes) - sizes, sizes)


def assert_alike(values: list[bytes]) -> None:
    """What was taken is right, in its place, and reads as it does where objects are made."""
    found, problems, _ = parse_values(values)
    taken = scanned(values)
    rows = []
    for place in np.flatnonzero(~taken.doubtful).tolist():
        assert place not in problems, problems[place]
        events = found[place] if isinstance(found[place], list) else [found[place]]
        rows += [(place, index, event) for index, event in enumerate(events)]
    assert list(zip(taken.record.tolist(), taken.index.tolist(), strict=True)) == [(place, index) for place, index, _ in rows]
    events = [event for *_, event in rows]
    assert taken.integers("ts", 0).tolist() == [event.ts for event in events]
    names = [FieldReference(field=name) for name in Event.model_fields if name not in ("attributes", "tenant", "weight")]
    ours, plain = ScannedFields(taken), Structs(events)
    for reference in [*names, *(FieldReference(field=name, attribute=True) for name in ("a", "b", "c", "é", "x" * 256))]:
        # repr tells 1 from 1.0 and from True, and 0.0 from -0.0.
        assert repr(ours.values(reference)) == repr(plain.values(reference)), reference
        assert repr(ours.number(reference)) == repr(plain.number(reference)), reference
        (codes, words), (theirs, others) = ours.text(reference), plain.text(reference)
        texts = [None if code < 0 else words[code] for code in codes.tolist()]
        assert texts == [None if code < 0 else others[code] for code in theirs.tolist()], reference
        assert len(set(words)) == len(words)
    for by in (("service",), ("kind", "tool"), ("service", "weight", "outcome"), ("tenant", "unknown_target")):
        references = [FieldReference(field=name) for name in by]
        assert_grouped_alike(ours, [*references, FieldReference(field="b", attribute=True)])
        assert_grouped_alike(ours, references)
    tenants, services = (ours.values(FieldReference(field=name)) for name in ("tenant", "service"))
    homes = [partition_of(tenant, service, 7) for tenant, service in zip(tenants, services, strict=True)]
    assert taken.partitions("default", 7).tolist() == homes


def assert_grouped_alike(fields: ScannedFields, references: list[FieldReference]) -> None:
    """As by texts that were made of them."""
    codes, keys, ends = fields.groups(references)
    expected = groups_of([fields.text(each) for each in references], len(fields))
    assert (codes.tolist(), keys, ends.tolist()) == (expected.codes.tolist(), expected.keys, expected.ends.tolist())


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text takes a second
@given(st.lists(TEXT_OF, max_size=6))
@example([b'{"ts":1767225600000000,"kind":"operation","service":"a","service":"b"}'])
@example([b'{"ts":1767225600000000,"kind":"metric","service":"a","value":12345678901234567890}'])
@example([b"", b"[]", b"[{}]", b"{", b'{"ts":1767225600000000,"kind":"operation","service":"a"} x'])
def test_what_is_taken_is_read_alike(values: list[bytes]) -> None:
    assert_alike(values)


def test_ordinary_events_are_taken() -> None:
    array = [PLAIN, PLAIN | {"service": "é", "tool": None, "attributes": {}}]
    for item in (PLAIN, array, {name: PLAIN[name] for name in ("service", "kind", "ts")}):
        for separators in ((",", ":"), (", ", ": ")):
            value = json.dumps(item, separators=separators, ensure_ascii=False).encode()
            assert not scanned([value]).doubtful.any(), value


def test_every_field_finds_room() -> None:
    few = b'{"ts":1767225600000000,"kind":"metric","service":"s"}'
    texts = [name for name, info in Event.model_fields.items() if "max_length" in str(info.annotation) and name != "attributes"]
    many = json.dumps(PLAIN | {name: f"of {name}" for name in texts}).encode()
    taken = scanned([few, many, few])
    assert not taken.doubtful.any()
    for name in texts:
        assert taken.values(name, attribute=False)[1] == f"of {name}"
        assert taken.values(name, attribute=False)[0] in (None, "s")


def test_distinct_texts_are_told_apart_however_many() -> None:
    values = [b'{"ts":1767225600000000,"kind":"metric","service":"%d"}' % (number % 700) for number in range(2_000)]
    strings = scanned(values).strings("service", attribute=False)
    assert strings is not None
    assert strings.words == [str(number) for number in range(700)]
    assert strings.codes.tolist() == [number % 700 for number in range(2_000)]


def read_within_bounds() -> None:
    """To be run in a process of its own, which machine code ends where it would read beyond its array."""
    whole = json.dumps([PLAIN, PLAIN | {"tool": "é𝄞", "value": 7}], ensure_ascii=False).encode()
    for text in (whole, json.dumps(PLAIN, separators=(",", ":")).encode()):
        for end in range(len(text)):
            scanned([text[:end]])
        for at in range(0, len(text), 3):
            for byte in b'"\\{}[],:-.0e \xc3\xf0t':
                scanned([text[:at] + bytes([byte]) + text[at + 1 :]])
    taken = scanned([whole])
    assert not taken.doubtful.any()
    for name in ("a", "d", "none"):
        taken.values(name, attribute=True)
    batch = bytes([26, 0, 0, 0, 2, 107, 4, 118, 118, 2, 2, 104, 2, 120])
    (record,) = joined(batch, [split(batch, 1, 0, 0, 0, fixed=False)], 1)
    assert (record.key, record.value, record.headers) == (b"k", b"vv", (("h", b"x"),))
    for end in range(len(batch) + 1):
        for at in range(end):
            for byte in (0, 1, 127, 128, 255):
                damaged = batch[:at] + bytes([byte]) + batch[at + 1 : end]
                try:
                    table = split(damaged, 1, 0, 0, 0, fixed=False)
                except DamagedBatchError:
                    continue
                assert len(list(joined(damaged, [table], 1))) == 1


def test_nothing_is_read_beyond_its_array() -> None:
    code = "import tests.streams.test_scanner as test; test.read_within_bounds()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_machine_code_takes_no_array_of_another_kind() -> None:
    for array in (np.zeros(4, dtype=np.int32), np.zeros((4, 2), dtype=np.int64)[:, 0]):
        with pytest.raises(TypeError, match="contiguous int64"):
            native.at(array, np.int64)
