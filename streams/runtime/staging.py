"""A checkpoint that does not fit one batch, written so that it still counts whole or not at all.

    1. the items, packed into a few large records of their own keys: parts;
    2. one record that says how many parts there are: from here on the checkpoint counts;
    3. the items under their own keys;
    4. one batch that deletes the record of 2 and the parts.

Whoever recovers applies the parts when the record of 2 comes, and does 3 and 4 if they are missing. A part that compaction
has removed was deleted by 4, so the items themselves follow. Such a checkpoint is rare: partitions write theirs long before
it is due when they grow, but a single record, a tick after a long silence, may change any number of groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from streams.runtime.producer import INTERNAL, Items, fits, size_of
from streams.topics import CHECKPOINT_LIMIT

COMMIT: Final = INTERNAL + b"parts"
ERASED: Final[Items] = ((COMMIT, None),)
"""What the table forgets of a checkpoint that was completed; parts that nobody counts are overwritten by the next."""
_PART: Final = INTERNAL + b"part/%08d"
_ROOM: Final = CHECKPOINT_LIMIT - 1_024
_ITEMS: Final = msgspec.msgpack.Decoder(list[tuple[bytes, bytes | None]])


class Appends(Protocol):
    """The changelog."""

    async def append(self, partition: int, items: Items) -> int:
        """Store `items` as one batch; the offset of the last."""
        ...


async def append_whole(journal: Appends, partition: int, items: Items) -> int:
    """Append `items`, of any size, whole or not at all. Returns the offset of the last record."""
    if fits(items):
        return await journal.append(partition, items)
    parts = 0
    for parts, run in enumerate(_runs(items), 1):
        await journal.append(partition, [(_PART % (parts - 1), msgspec.msgpack.encode(run))])
    await journal.append(partition, [(COMMIT, b"%d" % parts)])
    return await complete(journal, partition, items, parts)


async def complete(journal: Appends, partition: int, items: Items, parts: int) -> int:
    """Steps 3 and 4 for a checkpoint of so many parts."""
    for run in _runs(items):
        await journal.append(partition, run)
    return await journal.append(partition, [(COMMIT, None), *((_PART % number, None) for number in range(parts))])


def staged(commit: bytes, get: Callable[[bytes], bytes | None]) -> tuple[list[tuple[bytes, bytes | None]], int]:
    """The items of the parts that the record of 2 counts, and their number.

    `commit` is its value; `get` gives the value of a key.
    """
    items: list[tuple[bytes, bytes | None]] = []
    for number in range(int(commit)):
        part = get(_PART % number)
        if part is not None:
            items += _ITEMS.decode(part)
    return items, int(commit)


def _runs(items: Items) -> Iterator[Items]:
    """`items` in order, in runs that fit a batch."""
    first = size = 0
    for at, item in enumerate(items):
        own = size_of((item,))
        if size + own > _ROOM and at > first:
            yield items[first:at]
            first, size = at, 0
        size += own
    yield items[first:]
