"""The workload: operations of 50 services, 12 fields, about 260 bytes, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SERVICES = 50
RATE = 10_000  # events per second of event time
LATE_SHARE, MAX_LATE = 0.05, 1_900_000  # µs
BURST_CYCLE, BURST = 240_000_000, 10_000_000  # every service has 10 s of trouble every 240 s
BURST_ERRORS, BASE_ERRORS = 0.5, 0.0095
METHODS = ("tools/call", "tools/list", "resources/read")
TOOLS = ("search_docs", "run_query", "create_issue", "send_mail", "read_file")


@dataclass(frozen=True, slots=True)
class Workload:
    """`events` operations whose event time begins at `start` (µs)."""

    events: int
    start: int
    seed: int = 1

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Key (`tenant|service`) and JSON value of every event, in the order they are sent."""
        random = np.random.default_rng([self.seed, self.events])
        share = np.arange(1, SERVICES + 1) ** -1.1
        service = np.searchsorted(np.cumsum(share / share.sum()), random.random(self.events)).clip(max=SERVICES - 1)
        sent = self.start + np.arange(self.events, dtype=np.int64) * 1_000_000 // RATE
        late = random.random(self.events) < LATE_SHARE
        ts = sent - np.where(late, random.integers(0, MAX_LATE, self.events), 0)
        phase = random.integers(0, BURST_CYCLE, SERVICES)
        in_burst = (ts + phase[service]) % BURST_CYCLE < BURST
        failed = random.random(self.events) < np.where(in_burst, BURST_ERRORS, BASE_ERRORS)
        duration = (random.lognormal(4.0, 1.0, self.events) * 1000).astype(np.int64) + 1
        ends = [
            f'"req_bytes":{a},"res_bytes":{b},"session":"{c:016x}{a:016x}"'
            for a, b, c in zip(
                random.integers(80, 9_000, 4096).tolist(),
                random.integers(100, 90_000, 4096).tolist(),
                random.integers(0, 1 << 48, 4096).tolist(),
                strict=True,
            )
        ]
        names = [(f"t{number % 20:02d}", f"mcp-svc-{number:05d}") for number in range(SERVICES)]
        keys = [f"{tenant}|{name}".encode() for tenant, name in names]
        columns = zip(service.tolist(), ts.tolist(), failed.tolist(), duration.tolist(), strict=True)
        for number, (which, at, bad, micros) in enumerate(columns):
            tenant, name = names[which]
            yield (
                keys[which],
                (
                    f'{{"id":"e{number:010d}","ts":{at},"kind":"operation","tenant":"{tenant}","service":"{name}",'
                    f'"method":"{METHODS[number % 3]}","tool":"{TOOLS[number * 31 % 5]}",'
                    f'"outcome":"{"tool_error" if bad else "ok"}","dur_us":{micros},{ends[number * 17 & 4095]}}}'
                ).encode(),
            )
