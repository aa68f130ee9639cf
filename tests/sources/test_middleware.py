"""Telemetry of a real server of the SDK: what is sent, what never is, and that it breaks nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent

from schemas.event import Event
from streams.sources.middleware import Telemetry
from streams.sources.outlet import Sink
from streams.testing import START
from streams.testing import FakeClock as Clock
from tests.sources.capture import Broken, Capture

SENTINEL = "sentinel-7f3d"
MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture
def sink() -> Capture:
    return Capture()


@pytest.fixture
def telemetry(sink: Capture) -> Iterator[Telemetry]:
    made = Telemetry(sink)
    yield made
    made.close()


def serve(telemetry: Telemetry) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("shop", version="1.2", middleware=[telemetry.middleware])

    @server.tool()
    def echo(text: str) -> str:
        return f"{text} {SENTINEL}-result"

    @server.tool()
    def refuse(text: str) -> str:
        raise ToolError(f"{text} {SENTINEL}-error")

    @server.tool()
    def crash(text: str) -> str:
        raise RuntimeError(f"{text} {SENTINEL}-crash")

    @server.tool()
    async def sleep(text: str) -> str:
        await asyncio.sleep(60)
        return text

    @server.prompt()
    def ask(text: str) -> str:
        return f"{text} {SENTINEL}-prompt"

    @server.resource("note://{name}")
    def note(name: str) -> str:
        return f"{name} {SENTINEL}-note"

    return server


def connect(server: Any, mode: Any = "auto") -> Client:
    return Client(server, mode=mode)


def low(telemetry: Telemetry, call: Callable[[Any, Any], Awaitable[CallToolResult]]) -> Server[Any]:
    """A server without the comfort of MCPServer."""

    async def list_tools(ctx: ServerRequestContext[Any], params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[])

    server: Server[Any] = Server("low", on_call_tool=call, on_list_tools=list_tools)
    server.middleware.append(telemetry.middleware)
    return server


def last(sink: Capture) -> Event:
    """The last operation that the test asked for: the client itself lists tools, to learn what they answer."""
    return [event for event in sink.operations() if event.method != "tools/list"][-1]


@MODES
async def test_a_call_is_one_event(sink: Capture, telemetry: Telemetry, mode: str) -> None:
    async with connect(serve(telemetry), mode) as client:
        await client.list_tools()
        before, started = len(sink.events), time.time_ns() // 1000
        await client.call_tool("echo", {"text": "é"})
        (event,) = sink.events[before:]
    assert (event.kind, event.method, event.tool, event.msg, event.dir) == ("operation", "tools/call", "echo", "request", "c2s")
    assert (event.outcome, event.fault, event.feature, event.side) == ("ok", "none", "tool", "server")
    assert (event.transport, event.app_proto, event.in_flight) == ("pipe", None, 1)
    assert event.era == {"auto": "modern", "legacy": "legacy"}[mode]
    assert event.proto is not None
    assert event.proto.startswith("20")
    assert event.client_name == "mcp"
    assert event.req_id is not None
    assert event.res_bytes is not None
    assert event.req_bytes is not None
    assert event.dur_us is not None
    assert started <= event.ts <= time.time_ns() // 1000
    assert 0 < event.dur_us <= event.ts - started + 1000
    if mode == "legacy":
        assert event.req_bytes == len('{"name":"echo","arguments":{"text":"é"}}'.encode())


@MODES
async def test_outcomes(sink: Capture, telemetry: Telemetry, mode: str) -> None:
    said: dict[str, tuple[str | None, str | None, str | None]] = {}
    async with connect(serve(telemetry), mode) as client:
        for tool, arguments in (
            ("echo", {"text": "x"}), ("refuse", {"text": "x"}), ("crash", {"text": "x"}), ("made-up", {}), ("echo", {"text": []}),
        ):  # fmt: skip
            await client.call_tool(tool, arguments)
            said[f"{tool} {len(str(arguments))}"] = (last(sink).outcome, last(sink).fault, last(sink).tool)
        await client.get_prompt("ask", {"text": "x"})
        assert (last(sink).outcome, last(sink).prompt) == ("ok", "ask")
        for prompt, kept in (("made-up", "_OTHER"), ("ask", "ask")):
            with pytest.raises(MCPError):
                await client.get_prompt(prompt, {})
            assert (last(sink).outcome, last(sink).prompt) == ("caller_error", kept)
        await client.read_resource("note://x")
        assert (last(sink).outcome, last(sink).method) == ("ok", "resources/read")
        with pytest.raises(MCPError):
            await client.read_resource("made-up://x")
        assert (last(sink).outcome, last(sink).rpc_code) == ("caller_error", "-32602")
    assert said == {
        "echo 13": ("ok", "none", "echo"),
        "refuse 13": ("tool_error", "tool", "refuse"),
        "crash 13": ("tool_error", "tool", "crash"),
        "made-up 2": ("caller_error", "caller", "_OTHER"),
        "echo 12": ("caller_error", "caller", "echo"),
    }


@MODES
async def test_no_value_is_in_any_event(sink: Capture, telemetry: Telemetry, mode: str) -> None:
    text = f"{SENTINEL}-argument"
    async with connect(serve(telemetry), mode) as client:
        for tool in ("echo", "refuse", "crash", SENTINEL):
            await client.call_tool(tool, {"text": text})
        await client.call_tool("echo", {"text": [SENTINEL]})
        assert SENTINEL in str(await client.get_prompt("ask", {"text": text}))
        assert SENTINEL in str(await client.read_resource(f"note://{text}"))
        for wrong in (client.get_prompt(SENTINEL, {}), client.read_resource(f"made-up://{SENTINEL}")):
            with pytest.raises(MCPError):
                await wrong
    assert len(sink.operations()) >= 9
    assert not [raw for raw in sink.raw if b"sentinel" in raw]


async def test_every_message_of_a_session_is_one_event(sink: Capture, telemetry: Telemetry) -> None:
    async with connect(serve(telemetry), "legacy") as client:
        await client.list_tools()
        await client.call_tool("echo", {"text": "x"})
    assert Counter((event.method, event.msg) for event in sink.operations()) == {
        ("initialize", "request"): 1,
        ("notifications/initialized", "notification"): 1,
        ("tools/list", "request"): 1,
        ("tools/call", "request"): 1,
    }
    assert sink.operations()[1].req_id is None
    assert len({event.conn for event in sink.events}) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TimeoutError(SENTINEL), "timeout"),
        (BrokenPipeError(SENTINEL), "transport_error"),
        (LookupError(SENTINEL), "rpc_error"),
        (MCPError(-32000, SENTINEL), "rpc_error"),
        (MCPError(-32002, SENTINEL), "caller_error"),
    ],
)
async def test_a_handler_that_fails(sink: Capture, telemetry: Telemetry, error: Exception, outcome: str) -> None:
    async def call(ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        raise error

    async with connect(low(telemetry, call), "legacy") as client:
        with pytest.raises(MCPError):
            await client.call_tool("x", {})
    assert last(sink).outcome == outcome
    assert not [raw for raw in sink.raw if b"sentinel" in raw]


async def test_parameters_that_the_protocol_refuses(sink: Capture, telemetry: Telemetry) -> None:
    async def call(ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        return CallToolResult.model_validate({"content": SENTINEL})

    async with connect(low(telemetry, call), "legacy") as client:
        with pytest.raises(MCPError, match="Invalid request parameters"):
            await client.call_tool("x", {})
    assert (last(sink).outcome, last(sink).rpc_code) == ("caller_error", "-32602")


@MODES
async def test_a_call_that_the_client_gives_up(sink: Capture, telemetry: Telemetry, mode: str) -> None:
    async with connect(serve(telemetry), mode) as client:
        call = asyncio.create_task(client.call_tool("sleep", {"text": "x"}))
        second = asyncio.create_task(client.call_tool("sleep", {"text": "x"}))
        await asyncio.sleep(0.2)
        for each in (call, second):
            each.cancel()
        await asyncio.gather(call, second, return_exceptions=True)
        async with asyncio.timeout(10):
            while [event.outcome for event in sink.operations()].count("cancelled") < 2:
                await asyncio.sleep(0.01)
        await client.call_tool("echo", {"text": "x"})
    given_up = [event for event in sink.operations() if event.outcome == "cancelled"]
    assert sorted(event.in_flight or 0 for event in given_up) == [1, 2]
    assert all((event.dur_us or 0) > 100_000 for event in given_up)
    assert last(sink).in_flight == 1 or mode == "legacy"


async def test_names_from_the_wire_are_made_safe(sink: Capture, telemetry: Telemetry) -> None:
    async def call(ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text="ok")])

    async with connect(low(telemetry, call), "legacy") as client:
        await client.call_tool("a\x1b[31m" + "x" * 10_000, {})
    assert last(sink).tool == ("a?[31m" + "x" * 10_000)[:256]


# --- telemetry that fails ---------------------------------------------------------------------------------------------


async def answers(sink: Sink) -> None:
    telemetry = Telemetry(sink, heartbeat=0.01)
    async with connect(serve(telemetry), "legacy") as client:
        assert f"{SENTINEL}-result" in str(await client.call_tool("echo", {"text": "x"}))
        assert (await client.call_tool("refuse", {"text": "x"})).is_error
        with pytest.raises(MCPError, match="Unknown resource"):
            await client.read_resource("made-up://x")
    telemetry.close()


async def test_a_broken_sink_does_not_break_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    await answers(Broken())
    assert "an event is lost" in caplog.text


class Odd:
    """A context as no SDK would make it: each attribute that is not given raises."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"method": "tools/call", "params": {"name": "echo"}}, {"method": "tools/call", "tool": "echo"}),
        (
            {"method": "tools/call", "params": {"name": "echo", ("a", "tuple"): 1}, "protocol_version": "2025-11-25",
             "request": None, "request_id": 1},
            {"method": "tools/call", "tool": "echo", "proto": "2025-11-25", "req_bytes": None},
        ),
        ({"method": "ping", "params": {"name": b"\xff"}}, {"method": "ping"}),
        ({"method": "ping", "params": "text"}, {"req_bytes": 6}),
        ({}, {"method": None}),
    ],
)  # fmt: skip
async def test_a_context_that_cannot_be_read_takes_only_its_own_fields(
    sink: Capture, telemetry: Telemetry, given: dict[str, Any], kept: dict[str, Any]
) -> None:
    async def call_next(ctx: Any) -> dict[str, Any]:
        return {"answer": 1}

    assert await telemetry.middleware(Odd(**given), call_next) == {"answer": 1}
    (event,) = sink.operations()
    assert {name: getattr(event, name) for name in kept} == kept
    assert event.dur_us is not None


@pytest.mark.parametrize("result", [{("a", "tuple"): 1}, object(), float("nan"), {"content": 7, "isError": True}])
async def test_a_result_that_cannot_be_read_is_answered(sink: Capture, telemetry: Telemetry, result: Any) -> None:
    async def call_next(ctx: Any) -> Any:
        return result

    assert await telemetry.middleware(Odd(method="tools/call", params=None), call_next) is result
    (event,) = sink.operations()
    assert event.method == "tools/call"


async def test_an_error_that_cannot_be_read_is_raised(sink: Capture, telemetry: Telemetry) -> None:
    class UnprintableError(ValueError):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def call_next(ctx: Any) -> Any:
        raise UnprintableError

    with pytest.raises(UnprintableError):
        await telemetry.middleware(Odd(method="ping", params=None), call_next)
    assert last(sink).method == "ping"


# --- heartbeats and the end -------------------------------------------------------------------------------------------


def test_opens_beats_and_closes_once(sink: Capture) -> None:
    clock = Clock()
    telemetry = Telemetry(sink, heartbeat=0.005, clock=clock)
    sink.wait_for(4)
    clock.advance("7s")
    telemetry.close("eof")
    telemetry.close("exit")
    actions = sink.actions()
    assert actions[0] == "open"
    assert actions.count("heartbeat") >= 3
    assert actions.count("close") == 1
    closed = next(event for event in sink.events if event.action == "close")
    assert (closed.reason, closed.dur_us, closed.ts) == ("eof", 7_000_000, START + 7_000_000)
    assert {(event.kind, event.side, event.v) for event in sink.events} == {("connection", "server", 1)}
    assert sink.events[1].in_flight == 0


def test_ends_its_thread(sink: Capture) -> None:
    before = set(threading.enumerate())
    telemetry = Telemetry(sink, heartbeat=60)
    (beating,) = set(threading.enumerate()) - before
    telemetry.close()
    beating.join(10)
    assert not beating.is_alive()


async def test_a_server_that_is_stuck_does_not_beat(sink: Capture) -> None:
    telemetry = Telemetry(sink, heartbeat=0.01)
    async with connect(serve(telemetry), "legacy") as client:
        await client.call_tool("echo", {"text": "x"})
        count = len(sink.raw)
        await asyncio.to_thread(sink.wait_for, count + 2)
        stuck = len(sink.raw)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is stuck, that is the point
        assert len(sink.raw) <= stuck + 1
        await asyncio.to_thread(sink.wait_for, stuck + 3)
    telemetry.close()


def test_beats_on_after_another_loop_took_over(sink: Capture) -> None:
    telemetry = Telemetry(sink, heartbeat=0.01)

    async def call() -> None:
        async with connect(serve(telemetry), "legacy") as client:
            await client.call_tool("echo", {"text": "x"})

    async def call_and_wait() -> None:
        await call()
        await asyncio.to_thread(sink.wait_for, len(sink.raw) + 3)

    asyncio.run(call())
    asyncio.run(call_and_wait())
    telemetry.close()


# --- what is used of the SDK ------------------------------------------------------------------------------------------


async def test_the_context_has_what_the_middleware_reads() -> None:
    seen: list[dict[str, Any]] = []

    async def look(ctx: Any, call_next: Any) -> Any:
        read = {name: getattr(ctx, name) for name in ("method", "params", "request_id", "protocol_version", "session", "request")}
        seen.append(read | {"client_params": ctx.session.client_params})
        return await call_next(ctx)

    server: MCPServer[Any] = MCPServer("s", middleware=[look])
    async with connect(server, "legacy") as client:
        await client.list_tools()
    made = {each["method"]: each for each in seen}
    assert made["initialize"]["client_params"] is None
    listed = made["tools/list"]
    assert listed["client_params"].client_info.name == "mcp"
    assert isinstance(listed["client_params"].client_info.version, str)
    assert listed["protocol_version"] == "2025-11-25"
    assert listed["request"] is None
    assert listed["request_id"] is not None
    assert made["notifications/initialized"]["request_id"] is None


async def test_a_server_has_a_list_of_middleware_that_applies_at_once(sink: Capture, telemetry: Telemetry) -> None:
    server: MCPServer[Any] = MCPServer("s")
    assert isinstance(server.middleware, list)
    assert len(Server("low").middleware) == 1
    async with connect(server, "legacy") as client:
        server.middleware.append(telemetry.middleware)
        await client.list_tools()
    assert "tools/list" in [event.method for event in sink.operations()]
