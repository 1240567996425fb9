"""PostgresDestination: the bus's tables in one schema of a database, a batch in one transaction."""

import logging
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dtolbus.dsn import dsn_of
from dtolbus.errors import CannotStartError, DtolSinkError, DtolSinkWriteError, UsageError
from dtolbus.records import RunInfo
from dtolbus_workers import postgres_link
from dtolbus_workers.cells import ColumnKey
from dtolbus_workers.destination import BlocksMode, OneThread, Position, Positions, RunBatch, Stored
from dtolbus_workers.postgres_commit import BatchCommit
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_layout import (
    SamplesLayout,
    contradiction,
    found_layout,
    index_remark,
    samples_statements,
    timescale_schema,
)
from dtolbus_workers.postgres_link import Link, reason
from dtolbus_workers.postgres_months import Months
from dtolbus_workers.postgres_stored import stored
from dtolbus_workers.postgres_tables import FIND_COLUMNS, FORMAT, BusTables, by_table, quoted

log = logging.getLogger(__name__)

__all__ = ["PostgresDestination", "stored"]


class PostgresDestination:
    """The Postgres end of the bus: `blocks` says what of a block is stored; readings always.

    It makes the schema and those of its tables that are not there, whatever `config.create_tables` says; `layout` says
    how it makes `samples`. A table that is there is kept as it is. One worker at a time has a schema, by an advisory
    lock that is tried for `lock_timeout_s` seconds: so long may the server need to notice that the one before is gone.
    """

    kind = "postgres"

    def __init__(
        self,
        config: PostgresConfig,
        *,
        blocks: BlocksMode = "summary",
        layout: SamplesLayout | None = None,
        lock_timeout_s: float = 30.0,
    ) -> None:
        if blocks not in ("summary", "samples", "both"):
            raise UsageError(f"blocks must be summary, samples or both, got {blocks!r}")
        self._config = config
        self._blocks: BlocksMode = blocks
        self._layout = layout or SamplesLayout()
        self._tables = BusTables(config)
        self._months: Months | None = None
        self._link = Link(config, lock_timeout_s)
        self._thread: OneThread | None = None
        self._columns: dict[ColumnKey, str] | None = None
        self._unclear: dict[str, RunBatch] = {}
        """By run: a batch whose COMMIT was sent and not answered."""
        self.destination_id = ""

    async def open(self) -> Positions:
        """Lock the schema, make what tables it lacks, return the runs' positions.

        Raises:
            CannotStartError: the server is away or refuses, another worker has the schema, it holds something else,
                or its samples are not laid out as was asked for.
            DtolSinkDependencyError: asyncpg is not installed.
        """
        try:
            connection = await self._link.writer()
            positions = await self._prepared(connection)
        except postgres_link.outside_errors(ValueError) as error:
            await self._link.close()
            raise CannotStartError(
                f"{self._config.target()} is not to be had: {reason(error)}; start the server, or correct --dsn"
            ) from error
        except BaseException:
            await self._link.close()
            raise
        self._thread = self._thread or OneThread("postgres")
        log.info("opened", extra={"target": self._config.target(), "destination": self.destination_id})
        return positions

    async def _prepared(self, connection: Any) -> Positions:
        """Make what is missing, and return the positions."""
        async with connection.transaction():
            schema = self._config.schema
            if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema):
                await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
            found = by_table(await connection.fetch(FIND_COLUMNS, schema))
            foreign = self._tables.not_ours(found)
            if foreign is not None:
                raise CannotStartError(f"{self._config.target()} holds {foreign}; choose another schema")
            for table in self._tables.lost(found):
                log.warning(
                    "table made anew: what it held is gone; `dtolbus verify` tells what", extra={"table": table}
                )
            for table in self._tables.missing(found):
                for statement in await self._statements(connection, table):
                    await connection.execute(statement)
            self._months = await self._checked_layout(connection)
            facts = {"destination_id": str(uuid.uuid4()), "format": FORMAT}
            await connection.executemany(
                self._tables.sql("INSERT INTO {dtolbus} VALUES ($1, $2) ON CONFLICT DO NOTHING"), [*facts.items()]
            )
        facts = dict(await connection.fetch(self._tables.sql("SELECT key, value FROM {dtolbus}")))
        if facts["format"] != FORMAT:
            raise CannotStartError(
                f"{self._config.target()} is in format {facts['format']}, not {FORMAT}; update dtolbus"
            )
        self.destination_id = facts["destination_id"]
        async with connection.transaction():
            # a COMMIT of the worker before, killed since, may still be under way: this waits for its end
            await connection.execute(self._tables.sql("LOCK TABLE {dtolbus_position} IN SHARE MODE"))
            rows = await connection.fetch(self._tables.sql("SELECT run_id, next, backfilled FROM {dtolbus_position}"))
        return {run_id: Position(*position) for run_id, *position in rows}

    async def _statements(self, connection: Any, table: str) -> list[str]:
        """Return what makes the table."""
        if table != "samples":
            return [self._tables.create(table)]
        try:
            extension = await timescale_schema(connection) if self._layout.hypertable else None
        except ValueError as error:
            raise CannotStartError(f"{self._config.target()}: --hypertable: {error}") from error
        return samples_statements(self._tables, self._layout, extension)

    async def _checked_layout(self, connection: Any) -> Months | None:
        """Hold `samples` against what was asked for; return its months, where it is partitioned by them."""
        table, target = self._tables["samples"], self._config.target()
        found = await found_layout(connection, self._tables)
        wrong = contradiction(self._layout, found)
        if wrong is not None:
            raise CannotStartError(
                f"{target} has a table {self._tables.names['samples']!r} already: {wrong}; no table is ever rewritten: "
                f"leave that out to go on with the table as it is, or choose another schema"
            )
        remark = index_remark(self._layout, found, table)
        if remark is not None:
            log.warning("samples are kept as they are", extra={"table": table, "why": remark})
        return Months(self._tables) if found.is_by_month else None

    async def commit(self, batch: RunBatch) -> None:
        """Store the batch in one transaction.

        Raises:
            DtolSinkError: the batch does not continue the run's position, or the destination is not open.
            RecordRefusedError: a record at fault.
            DtolSinkWriteError: the server is away or refuses; nothing is stored. The next commit connects again.
            CannotStartError: the connection was lost, and another worker has taken the schema since.
        """
        if self._thread is None:
            raise DtolSinkError(f"{self._config.target()} is not open: call open() before commit()")
        if batch.from_index == batch.to_index:
            return
        try:
            await self._transact(batch, self._thread)
        except postgres_link.outside_errors() as error:
            await self._abandon()
            if not self._is_unclear(batch) or not await self._is_committed(batch):
                raise DtolSinkWriteError(f"{self._config.target()} did not store: {reason(error)}") from error
        except (DtolSinkError, CannotStartError):
            raise
        except BaseException:
            await self._abandon()
            raise
        self._unclear.pop(batch.run.run_id, None)

    async def _transact(self, batch: RunBatch, thread: OneThread) -> None:
        connection = await self._link.writer()
        if self._columns is None:
            self._columns = await self._read_columns(connection)
        transaction = connection.transaction()
        await transaction.start()
        commit = BatchCommit(
            connection, self._tables, batch, thread, months=self._months, timeout_s=self._config.command_timeout_s
        )
        position = await commit.position()
        if position != batch.from_index:
            await transaction.rollback()
            if self._is_unclear(batch) and position == batch.to_index:
                return
            raise DtolSinkError(
                f"{self._config.target()}: run {batch.run.run_id} is at {position}, a batch from {batch.from_index} "
                f"does not continue it; nothing was stored"
            )
        self._unclear.pop(batch.run.run_id, None)
        added = await commit.store(self._blocks, self._columns)
        self._unclear[batch.run.run_id] = batch
        await transaction.commit()
        self._columns = self._columns | added

    async def _abandon(self) -> None:
        """Give up the connection, and what was believed of the tables."""
        if self._months is not None:
            self._months.forget()
        self._columns = None
        await self._link.drop_writer()

    def _is_unclear(self, batch: RunBatch) -> bool:
        """Say whether this batch's COMMIT was sent and not answered."""
        before = self._unclear.get(batch.run.run_id)
        return before is not None and (before.from_index, before.to_index) == (batch.from_index, batch.to_index)

    async def _is_committed(self, batch: RunBatch) -> bool:
        """Ask the server again how a COMMIT went whose answer was lost."""
        try:
            connection = await self._link.writer()
            position = await connection.fetchval(
                self._tables.sql("SELECT next FROM {dtolbus_position} WHERE run_id = $1"),
                batch.run.run_id,
            )
        except postgres_link.outside_errors():
            await self._abandon()
            return False
        log.warning("commit was unclear", extra={"run": batch.run.run_id, "position": position})
        return bool(position == batch.to_index)

    async def _read_columns(self, connection: Any) -> dict[ColumnKey, str]:
        rows = await connection.fetch(
            self._tables.sql('SELECT device, task, channel, kind, "column" FROM {dtolbus_columns}')
        )
        return {ColumnKey(*key): column for *key, column in rows}

    async def finalize(self, run: RunInfo) -> None:
        """Do nothing: each commit is complete."""

    async def close(self) -> None:
        """End the connections, and with them the lock."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await self._link.close()
            thread.close()

    @staticmethod
    def stored(place: str, options: Mapping[str, str], run: RunInfo) -> Stored | None:
        """Return what the database holds of the run, or None; `place` is the config's `target()`. It blocks.

        A target has no password: the DSN is taken from DTOLBUS_DSN, or DTOLBUS_DSN_FILE, where that leads to the same
        place, else the server must let the user in without, or by `~/.pgpass` or PGPASSWORD.
        """
        return stored(_config_of(place, options), run)


def _config_of(target: str, options: Mapping[str, str]) -> PostgresConfig:
    schema = options.get("schema", "public")
    dsn = dsn_of()
    if dsn:
        config = PostgresConfig(dsn=dsn, schema=schema).secured(options)
        if config.target() == target:
            return config
    parts = urlsplit(target)
    leading = urlunsplit(parts._replace(path=parts.path.removesuffix(f".{schema}")))
    return PostgresConfig(dsn=leading, schema=schema).secured(options)
