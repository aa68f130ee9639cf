"""A worker whose engine counts: `python -m tests.runtime.counting_worker`, with settings from the environment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from streams.notifier.cooldown import FailOpenCooldowns
from streams.runtime import logs
from streams.runtime.app import build_app
from streams.runtime.producer import Outbox
from streams.runtime.roles import Role
from streams.runtime.worker import Worker
from streams.settings import Settings
from streams.topics import ENGINE
from tests.runtime.counting import restore


class CountingWorker(Worker):
    def _build(self, counts: Mapping[str, int], outbox: Outbox, cooldowns: FailOpenCooldowns | None) -> list[Role]:
        app = build_app(self._settings, ENGINE, restore, partitions=counts[ENGINE], outbox=outbox, metrics=self._metrics)
        return [Role(app, self._metrics)]


if __name__ == "__main__":
    logs.configure("text")
    sys.exit(asyncio.run(CountingWorker(Settings.from_environment(os.environ), (ENGINE,)).run()))
