"""The peer of recovery.py: the recovery of Faust as it comes, of one table on RocksDB, from its changelog.

Raw keys and values, so that nothing is decoded; everything about the run comes from the environment. Prints how far it is.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import faust

environment = os.environ
partitions = int(environment["STOCK_PARTITIONS"])
raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes}
app = faust.App(
    environment["STOCK_ID"],
    broker=f"kafka://{environment['STOCK_BOOTSTRAP']}",
    store="rocksdb://",
    datadir=environment["STOCK_DATA"],
    topic_partitions=partitions,
    topic_replication_factor=1,
    topic_disable_leader=True,
    key_serializer="raw",
    value_serializer="raw",
    web_enabled=False,
)
source = app.topic(environment["STOCK_TOPIC"], key_serializer="raw", value_serializer="raw", **raw)
table: Any = app.Table("state", partitions=partitions, **raw)


@app.agent(source)
async def use(stream: Any) -> None:
    """An agent that uses the table, as recovery waits for one."""
    async for key in stream:
        table[key] = key


def tell() -> None:
    """Print how many records were recovered, and when."""
    while True:
        tables = vars(app).get("tables")  # made by the app itself, in its own thread
        recovery = getattr(tables, "_recovery", None)
        offsets = list(recovery.active_offsets.values()) if recovery is not None else []
        done = sum(offset + 1 for offset in offsets if offset is not None and offset >= 0)
        os.write(1, b"PROGRESS %d %d\n" % (time.time_ns(), done))
        time.sleep(0.1)


if __name__ == "__main__":
    threading.Thread(target=tell, daemon=True).start()  # a task of Faust begins when recovery is done
    app.main()
