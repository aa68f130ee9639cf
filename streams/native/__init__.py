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


class Rows(Structure):
    """Rows that are added up, see rows.zig."""

    _fields_: ClassVar = [
        ("touched", c_void_p), ("cells", c_void_p), ("count", c_size_t), ("chunk", c_size_t),
        ("offset", c_void_p), ("weight", c_void_p), ("of", c_void_p), ("values", c_void_p),
    ]  # fmt: skip


class Cells(Structure):
    """What they add up to, see rows.zig."""

    _fields_: ClassVar = [
        ("size", c_size_t), ("count", c_void_p), ("events", c_void_p), ("of", c_void_p), ("first_offset", c_void_p),
        ("last_offset", c_void_p), ("sum_high", c_void_p), ("sum_low", c_void_p), ("smallest", c_void_p), ("largest", c_void_p),
    ]  # fmt: skip


_REFERENCE: Final = ctypes.POINTER
_FUNCTIONS: Final[dict[str, tuple[list[Any], Any]]] = {
    "tocsin_split": ([c_void_p, c_size_t, c_size_t, c_void_p, c_size_t, c_int64, c_int64, c_bool], c_bool),
    "tocsin_contract": ([_REFERENCE(Contract)], None),
    "tocsin_scan": ([_REFERENCE(Contract), _REFERENCE(Values), _REFERENCE(Found)], c_int64),
    "tocsin_integers": ([_REFERENCE(Column), c_void_p], None),
    "tocsin_numbers": ([_REFERENCE(Column), c_void_p], None),
    "tocsin_intern": ([_REFERENCE(Column), c_uint64, c_void_p, c_size_t, c_void_p, c_void_p], c_size_t),
    "tocsin_distinct": ([c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p], c_size_t),
    "tocsin_order": ([c_void_p, c_size_t, c_void_p, c_size_t, c_void_p], None),
    "tocsin_reduce": ([_REFERENCE(Rows), _REFERENCE(Cells)], None),
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


def at(array: NDArray[Any], kind: type[np.generic]) -> int:
    """Where an array begins that machine code reads or writes: contiguous, its items of `kind`."""
    if array.dtype != kind or not array.flags.c_contiguous:
        raise TypeError(f"machine code takes contiguous {kind.__name__}, not {array.dtype} with the strides {array.strides}")
    address: int = array.__array_interface__["data"][0]
    return address
