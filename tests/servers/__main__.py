"""Fetch what the tests need, before they run: `python -m tests.servers`. With --stay: serve on the default ports."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.servers.kafka import TESTED, KafkaFetchError, KafkaServer, fetch
from tests.servers.process import ServerError, listens
from tests.servers.programs import PACKAGES, MissingProgramError, require
from tests.servers.redis import RedisServer

KAFKA_PORT, REDIS_PORT = 9092, 6379


def stay() -> None:
    """Kafka and Redis on their usual ports of the loopback until Ctrl-C; their data is in a temporary folder."""
    taken = [port for port in (KAFKA_PORT, REDIS_PORT) if listens(port)]
    if taken:
        raise ServerError(f"something listens on port {taken[0]} of 127.0.0.1 already: use that, or stop it")
    with tempfile.TemporaryDirectory(prefix="tocsin-servers-") as name:
        servers = (KafkaServer(Path(name) / "kafka", port=KAFKA_PORT), RedisServer(Path(name) / "redis", port=REDIS_PORT))
        try:
            for server in servers:
                server.start()
            print(f"Kafka on 127.0.0.1:{KAFKA_PORT}, Redis on 127.0.0.1:{REDIS_PORT}; Ctrl-C ends them, data and all", flush=True)
            signal.pause()
        except KeyboardInterrupt:
            print("ending")
        finally:
            for server in servers:
                server.stop()


if __name__ == "__main__":
    try:
        require(*PACKAGES)
        print(f"Apache Kafka {TESTED} in {fetch()}")
        if "--stay" in sys.argv[1:]:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            stay()
    except (MissingProgramError, KafkaFetchError, ServerError) as error:
        print(f"servers: {error}", file=sys.stderr)
        sys.exit("--stay" in sys.argv[1:] or os.environ.get("CI") == "true")
