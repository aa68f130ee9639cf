"""Control records: what is one, and what a MAC is bound to."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.control import Forward, RulesetRecord, Tick, is_signed, parse_control, sign

KEY = b"key"
RULESET = RulesetRecord(id="0123456789abcdef", seq=7)
FORWARD = Forward(partition=3, offset=2**62, index=4)


@pytest.mark.parametrize("control", [Tick(), RULESET, FORWARD, sign(RULESET, KEY, topic="t", partition=0, value=b"")])
def test_a_control_record_survives_its_header(control: Tick | RulesetRecord | Forward) -> None:
    assert parse_control(control.model_dump_json().encode()) == control


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b"tick",
        b"\xff",
        b'{"control":"stop"}',
        b"{}",
        b'{"control":"tick","mac":""}',
        b'{"control":null}',
        b'{"control":"ruleset","id":"a"}',
        b'{"control":"ruleset","id":"","seq":1}',
        b'{"control":"ruleset","id":"a","seq":0}',
        b'{"control":"ruleset","id":"a","seq":"1"}',
        b'{"control":"ruleset","id":"a","seq":true}',
        b'{"control":"ruleset","id":1,"seq":1}',
        b'{"control":"ruleset","id":"a","seq":9223372036854775808}',
        b'{"control":"ruleset","id":"' + b"a" * 65 + b'","seq":1}',
        b'{"control":"ruleset","id":"\\ud800","seq":1}',
        b'{"control":"forward","partition":0,"offset":0}',
        b'{"control":"forward","partition":-1,"offset":0,"index":0}',
        b'{"control":"forward","partition":0,"offset":1e3,"index":0}',
        b'{"control":"forward","partition":0,"offset":9223372036854775808,"index":0}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_control_record(header: bytes) -> None:
    with pytest.raises(ValueError, match="validation error"):
        parse_control(header)


def test_a_mac_is_for_one_record_at_one_place() -> None:
    records: tuple[Any, ...] = (RULESET, FORWARD)
    for record in records:
        signed = sign(record, KEY, topic="mcp.events", partition=2, value=b"v")
        assert signed == record.model_copy(update={"mac": signed.mac})
        assert is_signed(signed, KEY, topic="mcp.events", partition=2, value=b"v")
        assert not is_signed(signed, b"other", topic="mcp.events", partition=2, value=b"v")
        assert not is_signed(signed, KEY, topic="a.mcp.events", partition=2, value=b"v")
        assert not is_signed(signed, KEY, topic="mcp.events", partition=1, value=b"v")
        assert not is_signed(signed, KEY, topic="mcp.events", partition=2, value=b"")
        assert not is_signed(record, KEY, topic="mcp.events", partition=2, value=b"v")
        assert not is_signed(record.model_copy(update={"mac": "é"}), KEY, topic="mcp.events", partition=2, value=b"v")
        for name in ("seq", "id") if isinstance(signed, RulesetRecord) else ("partition", "offset", "index"):
            changed = signed.model_copy(update={name: "other" if name == "id" else 9})
            assert not is_signed(changed, KEY, topic="mcp.events", partition=2, value=b"v"), name


def test_signing_again_gives_the_same_mac() -> None:
    once = sign(FORWARD, KEY, topic="t", partition=0, value=b"")
    assert sign(once, KEY, topic="t", partition=0, value=b"") == once
