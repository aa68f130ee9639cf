"""A rule that raises while it is folded, through a kill and a restart, until a changed revision of it is deployed."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
from pathlib import Path

from schemas.alert import RULE_FAILING
from streams.rule_modules import load_rules
from streams.topics import ALERTS, ENGINE, changelog_name
from tests.command import tocsin
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import PARTITIONS, RULES, WITHIN, Servers, Stage, open_stage, until
from tests.faults.state import fold_changelog
from tests.faults.verdict import settled, verdict
from tests.kernel.raising import Raising

FAULT = "hostile rule"
HOSTILE = "busy"
BEFORE, AFTER = "warning=above(8)", "warning=above(7)"


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """The rule raises on every partition, the worker is killed while it fails, and then it is deployed changed."""
    seconds, rate = (20.0, 500.0) if long else (3.0, 400.0)
    dice = random.Random(seed)
    (revision,) = (each.rule.revision for each in load_rules([RULES]).rules if each.rule.name == HOSTILE)
    raising = Raising(revision, offset=dice.randrange(100, 200))
    with open_stage(servers, folder, seed) as stage:
        stage.prepare()
        worker = stage.worker("a", instance="a", command=(sys.executable, "-m", "tests.faults.hostile_worker", "run"))
        worker.variables = {"RAISE_REVISION": raising.revision, "RAISE_FROM": str(raising.offset)}
        worker.start()
        async with stage.load() as load:
            await worker.ready()
            steady = asyncio.create_task(load.run(3 * seconds, rate))
            await until(
                lambda: worker.log.read_text().count(f"rule {HOSTILE} fails") >= PARTITIONS, "the rule to fail everywhere"
            )
            await _saved(stage)
            worker.kill()
            worker.start()
            await worker.ready()
            changed = _changed(stage)
            stage.tocsin("deploy", str(changed))
            await steady
            await load.flush()
            await settled(stage)
        remembered = worker.said(f"rules that failed before and are not judged: {HOSTILE}")
        await worker.stop()
        found = await verdict(stage, raising)
        differences = [*found.differences, *await _meta_alerts(stage)]
        if not remembered:
            differences.append("after the kill the worker did not know that the rule fails")
        if long:
            differences += _hostile_modules(stage)
    injected = f"rule '{HOSTILE}' raises on {PARTITIONS} partitions, a kill -9 while it fails, a deploy that changes it"
    return Row(FAULT, injected, found.compared(), tuple(differences))


async def _saved(stage: Stage) -> None:
    """Wait until the state of a partition says that a rule fails."""
    async with asyncio.timeout(WITHIN):
        while True:
            tables = fold_changelog(await read_topic(stage.settings, changelog_name(stage.settings.group, ENGINE)))
            if any(key[:1] == b"f" for table in tables.values() for key in table):
                return
            await asyncio.sleep(0.2)


def _changed(stage: Stage) -> Path:
    changed = stage.folder / "changed"
    shutil.copytree(RULES, changed, ignore=shutil.ignore_patterns("__pycache__"))
    for module in changed.glob("*.py"):
        text = module.read_text()
        module.write_text(text.replace(BEFORE, AFTER))
    return changed


async def _meta_alerts(stage: Stage) -> list[str]:
    """The alert that names the rule went out, and was resolved."""
    statuses = []
    for record in await read_topic(stage.settings, stage.settings.topic_prefix + ALERTS.name):
        alert = json.loads(record.value or b"")
        if alert["rule"] == RULE_FAILING and alert["labels"]["rule"] == HOSTILE:
            statuses.append(alert["status"])
    return [] if {"firing", "resolved"} <= set(statuses) else [f"alerts of {RULE_FAILING}: {statuses}"]


def _hostile_modules(stage: Stage) -> list[str]:
    """`tocsin check` names each module that harms itself, and reads the others."""
    folder = stage.folder / "hostile"
    folder.mkdir()
    modules = {
        "loops": "while True:\n    pass\n",
        "allocates": "x = bytearray(8 << 30)\n",
        "ends": "raise SystemExit(3)\n",
        "interrupts": "raise KeyboardInterrupt\n",
        "unknown": "Rule()\n",
    }
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    done = tocsin(stage.environment(), "check", str(folder), str(RULES))
    missed = [f"tocsin check does not name {name}.py:1" for name in modules if f"{name}.py:1: " not in done.stderr]
    return missed + ([] if done.returncode == 1 else [f"tocsin check ended with {done.returncode}"])
