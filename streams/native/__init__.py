"""Loops over bytes and rows as machine code: the Zig of this folder, which `python hatch_build.py` compiles into one library."""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_bool, c_char_p, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

LIBRARY: Final = Path(__file__).with_name("libtocsin.so")


class Values(Structure):
    """Values that are scanned, see event.zig."""

    _fields_: ClassVar = [("data", c_void_p), ("data_size", c_size_t), ("at", c_void_p), ("size", c_void_p), ("count", c_size_t)]


class Found(Structure):
    """What is found in them, see event.zig."""

    _fields_: ClassVar = [
        ("starts", c_void_p), ("sizes", c_void_p), ("slots", c_size_t), ("room", c_size_t),
        ("record", c_void_p), ("index", c_void_p), ("doubtful", c_void_p), ("value", c_size_t), ("row", c_size_t),
    ]  # fmt: skip


class Contract(Structure):
    """The fields of an event, see event.zig."""

    _fields_: ClassVar = [
        ("names", c_void_p), ("names_size", c_size_t), ("fields", c_void_p), ("field_count", c_size_t),
        ("words", c_void_p), ("word_count", c_size_t), ("by_name", c_void_p), ("by_name_size", c_size_t),
        ("following", c_void_p), ("slot_of", c_void_p), ("max_text", c_size_t),
    ]  # fmt: skip


class Column(Structure):
    """One field of n events, see column.zig."""

    _fields_: ClassVar = [
        ("data", c_void_p), ("data_size", c_size_t), ("starts", c_void_p), ("sizes", c_void_p), ("count", c_size_t),
    ]  # fmt: skip


class Part(Structure):
    """A column of a key, see keys.zig."""

    _fields_: ClassVar = [("column", Column), ("absent", c_char_p), ("absent_size", c_size_t)]


class Rows(Structure):
    """Rows that are folded, see groups.zig."""

    _fields_: ClassVar = [
        ("count", c_size_t), ("start", c_size_t), ("end", c_size_t), ("before", c_int64),
        ("ts", c_void_p), ("weight", c_void_p), ("offset", c_void_p), ("index", c_void_p), ("append_time", c_void_p),
        ("times", c_void_p), ("touched", c_void_p), ("touched_count", c_size_t), ("of", c_void_p), ("values", c_void_p),
        ("codes", c_void_p), ("keys", c_char_p), ("key_ends", c_void_p), ("key_count", c_size_t),
    ]  # fmt: skip


class Decider(Structure):
    """The record that decides, see groups.zig."""

    _fields_: ClassVar = [("offset", c_int64), ("index", c_int64), ("append_time", c_int64)]


class Wide(Structure):
    """A 128 bit integer, see judging.zig."""

    _fields_: ClassVar = [("high", c_int64), ("low", c_uint64)]

    def __int__(self) -> int:
        return int(self.high) << 64 | int(self.low)


class Window(Structure):
    """The slices of a window as one, see groups.zig."""

    _fields_: ClassVar = [
        ("count", c_int64), ("events", c_int64), ("of", c_int64), ("first_offset", c_int64), ("last_offset", c_int64),
        ("sum", Wide), ("smallest", Wide), ("largest", Wide),
    ]  # fmt: skip


class Outcome(Structure):
    """What there is to tell, see groups.zig."""

    _fields_: ClassVar = [
        ("decider", Decider), ("at", c_int64), ("kind", c_int64), ("level", c_int64), ("key", c_void_p), ("key_size", c_size_t),
        ("opening", c_int64 * 3), ("rank", c_int64), ("ordinal", c_int64), ("reach", c_int64 * 3), ("has_windows", c_int64),
        ("has_full", c_int64), ("has_baseline", c_int64), ("boundary", c_int64), ("judged", Window), ("full", Window),
        ("baseline_sum", Wide), ("baseline_count", c_int64),
    ]  # fmt: skip


class Counts(Structure):
    """Rows since they were last asked for, see groups.zig."""

    _fields_: ClassVar = [("judged", c_int64), ("late", c_int64), ("overflow", c_int64)]


class Taken(Structure):
    """What the table is told, see groups.zig."""

    _fields_: ClassVar = [("data", c_void_p), ("size", c_size_t), ("items", c_void_p), ("count", c_size_t)]


_REFERENCE: Final = ctypes.POINTER
_FUNCTIONS: Final[dict[str, tuple[list[Any], Any]]] = {
    "tocsin_split": ([c_void_p, c_size_t, c_size_t, c_void_p, c_size_t, c_int64, c_int64, c_bool], c_bool),
    "tocsin_contract": ([_REFERENCE(Contract)], None),
    "tocsin_scan": ([_REFERENCE(Contract), _REFERENCE(Values), _REFERENCE(Found)], c_int64),
    "tocsin_integers": ([_REFERENCE(Column), c_void_p], None),
    "tocsin_numbers": ([_REFERENCE(Column), c_void_p], None),
    "tocsin_intern": ([_REFERENCE(Column), c_uint64, c_void_p, c_size_t, c_void_p, c_void_p], c_size_t),
    "tocsin_distinct": ([c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p], c_size_t),
    "tocsin_partitions": ([_REFERENCE(Part), _REFERENCE(Part), c_int64, c_void_p], None),
    "tocsin_keys": (
        [_REFERENCE(Part), c_size_t, c_uint64, c_void_p, c_size_t, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p],
        c_size_t,
    ),
    "tocsin_groups_new": ([c_char_p, c_bool], c_void_p),
    "tocsin_groups_free": ([c_void_p], None),
    "tocsin_groups_begin": ([c_void_p], None),
    "tocsin_groups_fold": ([c_void_p, _REFERENCE(Rows), _REFERENCE(c_void_p)], c_size_t),
    "tocsin_groups_close": ([c_void_p, c_int64, c_int64, _REFERENCE(Decider), _REFERENCE(c_void_p)], c_size_t),
    "tocsin_groups_end": ([c_void_p, _REFERENCE(Decider), c_int64, _REFERENCE(c_void_p)], c_size_t),
    "tocsin_groups_roll_back": ([c_void_p], None),
    "tocsin_groups_replan": ([c_void_p, c_char_p, c_void_p, c_int64], None),
    "tocsin_groups_count": ([c_void_p], c_size_t),
    "tocsin_groups_dirty": ([c_void_p], c_size_t),
    "tocsin_groups_take_counts": ([c_void_p, _REFERENCE(Counts)], None),
    "tocsin_groups_take": ([c_void_p, _REFERENCE(Taken)], None),
    "tocsin_groups_release": ([c_void_p], None),
    "tocsin_groups_restore_group": ([c_void_p, c_char_p, c_size_t, c_char_p, c_size_t], c_bool),
    "tocsin_groups_restore_slice": ([c_void_p, c_char_p, c_size_t, c_int64, c_char_p, c_size_t], c_bool),
    "tocsin_attribute": ([_REFERENCE(Column), c_char_p, c_size_t, c_void_p, c_void_p, c_void_p], None),
}


def _load() -> Any:
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise ImportError(f"{LIBRARY} cannot be loaded ({error}); in a clone `make setup` compiles it") from error
    for name, (arguments, result) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


library: Final = _load()


def hash_table(rows: int) -> NDArray[np.int32]:
    """Places for the hash table of so many rows, all of them free: a power of two, at least twice the rows."""
    return np.full(1 << max(2 * rows - 1, 1).bit_length(), -1, dtype=np.int32)


_KINDS: Final[dict[type[np.generic], np.dtype[Any]]] = {
    kind: np.dtype(kind) for kind in (np.int64, np.int32, np.float64, np.uint8, np.bool_)
}
_place_of: Final = ctypes.addressof
_of_buffer: Final[Any] = ctypes.c_char.from_buffer


def at(array: NDArray[Any], kind: type[np.generic]) -> int:
    """Where an array begins that machine code reads or writes: contiguous, its items of `kind`."""
    expected = _KINDS[kind]
    if (array.dtype is not expected and array.dtype != expected) or not array.flags.c_contiguous:
        raise TypeError(f"machine code takes contiguous {kind.__name__}, not {array.dtype} with the strides {array.strides}")
    try:
        return _place_of(_of_buffer(array))
    except (TypeError, ValueError):  # it is read-only, or empty; asking it takes longer
        address: int = array.__array_interface__["data"][0]
        return address
