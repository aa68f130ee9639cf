"""What fuzzing has found worth keeping, once more."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import CORPUS, MAX_FILES, MAX_SIZE
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

FOUND_WRONG = (
    ("settings", b"REDIS_URL=redis://["),
    ("settings", b"REDIS_URL=redis://host:port"),
    ("settings", b"KAFKA_CA=" + b"long" * 100),
    ("settings", "METRICS_PORT=²".encode()),
)
"""Inputs on which a target failed once."""


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_foreign_comes_out(name: str) -> None:
    inputs = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    assert 0 < len(inputs) <= MAX_FILES
    assert max(map(len, inputs)) <= MAX_SIZE
    for data in [*inputs, *seeds(name), *(found for of, found in FOUND_WRONG if of == name)]:
        TARGETS[name](data)
