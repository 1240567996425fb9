"""PostgresSink: readings and block summaries in two tables."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from dtolbus.errors import DtolSinkError, DtolSinkSchemaError, DtolSinkWriteError
from dtolbus.records import DaqBlock, DaqReading, Scalar
from dtolbus.rows import READING_KEYS
from dtolbus.sinks import SinkBase
from dtolbus_workers import postgres_link
from dtolbus_workers.columns import BLOCK_COLUMNS, block_summary
from dtolbus_workers.postgres_cells import fitted
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_tables import FIND_COLUMNS, by_table, column_type, quoted
from dtolbus_workers.schema import READING_BASE, ColumnNames, SchemaLock, reading_names, reading_row

log = logging.getLogger(__name__)

__all__ = ["PostgresConfig", "PostgresSink"]

_AT_FAULT = ("22", "23", "3F", "42")
"""Classes of SQLSTATE that say that rows and table do not fit: data, constraints, names and rights."""


class _Table:
    """One of the sink's tables: what it must have, and what it has."""

    def __init__(self, name: str, kind: str, base: Sequence[str], required: Sequence[str]) -> None:
        self.name = name
        self.kind = kind
        self.required = required
        self.lock = SchemaLock(sink_name=f"postgres.{kind}", logger=log, base=base)
        self.types: dict[str, str] = {}
        """Each column's type, of a table that is there."""

    def new_type(self, column: str, rows: Sequence[Mapping[str, Scalar]]) -> str:
        """Return the type to make a column with: numbers are double precision, so that 1.5 may follow 1."""
        if column in self.required or column in READING_BASE:
            return column_type(self.kind, column)
        return (
            "text"
            if any(isinstance(row.get(column), str) for row in rows) or column.endswith("_unit")
            else "double precision"
        )


class PostgresSink(SinkBase):
    """Appends readings to one table and block summaries to another.

    With `config.create_tables` the tables are made, or what they lack is added, from the first records of each kind;
    else they must exist, and what they have no column for is dropped with a warning. A lost connection fails one
    write; the next makes a new one. A value that its column cannot hold exactly is refused, never rounded.
    """

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._pool: Any = None
        self._forget()

    def _forget(self) -> None:
        config = self._config
        self._readings = _Table(config.table_readings, "readings", READING_BASE, READING_KEYS)
        self._blocks = _Table(config.table_blocks, "blocks", (), BLOCK_COLUMNS[1:])
        self._names = ColumnNames()

    @property
    def config(self) -> PostgresConfig:
        """What the sink was made with."""
        return self._config

    async def open(self) -> None:
        """Connect, and look at the tables unless they are to be made.

        Raises:
            DtolSinkDependencyError: asyncpg is not installed.
            DtolSinkWriteError: the server is away or refuses.
            DtolSinkSchemaError: the tables are not there.
        """
        if self._pool is not None:
            return
        config = self._config
        settings = {"application_name": "dtolbus", "statement_timeout": str(config.statement_timeout_ms)}
        try:
            self._pool = await postgres_link.load().create_pool(
                **config.connect_arguments(),
                min_size=config.pool_min_size,
                max_size=config.pool_max_size,
                timeout=config.command_timeout_s,
                command_timeout=config.command_timeout_s,
                server_settings=settings,
            )
        except postgres_link.outside_errors(ValueError) as error:
            raise DtolSinkWriteError(
                f"{config.target()} is not to be had: {postgres_link.reason(error)}; "
                f"start the server, or correct the config"
            ) from error
        self._forget()
        if not config.create_tables:
            await self._look_at_tables()
        log.info("opened", extra={"target": config.target(), "use_copy": config.use_copy})

    async def _look_at_tables(self) -> None:
        try:
            await self._outside(self._find)
            if not self._readings.types and not self._blocks.types:
                raise DtolSinkSchemaError(self._no_table(self._readings.name))
        except BaseException:
            await self.close()
            raise
        for table in (self._readings, self._blocks):
            if table.types:
                table.lock.lock(table.types)

    def _no_table(self, name: str) -> str:
        return f"{self._config.target()} has no table {name!r}; make it, or set create_tables=True"

    async def close(self) -> None:
        """Close the connections. Does nothing when they are closed."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await pool.close()
        except postgres_link.outside_errors():
            pool.terminate()
        log.info("closed", extra={"target": self._config.target()})

    async def write(self, block: DaqBlock) -> None:
        """Append one block's summary.

        Raises:
            RuntimeError: the sink is not open.
            DtolSinkSchemaError: the row does not fit the table.
            DtolSinkWriteError: the server is away or refuses; nothing is stored.
        """
        self._check_open("write")
        summary = block_summary(block)
        del summary["run_id"]
        await self._append(self._blocks, [summary])

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Append the readings, all or none.

        Raises:
            RuntimeError: the sink is not open.
            DtolSinkSchemaError: a value does not fit its column (an int beyond 64 bits, a text among numbers).
            DtolSinkWriteError: the server is away or refuses; nothing of them is stored.
        """
        self._check_open("write_many")
        if not items:
            return
        columns = self._names.of(reading_names(items))
        rows = [reading_row(reading, columns, keeps_nan=True, keeps_inf=True) for reading in items]
        await self._append(self._readings, rows)

    def _check_open(self, operation: str) -> None:
        if self._pool is None:
            raise RuntimeError(f"PostgresSink: {operation} called before open()")

    async def _append(self, table: _Table, rows: Sequence[dict[str, Scalar]]) -> None:
        async def store(connection: Any) -> None:
            async with connection.transaction():
                if not table.lock.is_locked:
                    await self._make(connection, table, rows)
                names = [name for name in table.lock.columns or table.types if any(name in row for row in rows)]
                projected = [table.lock.project(row) for row in rows]
                await self._insert(connection, table, names, [self._fitted(table, names, row) for row in projected])

        await self._outside(store)

    async def _make(self, connection: Any, table: _Table, rows: Sequence[Mapping[str, Scalar]]) -> None:
        """Make the table, or add what it lacks; lock it once a row has values."""
        if not self._config.create_tables:
            raise DtolSinkSchemaError(self._no_table(table.name))
        wanted = {column: table.new_type(column, rows) for column in table.lock.observe(rows)}
        name = f"{quoted(self._config.schema)}.{quoted(table.name)}"
        await self._find(connection)
        lacking = [column for column in table.required if column not in table.types]
        if table.types and lacking:
            table.lock.reset()
            raise DtolSinkSchemaError(
                f"{self._config.target()} has a table {table.name!r} without the column {lacking[0]!r}, which is not "
                f"this sink's; choose another name or schema"
            )
        if not table.types:
            columns = ", ".join(f"{quoted(column)} {kind}" for column, kind in wanted.items())
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
        for column, kind in wanted.items():
            if table.types and column not in table.types:
                await connection.execute(f"ALTER TABLE {name} ADD COLUMN {quoted(column)} {kind}")
        await self._find(connection)
        if table.lock.is_locked:
            table.lock.lock(table.types)

    async def _find(self, connection: Any) -> None:
        """Look up both tables' columns."""
        found = by_table(await connection.fetch(f"{FIND_COLUMNS} ORDER BY ordinal_position", self._config.schema))
        for table in (self._readings, self._blocks):
            table.types = found.get(table.name, {})

    def _fitted(self, table: _Table, names: Sequence[str], row: Mapping[str, Scalar]) -> list[Any]:
        cells = []
        for name in names:
            try:
                cells.append(fitted(row[name], table.types[name]))
            except ValueError as error:
                raise DtolSinkSchemaError(
                    f"{self._config.target()}, table {table.name!r}, column {name!r}: {error}; nothing was stored"
                ) from error
        return cells

    async def _insert(
        self, connection: Any, table: _Table, names: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        if self._config.use_copy:
            await connection.copy_records_to_table(
                table.name, schema_name=self._config.schema, columns=names, records=rows
            )
            return
        into = f"{quoted(self._config.schema)}.{quoted(table.name)} ({', '.join(map(quoted, names))})"
        places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
        await connection.executemany(f"INSERT INTO {into} VALUES ({places})", rows)  # noqa: S608  # quoted identifiers

    async def _outside(self, call: Callable[[Any], Awaitable[None]]) -> None:
        """Call with a connection, and name what went wrong by what the caller can do."""
        unlocked = [table for table in (self._readings, self._blocks) if not table.lock.is_locked]
        try:
            async with self._pool.acquire(timeout=self._config.command_timeout_s) as connection:
                await call(connection)
        except BaseException as error:
            for table in unlocked:
                table.lock.reset()  # what it was locked to may have been rolled back
            if isinstance(error, DtolSinkError) or not isinstance(error, postgres_link.outside_errors()):
                raise
            words = f"{self._config.target()} did not store: {postgres_link.reason(error)}"
            if (getattr(error, "sqlstate", None) or "")[:2] in _AT_FAULT:
                raise DtolSinkSchemaError(words) from error
            raise DtolSinkWriteError(words) from error
