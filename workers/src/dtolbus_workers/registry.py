"""The table of sinks: one line registers one. Its code, and what that imports, is loaded when it is used."""

from importlib import import_module
from typing import Any

from dtolbus.errors import UsageError

SINKS = {
    "parquet": "dtolbus_workers.parquet_destination:ParquetDestination",
    "sqlite": "dtolbus_workers.sqlite_destination:SqliteDestination",
    "postgres": "dtolbus_workers.postgres_destination:PostgresDestination",
    "csv": "dtolbus_workers.text_destination:CsvDestination",
    "jsonl": "dtolbus_workers.text_destination:JsonlDestination",
}


def destination_class(kind: str) -> Any:
    """Return the destination class of a kind of sink. Raises UsageError for a kind that is not in the table."""
    if kind not in SINKS:
        raise UsageError(f"{kind!r} is not a sink; there are {', '.join(SINKS)}")
    module, _, name = SINKS[kind].partition(":")
    return getattr(import_module(module), name)
