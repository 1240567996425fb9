"""The stand-alone SQLite sink: readings as rows, blocks as summaries, in a file of one's own."""

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from dtolbus.errors import CannotStartError, DtolSinkSchemaError
from dtolbus.records import DaqBlock, DaqReading, Scalar
from dtolbus.sinks import SinkBase
from dtolbus_workers.columns import BLOCK_COLUMNS, block_summary
from dtolbus_workers.destination import OneThread
from dtolbus_workers.schema import (
    READING_BASE,
    ColumnNames,
    SchemaLock,
    check_identifier,
    quoted,
    reading_names,
    reading_row,
)
from dtolbus_workers.sqlite_file import (
    JournalMode,
    Synchronous,
    columns,
    connect,
    insert,
    tables,
    transaction,
    unstorable,
)

log = logging.getLogger(__name__)

_NUMBERS = {"t_mono_ns": "INTEGER", "t_midpoint_mono_ns": "INTEGER", "latency_s": "REAL"}
_SUMMARY_COLUMNS = BLOCK_COLUMNS[1:]


class SqliteSink(SinkBase):
    """Appends readings to one table and block summaries to another; an existing file of this sink is continued.

    A table's columns are locked by the first write that brings values; later columns are dropped with one warning each.
    Channels' columns have no declared type: an int stays an int, 1.5 stays 1.5, a bool is 0 or 1. NaN is NULL, and
    `"nan"` in `sensor_status` (JSON by channel).

    Raises:
        ValueError: a table's name is no plain identifier, or an argument is out of range.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        table_readings: str = "readings",
        table_blocks: str = "blocks",
        journal_mode: JournalMode = "WAL",
        synchronous: Synchronous = "NORMAL",
        busy_timeout_ms: int = 5000,
    ) -> None:
        if journal_mode not in get_args(JournalMode) or synchronous not in get_args(Synchronous):
            raise ValueError(f"SqliteSink: unknown journal_mode {journal_mode!r} or synchronous {synchronous!r}")
        if busy_timeout_ms < 0:
            raise ValueError(f"busy_timeout_ms must be >= 0, got {busy_timeout_ms!r}")
        self._path = Path(path)
        self._table_readings = check_identifier(table_readings, label="table_readings")
        self._table_blocks = check_identifier(table_blocks, label="table_blocks")
        if table_readings.casefold() == table_blocks.casefold():
            raise ValueError(f"table_readings and table_blocks must differ, got {table_readings!r} for both")
        self._journal_mode: JournalMode = journal_mode
        self._synchronous: Synchronous = synchronous
        self._busy_timeout_ms = busy_timeout_ms
        self._thread: OneThread | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock = SchemaLock(sink_name="sqlite.readings", logger=log, base=READING_BASE)
        self._names = ColumnNames()

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._path

    async def open(self) -> None:
        """Open the file. Raises CannotStartError where it is no SQLite file, or a table in it is not this sink's."""
        if self._thread is not None:
            return
        thread = OneThread("sqlite-sink")
        try:
            self._connection = await thread.run(self._open)
        except BaseException:
            thread.close()
            raise
        self._thread = thread
        log.info("opened", extra={"sink": "sqlite", "path": str(self._path)})

    async def close(self) -> None:
        """Close the file; the sink may be opened again."""
        thread, connection = self._thread, self._connection
        self._thread = self._connection = None
        if thread is None or connection is None:
            return
        try:
            await thread.run(connection.close)
        finally:
            thread.close()
        log.info("closed", extra={"sink": "sqlite", "path": str(self._path)})

    async def write(self, block: DaqBlock) -> None:
        """Append one summary row. Raises RuntimeError before `open`, DtolSinkWriteError when the outside failed."""
        if self._thread is None:
            raise RuntimeError("SqliteSink: write called before open()")
        await self._thread.run(self._write_block, block)

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Append the readings, all or none.

        Raises RuntimeError before `open`, DtolSinkWriteError when the outside failed, DtolSinkSchemaError for a value
        that SQLite cannot hold (an int beyond 64 bits).
        """
        if self._thread is None:
            raise RuntimeError("SqliteSink: write_many called before open()")
        if items:
            await self._thread.run(self._write_readings, list(items))

    def _open(self) -> sqlite3.Connection:
        connection = connect(
            self._path,
            journal_mode=self._journal_mode,
            synchronous=self._synchronous,
            busy_timeout_ms=self._busy_timeout_ms,
        )
        try:
            self._adopt_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _adopt_tables(self, connection: sqlite3.Connection) -> None:
        """Lock to the tables that are there already, or refuse them."""
        if "dtolbus_position" in tables(connection):
            raise CannotStartError(f"{self._path} is a bus's file, which only its worker writes; choose another file")
        here = columns(connection, self._table_readings)
        self._check_ours(self._table_readings, here, READING_BASE)
        self._check_ours(self._table_blocks, columns(connection, self._table_blocks), _SUMMARY_COLUMNS)
        self._lock.reset()
        if set(here) - set(READING_BASE):
            self._lock.lock(here)
        self._names = ColumnNames(self._stored_names(connection, here))

    def _stored_names(self, connection: sqlite3.Connection, here: Sequence[str]) -> dict[str, str]:
        """Return the channels' columns of an earlier session: the mapping's, and those called like their channel."""
        mapping = f"{self._table_readings}_columns"
        kept = (
            dict(connection.execute(f"SELECT channel, column_name FROM {quoted(mapping)}").fetchall())  # noqa: S608  # quoted
            if columns(connection, mapping)
            else {}
        )
        own = [name for name in here if name not in READING_BASE and name not in kept.values()]
        return {name: name for name in own if not (name.endswith("_unit") and name[:-5] in own)} | kept

    def _check_ours(self, table: str, here: Sequence[str], needed: Sequence[str]) -> None:
        missing = [name for name in needed if name not in here]
        if here and missing:
            raise CannotStartError(
                f"{self._path}: its table {table!r} is not this sink's (it has no column {missing[0]!r}); "
                f"choose another file or another table name"
            )

    def _write_block(self, block: DaqBlock) -> None:
        summary = block_summary(block)
        assert self._connection is not None  # noqa: S101  # narrows the type, nothing rests on it
        with transaction(self._connection, self._path):
            self._connection.execute(_create(self._table_blocks, _SUMMARY_COLUMNS))
            row = tuple(summary[name] for name in _SUMMARY_COLUMNS)
            self._connection.execute(insert(self._table_blocks, _SUMMARY_COLUMNS), row)

    def _write_readings(self, readings: Sequence[DaqReading]) -> None:
        for place, reading in enumerate(readings):
            for name, value in reading.values.items():
                if (why := unstorable(value)) is not None:
                    raise DtolSinkSchemaError(
                        f"SqliteSink: reading {place} of {len(readings)}, channel {name!r}: {why}; nothing was stored"
                    )
        names = self._names.of(reading_names(readings))
        rows = [reading_row(reading, names, keeps_nan=False, keeps_inf=True) for reading in readings]
        was_locked = self._lock.is_locked
        try:
            self._insert_readings(rows)
        except BaseException:
            if not was_locked:
                self._lock.reset()
            raise

    def _insert_readings(self, rows: Sequence[Mapping[str, Scalar]]) -> None:
        wanted = self._lock.observe(rows)
        projected = [tuple(self._lock.project(row).values()) for row in rows]
        connection = self._connection
        assert connection is not None  # noqa: S101  # narrows the type, nothing rests on it
        with transaction(connection, self._path):
            connection.execute(_create(self._table_readings, wanted))
            here = set(columns(connection, self._table_readings))
            for name in wanted:
                if name not in here:
                    connection.execute(f"ALTER TABLE {quoted(self._table_readings)} ADD COLUMN {quoted(name)}")
            self._keep_names(connection)
            connection.executemany(insert(self._table_readings, wanted), projected)

    def _keep_names(self, connection: sqlite3.Connection) -> None:
        """Store the columns that are not called like their channel, for the next session and for readers."""
        renamed = [(name, column) for name, column in self._names.columns.items() if name != column]
        if renamed:
            table = quoted(f"{self._table_readings}_columns")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (channel TEXT PRIMARY KEY, column_name TEXT NOT NULL)"
            )
            connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", renamed)  # noqa: S608  # quoted


def _create(table: str, names: Sequence[str]) -> str:
    """Return CREATE TABLE: times as integers, texts and channels without a type that would change their values."""
    listed = ", ".join(f"{quoted(name)} {_NUMBERS.get(name, '')}".rstrip() for name in names)
    return f"CREATE TABLE IF NOT EXISTS {quoted(table)} ({listed})"
