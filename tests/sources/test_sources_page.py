"""docs/sources.md: its servers are made as it says, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from schemas.expression import words
from streams.sources.asgi import RefusalMiddleware, refusal_fields

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_its_servers_are_watched(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    made: dict[str, Any] = {"__name__": "shop"}
    exec(block, made)
    try:
        assert made["server"].middleware[-1] == made["telemetry"].middleware
        assert isinstance(made.get("app"), RefusalMiddleware) == ("RefusalMiddleware" in block)
    finally:
        made["telemetry"].close()
        made["outlet"].close()


def test_its_tables_name_every_outcome_and_reason() -> None:
    rows = [re.findall(r"`(\w+)`", line) for line in PAGE.splitlines() if line.startswith("|")]
    told = {word for row in rows for word in row}
    assert set(words["outcome"]) | set(words["fault"]) <= told
    for status, headers, challenge, body in (
        (401, {}, "", b""), (401, {b"authorization": b""}, "", b""), (401, {b"authorization": b""}, "expired", b""),
        (403, {}, "insufficient_scope", b""), (403, {b"origin": b""}, "", b""), (403, {}, "", b""), (421, {}, "", b""),
        (400, {}, "", b'"code":-32020'),
    ):  # fmt: skip
        said = refusal_fields(status, headers, challenge, body)
        assert said is not None
        assert {said["action"], said["reason"]} <= told
