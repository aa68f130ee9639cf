"""The headers of a dead letter."""

from __future__ import annotations

import pytest

from schemas.dead_letter import (
    MAX_HEADER_COUNT,
    MAX_HEADERS,
    MAX_KEY,
    MAX_MESSAGE,
    MAX_VALUE,
    DeadReason,
    Headers,
    dead_letter_headers,
    kept,
)


def headers_of(message: str, headers: Headers = ()) -> Headers:
    return dead_letter_headers(
        headers, topic="mcp.events", partition=3, offset=41, timestamp=1_795_303_740_000, stage="validate",
        reason=DeadReason.ILL_TYPED, message=message,
    )  # fmt: skip


def test_the_headers_of_the_record_stay_in_front() -> None:
    assert headers_of("Expected `int`", (("a", b"1"), ("a", b"2"))) == (
        ("a", b"1"),
        ("a", b"2"),
        ("dlq.source.topic", b"mcp.events"),
        ("dlq.source.partition", b"3"),
        ("dlq.source.offset", b"41"),
        ("dlq.source.timestamp", b"1795303740000"),
        ("dlq.stage", b"validate"),
        ("dlq.reason", b"ill_typed"),
        ("dlq.message", b"Expected `int`"),
    )


@pytest.mark.parametrize(
    ("message", "said"),
    [("a\nb\x1b[31m\u202e", "a?b?[31m?"), ("é", "é"), ("\ud800", "?"), ("x" * 10_000, "x" * MAX_MESSAGE), ("", "")],
)
def test_messages_are_printable_and_short(message: str, said: str) -> None:
    assert dict(headers_of(message))["dlq.message"] == said.encode()


def test_a_record_that_can_be_sent_once_more_is_kept_whole() -> None:
    whole = (b"k" * MAX_KEY, b"v" * MAX_VALUE, (("h", b"x"),))
    assert kept(*whole) == whole
    assert kept(None, None, ()) == (None, None, ())


def test_of_a_record_that_is_too_large_the_beginning_is_kept_and_its_sizes_are_said() -> None:
    key, value, headers = kept(b"k", b"v" * (MAX_VALUE + 1), (("h", b"x"),))
    assert (key, value) == (b"k", b"v" * MAX_VALUE)
    assert headers == (("h", b"x"), ("dlq.truncated", f"key 1 value {MAX_VALUE + 1} headers 2".encode()))
    key, value, headers = kept(b"k" * (MAX_KEY + 1), None, (("h", b"x" * MAX_HEADERS),))
    assert (len(key or b""), value) == (MAX_KEY, None)
    assert [name for name, _ in headers] == ["dlq.truncated"]


def test_headers_of_which_there_are_too_many_are_not_kept_however_small() -> None:
    """In a batch each takes room, and three million empty ones are more than a producer sends."""
    few: Headers = (("", b""),) * MAX_HEADER_COUNT
    assert kept(b"k", b"v", few) == (b"k", b"v", few)
    assert kept(b"k", b"v", (*few, ("", b""))) == (b"k", b"v", (("dlq.truncated", b"key 1 value 1 headers 0"),))
