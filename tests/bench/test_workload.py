"""The workload of the benchmark is what its README says: the same for the same seed, valid, keyed, skewed, with late events."""

from __future__ import annotations

from collections import Counter

from bench.workload import MAX_LATE, RATE, SERVICES, Workload
from schemas.event import Event
from streams.partitioner import event_key

START = 1_767_225_600_000_000
EVENTS = [(key, Event.model_validate_json(value)) for key, value in Workload(20_000, START).records()]


def test_the_same_seed_gives_the_same_records() -> None:
    assert list(Workload(2_000, START).records()) == list(Workload(2_000, START).records())
    assert list(Workload(2_000, START, seed=2).records()) != list(Workload(2_000, START).records())


def test_records_carry_the_key_of_their_event() -> None:
    assert all(key == event_key(event.tenant, event.service) for key, event in EVENTS)


def test_services_are_skewed_and_events_fail_and_come_late() -> None:
    services = Counter(event.service for _, event in EVENTS)
    assert len(services) == SERVICES
    assert 0.2 < max(services.values()) / len(EVENTS) < 0.3
    assert 0.005 < sum(event.outcome == "tool_error" for _, event in EVENTS) / len(EVENTS) < 0.1
    behind = [START + number * 1_000_000 // RATE - event.ts for number, (_, event) in enumerate(EVENTS)]
    assert 0.04 < sum(late > 0 for late in behind) / len(EVENTS) < 0.06
    assert 0 <= min(behind) <= max(behind) < MAX_LATE


def test_a_record_has_twelve_fields_and_about_260_bytes() -> None:
    sizes = [len(value) for _, value in Workload(1_000, START).records()]
    assert all(len(event.model_fields_set) == 12 for _, event in EVENTS)
    assert 240 < sum(sizes) / len(sizes) < 280
