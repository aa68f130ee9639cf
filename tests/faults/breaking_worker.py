"""A worker that breaks at a chosen step of a checkpoint: `python -m tests.faults.breaking_worker run --only engine`.

BREAK_AT names the step ("after changelog"), BREAK_AFTER how often it is passed before (0), BREAK_BY the signal that the
process sends itself: SIGKILL, or SIGSTOP to freeze it exactly there. BREAK_LIMIT makes checkpoints larger than so many
bytes be written in parts. Each time the process breaks it leaves a line in the file BREAK_LOG.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from streams.cli import main
from streams.runtime import producer, staging, store, transport

ENGINE_STEPS: Final = (
    "before send",
    "after send",
    "after acks",
    "after changelog",
    "after table",
    "before commit",
    "after commit",
)
"""In the order of a checkpoint: "after acks" is before the changelog, "after changelog" before RocksDB."""


class Breaking:
    """Counts how often the step is passed, and breaks."""

    def __init__(self, at: str, after: int, by: str, log: Path) -> None:
        self.at, self._left, self._by, self._log = at, after, getattr(signal, by), log

    def passing(self, step: str) -> None:
        """`step` is reached."""
        if step != self.at:
            return
        if self._left:
            self._left -= 1
            return
        with self._log.open("a") as log:
            log.write(f"{step} {time.time()}\n")
        self._left = 1_000_000_000  # once
        os.kill(os.getpid(), self._by)

    def around(self, owner: Any, name: str, before: str | None, after: str | None) -> None:
        """Watch the coroutine method `owner.name`."""
        inner: Callable[..., Coroutine[Any, Any, Any]] = getattr(owner, name)

        @functools.wraps(inner)
        async def passed(*arguments: Any, **named: Any) -> Any:
            if before:
                self.passing(before)
            result = await inner(*arguments, **named)
            if after:
                self.passing(after)
            return result

        setattr(owner, name, passed)


def install(breaking: Breaking) -> None:
    """Watch every step of a checkpoint."""
    breaking.around(producer.Outbox, "send", "before send", "after send")
    breaking.around(transport.Consumer, "_commit", "before commit", "after commit")
    watch_table(breaking)
    append: Any = producer.Changelog.append

    async def appended(self: producer.Changelog, partition: int, items: producer.Items) -> int:
        is_barrier = items[0][0] == producer.BARRIER
        if not is_barrier:
            breaking.passing("after acks")
        offset: int = await append(self, partition, items)
        if not is_barrier:
            breaking.passing("after changelog")
        return offset

    setattr(producer.Changelog, "append", appended)  # noqa: B010 - mypy takes no assignment to a method


def watch_table(breaking: Breaking) -> None:
    """Watch what is written to RocksDB."""
    commit_batch: Any = store.AtomicStore.commit_batch

    def committed(self: store.AtomicStore, *arguments: Any) -> None:
        commit_batch(self, *arguments)
        breaking.passing("after table")

    setattr(store.AtomicStore, "commit_batch", committed)  # noqa: B010


def limit(size: int) -> None:
    """Let a batch of the changelog hold `size` bytes."""
    for module, name, value in ((producer, "CHECKPOINT_LIMIT", size), (staging, "_ROOM", size - 1_024)):
        setattr(module, name, value)


def run(watch: Callable[[Breaking], None]) -> None:
    """`tocsin`, watched by `watch` where the environment says where to break."""
    if "BREAK_LIMIT" in os.environ:
        limit(int(os.environ["BREAK_LIMIT"]))
    if "BREAK_AT" in os.environ:
        watch(
            Breaking(
                os.environ["BREAK_AT"],
                int(os.environ.get("BREAK_AFTER", "0")),
                os.environ.get("BREAK_BY", "SIGKILL"),
                Path(os.environ["BREAK_LOG"]),
            )
        )
    main()


if __name__ == "__main__":
    run(install)
