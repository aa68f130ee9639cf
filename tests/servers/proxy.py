"""A TCP proxy before a server, which may be pointed at another one, and may lose an answer on the way back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Final, Self

from tests.servers.process import HOST, free_port

_WITHIN: Final = 10.0


class Proxy:
    """Hands connections to `port` on to the server at `target`. It has a thread of its own, so a busy test holds nothing up."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.dropped = 0
        self._target, self._drops = target, 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ended: asyncio.Event
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_WITHIN):
            raise OSError(f"the proxy does not listen on port {self.port}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_WITHIN)

    def switch(self, target: int) -> None:
        """Break the connections; new ones go to `target`."""
        self._target = target
        self._loop.call_soon_threadsafe(self._sever)

    def drop_replies(self, number: int) -> None:
        """Let the next `number` answers that come back be lost, each with its connection."""
        self._drops = number

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        server = await asyncio.start_server(self._connected, HOST, self.port)
        self._ready.set()
        await self._ended.wait()
        server.close()
        while connections := asyncio.all_tasks() - {asyncio.current_task()}:
            self._sever()
            await asyncio.wait(connections, timeout=0.1)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, questions = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, questions}
        self._open |= pair
        there, back = (asyncio.ensure_future(each) for each in (_copy(reader, questions), self._answer(answers, writer)))
        await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        for end in pair:
            end.transport.abort()
        self._open -= pair
        await asyncio.gather(there, back, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._drops > 0:
                    self._drops -= 1
                    self.dropped += 1
                    return
                writer.write(data)
                await writer.drain()

    def _sever(self) -> None:
        for writer in self._open:
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
