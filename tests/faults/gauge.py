"""What a worker says and costs while it runs: its metrics, its time on the processor, its memory."""

from __future__ import annotations

import asyncio
import os
import re
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.faults.stage import FaultError, Worker


@dataclass(frozen=True, slots=True)
class Gauge:
    """A worker with a port for its metrics."""

    worker: Worker

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series that have `labels`."""
        try:
            url = f"http://127.0.0.1:{self.worker.settings.metrics_port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0  # it starts
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = re.findall(rf"^tocsin_{name}(\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return sum(float(number) for series, number in found if all(each in series for each in wanted))

    async def reaches(self, name: str, least: float, within: float = 90.0, every: float = 0.02, **labels: str) -> None:
        """Wait until a metric has grown to `least`, looking `every` so many seconds. Raises FaultError after `within` seconds."""
        deadline = time.monotonic() + within
        while (found := self.metric(name, **labels)) < least:
            if time.monotonic() > deadline or not self.worker.is_running:
                raise FaultError(f"{name} is {found:g} and not {least:g} yet; see {self.worker.log}")
            await asyncio.sleep(every)

    @property
    def cpu(self) -> float:
        """Seconds that it has had of the processors."""
        fields = Path(f"/proc/{self.worker.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name: str = "VmRSS") -> float:
        """MiB of resident memory; "VmHWM" is the most that it ever had."""
        (found,) = re.findall(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{self.worker.pid}/status").read_text(), re.MULTILINE)
        return int(found) / 1024
