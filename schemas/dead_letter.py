"""Dead letters: records that could not be processed, kept whole, with where they came from and why.

A dead letter carries the key, value and headers of the record as they were, and these headers beside them:
`dlq.source.topic`, `dlq.source.partition`, `dlq.source.offset`, `dlq.source.timestamp`, `dlq.stage`, `dlq.reason`,
`dlq.message`. Of a record that decompressed to more than a dead letter can hold the beginning is kept, and the header
`dlq.truncated` says how large key, value and headers were.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

MAX_MESSAGE: Final = 500
MAX_VALUE: Final = 1 << 20
MAX_KEY: Final = 64 << 10
MAX_HEADERS: Final = 256 << 10
MAX_HEADER_COUNT: Final = 1_000
Stage = Literal["decode", "validate", "control", "notify"]


class DeadReason(StrEnum):
    """Why a record is a dead letter; the label of the metric."""

    EMPTY = "empty"
    OVERSIZED = "oversized"
    UNDECODABLE = "undecodable"
    ILL_TYPED = "ill_typed"
    FUTURE = "future"
    BAD_CONTROL = "bad_control"
    UNSIGNED = "unsigned"
    STALE = "stale"
    MISROUTED = "misrouted"
    UNREADABLE = "unreadable"
    EXPIRED = "expired"
    OVERFLOW = "overflow"


Headers = tuple[tuple[str, bytes], ...]


def dead_letter_headers(
    headers: Headers, *, topic: str, partition: int, offset: int, timestamp: int, stage: Stage, reason: DeadReason, message: str
) -> Headers:
    """The headers of a dead letter: those of the record, and where it came from and why. `timestamp` is in milliseconds."""
    said = message[:MAX_MESSAGE]
    if not said.isprintable():
        said = "".join(c if c.isprintable() else "?" for c in said)
    return (
        *headers,
        ("dlq.source.topic", topic.encode()),
        ("dlq.source.partition", str(partition).encode()),
        ("dlq.source.offset", str(offset).encode()),
        ("dlq.source.timestamp", str(timestamp).encode()),
        ("dlq.stage", stage.encode()),
        ("dlq.reason", reason.encode()),
        ("dlq.message", said.encode("utf-8", "replace")),
    )


def kept(key: bytes | None, value: bytes | None, headers: Headers) -> tuple[bytes | None, bytes | None, Headers]:
    """What a dead letter holds of a record: all of it, or the beginning of what is too large to be sent once more."""
    sizes = (len(key or b""), len(value or b""), sum(len(name) + len(held or b"") for name, held in headers))
    has_few_headers = sizes[2] <= MAX_HEADERS and len(headers) <= MAX_HEADER_COUNT
    if sizes[0] <= MAX_KEY and sizes[1] <= MAX_VALUE and has_few_headers:
        return key, value, headers
    said = ("dlq.truncated", "key {} value {} headers {}".format(*sizes).encode())
    return (
        None if key is None else key[:MAX_KEY],
        None if value is None else value[:MAX_VALUE],
        (*(headers if has_few_headers else ()), said),
    )
