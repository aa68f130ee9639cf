"""Every server that the SDK makes is watched, whatever module made it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer

from streams.sources import instrument as module
from streams.sources.instrument import instrument
from streams.sources.middleware import Telemetry
from tests.command import environment
from tests.sources.capture import Capture

ROOT = Path(__file__).parents[2]


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    monkeypatch.setattr(Server, "__init__", Server.__init__)  # so that it is as it was afterwards
    made = Telemetry(Capture())
    yield made
    made.close()


def test_every_server_made_from_now_on_has_the_middleware(telemetry: Telemetry) -> None:
    earlier = Server("earlier")
    instrument(telemetry)

    class Own(Server[Any]):
        """A server of one's own."""

    for made in (Server("low"), Own("own"), MCPServer("high")):
        assert made.middleware.count(telemetry.middleware) == 1
    assert telemetry.middleware not in earlier.middleware


def test_a_server_is_made_as_before(telemetry: Telemetry) -> None:
    make = Server.__init__
    instrument(telemetry)
    server: Server[Any] = Server("low", version="1.2", instructions="be kind")
    assert (server.name, server.version, server.instructions) == ("low", "1.2", "be kind")
    assert Server.__init__.__name__ == make.__name__
    with pytest.raises(TypeError):
        Server("low", made_up=1)  # type: ignore[call-overload]


async def test_an_instrumented_server_tells(telemetry: Telemetry) -> None:
    instrument(telemetry)
    server: MCPServer[Any] = MCPServer("high")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    async with Client(server) as client:
        await client.call_tool("add", {"a": 1, "b": 2})
    sink = telemetry._sink
    assert isinstance(sink, Capture)
    assert [event.tool for event in sink.operations() if event.method == "tools/call"] == ["add"]


MODULE = """
import sys
print(__name__, sys.argv[1:])
sys.exit(7)
"""


@pytest.mark.parametrize("dashes", [["--"], []])
def test_runs_a_module_as_python_would(tmp_path: Path, dashes: list[str]) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    done = run(tmp_path, "--service", "shop", *dashes, "shop", "--port", "1", "--", "x")
    assert done.stdout == "__main__ ['--port', '1', '--', 'x']\n"
    assert done.returncode == 7


STUCK = """
import pathlib, sys, threading
try:
    pathlib.Path(sys.argv[1]).touch()
    threading.Event().wait()
finally:
    print("left")
"""


def test_a_module_that_is_told_to_end_ends_in_order(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    started = tmp_path / "started"
    with subprocess.Popen(
        [sys.executable, "-m", module.__name__, "--service", "s", "stuck", str(started)],
        cwd=tmp_path, env=without_broker(tmp_path), stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        deadline = time.monotonic() + 30
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.terminate()
        assert child.communicate(timeout=30)[0] == "left\n"
    assert child.returncode == 128 + signal.SIGTERM


def test_says_what_is_wrong_with_a_setting(tmp_path: Path) -> None:
    done = run(tmp_path, "--service", "shop", "shop", TOCSIN_FENCING="perhaps")
    assert done.returncode == 2
    assert "TOCSIN_FENCING='perhaps': use one of on, off" in done.stderr
    assert run(tmp_path, "shop").returncode == 2


def without_broker(folder: Path, **settings: str) -> dict[str, str]:
    """Nothing listens on port 9: the module runs without a broker all the same."""
    return environment({"TOCSIN_BOOTSTRAP_SERVERS": "127.0.0.1:9", "PYTHONPATH": f"{ROOT}:{folder}"} | settings)


def run(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module.__name__, *arguments],
        cwd=folder, env=without_broker(folder, **settings), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
