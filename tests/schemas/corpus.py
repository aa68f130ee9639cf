"""Values of records that every reader of events must take, and values that every reader must refuse.

`GOOD` and `BAD` map a name to the bytes; `BAD` says beside them why the record is a dead letter.
"""

from __future__ import annotations

import json
from typing import Any, Final

from schemas.dead_letter import DeadReason
from schemas.event import MAX_ATTRIBUTES, MAX_NUMBER, MAX_TEXT, MAX_WEIGHT, Event

TS: Final = 1_795_303_740_255_898
BASE: Final[dict[str, Any]] = {"ts": TS, "kind": "operation", "service": "files"}


def event(**fields: Any) -> bytes:
    """An event as JSON, with the required fields filled in."""
    return json.dumps(BASE | fields, ensure_ascii=False, separators=(",", ":")).encode()


def raw(members: str) -> bytes:
    """An event with further members, written as they are."""
    return event()[:-1] + b"," + members.encode() + b"}"


def nested(depth: int, inner: str = "1") -> str:
    """`depth` arrays and objects around a value."""
    for level in range(depth):
        inner = f"[{inner}]" if level % 2 else '{"in":' + inner + "}"
    return inner


OPERATION: Final = {
    "v": 1, "id": "0193", "ts": TS, "kind": "operation", "tenant": "t1", "service": "files", "instance": "i-7", "side": "proxy",
    "src": "tap", "weight": 1, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7", "conn": "c-19",
    "req_id": "12", "proto": "2026-07-28", "era": "modern", "transport": "pipe", "method": "tools/call", "dir": "c2s",
    "msg": "request", "tool": "read_file", "dur_us": 12345, "req_bytes": 321, "res_bytes": 2210, "outcome": "tool_error",
    "fault": "tool", "error_type": "tool_error", "in_flight": 3, "feature": "tool", "args_fp": "h:9c1e",
}  # fmt: skip

_KINDS: Final[dict[str, dict[str, Any]]] = {
    "operation": OPERATION,
    "connection": {"action": "close", "reason": "exit", "exit_code": -9, "dur_us": 86_400_000_000, "active": 0},
    "protocol": {"action": "violation", "code": "invalid_json", "peer": "client", "from_state": "init", "to_state": "operating"},
    "security": {
        "action": "authn",
        "result": "fail",
        "reason": "missing_token",
        "required_scope": "files:read",
        "severity": "high",
    },
    "approval": {"action": "rejected", "source": "policy", "tool": "delete", "wait_us": 4_200_000},
    "inventory": {"list": "tools", "count": 12, "hash": "9c1e", "added": 1, "removed": 0, "changed": 2, "server_ver": "1.4"},
    "perf": {"rss_bytes": 1 << 30, "cpu_ratio": 412, "fds": 31, "loop_lag_us": 900, "queue_depth": 0, "dropped_events": 0},
    "health": {"check": "conn_pool", "status": "degraded", "probe": "ping", "latency_us": 1200, "detail": "slow"},
    "audit": {"category": "security", "action": "login", "actor": "h:1", "object": "vault", "level": "warn", "msg_code": "A17"},
    "metric": {"name": "queue.age", "value": 12.5, "unit": "s"},
}

GOOD: Final[dict[str, bytes]] = {
    "only what is required": event(),
    **{f"kind {kind}": event(**(fields | {"kind": kind})) for kind, fields in _KINDS.items()},
    **{
        f"outcome {word}": event(outcome=word)
        for word in ("ok", "caller_error", "rpc_error", "timeout", "cancelled", "transport_error", "input_required")
    },
    **{f"fault {word}": event(fault=word) for word in ("none", "caller", "server", "network")},
    "every optional field null": event(
        **dict.fromkeys(name for name in Event.model_fields if name not in (*BASE, "tenant", "weight", "attributes"))
    ),
    "defaults written out": event(tenant="default", weight=1, attributes={}),
    "ts at the first moment": event(ts=946_684_800_000_000),
    "ts as RFC 3339 in UTC": event(ts="2026-11-23T00:43:10Z"),
    "ts in lower case": event(ts="2026-11-23t00:43:10z"),
    "ts with a space": event(ts="2026-11-23 00:43:10Z"),
    "ts with a tenth": event(ts="2026-11-23T00:43:10.5Z"),
    "ts with nanoseconds, which are cut": event(ts="2026-11-23T00:43:10.123456789Z"),
    "ts east of UTC": event(ts="2026-11-23T06:13:10.000001+05:30"),
    "ts west of UTC": event(ts="2026-11-22T16:43:10-08:00"),
    "ts on a leap day": event(ts="2028-02-29T23:59:59.999999Z"),
    "ts in the last year": event(ts="9999-12-31T23:59:59.999999Z"),
    "longest text": event(tool="x" * MAX_TEXT),
    "longest text in four-byte characters": event(tool="\N{OWL}" * MAX_TEXT),
    "longest service": event(service="s" * MAX_TEXT),
    "empty text": event(tool="", instance=""),
    "largest integers": event(dur_us=MAX_NUMBER, queue_us=-MAX_NUMBER),
    "negative zero as an integer": raw('"dur_us":-0'),
    "largest weight": event(weight=MAX_WEIGHT),
    "value as an integer": event(kind="metric", name="n", value=5),
    "value at the bound": event(kind="metric", name="n", value=MAX_NUMBER),
    "value at the bound with a fraction": raw('"value":9007199254740993.0'),
    "value negative zero": raw('"value":-0.0'),
    "value negative zero as an integer": raw('"value":-0'),
    "value with an exponent": raw('"value":1.5E+3'),
    "value too small for a double": raw('"value":1e-400'),
    "value subnormal": raw('"value":2.2250738585072011e-308'),
    "value with many digits": raw('"value":0.1000000000000000055511151231257827021181583404541015625'),
    "booleans": event(unknown_target=True, attributes={"a": False}),
    "attributes of each type": event(attributes={"text": "a", "yes": True, "integer": 3, "number": 1.5, "zero": -0.0}),
    "attributes at the bounds": event(
        attributes={"n" * MAX_TEXT: "v" * MAX_TEXT, "i": MAX_NUMBER, "j": -MAX_NUMBER, "f": float(MAX_NUMBER)}
    ),
    "most attributes": event(attributes={f"a{number}": number for number in range(MAX_ATTRIBUTES)}),
    "attributes named like fields": event(attributes={"ts": "x", "kind": 1, "service": True}),
    "attribute with an exponent": raw('"attributes":{"a":1e3,"b":1E-9,"c":-1.0}'),
    "colons in text and names": event(tool="a:b::c", attributes={"a:b": "::", ":": ":"}, ts="2026-11-23T00:43:10+01:00"),
    "brackets in text": event(tool="[[[[[[[[[[{{{{{{{{{{", attributes={"]": "}"}),
    "quotes escaped": event(tool='say "no"', attributes={'"': '"'}),
    "backslashes": event(tool="C:\\temp\\new"),
    "control characters escaped": event(tool="a\tb\nc\x00\x1f"),
    "delete and C1 characters": event(tool="a\x7f\x80\x9f"),
    "byte order mark inside text": event(tool="\ufeffx"),
    "noncharacters": event(tool="\uffff\U0010ffff"),
    "escapes of all kinds": raw(r'"tool":"\"\\\/\b\f\n\r\té\ud83e\udd89"'),
    "escaped colon": raw(r'"tool":"a\u003ab"'),
    "escaped name of a field": event()[:-1] + rb',"\u0074ool":"x"}',
    "escaped attribute name": raw(r'"attributes":{"\u0061":1,"b":2}'),
    "other alphabets": event(service="файлы", tenant="租户", tool="ملف"),
    "bar in the tenant": event(tenant="a|b", service="c|d"),
    "spaces everywhere": b' \t\r\n{ "ts" : 1795303740255898 ,\n"kind"\t:"operation",\r"service" :"files" } \n',
    "indented": json.dumps(OPERATION, indent=2).encode(),
    "escaped as ASCII": json.dumps(OPERATION | {"tool": "naïve \N{OWL}"}).encode(),
    "members in another order": json.dumps(dict(reversed(OPERATION.items()))).encode(),
    "unknown field": event(unknown=1),
    "unknown fields of every type": raw('"a1":null,"a2":true,"a3":[],"a4":{},"a5":"","a6":-1.5e300,"a7":[1,"2",{"c":3}],"":0'),
    "unknown field as deep as allowed": raw(f'"a1":{nested(7)}'),
    "unknown field with every name of an event": raw(f'"a1":{event().decode()}'),
    "unknown field at the bounds": raw(f'"a1":[{MAX_NUMBER},-{MAX_NUMBER},1.7976931348623157e308]'),
    "case matters": event(Kind="no", SERVICE=1, Ts="x"),
    "array of one": b"[" + event() + b"]",
    "array of three": b"[" + b",".join((event(ts="2026-11-23T00:43:10Z"), event(kind="perf"), event(unknown=[1]))) + b"]",
    "array with spaces": b" [ " + event() + b" ,\n" + event(service="other") + b" ] ",
    "empty array": b"[]",
    "empty array with spaces": b" [ \n ] ",
}  # fmt: skip

_TYPED: Final = DeadReason.ILL_TYPED
_JSON: Final = DeadReason.UNDECODABLE
_INTEGERS: Final = ("obs_ts", "dur_us", "http_status", "active", "exit_code", "rss_bytes")
_TEXTS: Final = ("id", "service_ver", "tool", "list", "hash", "object", "unit")


def _without(name: str) -> bytes:
    return json.dumps({key: value for key, value in BASE.items() if key != name}).encode()


BAD: Final[dict[str, tuple[bytes, DeadReason]]] = {
    # No JSON.
    "space alone": (b" ", _JSON),
    "a word": (b"hello", _JSON),
    "cut short": (event()[:-1], _JSON),
    "cut inside text": (event()[:-5], _JSON),
    "trailing comma": (event()[:-1] + b",}", _JSON),
    "trailing comma in an array": (b"[" + event() + b",]", _JSON),
    "missing comma": (b'{"ts":1 "kind":"perf","service":"s"}', _JSON),
    "missing colon": (b'{"ts" 1,"kind":"perf","service":"s"}', _JSON),
    "single quotes": (event().replace(b'"', b"'"), _JSON),
    "names without quotes": (event().replace(b'"ts"', b"ts"), _JSON),
    "comment": (event() + b"// ok", _JSON),
    "second value": (event() + event(), _JSON),
    "second value after a comma": (event() + b"," + event(), _JSON),
    "second value on a new line": (event() + b"\n" + event(), _JSON),
    "first half of an array": (b"[" + event(), _JSON),
    "second half of an array": (event() + b"]", _JSON),
    "zero byte after the value": (event() + b"\x00", _JSON),
    "vertical tab as space": (event().replace(b":", b"\x0b:", 1), _JSON),
    "no-break space": (b"\xc2\xa0" + event(), _JSON),
    "form feed": (b"\x0c" + event(), _JSON),
    "byte order mark": (b"\xef\xbb\xbf" + event(), _JSON),
    "UTF-16": (event().decode().encode("utf-16"), _JSON),
    "UTF-16 without a mark": (event().decode().encode("utf-16-le"), _JSON),
    "UTF-32": (event().decode().encode("utf-32"), _JSON),
    "latin-1": (event(tool="é").replace("é".encode(), b"\xe9"), _JSON),
    "surrogate in UTF-8": (event(tool="?").replace(b"?", b"\xed\xa0\x80"), _JSON),
    "overlong UTF-8": (event(tool="?").replace(b"?", b"\xc0\xaf"), _JSON),
    "beyond Unicode": (event(tool="?").replace(b"?", b"\xf4\x90\x80\x80"), _JSON),
    "invalid UTF-8 in a name": (event(unknown=1).replace(b"unknown", b"\xff"), _JSON),
    "invalid UTF-8 in unknown text": (event(unknown="?").replace(b"?", b"\xff"), _JSON),
    "invalid UTF-8 in an attribute name": (event(attributes={"?": 1}).replace(b"?", b"\x80"), _JSON),
    "control character": (event(tool="?").replace(b"?", b"\x01"), _JSON),
    "newline in text": (event(tool="?").replace(b"?", b"\n"), _JSON),
    "control character in unknown text": (event(unknown="?").replace(b"?", b"\x1f"), _JSON),
    "unknown escape": (raw(r'"tool":"\x41"'), _JSON),
    "escape cut short": (raw(r'"tool":"\u12"'), _JSON),
    "unknown escape in unknown text": (raw(r'"a1":"\a"'), _JSON),
    "lone high surrogate": (raw(r'"tool":"\ud800"'), _JSON),
    "lone low surrogate": (raw(r'"tool":"\udc00"'), _JSON),
    "surrogates in the wrong order": (raw(r'"tool":"\udc00\ud800"'), _JSON),
    "high surrogate before another letter": (raw(r'"tool":"\ud83ea"'), _JSON),
    "lone surrogate in unknown text": (raw(r'"a1":"\uD800"'), _JSON),
    "lone surrogate in an unknown array": (raw(r'"a1":[{"b":["\udfff"]}]'), _JSON),
    "lone surrogate in an unknown name": (raw(r'"\udfff":1'), _JSON),
    "lone surrogate in an attribute name": (raw(r'"attributes":{"\ud800":1}'), _JSON),
    "leading zero": (raw('"dur_us":01'), _JSON),
    "leading plus": (raw('"dur_us":+1'), _JSON),
    "leading point": (raw('"value":.5'), _JSON),
    "trailing point": (raw('"value":1.'), _JSON),
    "empty exponent": (raw('"value":1e'), _JSON),
    "minus alone": (raw('"value":-'), _JSON),
    "hexadecimal": (raw('"dur_us":0x10'), _JSON),
    "underscore in a number": (raw('"dur_us":1_000'), _JSON),
    "digits of another alphabet": (raw('"dur_us":١٢'), _JSON),
    "leading zero in an unknown field": (raw('"a1":00'), _JSON),
    "NaN": (raw('"value":NaN'), _JSON),
    "Infinity": (raw('"value":Infinity'), _JSON),
    "-Infinity": (raw('"value":-Infinity'), _JSON),
    "NaN in an attribute": (raw('"attributes":{"a":NaN}'), _JSON),
    "NaN in an unknown field": (raw('"a1":NaN'), _JSON),
    "Infinity in an unknown array": (raw('"a1":[1,Infinity]'), _JSON),
    "True": (raw('"unknown_target":True'), _JSON),
    "None": (raw('"tool":None'), _JSON),
    "undefined": (raw('"a1":undefined'), _JSON),
    # JSON that readers may understand differently.
    "field twice": (raw('"tool":"a","tool":"b"'), _JSON),
    "field twice with the same value": (raw('"tool":"a","tool":"a"'), _JSON),
    "required field twice": (raw('"service":"other"'), _JSON),
    "field twice, null first": (raw('"tool":null,"tool":"b"'), _JSON),
    "field twice, once escaped": (raw(r'"tool":"a","t\u006fol":"b"'), _JSON),
    "attributes twice": (raw('"attributes":{},"attributes":{"a":1}'), _JSON),
    "attribute twice": (raw('"attributes":{"a":1,"a":2}'), _JSON),
    "attribute twice, once escaped": (raw(r'"attributes":{"a":1,"\u0061":2}'), _JSON),
    "unknown field twice": (raw('"a1":1,"a1":2'), _JSON),
    "twice in an unknown object": (raw('"a1":{"b":1,"b":1}'), _JSON),
    "twice deep in an unknown array": (raw('"a1":[[{"b":1,"c":2,"b":3}]]'), _JSON),
    "twice in one element": (b"[" + event() + b"," + raw('"tool":"a","tool":"b"') + b"]", _JSON),
    "twice, balanced by an escaped colon": (raw(r'"tool":"a","tool":"\u003a"'), _JSON),
    "number too large in an unknown field, balanced by an escaped colon": (raw(r'"tool":"\u003a","a1":1e400'), _TYPED),
    "too deep": (raw(f'"a1":{nested(8)}'), _JSON),
    "too deep and empty": (raw(f'"a1":{nested(7, "[]")}'), _JSON),
    "too deep in an array": (b"[" + raw(f'"a1":{nested(7)}') + b"]", _JSON),
    "thousands deep": (raw(f'"a1":{"[" * 5_000}{"]" * 5_000}'), _JSON),
    "a hundred thousand deep": (b"[" * 100_000, _JSON),
    "attributes thousands deep": (raw('"attributes":' + '{"a":' * 5_000 + "1" + "}" * 5_000), _JSON),
    # Numbers that are not kept exactly.
    "integer beyond the bound": (event(dur_us=MAX_NUMBER + 1), _TYPED),
    "integer below the bound": (event(dur_us=-MAX_NUMBER - 1), _TYPED),
    "integer of a hundred digits": (raw('"dur_us":' + "9" * 100), _TYPED),
    "integer of ten thousand digits": (raw('"dur_us":' + "9" * 10_000), _TYPED),
    "integer beyond the bound in an attribute": (event(attributes={"a": MAX_NUMBER + 1}), _TYPED),
    "integer beyond the bound in an unknown field": (event(unknown=MAX_NUMBER + 1), _TYPED),
    "integer beyond the bound in an unknown array": (event(unknown=[{"b": -MAX_NUMBER - 1}]), _TYPED),
    "number as an integer that a double rounds to the bound": (event(value=MAX_NUMBER + 1), _TYPED),
    "number as a negative integer that a double rounds to the bound": (event(value=-MAX_NUMBER - 1), _TYPED),
    "number beyond the bound": (raw('"value":9007199254740994.0'), _TYPED),
    "number beyond the bound with an exponent": (raw('"value":1e16'), _TYPED),
    "number in an attribute beyond the bound": (raw('"attributes":{"a":-1e17}'), _TYPED),
    "number too large for a double": (raw('"value":1e400'), _TYPED),
    "number too large for a double in an attribute": (raw('"attributes":{"a":1e400}'), _TYPED),
    "number too large for a double in an unknown field": (raw('"a1":-1e400'), _TYPED),
    # Wrong types, missing fields, unknown words.
    "null": (b"null", _TYPED),
    "text": (b'"event"', _TYPED),
    "number": (b"1", _TYPED),
    "true": (b"true", _TYPED),
    "array of numbers": (b"[1]", _TYPED),
    "array of null": (b"[null]", _TYPED),
    "array of arrays": (b"[[" + event() + b"]]", _TYPED),
    "array with an empty array": (b"[[]]", _TYPED),
    "empty object": (b"{}", _TYPED),
    "one bad element": (b"[" + event() + b"," + event(kind="no") + b"," + event() + b"]", _TYPED),
    **{f"no {name}": (_without(name), _TYPED) for name in BASE},
    **{f"{name} null": (event(**{name: None}), _TYPED) for name in (*BASE, "tenant", "weight", "attributes")},
    **{f"{name} empty": (event(**{name: ""}), _TYPED) for name in ("service", "tenant", "kind", "ts", "outcome", "side")},
    **{
        f"{name} a number": (event(**{name: 1}), _TYPED)
        for name in ("kind", "service", "tenant", "outcome", "fault", "side", "attributes")
    },
    **{f"{name} unknown": (event(**{name: "OK"}), _TYPED) for name in ("kind", "outcome", "fault", "side")},
    **{f"{name} as text": (event(**{name: "1"}), _TYPED) for name in (*_INTEGERS, "weight", "value")},
    **{f"{name} true": (event(**{name: True}), _TYPED) for name in (*_INTEGERS, "ts", "weight", "value", *_TEXTS, "kind")},
    **{f"{name} with a fraction": (raw(f'"{name}":1.0'), _TYPED) for name in (*_INTEGERS, "weight")},
    **{f"{name} with an exponent": (raw(f'"{name}":1e3'), _TYPED) for name in ("dur_us", "weight")},
    **{
        f"{name} a list": (event(**{name: []}), _TYPED)
        for name in (*_INTEGERS, *_TEXTS, "value", "attributes", "unknown_target")
    },
    **{f"{name} an object": (event(**{name: {}}), _TYPED) for name in ("ts", "kind", "service", "tool", "dur_us", "value")},
    **{f"{name} a number instead of text": (event(**{name: 5}), _TYPED) for name in _TEXTS},
    **{
        f"{name} too long": (event(**{name: "x" * (MAX_TEXT + 1)}), _TYPED)
        for name in ("service", "tenant", "tool", "list", "unit")
    },
    "text too long in four-byte characters": (event(tool="\N{OWL}" * (MAX_TEXT + 1)), _TYPED),
    "text too long once unescaped": (raw('"tool":"' + "\\n" * (MAX_TEXT + 1) + '"'), _TYPED),
    "boolean as a number": (event(unknown_target=1), _TYPED),
    "boolean as text": (event(unknown_target="true"), _TYPED),
    "weight zero": (event(weight=0), _TYPED),
    "weight negative": (event(weight=-1), _TYPED),
    "weight too large": (event(weight=MAX_WEIGHT + 1), _TYPED),
    "attributes as pairs": (event(attributes=[["a", 1]]), _TYPED),
    "too many attributes": (event(attributes={f"a{number}": 1 for number in range(MAX_ATTRIBUTES + 1)}), _TYPED),
    "attribute without a name": (event(attributes={"": 1}), _TYPED),
    "attribute name too long": (event(attributes={"n" * (MAX_TEXT + 1): 1}), _TYPED),
    "attribute null": (event(attributes={"a": None}), _TYPED),
    "attribute a list": (event(attributes={"a": [1]}), _TYPED),
    "attribute an object": (event(attributes={"a": {}}), _TYPED),
    "attribute too long": (event(attributes={"a": "x" * (MAX_TEXT + 1)}), _TYPED),
    # Times.
    "ts negative": (event(ts=-1), _TYPED),
    "ts a number with a fraction": (event(ts=1795303740.25), _TYPED),
    "ts in nanoseconds": (event(ts=TS * 1000), _TYPED),
    "ts in a text of digits": (event(ts=str(TS)), _TYPED),
    "ts without a zone": (event(ts="2026-11-23T00:43:10"), _TYPED),
    "ts a date": (event(ts="2026-11-23"), _TYPED),
    "ts in a month that is none": (event(ts="2026-13-01T00:00:00Z"), _TYPED),
    "ts on a day that is none": (event(ts="2026-02-29T00:00:00Z"), _TYPED),
    "ts at 24 o'clock": (event(ts="2026-11-23T24:00:00Z"), _TYPED),
    "ts in a leap second": (event(ts="2016-12-31T23:59:60Z"), _TYPED),
    "ts in a zone that is none": (event(ts="2026-11-23T00:43:10+24:00"), _TYPED),
    "ts at the epoch": (event(ts=0), _TYPED),
    "ts in milliseconds": (event(ts=1_795_303_740_255), _TYPED),
    "ts before 2000": (event(ts="1999-12-31T23:59:59.999999Z"), _TYPED),
    "ts just before the first moment": (event(ts=946_684_799_999_999), _TYPED),
    "ts before the epoch": (event(ts="1969-12-31T23:59:59.999999Z"), _TYPED),
    "ts before the epoch by its zone": (event(ts="1970-01-01T00:00:00+00:01"), _TYPED),
    "ts after the year 9999": (event(ts="9999-12-31T23:59:59-00:01"), _TYPED),
    "ts with ten digits of a second": (event(ts="2026-11-23T00:43:10.1234567890Z"), _TYPED),
    "ts with digits of another alphabet": (event(ts="2026-11-23T00:43:10.٣Z"), _TYPED),
    "ts with a space around it": (event(ts=" 2026-11-23T00:43:10Z"), _TYPED),
    "ts with a newline after it": (event(ts="2026-11-23T00:43:10Z\n"), _TYPED),
    "ts very long": (event(ts="2026-11-23T00:43:10." + "0" * 300 + "Z"), _TYPED),
    "ts in words": (event(ts="now"), _TYPED),
}  # fmt: skip
