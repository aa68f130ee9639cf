"""What a world must hold in the end, recomputed from its event log by the plain oracle."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final

from schemas.alert import DISPATCHED
from streams.notifier.policy import DECISION_HEADER
from streams.topics import ALERT_STATE, ALERTS, DEAD_LETTERS, ENGINE, EVENTS, TRANSITIONS, changelog_name
from tests.faults.log import Logged, as_log
from tests.faults.state import PrunedOracle, cells_of_oracle, cells_of_table, fold_changelog, marker_of
from tests.simulation.worker import World, as_logged


def differences(world: World, *, faults: bool, zombies: bool) -> tuple[list[str], Counter[str]]:
    """Everything that is not as it must be, in sentences; and counts."""
    found = list(world.wrong)
    counts: Counter[str] = Counter()
    expected = _compare_state(world, found, counts)
    said = _compare_transitions(world, expected, found, counts)
    _compare_alerts(world, said, found, counts, faults=faults, zombies=zombies)
    return found, counts


def _logged(world: World, topic: str) -> list[Logged]:
    logs = [world.broker.logs[topic, number] for number in range(world.broker.partitions[topic])]
    return [as_logged(record) for log in logs for record in log.records]


def _compare_state(world: World, found: list[str], counts: Counter[str]) -> dict[str, str]:
    """The tables that the changelog gives, cell by cell. Returns the transitions of the oracle, as JSON, by id."""
    partitions = world.broker.partitions[EVENTS.name]
    log = as_log(_logged(world, EVENTS.name), world.rulesets, partitions)
    tables = fold_changelog(_logged(world, changelog_name(world.settings.group, ENGINE)))
    expected: dict[str, str] = {}
    for number in range(partitions):
        oracle = PrunedOracle(EVENTS.name, number)
        for record in log.records[number]:
            for transition in oracle.apply(record):
                expected[transition.id] = transition.model_dump_json()
        table = tables.get(number, {})
        cells, held = cells_of_oracle(oracle), cells_of_table(table, oracle)
        counts["cells"] += len(cells)
        found += [
            f"partition {number}: {key} holds {held.get(key)}, and {cells.get(key)} is right"
            for key in cells.keys() | held.keys()
            if cells.get(key) != held.get(key)
        ]
        marker = marker_of(table)
        if marker is None or (marker.applied, marker.stream_time, marker.seq, marker.origins) != (
            oracle.applied, oracle.stream_time, oracle.seq, oracle.markers,
        ):  # fmt: skip
            found.append(f"partition {number}: the marker is {marker}, and the oracle has applied {oracle.applied}")
    counts["events"] += log.events
    dead = {
        (int(headers["dlq.source.partition"]), int(headers["dlq.source.offset"]))
        for record in _logged(world, DEAD_LETTERS.name)
        if (headers := {name: value.decode() for name, value in record.headers if name.startswith("dlq.")})
    }
    if dead != log.dead:
        found.append(f"dead letters of {sorted(dead)}, and {sorted(log.dead)} is right")
    return expected


def _compare_transitions(world: World, expected: dict[str, str], found: list[str], counts: Counter[str]) -> dict[str, Any]:
    """Each is there, its copies are the same, and the first ones are in order. Returns them by id."""
    first: dict[str, str] = {}
    order: dict[tuple[str, int], list[str]] = defaultdict(list)
    for record in _logged(world, TRANSITIONS.name):
        if any(name == DECISION_HEADER for name, _ in record.headers):
            continue
        text = (record.value or b"").decode()
        said = json.loads(text)
        counts["copies of transitions"] += said["id"] in first
        if expected.get(said["id"]) != text:
            found.append(f"transition {text}, and {expected.get(said['id'])} is right")
        if first.setdefault(said["id"], text) == text and said["id"] not in order[said["tenant"], said["details"]["partition"]]:
            order[said["tenant"], said["details"]["partition"]].append(said["id"])
    found.extend(f"transition lost: {expected[id]}" for id in expected.keys() - first.keys())
    for (tenant, partition), ids in order.items():
        right = [id for id, text in expected.items() if _is_of(text, tenant, partition)]
        if ids != right:
            found.append(f"transitions of {tenant} from partition {partition} are out of order")
    counts["transitions"] += len(first)
    return {id: json.loads(text) for id, text in first.items()}


def _is_of(text: str, tenant: str, partition: int) -> bool:
    said = json.loads(text)
    return bool(said["tenant"] == tenant and said["details"]["partition"] == partition)


_ALTERED: Final = ("reason", "fire_count", "details")


def _compare_alerts(
    world: World, said: dict[str, Any], found: list[str], counts: Counter[str], *, faults: bool, zombies: bool
) -> None:
    """What the notifier promises."""
    alerts = [json.loads(record.value or b"") for record in _logged(world, ALERTS.name)]
    decisions = [
        json.loads(record.value or b"")
        for record in _logged(world, TRANSITIONS.name)
        if any(name == DECISION_HEADER for name, _ in record.headers)
    ]
    told = Counter(alert["id"] for alert in alerts)
    counts["alerts"] += len(told)
    counts["copies of alerts"] += told.total() - len(told)
    for alert in [*alerts, *decisions]:
        wanted = said.get(alert["id"])
        if wanted is None or any(wanted[name] != alert[name] for name in wanted if name not in _ALTERED):
            found.append(f"decided {alert}, and the transition is {wanted}")
    found.extend(f"alert {alert['id']} with reason {alert['reason']}" for alert in alerts if alert["reason"] not in DISPATCHED)
    decided = told.keys() | {decision["id"] for decision in decisions}
    found.extend(f"undecided by the notifier: {said[id]}" for id in said.keys() - decided)
    for decision in decisions:
        if decision["reason"] == "in_cooldown":
            holder = decision["details"]["held_by"]
            counts["held"] += 1
            if holder == decision["id"]:
                found.append(f"{decision['rule']} {decision['id']} is held back by itself")
            elif holder != "rate_cap" and holder not in told:
                found.append(f"{decision['rule']} {decision['id']} is held back by {holder}, which nobody was told of")
    if not faults:
        found.extend(f"alert {id} came {number} times, and nothing had failed" for id, number in told.items() if number > 1)
    state = {record.key: record.value for record in _logged(world, ALERT_STATE.name)}
    for episode in _episodes(said.values()):
        firings = {each["id"] for each in episode if each["status"] == "firing"}
        resolved = [each["id"] for each in episode if each["status"] == "resolved"]
        went_out = any(id in told for id in firings)
        if not resolved and not went_out:
            found.append(f"a firing that goes on was never dispatched: {episode[0]}")
        if resolved and went_out != (resolved[0] in told):
            found.append(f"{episode[0]['rule']} {episode[0]['dedup_key']}: dispatched {went_out}, its resolve {not went_out}")
        key = f"{episode[0]['tenant']}|{episode[0]['dedup_key']}".encode()
        # The topic of states is not fenced: what a zombie says last may stand there.
        if not zombies and (state.get(key) is None) != bool(resolved):
            found.append(f"the state of {key!r} is {state.get(key)!r}, and it is {'resolved' if resolved else 'firing'}")


def _episodes(said: Iterable[Any]) -> Iterable[list[Any]]:
    by_key: dict[str, list[Any]] = defaultdict(list)
    for transition in said:
        by_key[transition["dedup_key"]].append(transition)
    return by_key.values()
