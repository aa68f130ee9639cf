"""A real Redis server on a free port, without persistence."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Final

from tests.servers.process import HOST, Server, free_port
from tests.servers.programs import require

TESTED: Final = "7.0.15"
"""The version of Redis that Debian 12 has; docker-compose.yml uses the same."""


class RedisServer(Server):
    """`redis-server`, at `url`; with `primary` a replica of the one at that port."""

    name = "redis"

    def __init__(self, folder: Path, *, port: int | None = None, primary: int | None = None) -> None:
        require("redis-server")
        super().__init__(folder)
        self.primary = primary
        self.port = free_port() if port is None else port
        self.url = f"redis://{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        of = () if self.primary is None else ("--replicaof", HOST, str(self.primary))
        return [
            "redis-server", "--bind", HOST, "--port", str(self.port), "--save", "", "--appendonly", "no",
            "--dir", str(self.folder), "--daemonize", "no", "--repl-diskless-sync-delay", "0", *of,
        ]  # fmt: skip

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1) as connection:
            connection.settimeout(1)
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    def ask(self, *words: str) -> str:
        """Send one command that takes no more than a line to answer; the answer as Redis wrote it. Raises OSError."""
        line = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
        with socket.create_connection((HOST, self.port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(b"*%d\r\n%s" % (len(words), line))
            return connection.recv(1 << 16).decode("utf-8", "replace")
