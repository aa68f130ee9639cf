"""The peer: error rate per service with a tumbling table of Faust as it comes, on RocksDB.

The best honest settings we know: raw values decoded by msgspec (faster than Faust's models and its json), one table with one
write per event, a tumbling window of 60 s (where tocsin judges a hopping one), no web server, `-l info` (`-l warn` is slower),
a stream buffer that never stalls. Everything about the run comes from the environment: see quick.py.
"""

from __future__ import annotations

import os
import time
from typing import Any

import faust
import msgspec


class Operation(msgspec.Struct, gc=False):
    """The fields that the rule reads."""

    ts: int
    tenant: str
    service: str
    outcome: str


decode = msgspec.json.Decoder(Operation).decode
environment = os.environ
app = faust.App(
    environment["STOCK_ID"],
    broker=f"kafka://{environment['STOCK_BOOTSTRAP']}",
    store="rocksdb://",
    datadir=environment["STOCK_DATA"],
    topic_partitions=int(environment["STOCK_PARTITIONS"]),
    topic_replication_factor=1,
    topic_allow_declare=True,
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
    stream_buffer_maxsize=8_192,
)
events = app.topic(environment["STOCK_TOPIC"], value_type=bytes, key_type=bytes, value_serializer="raw", key_serializer="raw")
table: Any = app.Table("errors", default=lambda: [0, 0])
errors = table.tumbling(60.0, expires=3600.0).relative_to(lambda operation: operation.ts / 1e6)


@app.agent(events)
async def count(stream: Any) -> None:
    """Count events and errors per service and window; warn where the rate is above 5 %."""
    seen = 0
    async for value in stream:
        if not value:  # control records of tocsin
            continue
        operation = decode(value)
        row: list[list[int]] = []

        def add(counts: list[int], operation: Operation, row: list[list[int]] = row) -> list[int]:
            row.append([counts[0] + 1, counts[1] + (operation.outcome == "tool_error")])
            return row[-1]

        errors[f"{operation.tenant}|{operation.service}"].apply(add, operation, operation)
        total, failed = row[-1]
        if total >= 20 and failed * 20 > total:
            pass  # a send would cost it more; the peer is spared that
        seen += 1
        if seen % 250 == 0:
            os.write(1, b"PROGRESS %d %d\n" % (time.time_ns(), seen))  # Faust makes log lines of print()


if __name__ == "__main__":
    app.main()
