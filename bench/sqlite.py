"""Samples and block summaries into SQLite, against inserts that one writes by hand."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from bench.measuring import Case, at_least
from bench.registry import Setting
from bench.storing import Opened, Row, Stream, iso_by_hand, rows_by_hand, took_s
from dtolbus.records import DaqBlock
from dtolbus_workers.columns import BLOCK_COLUMNS, SAMPLE_COLUMNS
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.sqlite_tables import CREATE

_COUNTED = """
INSERT INTO samples
WITH RECURSIVE sample(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM sample WHERE k < :last)
SELECT :run_id, :device, :task, :channel, :block_index, :first_sample + k,
       :t_mono_ns + CAST(k * :period_ns + 0.5 AS INTEGER), :t_utc, k * :scale + :offset, :unit, NULL, NULL, NULL
FROM sample
"""
"""All in SQLite. It has one instant for all rows of a block, so it does less than ours."""
_SAMPLE = f"INSERT INTO samples VALUES ({', '.join('?' * len(SAMPLE_COLUMNS))})"  # noqa: S608  # marks only
_SUMMARY = f"INSERT INTO blocks VALUES ({', '.join('?' * len(BLOCK_COLUMNS))})"  # noqa: S608  # marks only


def samples_cases(setting: Setting) -> Iterator[Case]:
    """Sample rows into SQLite, against a recursive CTE and executemany."""
    count = 4 if setting.quick else 20
    stream, theirs, path = Stream(), Stream(), setting.folder / "ours.sqlite"
    counted_path, bound_path = setting.folder / "counted.sqlite", setting.folder / "bound.sqlite"
    with (
        Opened(SqliteDestination(path, blocks="samples")) as sink,
        closing(_made(counted_path)) as counted,
        closing(_made(bound_path)) as bound,
    ):

        def ours() -> float:
            _empty(path, "samples")
            batch = stream.batch(count)
            return _rows(batch.blocks) / sink.commit_s([batch])

        def in_sqlite() -> float:
            return _samples_rate(counted, counted_path, theirs.blocks(count), _count)

        def by_executemany() -> float:
            return _samples_rate(bound, bound_path, theirs.blocks(count), _bind)

        what = f"{count} blocks of 8 × 1000 samples a commit, against"
        yield Case("sqlite-samples", f"{what} a recursive CTE", "rows/s", ours, in_sqlite, at_least(0.9))
        yield Case("sqlite-samples", f"{what} executemany", "rows/s", ours, by_executemany, at_least(3.5))


def blocks_cases(setting: Setting) -> Iterator[Case]:
    """Block summaries and the position into SQLite, against the inserts alone."""
    count = 100 if setting.quick else 1000
    stream, theirs, path = Stream(), Stream(), setting.folder / "ours.sqlite"
    alone_path = setting.folder / "alone.sqlite"
    ready: list[float] = []
    with (
        Opened(SqliteDestination(path, blocks="summary")) as sink,
        closing(_made(alone_path)) as alone,
    ):

        def ours() -> float:
            _empty(path, "blocks")
            batch = stream.batch(count)
            return count / sink.commit_s([batch])

        def inserts() -> float:
            _empty(alone_path, "blocks")
            blocks = theirs.blocks(count)
            rate = count / took_s(lambda: _insert(alone, _SUMMARY, map(_summary, blocks)))
            rows = [_summary(block) for block in theirs.blocks(count)]
            _empty(alone_path, "blocks")
            ready.append(count / took_s(lambda: _insert(alone, _SUMMARY, rows)))
            return rate

        yield Case(
            "sqlite-blocks",
            f"{count} blocks of 8 × 1000 a commit, against summaries made and inserted by hand, without the position",
            "blocks/s",
            ours,
            inserts,
            at_least(0.8),
            note=lambda: f"rows that are ready need no look at the samples: {median(ready):,.0f}/s",
        )


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _made(path: Path) -> sqlite3.Connection:
    connection = _open(path)
    for statement in CREATE:
        connection.execute(statement)
    return connection


def _empty(path: Path, table: str) -> None:
    """Let a trial begin with an empty table, so that no file grows for ever; by a connection of its own, for all."""
    with closing(_open(path)) as connection:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608  # its own tables
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _rows(blocks: Sequence[DaqBlock]) -> int:
    return sum(len(block.channels) * block.samples_per_channel for block in blocks)


def _samples_rate(
    connection: sqlite3.Connection,
    path: Path,
    blocks: Sequence[DaqBlock],
    store: Callable[[sqlite3.Connection, DaqBlock], None],
) -> float:
    _empty(path, "samples")

    def all_of_them() -> None:
        connection.execute("BEGIN IMMEDIATE")
        for block in blocks:
            store(connection, block)
        connection.execute("COMMIT")

    return _rows(blocks) / took_s(all_of_them)


def _count(connection: sqlite3.Connection, block: DaqBlock) -> None:
    assert block.calibration is not None  # noqa: S101  # narrows the type, nothing rests on it
    shared = {
        "run_id": block.run_id,
        "device": block.device,
        "task": block.task,
        "block_index": block.block_index,
        "first_sample": block.first_sample_index,
        "t_mono_ns": block.t_mono_ns,
        "period_ns": block.period_ns,
        "t_utc": "2026-01-01T00:00:00.000010+00:00",
        "last": block.samples_per_channel - 1,
    }
    for channel in block.calibration:
        own = {"channel": channel.name, "scale": channel.scale, "offset": channel.offset, "unit": channel.unit}
        connection.execute(_COUNTED, shared | own)


def _bind(connection: sqlite3.Connection, block: DaqBlock) -> None:
    connection.executemany(_SAMPLE, rows_by_hand(block, iso_by_hand(block)))


def _insert(connection: sqlite3.Connection, statement: str, rows: Iterator[Row] | list[Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(statement, rows)
    connection.execute("COMMIT")


def _summary(block: DaqBlock) -> Row:
    """Return a block's row as one makes it by hand, for blocks that are known to have no NaN."""
    assert block.raw_codes is not None  # noqa: S101  # narrows the type, nothing rests on it
    assert block.calibration is not None  # noqa: S101  # narrows the type, nothing rests on it
    volts = block.raw_codes.astype(np.float64)
    volts *= np.array([channel.scale for channel in block.calibration])[:, None]
    volts += np.array([channel.offset for channel in block.calibration])[:, None]
    rms = np.sqrt(np.mean(volts * volts, axis=1))
    found = (volts.min(axis=1), volts.max(axis=1), volts.mean(axis=1), rms)
    instants = [block.t_utc, block.read_started_at, block.read_finished_at, block.task_started_at]
    t_utc, read_started, read_finished, started = (
        None if instant is None else instant.isoformat() for instant in instants
    )
    return (
        *(block.run_id, block.device, block.task, block.block_index, block.first_sample_index),
        *(block.samples_per_channel, block.sample_rate_hz, block.block_period_ns, started, t_utc, block.t_mono_ns),
        *(t_utc, block.t_midpoint_mono_ns, read_started, read_finished, block.elapsed_s),
        _json(block.channels),
        _json([channel.unit for channel in block.calibration]),
        0,
        *(_json(numbers.tolist()) for numbers in found),
        None,
        None,
    )


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()
