"""The semi-private seams of Faust, mode, aiokafka and rocksdict that the runtime stands on: here it fails when they change."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

import faust
import pytest
import rocksdict
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.sender import Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record import default_records
from faust.app.base import App
from faust.stores import STORES
from faust.stores.rocksdb import USE_ROCKSDICT, Store
from faust.tables import recovery as faust_recovery
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import ConsumerMessage
from mode import Service
from mode.services import ServiceTask

from streams.runtime.recovery import ChunkRecovery


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(function: Any) -> str:
    return inspect.getsource(function)


@pytest.mark.parametrize(
    ("package", "held"),
    [("faust-streaming", "0.15.3"), ("mode-streaming", "0.7.1"), ("aiokafka", "0.14.0"), ("rocksdict", "0.3.29")],
)
def test_the_versions_are_those_that_were_measured(package: str, held: str) -> None:
    assert version(package) == held


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (driver.Consumer.getmany, ["self", "timeout"]),
        (driver.Consumer._wait_next_records, ["self", "timeout"]),
        (driver.Consumer._getmany, ["self", "active_partitions", "timeout"]),
        (driver.Consumer._new_consumer_thread, ["self"]),
        (driver.Consumer._new_offset, ["self", "tp"]),
        (driver.Consumer._add_gap, ["self", "tp", "offset_from", "offset_to"]),
        (driver.Consumer._filter_tps_with_pending_acks, ["self", "topics"]),
        (driver.Consumer.commit_and_end_transactions, ["self"]),
        (driver.Consumer.perform_seek, ["self"]),
        (driver.Consumer.seek, ["self", "partition", "offset"]),
        (driver.Consumer.stop_flow, ["self"]),
        (driver.Consumer.on_partitions_revoked, ["self", "revoked"]),
        (driver.Consumer.verify_event_path, ["self", "now", "tp"]),
        (driver.AIOKafkaConsumerThread._create_worker_consumer, ["self", "transport"]),
        (driver.AIOKafkaConsumerThread._fetch_records, ["self", "consumer", "active_partitions", "timeout", "max_records"]),
        (driver.AIOKafkaConsumerThread.on_partitions_assigned, ["self", "assigned", "generation_id"]),
        (Recovery.on_recovery_completed, ["self", "generation_id"]),
        (Recovery._wait, ["self", "coro", "timeout"]),
        (TableManager._update_channels, ["self"]),
        (Store._open_for_partition, ["self", "partition"]),
        (Store._db_for_partition, ["self", "partition"]),
        (Store.partition_path, ["self", "partition"]),
        (Fetcher.fetched_records, ["self", "partitions", "timeout", "max_records"]),
        (Fetcher._create_fetch_waiter, ["self"]),
        (Sender._do_init_pid, ["self", "node_id"]),
        (Sender._find_coordinator, ["self", "coordinator_type", "coordinator_key"]),
        (Sender._coordinator_dead, ["self", "coordinator_type"]),
        (TransactionManager.set_pid_and_epoch, ["self", "pid", "epoch"]),
        (AIOKafkaProducer.create_batch, ["self"]),
        (AIOKafkaProducer.send_batch, ["self", "batch", "topic", "partition"]),
        (AIOKafkaConsumer.highwater, ["self", "partition"]),
        (AIOKafkaClient.fetch_all_metadata, ["self"]),
    ],
)
def test_signatures(function: Any, expected: list[str]) -> None:
    assert parameters(function) == expected


def test_a_message_takes_its_fields_in_this_order() -> None:
    assert parameters(ConsumerMessage.__init__)[1:] == [
        "topic", "partition", "offset", "timestamp", "timestamp_type", "headers", "key", "value", "checksum",
        "serialized_key_size", "serialized_value_size", "tp", "time_in", "time_out", "time_total", "generation_id",
    ]  # fmt: skip


def test_faust_runs_its_recovery_by_the_services_that_are_replaced() -> None:
    replaced = ("_restart_recovery", "_slurp_changelogs", "_publish_stats")
    assert all(isinstance(vars(Recovery)[name], ServiceTask) for name in replaced)
    assert {task.fun for task in ChunkRecovery._get_tasks(_bare(ChunkRecovery))} == {
        vars(ChunkRecovery)[name].fun for name in replaced
    }
    assert {"RebalanceAgain", "ServiceStopped"} <= vars(faust_recovery).keys()


def _bare(kind: type[Service]) -> Any:
    return object.__new__(kind)


def test_recovery_begins_by_a_signal_and_ends_by_seeking_and_resuming() -> None:
    assert "signal_recovery_start.set()" in source(Recovery.on_rebalance)
    assert "_generation_id = generation_id" in source(Recovery.on_rebalance)
    completed = source(Recovery.on_recovery_completed)
    assert completed.index("perform_seek") < completed.index("resume_flow")
    assert "signal_recovery_start in wait_result.done" in source(Recovery._wait)


def test_faust_saves_and_commits_before_partitions_go() -> None:
    revoked = source(App._on_partitions_revoked)
    assert revoked.index("stop_flow") < revoked.index("flow_control.clear") < revoked.index("_consumer_wait_empty")
    stopped = source(App._stop_consumer)
    assert stopped.index("stop_flow") < stopped.index("_consumer_wait_empty") < stopped.index("tables.stop")
    assert source(faust_consumer.Consumer.wait_empty).rstrip().endswith("await T(self.commit_and_end_transactions)()")
    assert "await self.commit(" in source(faust_consumer.Consumer.commit_and_end_transactions)


def test_commits_ask_for_the_new_offset_of_partitions_with_acknowledgements() -> None:
    assert "_filter_tps_with_pending_acks(topics)" in source(faust_consumer.Consumer.force_commit)
    assert "self._new_offset(tp)" in source(faust_consumer.Consumer._filter_committable_offsets)


def test_partitions_are_claimed_after_faust_knows_the_generation() -> None:
    assigned = source(driver.ConsumerRebalanceListener.on_partitions_assigned)
    assert assigned.index("consumer_generation_id = generation") < assigned.index("_thread.on_partitions_assigned")


def test_the_stock_second_of_sleep_is_what_is_left_out() -> None:
    assert "await self.sleep(1.0)" in source(TableManager.on_start)
    assert "await self.sleep(1)" in source(faust_consumer.Consumer._wait_next_records)


def test_transports_and_stores_are_chosen_by_scheme() -> None:
    assert "aiokafka" in TRANSPORTS.aliases
    assert "rocksdb" in STORES.aliases
    assert USE_ROCKSDICT


def test_a_store_is_opened_in_raw_mode() -> None:
    assert "raw_mode=True" in inspect.getsource(faust.stores.rocksdb.RocksDBOptions.as_options)
    assert Store.offset_key == b"__faust\0offset__"
    batch = rocksdict.WriteBatch(raw_mode=True)
    batch.put(b"k", b"v")
    batch.delete(b"k")
    assert len(batch) == 2


def test_what_is_fetched_waits_in_the_fetcher_until_it_is_asked_for() -> None:
    assert "self._records[tp]" in source(Fetcher.fetched_records)
    assert "res_or_error.getall(max_records)" in source(Fetcher.fetched_records)
    assert parameters(FetchResult.getall) == ["self", "max_records"]
    assert parameters(FetchResult.check_assignment) == ["self", "tp"]
    assert parameters(FetchResult._update_position) == ["self"]
    assert {"_tp", "_records", "_check_crcs", "next_fetch_offset"} <= set(PartitionRecords.__init__.__code__.co_names)
    assert {"_partition_records", "_topic_partition"} <= set(FetchResult.__init__.__code__.co_names)
    assert "_records_iterator" in PartitionRecords.__init__.__code__.co_names
    assert FetchResult.has_more


def test_the_fenced_producer_sets_its_id_where_aiokafka_does() -> None:
    assert "self._do_init_pid(node_id)" in source(Sender._maybe_wait_for_pid)
    assert "has_pid()" in source(Sender._maybe_wait_for_pid)
    assert CoordinationType.TRANSACTION is not None
    assert ConnectionGroup.COORDINATION is not None
    assert InitProducerIdRequest(transactional_id="x", transaction_timeout_ms=1)


def test_a_batch_says_when_it_is_full() -> None:
    batch = BatchBuilder(1_000, 0)
    assert batch.append(key=b"k", value=b"v" * 900, timestamp=1) is not None
    assert batch.append(key=b"k", value=b"v" * 900, timestamp=1) is None


def test_the_decoders_of_batches_can_be_replaced() -> None:
    module = inspect.getmodule(default_records.DefaultRecordBatch)
    assert module is not None
    assert all(hasattr(module, name) for name in ("gzip_decode", "lz4_decode", "zstd_decode"))


def test_a_partition_is_one_tuple_to_both() -> None:
    assert TopicPartition("t", 1) == faust.types.TP("t", 1)
    assert hash(TopicPartition("t", 1)) == hash(faust.types.TP("t", 1))
    assert SubscriptionState
