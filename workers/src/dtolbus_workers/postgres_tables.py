"""The bus's tables in Postgres, and which tables there are."""

from collections.abc import Mapping, Sequence
from typing import Any

from dtolbus.parquet.footer import CellKind
from dtolbus_workers.columns import BLOCK_COLUMNS, SAMPLE_COLUMNS
from dtolbus_workers.pgcopy import PgType
from dtolbus_workers.postgres_config import PostgresConfig

FORMAT = "1"

_OF_COLUMN: dict[str, PgType] = {
    **dict.fromkeys(("value", "sample_rate_hz", "elapsed_s", "latency_s"), "double precision"),
    **dict.fromkeys(("task_started_at", "t0", "t_utc", "read_started_at", "read_finished_at"), "timestamptz"),
    **dict.fromkeys(("requested_at", "received_at", "updated_at"), "timestamptz"),
    **dict.fromkeys(("channels", "units", "min", "max", "mean", "rms", "header"), "json"),
    **dict.fromkeys(("block_index", "sample_index", "t_mono_ns", "first_sample_index"), "bigint"),
    **dict.fromkeys(("samples_per_channel", "block_period_ns", "t_midpoint_mono_ns", "sensor_status"), "bigint"),
    **dict.fromkeys(("reading_index", "record_index", "from_index", "to_index", "first_sample"), "bigint"),
    **dict.fromkeys(("end_sample", "next", "backfilled"), "bigint"),
    "is_linearised": "boolean",
    "frames": "bytea",
}
READING_START = (
    *("run_id", "reading_index", "device", "task", "t_mono_ns", "t_utc", "t_midpoint_mono_ns", "requested_at"),
    *("received_at", "latency_s"),
)
READING_END = ("error_type", "error_message", "sensor_status")
CELL_TYPES: Mapping[CellKind, PgType] = {"number": "double precision", "integer": "bigint", "text": "text"}

EVENTS = ("run_id", "stream", "record_index", "sample_index", "t_utc", "kind", "message")
GAPS = ("run_id", "stream", "from_index", "to_index", "first_sample", "end_sample", "cause")
PUT_ASIDE = ("run_id", "stream", "record_index", "reason", "frames")
RUNS = ("run_id", "stream", "header")
POSITION = ("run_id", "stream", "next", "backfilled", "updated_at")
COLUMNS = ("device", "task", "channel", "kind", "column")


def column_type(table: str, column: str) -> PgType:
    """Return the type of a fixed column."""
    if table == "readings" and column == "sensor_status":
        return "json"
    if table == "dtolbus":
        return "text"
    return _OF_COLUMN.get(column, "text")


def quoted(name: str) -> str:
    """Return the identifier in quotes, so that nothing in it is SQL."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


class BusTables:
    """The bus's tables in one schema."""

    def __init__(self, config: PostgresConfig) -> None:
        self.schema = config.schema
        named = {"readings": config.table_readings, "blocks": config.table_blocks}
        self._columns: dict[str, tuple[Sequence[str], str]] = {
            "dtolbus": (("key", "value"), "key"),
            "runs": (RUNS, "run_id, stream"),
            "samples": (SAMPLE_COLUMNS, ""),
            "blocks": (BLOCK_COLUMNS, "run_id, device, task, block_index"),
            "readings": ((*READING_START, *READING_END), "run_id, reading_index"),
            "events": (EVENTS, "run_id, stream, record_index"),
            "gaps": (GAPS, "run_id, stream, from_index"),
            "put_aside": (PUT_ASIDE, "run_id, stream, record_index"),
            "dtolbus_position": (POSITION, "run_id, stream"),
            "dtolbus_columns": (COLUMNS, "device, task, channel, kind"),
        }
        self.names = {table: named.get(table, table) for table in self._columns}

    def __getitem__(self, table: str) -> str:
        """Return the table's full name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.names[table])}"

    def sql(self, query: str, **parts: str) -> str:
        """Return the query with each `{table}` in it replaced by that table's full name, and the `parts` by theirs."""
        return query.format_map({table: self[table] for table in self.names} | parts)

    def columns(self, table: str) -> Sequence[str]:
        """Return the table's fixed columns."""
        return self._columns[table][0]

    def types(self, table: str) -> list[PgType]:
        """Return the fixed columns' types."""
        return [column_type(table, column) for column in self.columns(table)]

    def not_ours(self, found: Mapping[str, Mapping[str, str]]) -> str | None:
        """Return what is in the way of the bus's tables among those found (columns by table), or None."""
        if self.names["dtolbus"] not in found:
            for name in self.names.values():
                if name in found:
                    return f"a table {name!r} that is not dtolbus's"
        elif self.names["dtolbus_position"] not in found:  # from zero again would double the samples
            return (
                f"dtolbus's tables, but lacks the table {self.names['dtolbus_position']!r} that says how far they are"
            )
        for table, name in self.names.items():
            lacking = sorted(set(self.columns(table)) - set(found[name])) if name in found else []
            if lacking:
                return f"a table {name!r} without the column {lacking[0]!r}"
        return None

    def lost(self, found: Mapping[str, Any]) -> list[str]:
        """Return the tables that somebody dropped: all of them are made at once."""
        return [name for name in self.names.values() if name not in found] if self.names["dtolbus"] in found else []

    def missing(self, found: Mapping[str, Any]) -> list[str]:
        """Return the tables that are not there."""
        return [table for table, name in self.names.items() if name not in found]

    def create(self, table: str) -> str:
        """Return the statement that makes the table."""
        _, key = self._columns[table]
        typed = [f"{quoted(column)} {column_type(table, column)}" for column in self.columns(table)]
        primary = [f"PRIMARY KEY ({key})"] if key else []
        return f"CREATE TABLE {self[table]} ({', '.join([*typed, *primary])})"


FIND_COLUMNS = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = $1"


def by_table(rows: Sequence[Any]) -> dict[str, dict[str, str]]:
    """Return FIND_COLUMNS' rows as the columns' types by table."""
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    return found
