"""One group of a rule, and how the table holds it."""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from streams.kernel.aggregates import LIMB, Aggregate, merged
from streams.kernel.lifecycle import Episode, Firing, Opening, Pending

GROUP: Final = b"g"
CELL: Final = b"c"
_SLICE: Final = struct.Struct(">q")

Key = tuple[str, ...]


class Group:
    """What is known of one group: stream times of its first and last counted event, its slices, its episode."""

    __slots__ = ("cells", "episode", "first_at", "key", "last_at")

    def __init__(self, key: Key, first_at: int, last_at: int, episode: Episode | None = None) -> None:
        self.key = key
        self.first_at = first_at
        self.last_at = last_at
        self.episode = episode
        self.cells: dict[int, Aggregate] = {}

    def window(self, first: int, end: int) -> Aggregate:
        """The slices [first, end) as one."""
        cells = self.cells
        if len(cells) <= end - first:
            return merged(cell for number, cell in cells.items() if first <= number < end)
        return merged(cells[number] for number in range(first, end) if number in cells)


def group_key(state_id: bytes, key: Key) -> bytes:
    """Table key of a group."""
    return GROUP + state_id + msgspec.json.encode(key)


def cell_key(state_id: bytes, key: Key, number: int) -> bytes:
    """Table key of a slice of a group."""
    return CELL + state_id + _SLICE.pack(number) + msgspec.json.encode(key)


def split_group_key(table_key: bytes) -> tuple[bytes, Key]:
    """State id and group of a table key."""
    return table_key[1:9], msgspec.json.decode(table_key[9:], type=tuple[str, ...])


def split_cell_key(table_key: bytes) -> tuple[bytes, Key, int]:
    """State id, group and slice of a table key."""
    return table_key[1:9], msgspec.json.decode(table_key[17:], type=tuple[str, ...]), _SLICE.unpack(table_key[9:17])[0]


def encode_group(group: Group) -> bytes:
    """The table value of a group."""
    episode = group.episode
    held: list[Any] = [group.first_at, group.last_at]
    if episode is not None:
        opening = episode.opening
        held += [
            (opening.offset, opening.index, opening.opened_at),
            episode.since,
            None if episode.baseline is None else (*divmod(episode.baseline[0], LIMB), episode.baseline[1]),
        ]
        held += [episode.valued_at]
    if isinstance(episode, Firing):
        held += [episode.rank, episode.recovering, episode.ordinal]
    return msgspec.msgpack.encode(held)


def decode_group(key: Key, value: bytes) -> Group:
    """The group that `encode_group` wrote."""
    first_at, last_at, *held = msgspec.msgpack.decode(value)
    episode: Episode | None = None
    if held:
        opening, since, limbs, valued_at, *firing = held
        baseline = None if limbs is None else (limbs[0] * LIMB + limbs[1], limbs[2])
        episode = Pending(Opening(*opening), tuple(since), valued_at, baseline)
        if firing:
            rank, recovering, ordinal = firing
            episode = Firing(episode.opening, episode.since, rank, valued_at, recovering, ordinal, baseline)
    return Group(key, first_at, last_at, episode)
