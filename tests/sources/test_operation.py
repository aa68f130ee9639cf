"""What a finished request says: outcome and fault of every kind of answer, and names that are safe to keep."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mcp_types import CallToolResult, TextContent, methods

from schemas.event import MAX_TEXT, parse_event
from schemas.expression import words
from streams.sources.operation import (
    CALLER_CODES,
    METHODS,
    OTHER,
    clean,
    error_fields,
    exception_fields,
    request_fields,
    result_fields,
    size,
)

OK = {"outcome": "ok", "fault": "none"}
CALLER = {"outcome": "caller_error", "fault": "caller"}
SERVER = {"outcome": "rpc_error", "fault": "server"}
TOOL = {"outcome": "tool_error", "fault": "tool", "error_type": "tool_error"}
UNKNOWN_TOOL = {"unknown_target": True, "tool": OTHER}


def failed(text: str) -> dict[str, Any]:
    return {"isError": True, "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize(
    ("method", "result", "said"),
    [
        ("tools/call", {"content": []}, OK),
        ("tools/call", {"content": [], "isError": False}, OK),
        ("tools/call", CallToolResult(content=[]), OK),
        ("tools/call", None, OK),
        ("tools/list", {"tools": []}, OK),
        ("tools/call", failed("the disk does not answer"), TOOL),
        ("tools/call", CallToolResult(content=[TextContent(type="text", text="no")], is_error=True), TOOL),
        ("tools/call", {"isError": True}, TOOL),
        ("tools/call", {"isError": True, "content": []}, TOOL),
        ("tools/call", {"isError": True, "content": [{"type": "image", "data": ""}]}, TOOL),
        ("tools/call", {"isError": True, "content": [{"type": "text", "text": 7}]}, TOOL),
        ("tools/call", failed("MCP error -32602: no such city"), CALLER | {"error_type": "-32602", "rpc_code": "-32602"}),
        ("tools/call", failed("MCP error -32601: no"), CALLER | {"error_type": "-32601", "rpc_code": "-32601"}),
        ("tools/call", failed("MCP error -32603: broken"), TOOL),
        ("tools/call", failed("it said MCP error -32602: no"), TOOL),
        ("tools/call", failed("Unknown tool: made-up"), CALLER | UNKNOWN_TOOL | {"error_type": "-32602"}),
        (
            "tools/call",
            failed("Error executing tool add: 2 validation errors for addArguments\na\n  ..."),
            CALLER | {"error_type": "-32602"},
        ),
        ("tools/call", failed("Error executing tool add: 2 validation errors for Order\na\n  ..."), TOOL),
        ("tools/call", failed("Error executing tool add"), TOOL),
        ("prompts/get", {"isError": True, "content": []}, OK),
        ("resources/read", {"isError": True}, OK),
        (
            "tools/call",
            {"resultType": "input_required"},
            {"outcome": "input_required", "fault": "none", "result_type": "input_required"},
        ),
        (
            "prompts/get",
            SimpleNamespace(result_type="input_required"),
            {"outcome": "input_required", "fault": "none", "result_type": "input_required"},
        ),
        ("tools/call", {"resultType": "complete", "content": []}, OK),
    ],
)
def test_answers(method: str, result: Any, said: dict[str, Any]) -> None:
    assert result_fields(method, result) == said


@pytest.mark.parametrize("code", sorted(CALLER_CODES))
def test_a_code_of_the_caller(code: int) -> None:
    assert error_fields(code, "no") == CALLER | {"rpc_code": str(code), "error_type": str(code)}


@pytest.mark.parametrize("code", [-32603, -32000, -32001, -32020, -32099, 0, 1, 500])
def test_any_other_code_is_the_servers(code: int) -> None:
    assert error_fields(code, "no") == SERVER | {"rpc_code": str(code), "error_type": str(code)}


def test_a_missing_back_channel_is_the_servers_fault() -> None:
    message = "Cannot send 'sampling/createMessage': this transport context has no back-channel"
    assert error_fields(-32600, message) == SERVER | {"rpc_code": "-32600", "error_type": "-32600"}
    assert error_fields(-32602, message)["fault"] == "caller"


@pytest.mark.parametrize(("message", "name"), [("Unknown tool: made-up", "tool"), ("Unknown prompt: made-up", "prompt")])
def test_a_target_that_does_not_exist_loses_its_name(message: str, name: str) -> None:
    said = error_fields(-32602, message)
    assert said == CALLER | {"rpc_code": "-32602", "error_type": "-32602", "unknown_target": True, name: OTHER}
    said = exception_fields(ValueError(message))
    assert said == CALLER | {"error_type": "ValueError", "unknown_target": True, name: OTHER}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError("slow"), {"outcome": "timeout", "fault": "server", "error_type": "timeout"}),
        (
            ConnectionResetError("gone"),
            {"outcome": "transport_error", "fault": "network", "error_type": "ConnectionResetError"},
        ),
        (EOFError(), {"outcome": "transport_error", "fault": "network", "error_type": "EOFError"}),
        (GeneratorExit(), {"outcome": "cancelled", "fault": "none", "error_type": "cancelled"}),
        (KeyboardInterrupt(), {"outcome": "cancelled", "fault": "none", "error_type": "cancelled"}),
        (RuntimeError("secret"), SERVER | {"error_type": "RuntimeError"}),
        (ValueError("secret"), SERVER | {"error_type": "ValueError"}),
        (ValueError("Missing required arguments: {'a'}"), CALLER | {"error_type": "ValueError"}),
        (KeyError("Unknown tool: x"), SERVER | {"error_type": "KeyError"}),
        (type("E" * 300, (Exception,), {})(), SERVER | {"error_type": "E" * MAX_TEXT}),
    ],
)
def test_exceptions(error: BaseException, said: dict[str, Any]) -> None:
    assert exception_fields(error) == said


def test_every_outcome_and_fault_that_the_contract_knows_is_produced() -> None:
    said = [
        result_fields("tools/call", {}), result_fields("tools/call", failed("")), error_fields(-32602, ""), error_fields(-1, ""),
        result_fields("tools/call", {"resultType": "input_required"}),
        *(exception_fields(error) for error in (TimeoutError(), EOFError(), GeneratorExit())),
    ]  # fmt: skip
    assert {each["outcome"] for each in said} == set(words["outcome"])
    assert {each["fault"] for each in said} == set(words["fault"])


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("tools/call", {"name": "read", "arguments": {"path": "x"}}, {"feature": "tool", "tool": "read"}),
        ("prompts/get", {"name": "ask"}, {"feature": "prompt", "prompt": "ask"}),
        ("resources/read", {"uri": "file:///x", "name": "x"}, {"feature": "resource"}),
        ("tools/list", {"name": "x"}, {"feature": "tool"}),
        ("tools/call", None, {"feature": "tool"}),
        ("tools/call", {}, {"feature": "tool"}),
        ("tools/call", {"name": 7}, {"feature": "tool"}),
        ("initialize", {}, {"feature": "none"}),
        ("completion/complete", {}, {"feature": "completion"}),
        ("notifications/cancelled", {}, {"feature": "none"}),
    ],
)
def test_requests(method: str, params: dict[str, Any] | None, said: dict[str, Any]) -> None:
    assert request_fields(method, params) == {"method": method, "dir": "c2s"} | said


def test_a_method_that_the_protocol_does_not_know_loses_its_name() -> None:
    assert request_fields("tools/made-up", {})["method"] == OTHER
    assert request_fields("x" * 10_000, {}) == {"method": OTHER, "dir": "c2s", "feature": "none"}


def test_the_methods_are_those_that_the_sdk_serves() -> None:
    assert set(methods.SPEC_CLIENT_METHODS) <= METHODS
    assert set(methods.SPEC_CLIENT_NOTIFICATION_METHODS) <= METHODS


@pytest.mark.parametrize(
    ("text", "printable"),
    [
        ("read_file", "read_file"),
        ("löschen 文件", "löschen 文件"),
        ("a\x1b[31m\r\n\tb\x00", "a?[31m???b?"),
        ("a\u202eb\u2028\ud800", "a?b??"),
        ("x" * 256, "x" * 256),
        ("x" * 100_000, "x" * 256),
        ("", ""),
    ],
)
def test_names_are_made_printable_and_short(text: str, printable: str) -> None:
    assert clean(text) == printable
    assert request_fields("tools/call", {"name": text})["tool"] == printable


def test_a_name_of_the_widest_characters_is_an_event() -> None:
    name = clean("\U0001f600" * 1_000)
    raw = f'{{"ts":1767225600000000,"kind":"operation","service":"s","tool":"{name}"}}'.encode()
    assert parse_event(raw).tool == name


@pytest.mark.parametrize(
    ("value", "bytes_"),
    [
        (None, 0),
        ({}, 0),
        ({"a": 1}, 7),
        ({"a": "é"}, 10),
        ({"a": "\ud800"}, 11),
        ({"a": object}, len('{"a":"<class \'object\'>"}')),
    ],
)
def test_sizes_are_those_on_the_wire(value: Any, bytes_: int) -> None:
    assert size(value) == bytes_
