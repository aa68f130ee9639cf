from __future__ import annotations

from schemas.alert import Reason
from streams.notifier.channels.retry import Outcome
from streams.notifier.policy import Claimed
from streams.operations.metrics import DeliveryMetrics, Metrics, NotifierMetrics


def test_every_metric_is_ours_and_explained() -> None:
    metrics = Metrics()
    families = list(metrics.registry.collect())
    assert len(families) > 30
    assert all(family.name.startswith("tocsin_") and family.documentation.endswith(".") for family in families)
    assert b"_created" not in metrics.text()


def test_two_workers_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.events.inc(3)
    assert one.registry.get_sample_value("tocsin_events_total") == 3
    assert other.registry.get_sample_value("tocsin_events_total") == 0


def test_the_notifier_is_counted() -> None:
    metrics = Metrics()
    observer = NotifierMetrics(metrics)
    observer.claimed(Claimed(won=True, holder="a", remaining=1))
    observer.claimed(Claimed(won=False, holder="a", remaining=1, source="local"))
    observer.decided(Reason.IN_COOLDOWN)
    observer.dispatched(Reason.FIRST_NOTIFICATION, 40_000, 1)
    observer.dispatched(Reason.FIRST_NOTIFICATION, None, 1)
    observer.copied()
    observer.unreadable()
    observer.overflowed()
    value = metrics.registry.get_sample_value
    assert value("tocsin_cooldown_claims_total", {"result": "won", "source": "redis"}) == 1
    assert value("tocsin_cooldown_claims_total", {"result": "held", "source": "local"}) == 1
    assert value("tocsin_decisions_total", {"reason": "in_cooldown"}) == 1
    assert value("tocsin_event_to_alert_seconds_sum") == 0.04
    assert value("tocsin_event_to_alert_seconds_count") == 1
    assert value("tocsin_dead_letters_total", {"reason": "unreadable"}) == 1


def test_deliveries_are_counted() -> None:
    metrics = Metrics()
    observer = DeliveryMetrics(metrics)
    observer.retried("webhook")
    observer.waiting("webhook", 3)
    observer.finished("webhook", Outcome.DELIVERED, 2_000_000)
    value = metrics.registry.get_sample_value
    assert value("tocsin_notifications_total", {"channel": "webhook", "result": "delivered"}) == 1
    assert value("tocsin_notification_retries_total", {"channel": "webhook"}) == 1
    assert value("tocsin_notifications_in_flight", {"channel": "webhook"}) == 3
    assert value("tocsin_notification_seconds_sum", {"channel": "webhook"}) == 2
