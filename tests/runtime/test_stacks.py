"""Stacks name where each task waits, whatever loop it is of."""

from __future__ import annotations

import asyncio
import threading

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


def test_the_tasks_of_another_thread_are_shown() -> None:
    async def fetch() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("the one of another thread")
        begun.set()
        await asyncio.sleep(60)

    begun, loop = threading.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(fetch(), loop)
    begun.wait(10)
    said = stacks()
    future.cancel()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert "task the one of another thread:" in said
