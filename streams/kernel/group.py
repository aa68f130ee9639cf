"""How the table holds a group of a rule and its slices; native/stored.zig writes and reads the values.

The key of a group is a JSON array of texts. A group is an array: stream times of its first and last counted event, and for an
open episode its opening, a time for each level that holds, the baseline (the sum as two numbers, the count), when it last had
a value; where it was announced its rank, since when it recovers, and how many transitions it had. A slice is an array too:
count, events, first and last offset, the count of the ratio, the sum, the smallest and the largest value.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

GROUP: Final = b"g"
CELL: Final = b"c"
GROUP_AT: Final = 9
"""Where the key of the group begins in the table key of a group."""
CELL_AT: Final = 17
"""And in that of a slice."""
_SLICE: Final = struct.Struct(">q")

Key = tuple[str, ...]


def encode_key(key: Key) -> bytes:
    """The key of a group as table keys hold it."""
    return msgspec.json.encode(key)


def decode_key(held: bytes) -> Key:
    """The key that `encode_key` wrote."""
    return msgspec.json.decode(held, type=tuple[str, ...])


def state_id_of(table_key: bytes) -> bytes:
    """The state id of a table key."""
    return table_key[1:GROUP_AT]


def slice_of(table_key: bytes) -> int:
    """The slice of the table key of a slice."""
    number: int = _SLICE.unpack(table_key[GROUP_AT:CELL_AT])[0]
    return number


def split_group_key(table_key: bytes) -> tuple[bytes, Key]:
    """State id and group of a table key."""
    return state_id_of(table_key), decode_key(table_key[GROUP_AT:])


def split_cell_key(table_key: bytes) -> tuple[bytes, Key, int]:
    """State id, group and slice of a table key."""
    return state_id_of(table_key), decode_key(table_key[CELL_AT:]), slice_of(table_key)
