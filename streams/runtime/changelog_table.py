"""The table of a partition as its changelog has it: read without a store, beside whoever writes it."""

from __future__ import annotations

import msgspec

from streams.records import Incoming
from streams.runtime.producer import INTERNAL, Items
from streams.runtime.staging import COMMIT, ERASED, staged
from streams.settings import Settings
from streams.topic_reader import TopicReader
from streams.topics import changelog_name

MARKER = b"m"
"""The key under which every role keeps its marker; the second element of its value is the last offset that was applied."""


class ChangelogTable:
    """Keys and values, the runtime's own among them. `items` are those of the fold."""

    def __init__(self) -> None:
        self._held: dict[bytes, bytes] = {}

    def fold(self, record: Incoming) -> None:
        """Take in the next record of the changelog."""
        if record.key is None:
            return
        self.put([(record.key, record.value)])
        if record.key == COMMIT and record.value is not None:
            self.put(staged(record.value, self._held.get)[0])

    def put(self, items: Items) -> None:
        """Set keys to values (None: deleted)."""
        for key, value in items:
            if value is None:
                self._held.pop(key, None)
            else:
                self._held[key] = value

    @property
    def items(self) -> dict[bytes, bytes]:
        """What the fold saved."""
        return {key: value for key, value in self._held.items() if not key.startswith(INTERNAL)}

    @property
    def unfinished(self) -> Items:
        """What makes a large checkpoint that was not written to its end count no more."""
        return ERASED if COMMIT in self._held else ()


async def read_table(settings: Settings, role: str, partition: int) -> ChangelogTable:
    """The table of `partition` as it is now. Raises MissingTopicError where there is no changelog."""
    table = ChangelogTable()
    async with TopicReader(settings.kafka_client(), changelog_name(settings.group, role), [partition]) as reader:
        async for record in reader.to_end():
            table.fold(record)
    return table


def applied_of(items: dict[bytes, bytes]) -> int | None:
    """The last offset that a table covers; None where it says none that can be read."""
    try:
        applied = msgspec.msgpack.decode(items[MARKER])[1]
    except (KeyError, IndexError, TypeError, ValueError, msgspec.DecodeError):
        return None
    return applied if isinstance(applied, int) else None
