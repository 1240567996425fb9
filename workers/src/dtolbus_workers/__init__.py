"""The sinks of dtolbus: for scripts, and as a process for each on the bus.

Each is loaded when it is first asked for: a command starts in the time that its own sink takes.
"""

from typing import TYPE_CHECKING

from dtolbus.lazily import lazily

if TYPE_CHECKING:
    from dtolbus_workers.parquet import ParquetSink
    from dtolbus_workers.postgres import PostgresConfig, PostgresSink
    from dtolbus_workers.schema import SchemaLock
    from dtolbus_workers.sqlite import SqliteSink
    from dtolbus_workers.text import CsvSink, JsonlSink

__all__ = ["CsvSink", "JsonlSink", "ParquetSink", "PostgresConfig", "PostgresSink", "SchemaLock", "SqliteSink"]

_MODULES = {
    "CsvSink": "text",
    "JsonlSink": "text",
    "ParquetSink": "parquet",
    "PostgresConfig": "postgres",
    "PostgresSink": "postgres",
    "SchemaLock": "schema",
    "SqliteSink": "sqlite",
}

__getattr__, __dir__ = lazily(__name__, _MODULES)
