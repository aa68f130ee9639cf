"""The memory of the process: glibc is told to keep it together, and to give back what backlogs and rebalances leave behind.

Other C libraries have neither call, or need neither; there nothing is done.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

_ARENA_MAX: Final = -8
_MMAP_THRESHOLD: Final = -3
MAPPED_FROM: Final = 256 << 10
"""Bytes from which a block has pages of its own, which go as soon as it is freed. Left alone, glibc raises it to 32 MiB."""


def keep_together() -> None:
    """Let all threads allocate from one arena: those of RocksDB would have one each, all of them mostly holes.

    To be called before any thread begins.
    """
    _call("mallopt", _ARENA_MAX, 1)
    _call("mallopt", _MMAP_THRESHOLD, MAPPED_FROM)


def give_back() -> None:
    """Return pages on which nothing is in use: 1 to 2 ms, and some more after a backlog."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    function: Any = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
