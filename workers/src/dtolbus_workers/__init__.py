"""The sinks of dtolbus: for scripts, and as a process for each on the bus."""

from dtolbus_workers.parquet import ParquetSink
from dtolbus_workers.postgres import PostgresConfig, PostgresSink
from dtolbus_workers.schema import SchemaLock
from dtolbus_workers.sqlite import SqliteSink
from dtolbus_workers.text import CsvSink, JsonlSink

__all__ = ["CsvSink", "JsonlSink", "ParquetSink", "PostgresConfig", "PostgresSink", "SchemaLock", "SqliteSink"]
