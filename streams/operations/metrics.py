"""The metrics: everything that is counted, under the names that dashboards use."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from schemas.alert import Reason
from schemas.time import MICROS
from streams.channel_names import UnservedChannels
from streams.notifier.channels.delivery import DeliveryObserver
from streams.notifier.channels.retry import Outcome
from streams.notifier.observer import Observer
from streams.notifier.policy import Claimed

_CHECKPOINT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ALERT: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Every metric of a worker, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series of each, which nobody asks for
        self.registry = registry = CollectorRegistry()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"tocsin_{name}", help, labels, registry=registry)

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(f"tocsin_{name}", help, labels, registry=registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"tocsin_{name}", help, labels, buckets=buckets, registry=registry)

        # Both roles.
        self.chunks = counter("chunks", "Chunks of records that were folded.", "role")
        self.records = counter("records", "Records that were folded, control records among them.", "role")
        self.sent = counter("records_sent", "Records that were sent, acknowledged or not.", "topic")
        self.checkpoints = histogram("checkpoint_seconds", "Duration of a checkpoint.", _CHECKPOINT, "role")
        self.checkpoint_bytes = counter("checkpoint_bytes", "Keys and values written to changelogs.", "role")
        self.owned = gauge("partitions_owned", "Partitions that are open here.", "role")
        self.lag = gauge(
            "consumer_lag_records", "Records between what was folded and the end of the partition.", "role", "partition"
        )
        self.offset = gauge("applied_offset", "Offset of the last record that was folded.", "role", "partition")
        self.recovering = gauge(
            "recovery_records_left",
            "Records of the changelog that are still to be read before the partition opens.",
            "role",
            "partition",
        )
        self.gaps = counter("missing_records", "Records that the log no longer had when they were to be read.", "role")
        self.tasks = gauge("asyncio_tasks", "Tasks of the event loop.")
        # The engine.
        self.events = counter("events", "Events that were decoded.")
        self.bytes = counter("bytes", "Bytes of values that were decoded.")
        self.counted = counter("events_counted", "Events that were counted on the partition they belong to.")
        self.duplicates = counter("duplicate_events", "Forwarded events, and rows of redriven records, that had come before.")
        self.forwarded = counter("forwarded_events", "Events that were found on another partition and sent to theirs.")
        self.dead_letters = counter("dead_letters", "Records that could not be processed.", "reason")
        self.late = counter("late_events", "Events that came after their slice had left every window of the rule.", "rule")
        self.overflow = counter("overflow_events", "Events of new groups beyond the bound of the rule.", "rule")
        self.groups = gauge("groups", "Groups that the rules hold on the partitions that are open here.")
        self.rule_failures = counter("rule_failures", "Rules that raised while they were folded.", "rule")
        self.failing = gauge("rules_failing", "Rules that failed and are not judged on the partition.", "partition")
        self.judged = counter("rules_judged", "Judgements of a rule for a group.")
        self.transitions = counter("transitions", "Decisions of the engine.", "reason")
        self.stream_lag = gauge("stream_time_lag_seconds", "Time of day less stream time.", "partition")
        self.unreadable_rulesets = counter(
            "unreadable_rulesets", "Documents of rules and rulesets that could not be read or found."
        )
        self.waiting = gauge("waiting_for_ruleset", "1 while a partition waits for the documents of a ruleset.", "partition")
        self.ticks = counter("ticks", "Tick records that were appended.")
        # The notifier.
        self.alerts = gauge("alerts", "Episodes that fire now.", "state")
        self.decisions = counter("decisions", "Decisions of the notifier.", "reason")
        self.copies = counter("copied_transitions", "Transitions that had been decided before.")
        self.claims = counter("cooldown_claims", "Claims of a cooldown.", "result", "source")
        self.untracked = counter("untracked_alerts", "Alerts that were dispatched without being remembered, for want of room.")
        self.event_to_alert = histogram(
            "event_to_alert_seconds", "From the append of the deciding event to the dispatch of the alert.", _ALERT
        )
        self.notifications = counter("notifications", "Alerts that a channel is done with.", "channel", "result")
        self.retries = counter("notification_retries", "Attempts of a channel that will be repeated.", "channel")
        self.in_flight = gauge("notifications_in_flight", "Alerts that a channel has read and is not done with.", "channel")
        self.delivery = histogram(
            "notification_seconds", "From the dispatch of an alert to its end in a channel.", _ALERT, "channel"
        )

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)


class NotifierMetrics(Observer):
    """Counts what the notifier decides, and has those warned whose alerts reach nobody."""

    def __init__(self, metrics: Metrics, channels: UnservedChannels | None = None) -> None:
        self._metrics, self._channels = metrics, channels

    def claimed(self, claimed: Claimed) -> None:
        """A claim was answered."""
        self._metrics.claims.labels("won" if claimed.won else "held", claimed.source).inc()

    def decided(self, reason: Reason) -> None:
        """A transition was decided."""
        self._metrics.decisions.labels(str(reason)).inc()

    def dispatched(self, reason: Reason, since_append: int | None, since_decided: int) -> None:  # noqa: ARG002 - the signature of Observer
        """A record goes out."""
        if since_append is not None:
            self._metrics.event_to_alert.observe(max(since_append, 0) / MICROS)

    def addressed(self, rule: str, channels: tuple[str, ...]) -> None:
        """Alerts may name channels that nothing serves."""
        if self._channels is not None:
            self._channels.look(rule, channels)

    def copied(self) -> None:
        """A transition came that was decided before."""
        self._metrics.copies.inc()

    def unreadable(self) -> None:
        """A record became a dead letter."""
        self._metrics.dead_letters.labels("unreadable").inc()

    def overflowed(self) -> None:
        """A transition was dispatched without being remembered."""
        self._metrics.untracked.inc()


class DeliveryMetrics(DeliveryObserver):
    """Counts what becomes of alerts in channels."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def finished(self, channel: str, outcome: Outcome, since_dispatch: int) -> None:
        """An alert is done with."""
        self._metrics.notifications.labels(channel, str(outcome)).inc()
        self._metrics.delivery.labels(channel).observe(max(since_dispatch, 0) / MICROS)

    def retried(self, channel: str) -> None:
        """An attempt failed and will be repeated."""
        self._metrics.retries.labels(channel).inc()

    def waiting(self, channel: str, number: int) -> None:
        """So many alerts are in flight."""
        self._metrics.in_flight.labels(channel).set(number)
