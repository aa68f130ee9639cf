"""Stacks name where each task waits."""

from __future__ import annotations

import asyncio

from streams.runtime.stacks import stacks


async def test_a_task_is_followed_to_where_it_waits() -> None:
    async def innermost() -> None:
        await asyncio.Event().wait()

    async def outermost() -> None:
        await innermost()

    task = asyncio.create_task(outermost(), name="the one that waits")
    await asyncio.sleep(0)
    said = stacks()
    task.cancel()
    assert "thread MainThread:" in said
    lines = said[said.index("task the one that waits:") :].splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["outermost", "innermost", "wait"]
