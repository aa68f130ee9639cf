"""The verdict on a stage: everything recomputed from the event topic, and compared with what the workers left behind.

Compared are: every cell and group of the state in the changelog at its marker; every transition, byte for byte, with its
place among those of its tenant; every copy of one; every alert against the decisions that the notifier recorded; every
dead letter against the records that cannot be processed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Final

import msgspec

from schemas.alert import DISPATCHED
from streams.settings import Settings
from streams.topics import ALERTS, DEAD_LETTERS, ENGINE, EVENTS, NOTIFIER, TRANSITIONS, changelog_name
from tests.faults.log import EventLog, Logged, as_log, read_rulesets, read_topic
from tests.faults.stage import FaultError, Stage
from tests.faults.state import Cells, Marker, PrunedOracle, cells_of_oracle, cells_of_table, fold_changelog, log_up_to, marker_of
from tests.kernel.log import Record
from tests.kernel.raising import Raising

DECISION: Final = "tocsin.decision"
MAX_TOLD: Final = 5
"""Differences of one kind that are told one by one."""
SETTLE_WITHIN: Final = 90.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was compared, and every difference, in sentences."""

    events: int
    cells: int
    transitions: int
    copies: int
    alerts: int
    alert_copies: int
    dead_letters: int
    differences: tuple[str, ...]

    def compared(self) -> str:
        """What was compared, in a line."""
        text = f"{self.events:,} events, {self.cells:,} cells, {self.transitions:,} transitions (+{self.copies} copies)"
        text += f", {self.alerts:,} alerts (+{self.alert_copies})"
        return text + (f", {self.dead_letters:,} dead letters" if self.dead_letters else "")


@dataclass
class _Findings:
    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, text: str) -> None:
        self.found[kind].append(text)

    def told(self) -> tuple[str, ...]:
        told = []
        for kind, texts in self.found.items():
            told += [f"{kind}: {text}" for text in texts[:MAX_TOLD]]
            if len(texts) > MAX_TOLD:
                told.append(f"{kind}: {len(texts) - MAX_TOLD} more")
        return tuple(told)


@dataclass(frozen=True, slots=True)
class _Recomputed:
    """One partition by the oracle: its transitions as JSON, in order, and its cells beside those of the table."""

    partition: int
    said: list[tuple[str, str, str]]
    differences: list[str]
    cells: int


async def settled(stage: Stage, within: float = SETTLE_WITHIN) -> None:
    """Wait until the running workers have folded, saved and decided all that was sent. Raises FaultError after `within` s."""
    settings = stage.settings
    sent = await _ends(settings, settings.topic_prefix + EVENTS.name)
    deadline = time.monotonic() + within
    while True:
        await asyncio.sleep(0.3)
        tables = fold_changelog(await read_topic(settings, changelog_name(settings.group, ENGINE)))
        behind = {
            number: end for number, end in sent.items() if (marker_of(tables.get(number, {})) or _NOTHING).applied < end - 1
        }
        undecided = set() if behind else await _undecided(settings)
        if not behind and not undecided:
            return
        if time.monotonic() > deadline:
            for worker in stage.workers:
                worker.show_stacks()
            await asyncio.sleep(1)
            raise FaultError(
                f"after {within:.0f} s the state lags on partitions {sorted(behind)}, and {len(undecided)} transitions are "
                f"undecided: {sorted(undecided)[:3]}"
            )


async def verdict(stage: Stage, raises: Raising | None = None, elsewhere: AbstractSet[str] = frozenset()) -> Verdict:
    """Read all topics of a stage whose workers have ended, or idle, and compare.

    `raises` says which rule was made to raise. `elsewhere` are the ids that a group before has decided, by other cooldowns.
    """
    settings, findings = stage.settings, _Findings()
    prefix = settings.topic_prefix
    rulesets = await read_rulesets(settings)
    raw = await read_topic(settings, prefix + EVENTS.name)
    log = as_log(raw, rulesets, stage.partitions)
    tables = fold_changelog(await read_topic(settings, changelog_name(settings.group, ENGINE)))
    decided = await read_topic(settings, prefix + TRANSITIONS.name)
    alerts = await read_topic(settings, prefix + ALERTS.name)
    dead = await read_topic(settings, prefix + DEAD_LETTERS.name)
    jobs = [
        (number, prefix + EVENTS.name, log.records.get(number, []), tables.get(number, {}), raises, int(settings.max_groups))
        for number in range(stage.partitions)
    ]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        partitions = await asyncio.gather(*[asyncio.get_running_loop().run_in_executor(pool, _recompute, *job) for job in jobs])
    for each in partitions:
        for difference in each.differences:
            findings.add("state", difference)
    said, copies = _compare_transitions(partitions, decided, tables, findings)
    notified = await _notified(settings)
    due = {_id(record) for record in decided if record.offset <= notified.get(record.partition, -1)}
    told, alert_copies = _compare_alerts(said, due, decided, alerts, elsewhere, findings)
    if not (log.events and said and told):
        findings.add("nothing to compare", f"{log.events} events, {len(said)} transitions, {told} alerts")
    buried = _compare_dead_letters(log, dead, tables, findings)
    return Verdict(
        log.events, sum(each.cells for each in partitions), len(said), copies, told, alert_copies, buried, findings.told()
    )


_NOTHING: Final = Marker(-1, 0, None, 0, {})


def _recompute(
    partition: int, topic: str, records: Sequence[Record], table: Mapping[bytes, bytes], raises: Raising | None, max_groups: int
) -> _Recomputed:
    """The oracle over all records; the state is compared at the marker of the table."""
    oracle = PrunedOracle(topic, partition, max_groups, raises=raises)
    marker = marker_of(dict(table)) or _NOTHING
    said: list[tuple[str, str, str]] = []
    differences: list[str] = []
    number = 0
    covered = log_up_to(list(records), marker.applied)
    for record in covered:
        said += [(each.id, each.tenant, each.model_dump_json()) for each in oracle.apply(record)]
    expected, found = cells_of_oracle(oracle), cells_of_table(dict(table), oracle)
    number = len(expected)
    if marker is not _NOTHING:
        differences += _differences(partition, expected, found)
        mine = Marker(oracle.applied, oracle.stream_time, marker.ruleset, oracle.seq, oracle.markers)
        if mine != marker:
            differences.append(f"partition {partition}: the marker is {marker}, and {mine} is right")
    for record in records[len(covered) :]:
        said += [(each.id, each.tenant, each.model_dump_json()) for each in oracle.apply(record)]
    return _Recomputed(partition, said, differences, number)


def _differences(partition: int, expected: Cells, found: Cells) -> list[str]:
    return [
        f"partition {partition}: {key} holds {found.get(key)}, and {expected.get(key)} is right"
        for key in sorted(expected.keys() | found.keys(), key=repr)
        if expected.get(key) != found.get(key)
    ]


def _compare_transitions(
    partitions: Sequence[_Recomputed], decided: Sequence[Logged], tables: Mapping[int, Any], findings: _Findings
) -> tuple[dict[str, str], int]:
    """What the engine said, by id, and how many copies there are."""
    expected = {id: text for each in partitions for id, _, text in each.said}
    first: dict[str, str] = {}
    order: dict[tuple[str, int], list[str]] = defaultdict(list)
    copies = 0
    for record in decided:
        if any(name == DECISION for name, _ in record.headers):
            continue
        text = (record.value or b"").decode()
        said = json.loads(text)
        if said["id"] in first:
            copies += 1
            if first[said["id"]] != text:
                findings.add("copy differs", _named(text))
            continue
        first[said["id"]] = text
        order[said["tenant"], said["details"]["partition"]].append(said["id"])
        if said["id"] not in expected:
            findings.add("never decided by the oracle", _named(text))
        elif expected[said["id"]] != text:
            findings.add("transition differs", f"{_named(text)}: {_difference(text, expected[said['id']])}")
    # What the log says after the marker may have been decided, or not yet.
    must = {id for each in partitions for id, _, _ in each.said if _covered(expected[id], tables)}
    for id in must - first.keys():
        findings.add("transition lost", _named(expected[id]))
    for each in partitions:
        for tenant in {tenant for _, tenant, _ in each.said}:
            wanted = [id for id, of, _ in each.said if of == tenant and id in first]
            if order[tenant, each.partition] != wanted:
                findings.add("order", f"transitions of {tenant} from partition {each.partition} are out of order")
    return first, copies


def _named(text: str | bytes | None) -> str:
    """A transition or alert in a line."""
    said = json.loads(text or b"{}")
    details = said["details"]
    place = f"partition {details['partition']}, offset {details['offset']}"
    return f"{said['rule']} {said['labels']} {details['kind']} ({said['reason']}) at {place}, id {said['id']}"


def _difference(text: str, right: str) -> str:
    found, expected = json.loads(text), json.loads(right)
    return ", ".join(f"{name} {found.get(name)}, not {value}" for name, value in expected.items() if found.get(name) != value)


def _covered(text: str, tables: Mapping[int, Any]) -> bool:
    details = json.loads(text)["details"]
    marker = marker_of(tables.get(details["partition"], {}))
    return marker is not None and int(details["offset"]) <= marker.applied


def _compare_alerts(
    said: Mapping[str, str],
    due: AbstractSet[str],
    decided: Sequence[Logged],
    alerts: Sequence[Logged],
    elsewhere: AbstractSet[str],
    findings: _Findings,
) -> tuple[int, int]:
    """Each transition that is `due` is dispatched, or held back and recorded as such; a resolve goes where its firing went."""
    held: dict[str, str] = {}
    for record in decided:
        reasons = [value.decode() for name, value in record.headers if name == DECISION]
        if reasons:
            held[json.loads(record.value or b"")["id"]] = reasons[0]
    told: Counter[str] = Counter()
    for record in alerts:
        alert = json.loads(record.value or b"")
        told[alert["id"]] += 1
        if alert["id"] not in said:
            findings.add("alert without a transition", _named(record.value))
        if alert["reason"] not in DISPATCHED:
            findings.add("alert with a reason that dispatches nothing", _named(record.value))
    by_episode: dict[str, list[Any]] = defaultdict(list)
    for id, text in said.items():
        transition = json.loads(text)
        by_episode[transition["dedup_key"]].append(transition)
        if id in due and id not in told and id not in held:
            findings.add("undecided by the notifier", _named(text))
        if id in told and held.get(id) == "ended_while_held" and id not in elsewhere:
            findings.add("both dispatched and ended while held", _named(text))
    for episode in by_episode.values():
        kinds = {each["details"]["kind"]: each["id"] for each in episode}
        resolved = kinds.get("resolved")
        firings = [each["id"] for each in episode if each["details"]["kind"] != "resolved"]
        if resolved in due and any(id in told for id in firings) != (resolved in told):
            fates = [(kind, "dispatched" if id in told else held.get(id)) for kind, id in kinds.items()]
            findings.add("resolve not where its firing was", f"{episode[0]['rule']} {episode[0]['labels']}: {fates}")
    return len(told), told.total() - len(told)


def _compare_dead_letters(log: EventLog, dead: Sequence[Logged], tables: Mapping[int, Any], findings: _Findings) -> int:
    """Every record that cannot be processed is a dead letter that names its place, and no other record is."""
    found: set[tuple[int, int]] = set()
    for record in dead:
        headers = {name: value.decode() for name, value in record.headers if name.startswith("dlq.")}
        if not headers.get("dlq.source.topic", "").endswith(EVENTS.name):
            continue
        place = int(headers["dlq.source.partition"]), int(headers["dlq.source.offset"])
        found.add(place)
        if place not in log.dead:
            findings.add("dead letter of a good record", f"{place}: {headers.get('dlq.reason')}: {headers.get('dlq.message')}")
    for place in log.dead - found:
        marker = marker_of(tables.get(place[0], {}))
        if marker is not None and place[1] <= marker.applied:
            findings.add("no dead letter", f"partition {place[0]}, offset {place[1]}")
    return len(found)


def _id(record: Logged) -> str:
    return str(json.loads(record.value or b"")["id"])


async def decided_ids(settings: Settings) -> set[str]:
    """Ids of the transitions that the notifier has dispatched or held back."""
    alerts = await read_topic(settings, settings.topic_prefix + ALERTS.name)
    transitions = await read_topic(settings, settings.topic_prefix + TRANSITIONS.name)
    marked = [record for record in transitions if any(name == DECISION for name, _ in record.headers)]
    return {_id(record) for record in (*alerts, *marked)}


async def _notified(settings: Settings) -> dict[int, int]:
    """Up to which offset of each partition of the transitions the notifier has decided."""
    tables = fold_changelog(await read_topic(settings, changelog_name(settings.group, NOTIFIER)))
    return {number: msgspec.msgpack.decode(table[b"m"])[1] for number, table in tables.items() if b"m" in table}


async def _ends(settings: Settings, topic: str) -> dict[int, int]:
    ends: dict[int, int] = {}
    for record in await read_topic(settings, topic):
        ends[record.partition] = record.offset + 1
    return ends


async def _undecided(settings: Settings) -> set[str]:
    """Ids of transitions of which the notifier has said nothing yet."""
    said = {_id(record) for record in await read_topic(settings, settings.topic_prefix + TRANSITIONS.name)}
    return said - await decided_ids(settings)
