"""A copy of state: what was written is read, and what was damaged is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.state_copy import CopyReader, CopyWriter, Covered, Header, Part, StateCopyError

HEADER = Header("1", "mine", {"engine": "mcp.events"}, 2, 7)
PARTS = (
    Part("engine", 0, [(b"m", b"\x00"), (b"g" * 40, b"x" * (3 << 20)), (b"h", b"")], Covered(7, "abc")),
    Part("engine", 1, [], Covered(-1, "")),
)


def written(path: Path) -> Path:
    with CopyWriter(path) as writer:
        writer.header(HEADER)
        writer.rules([(b"rule/a", b"{}")])
        for part in PARTS:
            writer.part(part)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    copy = CopyReader(written(tmp_path / "copy"))
    assert (copy.header, list(copy.rules()), tuple(copy.parts())) == (HEADER, [(b"rule/a", b"{}")], PARTS)
    assert copy.part("engine", 1) == PARTS[1]
    assert copy.part("notifier", 1) is None
    assert [each.name for each in tmp_path.iterdir()] == ["copy"]


def test_a_copy_that_was_stopped_leaves_the_one_before(tmp_path: Path) -> None:
    before = written(tmp_path / "copy").read_bytes()
    with contextlib.suppress(RuntimeError), CopyWriter(tmp_path / "copy") as writer:
        writer.header(HEADER)
        raise RuntimeError("no broker")
    assert (tmp_path / "copy").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["copy"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("copy") / "small"
    with CopyWriter(path) as writer:
        writer.header(HEADER)
        writer.part(Part("engine", 0, [(b"m", b"\x00")], Covered(7, "abc")))
    return path


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.booleans())
def test_no_damage_goes_unseen(small: Path, at: int, flip: int, cut: bool) -> None:
    data = bytearray(small.read_bytes())
    at %= len(data)
    data[at] ^= flip
    other = small.with_name("damaged")
    other.write_bytes(bytes(data[:at] if cut else data))
    with pytest.raises(StateCopyError):
        CopyReader(other)


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(small: Path, data: bytes) -> None:
    other = small.with_name("any")
    other.write_bytes(b"tocsin-state 1\n" + data)
    with pytest.raises(StateCopyError):
        CopyReader(other)


def test_a_copy_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with CopyWriter(tmp_path / "copy") as writer:
        writer.header(Header("9", "mine", {}, 2, 7, version=2))
    with pytest.raises(StateCopyError, match="has version 2, and this release reads 1"):
        CopyReader(tmp_path / "copy")
