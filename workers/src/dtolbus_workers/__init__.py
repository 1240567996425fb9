"""The sinks of dtolbus: for scripts, and as a process for each on the bus.

Each is loaded when it is first asked for: a command starts in the time that its own sink takes.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
