"""Logging: one readable line per state change, or one JSON object; the libraries are kept short."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Final

from faust.tables.recovery import RebalanceAgain, ServiceStopped

OURS: Final = "tocsin"
PER_WINDOW: Final = 3
WINDOW: Final = 30.0
"""Seconds in which a library may repeat the same line PER_WINDOW times: an outage of the broker makes a hundred a second."""
_SILENCED: Final = (
    "faust", "mode", "streams",  # mode names the loggers of our subclasses after our modules; what matters is told by us
)  # fmt: skip


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the trace where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        said = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


class RateLimit(logging.Filter):
    """Passes our own lines, and of every other place in the code PER_WINDOW lines per WINDOW, then one that counts the rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is written."""
        if record.name.partition(".")[0] == OURS:
            return True
        place, now = (record.name, record.lineno), self._clock()
        since, number = self._seen.get(place, (now, 0))
        if now - since >= WINDOW:
            if number > PER_WINDOW:
                record.msg, record.args = f"{record.getMessage()} ({number - PER_WINDOW} more in {now - since:.0f} s)", ()
            since, number = now, 0
        self._seen[place] = since, number + 1
        return number < PER_WINDOW


def is_no_stop(record: logging.LogRecord) -> bool:
    """Whether a line is other than asyncio's about a recovery of Faust that ended because the worker does, or began again."""
    return not (record.exc_info and isinstance(record.exc_info[1], (ServiceStopped, RebalanceAgain)))


def configure(log_format: str) -> None:
    """Log to standard error: ours from INFO on, libraries from WARNING on and bounded, Faust's errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(name)-15s %(message)s")
    )
    handler.addFilter(is_no_stop)
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.getLogger(OURS).setLevel(logging.INFO)
    for name in _SILENCED:
        logging.getLogger(name).setLevel(logging.ERROR)
