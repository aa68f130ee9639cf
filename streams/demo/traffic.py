"""Real clients of the official SDK that keep calling the demo's servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

import httpx2
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from streams.demo.processes import HOST

PAUSE: Final = 0.1
CALL_SECONDS: Final = 10.0
HEARTBEAT: Final = "2"


class Calls:
    """Calls one server again and again; after it died, connects anew once `alive` is set."""

    def __init__(self, connect: Callable[[], Any], calls: list[tuple[str, dict[str, Any]]]) -> None:
        self._connect, self._calls = connect, calls
        self.alive = asyncio.Event()
        self.alive.set()
        self.made = 0

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await self.alive.wait()
            # A server that dies in the middle of a call fails the call, the session and the transport, each in its own way.
            with contextlib.suppress(Exception):
                async with Client(self._connect(), read_timeout_seconds=CALL_SECONDS) as client:
                    await self._call(client)
            await asyncio.sleep(PAUSE)

    async def _call(self, client: Client) -> None:
        while self.alive.is_set():
            for tool, arguments in self._calls:
                await client.call_tool(tool, arguments)
                self.made += 1
                await asyncio.sleep(PAUSE)


def stdio_server(module: str, *arguments: str, service: str, environment: dict[str, str], log: TextIO) -> Callable[[], Any]:
    """Starts `module` under the middleware, and connects to it. Clients hand down few variables, so ours are named."""
    command = ["-m", "streams.sources.instrument", "--service", service, "--heartbeat", HEARTBEAT, "--", module, *arguments]
    parameters = StdioServerParameters(command=sys.executable, args=command, env=environment)
    return lambda: stdio_client(parameters, errlog=log)


def http_server(port: int, token: str) -> Callable[[], Any]:
    """Connects to the vault, with its token."""

    @contextlib.asynccontextmanager
    async def connect() -> Any:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=CALL_SECONDS) as http,
            streamable_http_client(f"http://{HOST}:{port}/mcp", http_client=http) as streams,
        ):
            yield streams

    return connect


async def knock(port: int, stop: Callable[[], bool]) -> None:
    """Call the vault without a token until `stop`."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(headers=headers, timeout=CALL_SECONDS) as http:
        while not stop():
            await http.post(f"http://{HOST}:{port}/mcp", json=body)
            await asyncio.sleep(PAUSE)


def kill_server(module: str) -> int:
    """Kill the child of this process that runs `module`; returns its process id."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if parent == os.getpid() and module.encode() in command:
            child = int(status.parent.name)
            os.kill(child, signal.SIGKILL)
            return child
    raise RuntimeError(f"no child runs {module}")
