"""What a finished MCP request says about its server: names, sizes, outcome and fault; never arguments, results or error texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from schemas.event import MAX_TEXT

METHODS: Final = frozenset(
    (
        "initialize", "ping", "server/discover", "subscriptions/listen", "tools/list", "tools/call", "resources/list",
        "resources/templates/list", "resources/read", "resources/subscribe", "resources/unsubscribe", "prompts/list",
        "prompts/get",
        "completion/complete", "logging/setLevel", "sampling/createMessage", "elicitation/create", "roots/list", "tasks/get",
        "tasks/list", "tasks/result", "tasks/update", "tasks/cancel", "notifications/initialized", "notifications/cancelled",
        "notifications/progress", "notifications/message", "notifications/resources/updated",
        "notifications/resources/list_changed",
        "notifications/tools/list_changed", "notifications/prompts/list_changed", "notifications/roots/list_changed",
        "notifications/elicitation/complete", "notifications/subscriptions/acknowledged", "notifications/tasks",
        "notifications/tasks/status",
    )
)  # fmt: skip
OTHER: Final = "_OTHER"
CALLER_CODES: Final = frozenset((-32700, -32600, -32601, -32602, -32002))
"""JSON-RPC errors that are the caller's fault, like HTTP 4xx."""
INVALID_PARAMS: Final = -32602
MODERN: Final = "2026-07-28"
_TOOL_TEXT: Final = re.compile(r"MCP error (-\d{5})\b")
_UNKNOWN: Final = re.compile(r"Unknown (tool|prompt)\b")
_BAD_ARGUMENTS: Final = re.compile(
    r"Missing required arguments\b|Error executing tool .{1,256}: \d+ validation errors? for \w+Arguments\n"
)
_NO_BACK_CHANNEL: Final = re.compile(r"back.?channel", re.IGNORECASE)
_FEATURES: Final = {
    "tools": "tool", "resources": "resource", "prompts": "prompt", "sampling": "sampling", "elicitation": "elicitation",
    "roots": "roots", "completion": "completion", "tasks": "task",
}  # fmt: skip


def request_fields(method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Method, feature and target of a request. Names that the protocol does not know become `_OTHER`."""
    fields: dict[str, Any] = {"method": method if method in METHODS else OTHER, "dir": "c2s"}
    fields["feature"] = _FEATURES.get(method.partition("/")[0], "none")
    name = (params or {}).get("name")
    if isinstance(name, str) and method in ("tools/call", "prompts/get"):
        fields["tool" if method == "tools/call" else "prompt"] = clean(name)
    return fields


def result_fields(method: str, result: Any) -> dict[str, Any]:
    """Outcome and fault of an answer: a failed tool answers, and says so inside."""
    if _get(result, "result_type", "resultType") == "input_required":
        return {"outcome": "input_required", "fault": "none", "result_type": "input_required"}
    if method != "tools/call" or _get(result, "is_error", "isError") is not True:
        return {"outcome": "ok", "fault": "none"}
    text = _first_text(result)
    found = _TOOL_TEXT.match(text)
    if found and int(found[1]) in CALLER_CODES:
        return {"outcome": "caller_error", "fault": "caller", "error_type": found[1], "rpc_code": found[1]}
    if _UNKNOWN.match(text) or _BAD_ARGUMENTS.match(text):
        return {"error_type": str(INVALID_PARAMS)} | _caller_fields(text)
    return {"outcome": "tool_error", "fault": "tool", "error_type": "tool_error"}


def error_fields(code: int, message: str) -> dict[str, Any]:
    """Outcome and fault of a JSON-RPC error."""
    fields: dict[str, Any] = {"rpc_code": str(code), "error_type": str(code)}
    # A server that asks back over a channel that the newer protocol does not have answers with a code of the caller's.
    if code in CALLER_CODES and not (code == -32600 and _NO_BACK_CHANNEL.search(message)):
        return fields | _caller_fields(message)
    return fields | {"outcome": "rpc_error", "fault": "server"}


def exception_fields(error: BaseException) -> dict[str, Any]:
    """Outcome and fault of a handler that raised something else than a JSON-RPC error."""
    if isinstance(error, TimeoutError):
        return {"outcome": "timeout", "fault": "server", "error_type": "timeout"}
    if isinstance(error, ConnectionError | EOFError):
        return {"outcome": "transport_error", "fault": "network", "error_type": clean(type(error).__name__)}
    if not isinstance(error, Exception):
        return {"outcome": "cancelled", "fault": "none", "error_type": "cancelled"}
    fields = {"error_type": clean(type(error).__name__)}
    # The SDK answers these with codes of the server.
    if isinstance(error, ValueError) and (_UNKNOWN.match(str(error)) or _BAD_ARGUMENTS.match(str(error))):
        return fields | _caller_fields(str(error))
    return fields | {"outcome": "rpc_error", "fault": "server"}


def size(value: Any) -> int:
    """Bytes of `value` as compact JSON in UTF-8; 0 for nothing."""
    if not value:
        return 0
    return len(json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def clean(text: str) -> str:
    """`text` made printable, at most 256 characters: it comes from the other side of the wire."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_TEXT])


def _caller_fields(text: str) -> dict[str, Any]:
    """A request that was wrong. A target that does not exist loses its name: the caller makes up as many as he likes."""
    fields: dict[str, Any] = {"outcome": "caller_error", "fault": "caller"}
    if unknown := _UNKNOWN.match(text):
        fields |= {"unknown_target": True, unknown[1]: OTHER}
    return fields


def _get(result: Any, name: str, alias: str) -> Any:
    return result.get(alias) if isinstance(result, Mapping) else getattr(result, name, None)


def _first_text(result: Any) -> str:
    content = _get(result, "content", "content") or [None]
    text = _get(content[0], "text", "text")
    return text if isinstance(text, str) else ""
