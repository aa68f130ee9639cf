"""Loops over bytes and rows as machine code: numba makes it when a function is first called, and keeps it on disk.

A compiled function means the same when Python runs it (NUMBA_DISABLE_JIT=1), which finds what reads beyond its array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """`function` as machine code."""
    return _made(function)


def inlined(function: Function) -> Function:
    """`function` as machine code, and as part of each compiled function that calls it."""
    return _made(function, forceinline=True)


def _made(function: Function, **options: Any) -> Function:
    try:
        made: Function = njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to keep it in, neither beside the module nor the user's own
        made = njit(**options)(function)
    return made
