"""The engine: a pure kernel, and the edges that connect it to Kafka, RocksDB and Redis."""
