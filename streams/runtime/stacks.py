"""Stacks: where every thread and every task of a process stands, for the log of one that does not go on."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any


def stacks() -> str:
    """The stacks of all threads and of all tasks, also of loops of other threads, as text of many lines."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        lines.append(f"thread {names.get(ident, ident)}:")
        lines += [line.rstrip() for line in traceback.format_stack(frame)]
    for task in sorted(_tasks(), key=asyncio.Task.get_name):
        lines.append(f"task {task.get_name()}:")
        lines += [f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}" for frame in _awaited(task.get_coro())]
    return "\n".join(lines)


def _tasks() -> list[asyncio.Task[Any]]:
    """All tasks that are not done. Those of one loop are public, and a fetch that is stuck is in another."""
    known: Any = asyncio.tasks
    every = known._scheduled_tasks if hasattr(known, "_scheduled_tasks") else known._all_tasks
    return [task for task in list(every) if not task.done()]


def _awaited(what: Any) -> Iterator[FrameType]:
    """The frames of a coroutine, of what it awaits, of what that awaits (Task.get_stack knows the first alone)."""
    while what is not None:
        for frame, awaited in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
            if hasattr(what, frame):
                if getattr(what, frame) is not None:
                    yield getattr(what, frame)
                what = getattr(what, awaited)
                break
        else:
            return
