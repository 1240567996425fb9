"""The bus's SQLite file: every stream's rows, gaps, events and positions, a batch in one transaction."""

import logging
import sqlite3
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
from filelock import FileLock, Timeout

from dtolbus import files
from dtolbus.errors import CannotStartError, DtolSinkError, DtolSinkWriteError, UsageError
from dtolbus.records import DaqReading, RunInfo
from dtolbus.topics import stream_name
from dtolbus_workers import sqlite_file
from dtolbus_workers.cells import NO_ROOM, beyond_room, put_aside_frames
from dtolbus_workers.columns import BLOCK_COLUMNS, block_summary
from dtolbus_workers.destination import (
    BlocksMode,
    OneThread,
    Position,
    Positions,
    RecordRefusedError,
    RunBatch,
    Stored,
)
from dtolbus_workers.presence import Presence
from dtolbus_workers.schema import ColumnNames, quoted, reading_names, reading_row
from dtolbus_workers.sqlite_file import insert, transaction, unstorable
from dtolbus_workers.sqlite_samples import insert_samples
from dtolbus_workers.sqlite_stored import check_ours, read_run
from dtolbus_workers.sqlite_tables import CREATE, EVENT_COLUMNS, FORMAT_VERSION, GAP_COLUMNS, PUT_ASIDE_COLUMNS

log = logging.getLogger(__name__)

_POSITIONS = "SELECT run_id, next, backfilled FROM dtolbus_position"
_POSITION_OF = "SELECT next FROM dtolbus_position WHERE run_id = ? AND stream = ?"
_NEW_POSITION = "INSERT OR IGNORE INTO dtolbus_position VALUES (?, ?, 0, 0, ?)"
_ADVANCE = """
UPDATE dtolbus_position SET next = ?, backfilled = backfilled + ?, updated_at = ?
WHERE run_id = ? AND stream = ? AND next = ?
"""


class SqliteDestination:
    """A worker's SQLite file. One process at a time holds it, by a lock file beside it (`<path>.lock`).

    Every commit is one transaction with `synchronous=FULL`. Blocks are stored as `blocks` says; one without samples has
    a summary row in any case, so that its error is not lost. Blocking calls run on a thread of the destination's own.
    """

    kind = "sqlite"

    def __init__(self, path: Path | str, *, blocks: BlocksMode = "summary") -> None:
        if blocks not in get_args(BlocksMode):
            raise UsageError(f"blocks must be one of {', '.join(get_args(BlocksMode))}, got {blocks!r}")
        self.destination_id = ""
        self._path = Path(path)
        self._blocks: BlocksMode = blocks
        self._lock = FileLock(f"{self._path}.lock", timeout=0)
        self._thread: OneThread | None = None
        self._connection: sqlite3.Connection | None = None
        self._presence = Presence()

    async def open(self) -> Positions:
        """Lock the file and return its positions.

        Raises CannotStartError where another process holds it, or where it is not a bus's SQLite file.
        """
        if self._thread is not None:
            raise DtolSinkError(f"{self._path} is open already")
        thread = OneThread("sqlite")
        try:
            positions = await thread.run(self._open)
        except BaseException:
            await thread.run(self._release)
            thread.close()
            raise
        self._thread = thread
        return positions

    async def commit(self, batch: RunBatch) -> None:
        """Store the batch and the position after it in one transaction.

        Raises DtolSinkError for a batch that does not continue the stored position, or where the file is not there any
        more, DtolSinkWriteError when the outside failed, RecordRefusedError for a reading that SQLite cannot hold.
        """
        await self._opened().run(self._commit, batch)

    async def finalize(self, run: RunInfo) -> None:
        """Move what the write-ahead log holds into the file itself."""
        log.info("run complete", extra={"sink": self.kind, "run": run.run_id})
        await self._opened().run(self._checkpoint)

    async def close(self) -> None:
        """Close the file and release its lock."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                await thread.run(self._release)
            finally:
                thread.close()

    @staticmethod
    def stored(place: str, options: Mapping[str, str], run: RunInfo) -> Stored | None:
        """Return what the file `place` holds of the run, or None; for `verify`, without a lock.

        Raises CannotStartError where it is not a bus's SQLite file.
        """
        del options
        return read_run(Path(place), run)

    def _opened(self) -> OneThread:
        if self._thread is None:
            raise DtolSinkError(f"{self._path} is not open")
        return self._thread

    def _open(self) -> Positions:
        try:
            files.make_folder(self._path.parent)
            self._lock.acquire()
        except Timeout as error:
            raise CannotStartError(
                f"{self._path} is in use by another worker (it holds {self._lock.lock_file}); "
                f"stop that one, or choose another file"
            ) from error
        except OSError as error:
            raise CannotStartError(f"{self._path}: cannot write there ({error}); choose another file") from error
        sqlite_file.roll_back(self._path)
        check_ours(self._path)
        self._connection = sqlite_file.connect(self._path, **sqlite_file.OF_BUS)
        try:
            self._make_tables(self._connection)
        except DtolSinkWriteError as error:
            raise CannotStartError(f"{self._path} cannot be written ({error}); make room, or free it") from error
        self._presence = Presence(self._path, self._path.with_name(f"{self._path.name}-wal"))
        (self.destination_id,) = self._connection.execute(
            "SELECT value FROM dtolbus WHERE key = 'destination_id'"
        ).fetchone()
        return {run_id: Position(*position) for run_id, *position in self._connection.execute(_POSITIONS)}

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        with transaction(connection, self._path):
            for statement in CREATE:
                connection.execute(statement)
            facts = {"format_version": str(FORMAT_VERSION), "destination_id": str(uuid.uuid4())}
            connection.executemany("INSERT OR IGNORE INTO dtolbus VALUES (?, ?)", facts.items())
            connection.execute("INSERT OR REPLACE INTO dtolbus VALUES ('blocks', ?)", (self._blocks,))

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                if not self._presence.has(self._path):
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else what is there now would take it over
                connection.close()
        except sqlite3.OperationalError as error:  # what is committed stands in the log beside the file
            log.warning("close failed", extra={"path": str(self._path), "error": str(error)})
        finally:
            self._lock.release()

    def _checkpoint(self) -> None:
        assert self._connection is not None  # noqa: S101  # narrows the type, nothing rests on it
        self._presence.check()
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError as error:  # the log beside the file has it all; the next commit tries again
            log.warning("checkpoint failed", extra={"path": str(self._path), "error": str(error)})

    def _commit(self, batch: RunBatch) -> None:
        assert self._connection is not None  # noqa: S101  # narrows the type, nothing rests on it
        refuse_unstorable(batch)
        with transaction(self._connection, self._path):
            _Commit(self._connection, batch, self._path).store(self._blocks)
        self._presence.check()


class _Commit:
    """One batch inside its transaction."""

    def __init__(self, connection: sqlite3.Connection, batch: RunBatch, path: Path) -> None:
        self._connection = connection
        self._batch = batch
        self._path = path
        self._key = (batch.run.run_id, stream_name(batch.run.device, batch.run.task))
        self._now = datetime.now(UTC).isoformat()

    def store(self, blocks: BlocksMode) -> None:
        """Check the position, insert every row, advance the position."""
        self._check_position()
        self._store_run()
        self._store_blocks(blocks)
        if self._batch.readings:
            self._store_readings()
        self._store_events_and_gaps()
        self._store_put_aside()
        self._advance()

    def _check_position(self) -> None:
        found = self._connection.execute(_POSITION_OF, self._key).fetchone()
        position = found[0] if found else 0
        if position != self._batch.from_index:
            raise DtolSinkError(
                f"{self._path}: the batch of run {self._key[0]} starts at {self._batch.from_index}, but the stored "
                f"position is {position}; nothing was stored"
            )

    def _store_run(self) -> None:
        self._connection.execute(_NEW_POSITION, (*self._key, self._now))
        header = msgspec.json.encode(self._batch.run).decode()
        self._connection.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?)", (*self._key, header))

    def _store_blocks(self, mode: BlocksMode) -> None:
        summaries = []
        for block in self._batch.blocks:
            if mode != "summary":
                insert_samples(self._connection, block)
            if mode != "samples" or not block.samples_per_channel:
                summaries.append(tuple(block_summary(block).values()))
        self._connection.executemany(insert("blocks", BLOCK_COLUMNS), summaries)

    def _store_readings(self) -> None:
        readings = self._batch.readings
        columns = self._columns_of(readings)
        here = {name.casefold() for name in sqlite_file.columns(self._connection, "readings")}
        new = [name for column in columns.values() for name in _pair(column) if name.casefold() not in here]
        if new:
            self._refuse_beyond_room(columns, set(new), len(here))
        for name in new:
            self._connection.execute(f"ALTER TABLE readings ADD COLUMN {quoted(name)}")
        for reading in readings:
            row = reading_row(reading, columns, keeps_nan=False, keeps_inf=True)
            names = ("run_id", "reading_index", *row)
            self._connection.execute(insert("readings", names), (self._key[0], reading.index, *row.values()))

    def _refuse_beyond_room(self, columns: Mapping[str, str], new: set[str], here: int) -> None:
        """Raise RecordRefusedError for the readings whose columns SQLite does not allow any more."""
        readings, of_run = self._batch.readings, self._batch.run.channel_names
        limits = (sqlite3.SQLITE_LIMIT_COLUMN, sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        most = min(map(self._connection.getlimit, limits))
        needs = (
            {name for channel in (*of_run, *reading_names([r])) for name in _pair(columns[channel])} & new
            for r in readings
        )
        refused = [readings[place].index for place in beyond_room(needs, most - here)]
        if refused:
            reason = f"{NO_ROOM}: it has {here} columns, its channels need {len(new)} more, SQLite allows {most}"
            raise RecordRefusedError(refused[0], reason, refused[1:])

    def _columns_of(self, readings: list[DaqReading]) -> dict[str, str]:
        """Return the channels' columns, and note in `dtolbus_columns` which task uses which."""
        known = self._connection.execute('SELECT channel, "column" FROM dtolbus_columns')
        run = self._batch.run
        names = list(dict.fromkeys([*run.channel_names, *reading_names(readings)]))
        columns = ColumnNames(dict(known.fetchall())).of(names)
        self._connection.executemany(
            "INSERT OR IGNORE INTO dtolbus_columns VALUES (?, ?, ?, ?)",
            [(run.device, run.task, channel, column) for channel, column in columns.items()],
        )
        return columns

    def _store_events_and_gaps(self) -> None:
        events = [
            (*self._key, e.index, e.sample_index, e.t_utc.isoformat(), e.kind, e.message) for e in self._batch.events
        ]
        self._connection.executemany(insert("events", EVENT_COLUMNS), events)
        gaps = [(*self._key, g.from_index, g.to_index, g.first_sample, g.end_sample, g.cause) for g in self._batch.gaps]
        self._connection.executemany(insert("gaps", GAP_COLUMNS), gaps)

    def _store_put_aside(self) -> None:
        records = {record.index: record for record in self._batch.records}
        rows = [
            (*self._key, index, reason, put_aside_frames(self._batch.run, records[index]))
            for index, reason in self._batch.put_aside.items()
        ]
        self._connection.executemany(insert("put_aside", PUT_ASIDE_COLUMNS), rows)

    def _advance(self) -> None:
        batch = self._batch
        advanced = self._connection.execute(
            _ADVANCE, (batch.to_index, batch.backfilled, self._now, *self._key, batch.from_index)
        )
        if advanced.rowcount != 1:
            raise DtolSinkError(f"{self._path}: the position of run {self._key[0]} was moved by somebody else")


def _pair(column: str) -> tuple[str, str]:
    return column, f"{column}_unit"


def refuse_unstorable(batch: RunBatch) -> None:
    """Raise RecordRefusedError for the first reading that SQLite cannot hold."""
    for reading in batch.readings:
        for name, value in reading.values.items():
            if (why := unstorable(value)) is not None:
                raise RecordRefusedError(reading.index, f"channel {name!r}: {why}")
