from __future__ import annotations

import json
import logging

from streams.runtime.logs import PER_WINDOW, WINDOW, JsonFormatter, RateLimit


def line(name: str, number: int = 1, message: str = "said %d", *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "file.py", number, message, arguments or (5,), None)


def test_json_lines() -> None:
    record = line("tocsin.worker")
    record.created, record.msecs = 1_767_225_600.25, 250.0
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "2026-01-01T00:00:00.250Z", "level": "warning", "logger": "tocsin.worker", "message": "said 5",
    }  # fmt: skip


def test_libraries_may_repeat_themselves_a_few_times_and_ours_is_never_held_back() -> None:
    now = 0.0
    limit = RateLimit(lambda: now)
    assert [limit.filter(line("aiokafka")) for _ in range(5)] == [True] * PER_WINDOW + [False] * (5 - PER_WINDOW)
    assert limit.filter(line("aiokafka", 2))
    assert all(limit.filter(line("tocsin.runtime")) for _ in range(20))
    now = WINDOW
    again = line("aiokafka")
    assert limit.filter(again)
    assert again.getMessage() == f"said 5 ({5 - PER_WINDOW} more in 30 s)"
