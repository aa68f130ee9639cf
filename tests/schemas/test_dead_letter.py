"""The headers of a dead letter."""

from __future__ import annotations

import pytest

from schemas.dead_letter import MAX_MESSAGE, DeadReason, Headers, dead_letter_headers


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
