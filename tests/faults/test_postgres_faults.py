"""A Postgres that dies, stops, stands still, fills up, or is changed under the worker: nothing lost, nothing twice."""

import asyncio
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.feed import Feed, WorkerThread, assert_complete
from tests.faults.own_postgres import OwnPostgres, own_postgres
from tests.faults.pgproxy import CommitCutter, Cut
from tests.producer.bus import eventually
from tests.workers.postgres import owned_by_server, query

from dtolbus.errors import CannotStartError
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_destination import PostgresDestination
from dtolbus_workers.testing import fill, small_disk
from dtolbus_workers.verify import verify

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a server of its own is watched through /proc")

SINK = "postgres"


@pytest.fixture(scope="module")
def module_server() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def server(module_server: OwnPostgres) -> OwnPostgres:
    """The server, running."""
    if not module_server.is_running:
        module_server.restart()
    module_server.thaw()
    return module_server


@pytest.fixture
def dsn(server: OwnPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh database, which `verify` finds too."""
    with server.database() as dsn:
        monkeypatch.setenv("DTOLBUS_DSN", dsn)
        yield dsn


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    with Feed(tmp_path / "data") as feed:
        yield feed


def worker(feed: Feed, dsn: str, schema: str = "public", command_timeout_s: float = 10.0) -> WorkerThread:
    config = PostgresConfig(dsn=dsn, schema=schema, command_timeout_s=command_timeout_s)
    destination = PostgresDestination(config, blocks="both", lock_timeout_s=5.0)
    return feed.thread(SINK, destination, config.target(), blocks="both", schema=schema)


def test_a_server_killed_twice_while_a_run_is_recorded(
    server: OwnPostgres, dsn: str, feed: Feed, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with feed.process("postgres", "--blocks", "both", log=log, DTOLBUS_DSN=dsn) as process:
        for _ in range(2):
            feed.advances(SINK)
            server.kill()
            feed.grows()
            server.restart()
        feed.advances(SINK)
        feed.catches_up(SINK)
        assert process.poll() is None, log.read_text()
    assert "commit failed, trying again" in log.read_text()
    assert_complete(feed.data, {SINK})


def test_the_server_ends_a_worker_that_is_cut_off_before_the_next_one_gives_up(server: OwnPostgres, dsn: str) -> None:
    """What the server was told, over TCP: waiting for it to happen takes half a minute of a dead network."""

    async def go() -> None:
        destination = PostgresDestination(PostgresConfig(dsn=dsn, create_tables=True))
        await destination.open()
        try:
            names = ("idle", "interval", "count")
            writer = await destination._link.writer()
            idle_s, interval_s, count = [int(await writer.fetchval(f"SHOW tcp_keepalives_{name}")) for name in names]
        finally:
            await destination.close()
        assert 0 < idle_s + count * interval_s < destination._link._lock_timeout_s

    asyncio.run(go())


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_stopped_and_started_again_during_commits(server: OwnPostgres, dsn: str, feed: Feed, how: str) -> None:
    with worker(feed, dsn):
        for _ in range(2):
            feed.advances(SINK)
            server.stop(how)  # type: ignore[arg-type]
            server.restart()
        feed.catches_up(SINK)
    assert_complete(feed.data, {SINK})


def test_a_server_that_stands_still_for_seconds_is_waited_for(
    server: OwnPostgres, dsn: str, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), worker(feed, dsn) as working:
        feed.advances(SINK)
        server.freeze()
        feed.grows(400)
        server.thaw()
        feed.catches_up(SINK)
        assert working.failure is None
    assert "trying again" not in caplog.text
    assert_complete(feed.data, {SINK})


def test_a_server_that_stands_still_for_too_long_is_given_up_and_found_again(
    server: OwnPostgres, dsn: str, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), worker(feed, dsn, command_timeout_s=0.4):
        for _ in range(2):
            feed.advances(SINK)
            caplog.clear()
            server.freeze()
            eventually(lambda: "commit failed, trying again" in caplog.text)
            server.thaw()
        feed.advances(SINK)
        feed.catches_up(SINK)
    assert_complete(feed.data, {SINK})


@pytest.mark.parametrize("cuts", [["commit"] * 3, ["answer"] * 3, ["answer", "commit", "commit", "answer"]])
def test_a_connection_cut_exactly_at_commit(
    server: OwnPostgres,
    dsn: str,
    feed: Feed,
    cuts: list[Cut],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with CommitCutter(server.port) as cutter, caplog.at_level(logging.WARNING):
        through = dsn.replace(f":{server.port}/", f":{cutter.port}/")
        monkeypatch.setenv("DTOLBUS_DSN", through)
        with worker(feed, through):
            feed.advances(SINK)
            cutter.cut(*cuts)
            eventually(lambda: len(cutter.done) == len(cuts))
            feed.advances(SINK)
            feed.catches_up(SINK)
        assert cutter.done == cuts
        assert_complete(feed.data, {SINK})
    assert len([record for record in caplog.records if record.getMessage() == "commit was unclear"]) >= len(cuts) // 2
    assert query(dsn, "SELECT count(*) - count(DISTINCT (block_index, channel, sample_index)) FROM samples") == [(0,)]


def test_a_worker_killed_while_its_commit_hangs_is_followed_by_one_that_waits_for_it(
    server: OwnPostgres, dsn: str, feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = "SELECT pid FROM pg_stat_activity WHERE state LIKE '%in transaction' AND datname = current_database()"
    both = ("--blocks", "both")
    hanging: list[int] = []

    def hang() -> None:
        hanging.extend(pid for (pid,) in query(dsn, writers))
        for pid in hanging:
            os.kill(pid, signal.SIGSTOP)

    with CommitCutter(server.port) as proxy:
        through = dsn.replace(f":{server.port}/", f":{proxy.port}/")
        with feed.process("postgres", *both, log=tmp_path / "first.log", DTOLBUS_DSN=through) as killed:
            feed.advances(SINK)
            proxy.before_commit = hang
            eventually(lambda: bool(hanging))
            killed.kill()
            killed.wait()
        monkeypatch.setenv("DTOLBUS_DSN", through)
        log = tmp_path / "second.log"
        with feed.process("postgres", *both, log=log, DTOLBUS_DSN=through) as second:
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            eventually(lambda: bool(query(dsn, waiting)) or second.poll() is not None)
            server.thaw()
            feed.end()
            eventually(lambda: feed.stored(SINK) == feed.head or second.poll() is not None)
            assert second.poll() is None, log.read_text()
        assert_complete(feed.data, {SINK})


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root may mount the small disk")
def test_a_full_disk_under_the_server(
    server: OwnPostgres, dsn: str, feed: Feed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        small_disk(Path(folder) / "disk", size_kib=4096) as disk,
        caplog.at_level(logging.WARNING),
    ):
        Path(folder).chmod(0o755)
        owned_by_server(disk)
        query(dsn, f"CREATE TABLESPACE small LOCATION '{disk}'")
        query(dsn, f"ALTER DATABASE {dsn.rpartition('/')[2]} SET default_tablespace = small")
        try:
            with worker(feed, dsn):
                feed.advances(SINK)
                fill(disk / "filler")
                eventually(lambda: "No space left" in errors(caplog))
                feed.grows()
                (disk / "filler").unlink()
                feed.catches_up(SINK)
            assert_complete(feed.data, {SINK})
        finally:
            query(dsn, "DROP SCHEMA public CASCADE")
            query(dsn, "DROP TABLESPACE small")


def errors(caplog: pytest.LogCaptureFixture) -> str:
    """What the worker said of commits that failed."""
    return "\n".join(str(getattr(record, "error", "")) for record in caplog.records)


def test_columns_and_indexes_added_by_somebody_else_do_not_matter(dsn: str, feed: Feed) -> None:
    with worker(feed, dsn) as working:
        feed.advances(SINK)
        for table in ("samples", "blocks", "readings", "events", "runs", "dtolbus_position", "dtolbus_columns"):
            query(dsn, f"ALTER TABLE {table} ADD COLUMN remark text DEFAULT 'mine'")
        query(dsn, "CREATE INDEX ON samples (t_utc)")
        query(dsn, "CREATE INDEX ON readings (tc0)")
        feed.advances(SINK)
        feed.catches_up(SINK)
        assert working.failure is None
    assert_complete(feed.data, {SINK})


def test_a_column_dropped_by_somebody_else_is_told_and_verify_finds_what_went_with_it(
    dsn: str, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), worker(feed, dsn):
        feed.advances(SINK)
        query(dsn, "ALTER TABLE readings DROP COLUMN tc1_unit")
        eventually(lambda: 'column "tc1_unit" of relation "readings" does not exist' in errors(caplog))
        query(dsn, "ALTER TABLE readings ADD COLUMN tc1_unit text")
        feed.catches_up(SINK)
    certificate = verify(feed.data)
    assert not certificate.complete
    (blocks,) = (line for line in certificate.lines if "vibration" in line.stream)
    (readings,) = (line for line in certificate.lines if "temperature" in line.stream)
    assert blocks.complete
    assert (readings.stored, readings.duplicates) == (readings.expected, 0)
    assert 0 < readings.different < readings.expected


def test_a_table_dropped_by_somebody_else_is_told_and_verify_finds_what_went_with_it(
    dsn: str, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        with worker(feed, dsn):
            feed.advances(SINK)
            query(dsn, "DROP TABLE samples")
            eventually(lambda: 'relation "public.samples" does not exist' in errors(caplog))
        with worker(feed, dsn):
            feed.catches_up(SINK)
    assert [record.table for record in caplog.records if "what it held is gone" in record.getMessage()] == ["samples"]  # type: ignore[attr-defined]
    certificate = verify(feed.data)
    assert not certificate.complete
    (blocks,) = (line for line in certificate.lines if "vibration" in line.stream)
    assert blocks.duplicates == 0
    assert blocks.missing > 0


def test_without_its_table_of_positions_a_schema_is_refused_rather_than_filled_twice(dsn: str, feed: Feed) -> None:
    with worker(feed, dsn):
        feed.advances(SINK)
    query(dsn, "DROP TABLE dtolbus_position")
    with worker(feed, dsn) as again:
        refused = again.ended()
    assert isinstance(refused, CannotStartError)
    assert "lacks the table 'dtolbus_position'" in str(refused)
    assert query(dsn, "SELECT count(*) - count(DISTINCT (block_index, channel, sample_index)) FROM samples") == [(0,)]


def test_another_schema_needs_another_name_and_gets_everything(dsn: str, feed: Feed, tmp_path: Path) -> None:
    with worker(feed, dsn):
        feed.advances(SINK)
    log = tmp_path / "worker.log"
    with feed.process("postgres", "--schema", "other", "--blocks", "both", log=log, DTOLBUS_DSN=dsn) as refused:
        assert refused.wait(30) == 3
    assert "is not to be had" not in log.read_text()
    (line,) = [line for line in log.read_text().splitlines() if "--name" in line]
    assert "the sink 'postgres' of this journal is" in line
    words = ("--schema", "other", "--name", "second", "--blocks", "both")
    with worker(feed, dsn), feed.process("postgres", *words, log=log, DTOLBUS_DSN=dsn):
        feed.catches_up(SINK, "second")
    assert_complete(feed.data, {SINK, "second"})


def test_a_schema_renamed_away_is_told_and_a_restarted_worker_begins_anew(
    dsn: str, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        with worker(feed, dsn, "lab"):
            feed.advances(SINK)
            query(dsn, "ALTER SCHEMA lab RENAME TO away")
            # which table it misses first is that of the statement it was at
            eventually(lambda: re.search(r'relation "lab\.\w+" does not exist', errors(caplog)) is not None)
            query(dsn, "ALTER SCHEMA away RENAME TO lab")
            feed.advances(SINK)
            query(dsn, "ALTER SCHEMA lab RENAME TO away")
            feed.grows()
        with worker(feed, dsn, "lab"):
            feed.catches_up(SINK)
    assert_complete(feed.data, {SINK})
