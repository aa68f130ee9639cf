"""A server process on the loopback: started, watched until it answers, paused, killed, started again on its data."""

from __future__ import annotations

import atexit
import contextlib
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
_PORTS: Final = range(20_000, 32_000)  # below the range from which the kernel takes ports of outgoing connections


class ServerError(RuntimeError):
    """A server did not start or ended by itself; carries the end of its log."""


def free_port() -> int:
    """A port of the loopback on which nothing listens."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free port among 100 tried in {_PORTS}")


class Server(ABC):
    """One server process and its data folder. `start` after `kill` or `stop` goes on with the same data and port."""

    name: str
    start_within: float = 60.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        atexit.register(self.kill)

    @abstractmethod
    def command(self) -> list[str]:
        """The command that runs the server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server serves a request now."""

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives (it may be paused)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process and wait until it answers; raises ServerError where it does not."""
        if self.is_running:
            raise ServerError(f"{self.name} runs already, process {self.pid}")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + self.start_within
        while not self.answers():
            if self._process.poll() is not None:
                raise ServerError(f"{self.name} ended with status {self._process.returncode}:\n{self._tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{self.name} does not answer after {self.start_within:.0f} s:\n{self._tail()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End the process as a power cut would."""
        if self.is_running:
            process = self._running()
            process.kill()
            process.wait()

    def stop(self, within: float = 20.0) -> None:
        """End the process in order; kill it where it does not."""
        if not self.is_running:
            return
        process = self._running()
        self.resume()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self.name} does not run")
        return self._process

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


def listens(port: int) -> bool:
    """Whether something accepts connections on `port` of the loopback."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False
