"""What the bus's SQLite file holds of a run, read back for `verify` without locking anything."""

from collections.abc import Iterator
from pathlib import Path

from dtolbus.errors import CannotStartError
from dtolbus.records import Gap, RunInfo
from dtolbus.rows import READING_KEYS
from dtolbus.topics import stream_name
from dtolbus_workers import sqlite_file
from dtolbus_workers.columns import BLOCK_COLUMNS
from dtolbus_workers.destination import Position, Stored, StoredAside, StoredBlock, StoredEvent, StoredReading
from dtolbus_workers.schema import STATUS_COLUMN, restored_value
from dtolbus_workers.sqlite_tables import FORMAT_VERSION
from dtolbus_workers.stored_blocks import ROW_COLUMNS, guarded, header_remarks, joined, runs_of, sampled, summarised

_POSITION = "SELECT next, backfilled FROM dtolbus_position WHERE run_id = ? AND stream = ?"
_HEADER = "SELECT header FROM runs WHERE run_id = ? AND stream = ?"
_IDENTITY = "SELECT value FROM dtolbus WHERE key = 'destination_id'"
_GAPS = (
    "SELECT from_index, to_index, cause, first_sample, end_sample FROM gaps WHERE run_id = ? AND stream = ? ORDER BY 1"
)
_EVENTS = (
    "SELECT record_index, sample_index, t_utc, kind, message FROM events WHERE run_id = ? AND stream = ? ORDER BY 1"
)
_PUT_ASIDE = "SELECT record_index, reason, frames FROM put_aside WHERE run_id = ? AND stream = ? ORDER BY 1"
_COLUMNS = 'SELECT channel, "column" FROM dtolbus_columns WHERE device = ? AND task = ?'
_SUMMARIES = "SELECT * FROM blocks WHERE run_id = ? ORDER BY block_index, rowid"
_SAMPLES = f"SELECT {', '.join(ROW_COLUMNS)} FROM samples WHERE run_id = ? ORDER BY rowid"  # noqa: S608  # own names
_READINGS = "SELECT * FROM readings WHERE run_id = ? ORDER BY reading_index, rowid"
_FIXED = ("run_id", *READING_KEYS, STATUS_COLUMN)


def read_run(path: Path, run: RunInfo) -> Stored | None:
    """Return what the file holds of the run, or None; iterators read on as they are drawn from.

    Each iterator reads in a snapshot of its own, taken when it is first drawn from. Raises CannotStartError where the
    file is not a bus's.
    """
    if not path.exists():
        return None
    check_ours(path)
    key = (run.run_id, stream_name(run.device, run.task))
    with sqlite_file.reading(path) as connection:
        if "dtolbus_position" not in sqlite_file.tables(connection):
            return None
        position = connection.execute(_POSITION, key).fetchone()
        if position is None:
            return None
        gaps = [Gap(*row) for row in connection.execute(_GAPS, key)]
        events = [StoredEvent(*row) for row in connection.execute(_EVENTS, key)]
        aside = [StoredAside(*row) for row in connection.execute(_PUT_ASIDE, key)]
        has_samples = connection.execute("SELECT 1 FROM samples WHERE run_id = ? LIMIT 1", key[:1]).fetchone()
        header = connection.execute(_HEADER, key).fetchone()
        identity = connection.execute(_IDENTITY).fetchone()
    remarks = header_remarks(header and header[0], run)
    return Stored(
        position=Position(*position),
        gaps=gaps,
        events=events,
        put_aside=aside,
        blocks=guarded(_blocks(path, run), remarks, "blocks"),
        readings=guarded(_readings(path, run), remarks, "readings"),
        checksums="exact" if has_samples or run.kind == "readings" else "summary",
        destination_id=identity and identity[0],
        remarks=remarks,
    )


def _blocks(path: Path, run: RunInfo) -> Iterator[StoredBlock]:
    """Yield the run's blocks by index: samples, summary, or both."""
    with sqlite_file.reading(path) as connection:
        summaries = (
            dict(zip(BLOCK_COLUMNS, row, strict=True)) for row in connection.execute(_SUMMARIES, (run.run_id,))
        )
        samples = connection.execute(_SAMPLES, (run.run_id,))
        yield from joined(sampled(runs_of(samples, nulls=True)), summarised(summaries, len(run.channels)))


def _readings(path: Path, run: RunInfo) -> Iterator[StoredReading]:
    with sqlite_file.reading(path) as connection:
        columns = dict(connection.execute(_COLUMNS, (run.device, run.task)).fetchall())
        cursor = connection.execute(_READINGS, (run.run_id,))
        place = {description[0]: n for n, description in enumerate(cursor.description)}
        at = {channel: place[column] for channel, column in columns.items()}
        units_at = {channel: place[f"{column}_unit"] for channel, column in columns.items()}
        for row in cursor:
            status = row[place[STATUS_COLUMN]]
            values = {channel: restored_value(row[n], channel, status) for channel, n in at.items()}
            units = {channel: row[n] for channel, n in units_at.items()}
            yield StoredReading(row[place["reading_index"]], values, units, {name: row[place[name]] for name in _FIXED})


def check_ours(path: Path) -> None:
    """Raise CannotStartError unless the file is a bus's, empty, or not there. Touches nothing."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with sqlite_file.reading(path) as connection:
        here = sqlite_file.tables(connection)
        if not here:
            return
        facts = dict(connection.execute("SELECT key, value FROM dtolbus").fetchall()) if "dtolbus" in here else {}
    if "destination_id" not in facts:
        raise CannotStartError(
            f"{path} is a SQLite file of something else (it has a table {min(here)!r}, not dtolbus's own); "
            f"choose another file"
        )
    if facts.get("format_version") != str(FORMAT_VERSION):
        raise CannotStartError(
            f"{path} was written in format {facts.get('format_version')}, this dtolbus writes {FORMAT_VERSION}; "
            f"choose another file, or the dtolbus that wrote it"
        )
