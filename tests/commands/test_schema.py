"""The JSON Schemas: valid, named, and true of what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from schemas.alert import Alert, Reason
from schemas.event import Event
from schemas.rule import Rule, above, count
from streams.commands.schema import CONTRACTS
from tests.commands.running import invoke


def schema(name: str) -> Any:
    result = invoke("schema", name)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def alert(**changes: Any) -> Alert:
    given: dict[str, Any] = {
        "id": "1", "dedup_key": "k", "rule": "slow", "revision": None, "status": "firing", "severity": "high", "source": "files",
        "tenant": "default", "labels": {}, "message": "files is slow", "value": 1.5, "threshold": 1.0, "window": None,
        "started_at": 1_767_225_600_000_000, "timestamp": 1_767_225_600_000_000, "decided_at": 1_767_225_600_000_000,
        "reason": Reason.FIRST_NOTIFICATION,
    }  # fmt: skip
    return Alert.model_validate(given | changes)


@pytest.mark.parametrize("name", CONTRACTS)
def test_each_is_valid_and_named(name: str) -> None:
    document = schema(name)
    Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["$id"] == f"urn:tocsin:{name}:1"
    assert document["title"]


def test_alerts_and_rules_as_they_are_written_fit() -> None:
    Draft202012Validator(schema("alert")).validate(json.loads(alert(threshold=(1.0, 2.0)).model_dump_json()))
    Draft202012Validator(schema("transition")).validate(json.loads(alert().model_dump_json()))
    rule = Rule(name="busy", measure=count(), over="1m", warning=above(1), summary="x")
    Draft202012Validator(schema("rule")).validate(rule.document())


def test_an_event_needs_three_fields_and_takes_others() -> None:
    validator = Draft202012Validator(schema("event"))
    event = {"ts": "2026-01-01T00:00:00Z", "kind": "metric", "service": "files"}
    for good in (event, event | {"ts": 1_767_225_600_000_000}, event | {"of_my_own": 1}):
        validator.validate(good)
        Event.model_validate(good)
    for bad in (event | {"ts": 1.5}, event | {"kind": "other"}, {"ts": 1, "kind": "metric"}, event | {"value": "7"}):
        with pytest.raises(ValidationError):
            validator.validate(bad)


def test_another_name_is_refused() -> None:
    assert invoke("schema", "rules").exit_code == 2
