"""What a record of a golden file decodes to, by the code of now."""

from __future__ import annotations

import json
from typing import Any

from schemas.alert import Alert, Transition
from schemas.control import HEADER, is_signed, parse_control
from schemas.event import parse_events
from schemas.rule import Rule
from streams.notifier.policy import read_case
from streams.ruleset_log import RulesetLog
from tests.golden.files import KEY, PARTITION, Kept, to_bytes


def decoded(record: dict[str, Any]) -> Any:
    """What the product makes of a record, as JSON."""
    value = to_bytes(record["value"])
    headers = {name: to_bytes(held) or b"" for name, held in record["headers"]}
    match record["topic"]:
        case "mcp.events" if HEADER in headers:
            return _control(headers[HEADER], value or b"")
        case "mcp.events":
            return [event.model_dump(mode="json") for event in parse_events(value or b"")]
        case "mcp.events.dlq":
            return {name: held.decode() for name, held in headers.items() if name.startswith("dlq.")}
        case "mcp.transitions" if not headers:
            case = read_case(value)
            said = {"group": case.group, "kind": case.kind, "ordinal": case.ordinal, "cooldown": case.cooldown}
            return said | {"record": Transition.model_validate_json(value or b"").model_dump(mode="json")}
        case "mcp.rules":
            return _rules(record["key"], value)
    return None if value is None else Alert.model_validate_json(value).model_dump(mode="json")


def _control(header: bytes, value: bytes) -> Any:
    control = parse_control(header)
    if control.control == "tick":
        return {"control": "tick"}
    signed = is_signed(control, KEY, topic="mcp.events", partition=PARTITION, value=value)
    return control.model_dump(mode="json") | {"signed": signed}


def _rules(key: str, value: bytes | None) -> Any:
    log = RulesetLog()
    log.fold(Kept(0, 0, key.encode(), value))
    assert not log.unreadable
    kind, name = key.split("/")[:2]
    if kind == "rule":
        rule = Rule.model_validate(json.loads(value or b""))
        return {"name": rule.name, "revision": rule.revision, "is_its_key": rule.revision == name}
    if kind == "ruleset":
        return log.manifest(name)
    current = log.current
    return None if current is None else {"seq": current.seq, "id": current.id, "based_on": current.based_on}
