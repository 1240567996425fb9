"""One batch inside its Postgres transaction: rows by binary COPY, columns that are met, the position."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from dtolbus.records import DaqBlock, DaqReading
from dtolbus.topics import stream_name
from dtolbus_workers import pgcopy, postgres_link
from dtolbus_workers.cells import (
    NO_ROOM,
    ColumnKey,
    assign_columns,
    beyond_room,
    cell_kind,
    put_aside_frames,
    status_text,
    wanted_columns,
)
from dtolbus_workers.columns import BLOCK_COLUMNS, block_summary
from dtolbus_workers.destination import BlocksMode, OneThread, RecordRefusedError, RunBatch
from dtolbus_workers.pgcopy import PgType
from dtolbus_workers.postgres_months import Months, months_of
from dtolbus_workers.postgres_samples import copy_samples
from dtolbus_workers.postgres_tables import CELL_TYPES, READING_END, READING_START, BusTables, column_type, quoted

MOST_COLUMNS = 1600
"""Of a table, those dropped included: PostgreSQL manual, appendix K."""
_ALWAYS_FITS = 300
"""So many cells fit into a row of 8160 bytes whatever is in them: a long text leaves a pointer of 18 bytes there."""

_INSTANTS = [column for column in BLOCK_COLUMNS if column_type("blocks", column) == "timestamptz"]


class BatchCommit:
    """Stores one batch on a connection with an open transaction."""

    def __init__(
        self,
        connection: Any,
        tables: BusTables,
        batch: RunBatch,
        thread: OneThread,
        *,
        months: Months | None,
        timeout_s: float,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._batch = batch
        self._thread = thread
        self._months = months
        self._timeout_s = timeout_s
        self._key = (batch.run.run_id, stream_name(batch.run.device, batch.run.task))

    async def position(self) -> int:
        """Return the run's position, locked until the transaction ends."""
        now = datetime.now(UTC)
        await self._connection.execute(
            self._tables.sql("INSERT INTO {dtolbus_position} VALUES ($1, $2, 0, 0, $3) ON CONFLICT DO NOTHING"),
            *self._key,
            now,
        )
        found: int = await self._connection.fetchval(
            self._tables.sql("SELECT next FROM {dtolbus_position} WHERE run_id = $1 AND stream = $2 FOR UPDATE"),
            *self._key,
        )
        return found

    async def store(self, mode: BlocksMode, known: dict[ColumnKey, str]) -> dict[ColumnKey, str]:
        """Store all of the batch, advance the position, and return the columns that were added.

        Raises:
            RecordRefusedError: a record at fault.
        """
        batch = self._batch
        header = _plain(msgspec.json.encode(batch.run).decode())
        await self._connection.execute(
            self._tables.sql("INSERT INTO {runs} VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"), *self._key, header
        )
        blocks = batch.blocks
        if mode != "summary":
            if self._months is not None:
                await self._months.make(self._connection, await self._thread.run(months_of, blocks))
            await copy_samples(self._connection, self._tables, blocks, self._thread, timeout_s=self._timeout_s)
        summaries = [block for block in blocks if mode != "samples" or not block.samples_per_channel]
        await self._copy("blocks", self._tables.columns("blocks"), await self._thread.run(_summary_rows, summaries))
        added = await self._store_readings(batch.readings, known)
        await self._store_facts()
        await self._connection.execute(
            self._tables.sql(
                "UPDATE {dtolbus_position} SET next = $3, backfilled = backfilled + $4, updated_at = $5 "
                "WHERE run_id = $1 AND stream = $2"
            ),
            *self._key,
            batch.to_index,
            batch.backfilled,
            datetime.now(UTC),
        )
        return added

    async def _store_readings(
        self, readings: Sequence[DaqReading], known: dict[ColumnKey, str]
    ) -> dict[ColumnKey, str]:
        if not readings:
            return {}
        for reading in readings:
            _check_reading(reading)
        wanted = [key for key in wanted_columns(self._batch.run, readings) if "\0" not in key.channel]
        added = assign_columns(known, wanted)
        columns = {key: (known | added)[key] for key in wanted}
        if added:
            await self._refuse_beyond_room(readings, known, columns)
            await self._add_columns(added)
        names, types = _reading_columns(columns)
        rows = [_reading_row(reading, columns, types) for reading in readings]
        if len(names) > _ALWAYS_FITS:
            await self._copy_wide(readings, names, rows)
        else:
            await self._copy("readings", names, rows)
        return added

    async def _copy_wide(self, readings: Sequence[DaqReading], names: Sequence[str], rows: Sequence[bytes]) -> None:
        """Copy the readings; raises RecordRefusedError for those whose row is too long for a page."""
        if await self._fits(names, rows):
            return
        refused = [r.index for r, row in zip(readings, rows, strict=True) if not await self._fits(names, [row])]
        reason = f"{NO_ROOM}: PostgreSQL's rows are of 8 kB, and its {len(names)} cells need more"
        raise RecordRefusedError(refused[0], reason, refused[1:])

    async def _fits(self, names: Sequence[str], rows: Sequence[bytes]) -> bool:
        """Copy the rows, or say that one is too long, with nothing copied."""
        try:
            async with self._connection.transaction():
                await self._copy("readings", names, rows)
        except postgres_link.load().exceptions.ProgramLimitExceededError:
            return False
        return True

    async def _refuse_beyond_room(
        self, readings: Sequence[DaqReading], known: Mapping[ColumnKey, str], columns: Mapping[ColumnKey, str]
    ) -> None:
        """Raise RecordRefusedError for the readings whose columns Postgres does not allow any more."""
        here = await self._connection.fetchval(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0", self._tables["readings"]
        )
        there = {name for key, column in known.items() for name in _names(key, column)}
        needs = [
            {
                name
                for key in wanted_columns(self._batch.run, [r])
                if key in columns
                for name in _names(key, columns[key])
            }
            - there
            for r in readings
        ]
        refused = [readings[place].index for place in beyond_room(needs, MOST_COLUMNS - here)]
        if refused:
            more = max(map(len, needs))
            reason = (
                f"{NO_ROOM}: it has {here} columns, its channels need {more} more, PostgreSQL allows {MOST_COLUMNS}"
            )
            raise RecordRefusedError(refused[0], reason, refused[1:])

    async def _add_columns(self, added: dict[ColumnKey, str]) -> None:
        # values before units: a double behind a short text is padded to 8 bytes, and a row has 8160
        typed = [(column, CELL_TYPES[key.kind]) for key, column in added.items()]
        typed += [(f"{column}_unit", "text") for key, column in added.items() if key.kind == "number"]
        for column, kind in typed:
            await self._connection.execute(
                f"ALTER TABLE {self._tables['readings']} ADD COLUMN IF NOT EXISTS {quoted(column)} {kind}"
            )
        await self._connection.executemany(
            self._tables.sql("INSERT INTO {dtolbus_columns} VALUES ($1, $2, $3, $4, $5)"),
            [(*key, column) for key, column in added.items()],
        )

    async def _store_facts(self) -> None:
        """Store events, gaps and records put aside."""
        batch = self._batch
        events = [
            (*self._key, event.index, event.sample_index, event.t_utc, _plain(event.kind), _plain(event.message))
            for event in batch.events
        ]
        gaps = [
            (*self._key, gap.from_index, gap.to_index, gap.first_sample, gap.end_sample, _plain(gap.cause))
            for gap in batch.gaps
        ]
        aside = [
            (*self._key, record.index, _plain(batch.put_aside[record.index]), put_aside_frames(batch.run, record))
            for record in batch.records
            if record.index in batch.put_aside
        ]
        for table, rows in (("events", events), ("gaps", gaps), ("put_aside", aside)):
            types = self._tables.types(table)
            encoded = [pgcopy.encode_row(types, row) for row in rows]
            await self._copy(table, self._tables.columns(table), encoded)

    async def _copy(self, table: str, columns: Iterable[str], rows: Sequence[bytes]) -> None:
        if rows:
            await self._connection.copy_to_table(
                self._tables.names[table],
                schema_name=self._tables.schema,
                columns=list(columns),
                source=pgcopy.stream(rows),
                format="binary",
            )


def _names(key: ColumnKey, column: str) -> tuple[str, ...]:
    """Return the table's columns that belong to a column of values."""
    return (column, f"{column}_unit") if key.kind == "number" else (column,)


def _plain(text: str) -> str:
    """Return the text with what Postgres cannot hold replaced: such words are about a record, not the record."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _summary_rows(blocks: Sequence[DaqBlock]) -> list[bytes]:
    types = [column_type("blocks", column) for column in BLOCK_COLUMNS]
    rows = []
    for block in blocks:
        try:
            row = {**block_summary(block), **{name: getattr(block, name) for name in _INSTANTS}}
            rows.append(pgcopy.encode_row(types, list(row.values())))
        except (ValueError, OverflowError) as error:
            raise RecordRefusedError(block.index, str(error)) from error
    return rows


def _check_reading(reading: DaqReading) -> None:
    for channel, value in reading.values.items():
        try:
            pgcopy.utf8(channel)
            cell_kind(value)
        except ValueError as error:
            raise RecordRefusedError(reading.index, f"channel {channel!r:.80}: {error}") from error


def _reading_columns(columns: dict[ColumnKey, str]) -> tuple[list[str], list[PgType]]:
    """Return the names and types of the columns that these readings fill, in the order of `_reading_row`."""
    main = [column for key, column in columns.items() if key.kind == "number"]
    names = [*READING_START, *columns.values(), *(f"{column}_unit" for column in main), *READING_END]
    types: list[PgType] = [column_type("readings", name) for name in READING_START]
    types += [CELL_TYPES[key.kind] for key in columns]
    types += [
        *(column_type("readings", "unit") for _ in main),
        *(column_type("readings", name) for name in READING_END),
    ]
    return names, types


def _reading_row(reading: DaqReading, columns: dict[ColumnKey, str], types: Sequence[PgType]) -> bytes:
    cells = [getattr(reading, name) for name in READING_START]
    for key in columns:
        value: Any = reading.values.get(key.channel)
        fits = cell_kind(value) == key.kind
        cells.append((float(value) if key.kind == "number" else value) if fits else None)
    cells += [reading.units.get(key.channel) for key in columns if key.kind == "number"]
    error = reading.error
    cells += [error.type if error else None, error.message if error else None, status_text(reading)]
    try:
        return pgcopy.encode_row(types, cells)
    except (ValueError, OverflowError) as error_:
        raise RecordRefusedError(reading.index, str(error_)) from error_
