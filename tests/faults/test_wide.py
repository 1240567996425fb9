"""Readings of more channels than a database's table has columns: put aside with the reason, and all else goes on."""

import logging
import sqlite3
from pathlib import Path

import pytest
from tests.faults.feed import Feed, WorkerThread
from tests.producer.bus import eventually
from tests.protocol.specimens import reading, reading_run
from tests.workers.postgres import query

from dtolbus.records import Channel, RunInfo
from dtolbus_producer.journal import RunWriter
from dtolbus_workers.cells import beyond_room
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_destination import PostgresDestination
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify

READINGS = 12


def wide_run(number: int, channels: int, unit: str = "degC") -> RunInfo:
    names = tuple(f"t{number}x{place}" for place in range(channels))
    run = reading_run(f"0190a5f4-0000-7000-8000-00000000010{number}", names)
    changes = {"task": f"wide{number}", "channels": tuple(Channel(name, unit) for name in names)}
    return RunInfo(**{field: getattr(run, field) for field in run.__struct_fields__} | changes)


def write(data: Path, run: RunInfo) -> None:
    writer = RunWriter(data / "journal", run, sync_ms=1)
    for index in range(READINGS):
        writer.append(reading(run, index))
    writer.close()


def stores(feed: Feed, worker: WorkerThread, name: str, *runs: RunInfo) -> dict[str, tuple[int, int]]:
    """Let the worker store these runs beside the feed's; give of each task its expected and put-aside records."""
    with worker:
        feed.advances(name)
        for run in runs:
            write(feed.data, run)
            feed.advances(name, READINGS)
        feed.end()
        total = feed.head + READINGS * len(runs)
        eventually(lambda: feed.stored(name) == total)
    certificate = verify(feed.data)
    assert certificate.complete, certificate
    return {line.stream.partition("/")[2]: (line.stored, line.put_aside) for line in certificate.lines}


def test_sqlite(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "bus.sqlite"
    narrow, fits, wide = wide_run(1, 3), wide_run(2, 700), wide_run(3, 1100)
    with Feed(tmp_path / "data") as feed, caplog.at_level(logging.WARNING):
        worker = feed.thread("sqlite", SqliteDestination(place), str(place))
        found = stores(feed, worker, "sqlite", wide, fits, narrow)
    assert (found["wide1"], found["wide2"], found["wide3"]) == ((12, 0), (12, 0), (12, 12))
    assert found["temperature"][1] == 0
    told = [record for record in caplog.records if record.getMessage() == "record put aside"]
    assert len(told) == 1
    assert "its channels need 2200 more, SQLite allows 2000" in told[0].why  # type: ignore[attr-defined]
    with sqlite3.connect(place) as file:
        assert file.execute("SELECT count(*) FROM put_aside").fetchone() == (READINGS,)


def test_postgres(
    tmp_path: Path, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DTOLBUS_DSN", postgres_dsn)
    config = PostgresConfig(dsn=postgres_dsn)
    long, fits, wide = wide_run(1, 420, "m/s² (corrected)"), wide_run(2, 300), wide_run(3, 900)
    with Feed(tmp_path / "data") as feed, caplog.at_level(logging.WARNING):
        worker = feed.thread("postgres", PostgresDestination(config), config.target())
        found = stores(feed, worker, "postgres", wide, long, fits)
    assert (found["wide1"], found["wide2"], found["wide3"]) == ((12, 12), (12, 0), (12, 12))
    assert found["temperature"][1] == 0
    told = [record.why for record in caplog.records if record.getMessage() == "record put aside"]  # type: ignore[attr-defined]
    assert [why.partition(": ")[2] for why in told] == [
        "it has 17 columns, its channels need 1800 more, PostgreSQL allows 1600",
        "PostgreSQL's rows are of 8 kB, and its 853 cells need more",
    ]
    assert query(postgres_dsn, "SELECT count(*) FROM put_aside") == [(2 * READINGS,)]


def test_only_what_does_not_fit_is_beyond_the_room() -> None:
    needs = [{"a", "b"}, {"a", "b", "c", "d"}, {"c"}, {"d"}, set(), {"a", "c"}]
    assert beyond_room(needs, 3) == [1, 3]
    assert beyond_room(needs, 4) == []
    assert beyond_room(needs, 0) == [0, 1, 2, 3, 5]
