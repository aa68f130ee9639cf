"""Alerts as JSON: what a consumer sees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from schemas.alert import DISPATCHED, Alert, Evidence, Reason, Transition, Window, fingerprint, group_fingerprint

AT = 1_795_394_590_000_001
FIELDS: dict[str, Any] = {
    "id": "i",
    "dedup_key": "d",
    "rule": "tool-error-rate",
    "revision": "0123456789abcdef",
    "status": "firing",
    "severity": "high",
    "source": "files",
    "tenant": "t1",
    "labels": {"tenant": "t1", "service": "files"},
    "message": "it fails",
    "value": 0.5,
    "threshold": 0.2,
    "window": Window(start=AT - 60_000_000, end=AT),
    "started_at": AT,
    "timestamp": AT,
    "decided_at": AT,
    "reason": Reason.CONDITION_MET,
    "evidence": (Evidence(topic="mcp.events", partition=1, first_offset=2, last_offset=9, events=5),),
}


def test_times_are_rfc_3339_in_json_and_integers_in_python() -> None:
    alert = Alert(**FIELDS)
    record = json.loads(alert.model_dump_json())
    assert {record[name] for name in ("started_at", "timestamp", "decided_at")} == {"2026-11-23T00:43:10.000001Z"}
    assert record["window"] == {"start": "2026-11-23T00:42:10.000001Z", "end": "2026-11-23T00:43:10.000001Z"}
    assert record["resolved_at"] is None
    assert alert.model_dump()["decided_at"] == AT
    assert Alert.model_validate_json(alert.model_dump_json()) == alert


def test_the_fields_of_the_contract() -> None:
    assert set(json.loads(Alert(**FIELDS).model_dump_json())) == {
        "v",
        "id",
        "dedup_key",
        "rule",
        "revision",
        "status",
        "severity",
        "source",
        "tenant",
        "labels",
        "annotations",
        "message",
        "details",
        "value",
        "threshold",
        "unit",
        "window",
        "started_at",
        "timestamp",
        "decided_at",
        "resolved_at",
        "reason",
        "fire_count",
        "channels",
        "evidence",
    }


def test_what_may_be_null() -> None:
    nothing = dict.fromkeys(("value", "threshold", "unit", "window", "revision", "evidence"))
    alert = Alert(**FIELDS | nothing)
    assert Transition.model_validate_json(alert.model_dump_json()).model_dump() == alert.model_dump()
    assert Alert(**FIELDS | {"threshold": (1, 2)}).threshold == (1.0, 2.0)


def test_readers_ignore_fields_of_a_later_version() -> None:
    record = json.loads(Alert(**FIELDS).model_dump_json()) | {"later": 1}
    assert Alert.model_validate(record) == Alert(**FIELDS)


@pytest.mark.parametrize(
    "change", [{"status": "open"}, {"severity": "low"}, {"reason": "no"}, {"decided_at": "now"}, {"decided_at": -1}]
)
def test_what_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Alert(**FIELDS | change)


def test_the_key_is_tenant_and_episode() -> None:
    assert Alert(**FIELDS).key == "t1|d"


def test_the_schema_describes_the_json() -> None:
    schema = Alert.model_json_schema(mode="serialization")
    Draft202012Validator.check_schema(schema)
    for fields in (FIELDS, FIELDS | dict.fromkeys(("value", "threshold", "window", "revision", "evidence"))):
        assert not list(Draft202012Validator(schema).iter_errors(json.loads(Alert(**fields).model_dump_json())))


def test_fingerprints() -> None:
    assert group_fingerprint("r", {"a": "1", "b": "2"}) == group_fingerprint("r", {"b": "2", "a": "1"})
    different = [
        fingerprint("a", "b"),
        fingerprint("ab"),
        fingerprint(["a", "b"]),
        fingerprint("a", 1),
        fingerprint("a", "1"),
        fingerprint("a", None),
    ]
    assert len(set(different)) == len(different)
    assert {len(each) for each in different} == {32}


def test_reasons_that_dispatch() -> None:
    assert sorted(DISPATCHED) == ["cooldown_over", "first_notification", "resolved", "severity_raised", "stale"]
