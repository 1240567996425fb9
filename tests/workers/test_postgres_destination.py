"""The bus's Postgres tables: the suite of all destinations, and what a server can do to a worker."""

import asyncio
import contextlib
import hashlib
import math
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from tests.workers.postgres import cut, is_embedded, owned_by_server, query

from dtolbus.errors import CannotStartError, DtolSinkError, DtolSinkWriteError
from dtolbus.records import RunInfo
from dtolbus_workers.columns import BLOCK_COLUMNS, SAMPLE_COLUMNS, block_summary
from dtolbus_workers.destination import BlocksMode, Position, RecordRefusedError, RunBatch, Stored
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_destination import PostgresDestination, stored
from dtolbus_workers.postgres_layout import SamplesLayout
from dtolbus_workers.postgres_link import Link
from dtolbus_workers.specimens import (
    error_block,
    error_reading,
    make_batch,
    make_block,
    make_event,
    make_reading,
    make_run,
)
from dtolbus_workers.testing import SinkConformance, fill, small_disk

CRASH_POINTS = """
import asyncpg
from asyncpg.transaction import Transaction
from dtolbus_workers.crashing import crash_point

def passing(owner, name):
    call = getattr(owner, name)
    async def wrapped(*args, **kwargs):
        crash_point()
        result = await call(*args, **kwargs)
        crash_point()
        return result
    setattr(owner, name, wrapped)

for name in ("execute", "fetchval", "copy_to_table", "executemany"):
    passing(asyncpg.Connection, name)
passing(Transaction, "commit")
"""


class Conformance(SinkConformance):
    keeps_ints = False
    mode: BlocksMode
    layout = SamplesLayout()
    dsn: str

    @pytest.fixture(autouse=True)
    def _server(self, postgres_dsn: str) -> None:
        self.dsn = postgres_dsn

    def config(self, place: Path) -> PostgresConfig:
        return PostgresConfig(dsn=self.dsn, schema="s" + hashlib.sha256(str(place).encode()).hexdigest()[:16])

    def make(self, place: Path) -> PostgresDestination:
        return PostgresDestination(self.config(place), blocks=self.mode, layout=self.layout, lock_timeout_s=2.0)

    async def stored(self, place: Path, run: RunInfo) -> Stored | None:
        return stored(self.config(place), run)

    def construct(self, place: Path) -> str:
        config = self.config(place)
        return (
            f"{CRASH_POINTS}\n"
            "from dtolbus_workers.postgres_destination import PostgresConfig, PostgresDestination, SamplesLayout\n"
            f"config = PostgresConfig(dsn={config.dsn!r}, schema={config.schema!r})\n"
            f"destination = PostgresDestination(config, blocks={self.mode!r}, layout={self.layout!r})"
        )

    def test_disk_full(self, tmp_path: Path) -> None:
        """The server's disk is full: DtolSinkWriteError, nothing half stored; with room again the batch goes in."""
        if not is_embedded(self.dsn) or os.name == "nt" or os.geteuid() != 0:
            pytest.skip("a small disk for the server needs root and the embedded server")
        run, place = make_run(), tmp_path

        async def go(filler: Path) -> int:
            done = 3
            async with self.opened(place) as destination:
                await destination.commit(make_batch(run, 0, done))
                fill(filler)
                with pytest.raises(DtolSinkWriteError, match="No space left"):  # noqa: PT012  # one of them
                    for done in range(3, 2000, 20):
                        await destination.commit(make_batch(run, done, 20))
                filler.unlink()
                await destination.commit(make_batch(run, done, 20))
            return done + 20

        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            with small_disk(Path(folder) / "disk", size_kib=4096) as disk:
                owned_by_server(disk)
                query(self.dsn, f"CREATE TABLESPACE small LOCATION '{disk}'")
                try:
                    (name,) = query(self.dsn, "SELECT current_database()")[0]
                    query(self.dsn, f"ALTER DATABASE {name} SET default_tablespace = small")
                    total = asyncio.run(go(disk / "filler"))
                    asyncio.run(self.check(place, make_batch(run, 0, total)))
                finally:
                    query(self.dsn, f'DROP SCHEMA IF EXISTS "{self.config(place).schema}" CASCADE')
                    query(self.dsn, "DROP TABLESPACE small")


class TestPostgresSamples(Conformance):
    mode = "both"


class TestPostgresSummaries(Conformance):
    mode = "summary"
    gives_samples = False

    def test_killed_at_each_step_of_a_commit(self, tmp_path: Path) -> None:
        """The other class shows it."""

    def test_disk_full(self, tmp_path: Path) -> None:
        """The other class shows it."""


@asynccontextmanager
async def opened(dsn: str, **options: Any) -> AsyncIterator[PostgresDestination]:
    destination = PostgresDestination(PostgresConfig(dsn=dsn), **options)
    await destination.open()
    try:
        yield destination
    finally:
        await destination.close()


def commit(dsn: str, *batches: RunBatch, **options: Any) -> None:
    async def go() -> None:
        async with opened(dsn, **options) as destination:
            for batch in batches:
                await destination.commit(batch)

    asyncio.run(go())


def test_samples_have_the_columns_and_instants_of_the_design(postgres_dsn: str) -> None:
    run = make_run()
    block = make_block(run, 0, sensor_status={"ai1": [0, 0, 3, 0, 0, 0, 1, 0, 0, 0]})
    batch = make_batch(run, 0, [block, error_block(run, 1, samples=2), error_block(run, 2)])
    commit(postgres_dsn, batch, blocks="samples")
    columns = ", ".join(SAMPLE_COLUMNS)
    rows = query(postgres_dsn, f"SELECT {columns} FROM samples ORDER BY block_index, channel, sample_index")
    good = [dict(zip(SAMPLE_COLUMNS, row, strict=True)) for row in rows[:30]]
    offsets = [round(k * 1e9 / 3000.0) for k in range(10)]
    assert [row["t_mono_ns"] for row in good] == [run.started_mono_ns + k for k in offsets] * 3
    assert [row["t_utc"].microsecond for row in good] == [k // 1000 for k in offsets] * 3
    assert [row["sensor_status"] for row in good[10:20]] == [0, 0, 3, 0, 0, 0, 1, 0, 0, 0]
    assert {row["sensor_status"] for row in good[:10]} == {None}
    np.testing.assert_array_equal(np.array([row["value"] for row in good]).reshape(3, 10), block.data)
    failed = [dict(zip(SAMPLE_COLUMNS, row, strict=True)) for row in rows[30:]]
    assert len(failed) == 6
    assert all(math.isnan(row["value"]) for row in failed)
    assert {row["error_message"] for row in failed} == {"A/D FIFO over\nrun, «schnell»"}
    without_samples = query(postgres_dsn, "SELECT block_index, error_type FROM blocks")
    assert without_samples == [(2, "dtolbus.errors.BoardError")]


def test_summaries_are_those_of_every_sink(postgres_dsn: str) -> None:
    run = make_run()
    commit(postgres_dsn, make_batch(run, 0, 2))
    assert query(postgres_dsn, "SELECT count(*) FROM samples") == [(0,)]
    names = query(
        postgres_dsn,
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'blocks' ORDER BY ordinal_position",
    )
    assert tuple(name for (name,) in names) == BLOCK_COLUMNS
    back = stored(PostgresConfig(dsn=postgres_dsn), run)
    assert back is not None
    assert back.checksums == "summary"
    assert [block.summary for block in back.blocks] == [block_summary(make_block(run, index)) for index in range(2)]


def test_readings_of_all_tasks_are_one_table_and_types_do_not_lie(postgres_dsn: str) -> None:
    run = make_run("readings", channels=("ai0", "device"))
    other = make_run("readings", number=2, task="other", channels=("ai0", "AI0"))
    rows = [{"ai0": 1, "device": True}, {"ai0": 1.5}, {"ai0": "open"}, {"ai0": 2**60 + 1}]
    records = [error_reading(run, 0), *(make_reading(run, index, row) for index, row in enumerate(rows, 1))]
    commit(postgres_dsn, make_batch(run, 0, records[:1]), make_batch(run, 1, records[1:]), make_batch(other, 0, 1))
    columns = query(postgres_dsn, 'SELECT task, channel, kind, "column" FROM dtolbus_columns')
    assert {row[:3]: row[3] for row in columns} == {
        ("temperature", "ai0", "number"): "ai0",
        ("temperature", "device", "number"): "ch_1",
        ("temperature", "ai0", "text"): "ch_2",
        ("temperature", "ai0", "integer"): "ch_3",
        ("other", "ai0", "number"): "ch_0",
        ("other", "AI0", "number"): "ch_4",
    }
    found = query(
        postgres_dsn,
        "SELECT device, ai0, ch_1, ch_2, ch_3 FROM readings WHERE task = 'temperature' ORDER BY reading_index",
    )
    assert found == [
        ("sim0", None, None, None, None),
        ("sim0", 1.0, 1.0, None, None),
        ("sim0", 1.5, None, None, None),
        ("sim0", None, None, "open", None),
        ("sim0", None, None, None, 2**60 + 1),
    ]
    back = stored(PostgresConfig(dsn=postgres_dsn), run)
    assert back is not None
    assert [reading.values["ai0"] for reading in back.readings] == [None, 1, 1.5, "open", 2**60 + 1]


@pytest.mark.parametrize("reading", [{"ai0": "nul\0"}, {"n\0": 1.0}, {"ai0": 2**63}, {"ai0": [1]}])
def test_a_reading_that_postgres_cannot_hold_is_refused_by_its_index(
    postgres_dsn: str, reading: dict[str, Any]
) -> None:
    run = make_run("readings")
    batch = make_batch(run, 0, [make_reading(run, 0), make_reading(run, 1, reading)])
    with pytest.raises(RecordRefusedError) as refused:
        commit(postgres_dsn, batch)
    assert refused.value.index == 1
    aside = make_batch(run, 0, batch.records, put_aside={1: f"\0{refused.value.reason}"})
    commit(postgres_dsn, aside)
    back = stored(PostgresConfig(dsn=postgres_dsn), run)
    assert back is not None
    assert (back.position, [aside.record_index for aside in back.put_aside]) == (Position(2, 0), [1])


def test_words_with_a_nul_do_not_stop_an_event(postgres_dsn: str) -> None:
    run = make_run(meta={"note": "a\0b"})
    commit(postgres_dsn, make_batch(run, 0, [make_event(run, 0, message="a\0b")]))
    assert query(postgres_dsn, "SELECT message FROM events") == [("a\ufffdb",)]


# ---- what a server and others do ----


def test_a_cut_connection_fails_one_commit_at_most_and_the_next_goes_on(postgres_dsn: str) -> None:
    run = make_run()

    async def go() -> None:
        async with opened(postgres_dsn) as destination:
            await destination.commit(make_batch(run, 0, 2))
            assert await cut(postgres_dsn, "dtolbus-postgres") == 2
            with contextlib.suppress(DtolSinkWriteError):  # the client may have seen the end before it wrote
                await destination.commit(make_batch(run, 2, 2))
                return
            await destination.commit(make_batch(run, 2, 2))

    asyncio.run(go())
    back = stored(PostgresConfig(dsn=postgres_dsn), run)
    assert back is not None
    assert back.position == Position(4, 0)


@pytest.mark.parametrize("asked_again", [True, False])
def test_an_unclear_commit_that_happened_is_stored_once(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, asked_again: bool
) -> None:
    run = make_run("readings")
    real_commit, real_writer = asyncpg.transaction.Transaction.commit, Link.writer

    async def go() -> None:
        async with opened(postgres_dsn) as destination:
            await destination.commit(make_batch(run, 0, 1))

            async def away(link: Link) -> Any:
                raise ConnectionRefusedError("away")

            async def answer_lost(transaction: Any) -> None:
                await real_commit(transaction)
                if not asked_again:
                    monkeypatch.setattr(Link, "writer", away)
                raise ConnectionResetError("the answer was lost")

            monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", answer_lost)
            if asked_again:
                await destination.commit(make_batch(run, 1, 2))
            else:
                with pytest.raises(DtolSinkWriteError):
                    await destination.commit(make_batch(run, 1, 2))
            monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", real_commit)
            monkeypatch.setattr(Link, "writer", real_writer)
            if not asked_again:
                await destination.commit(make_batch(run, 1, 2))
            with pytest.raises(DtolSinkError, match="does not continue"):
                await destination.commit(make_batch(run, 0, 2))
            await destination.commit(make_batch(run, 3, 1))

    asyncio.run(go())
    assert query(postgres_dsn, "SELECT reading_index FROM readings ORDER BY 1") == [(0,), (1,), (2,), (3,)]


def test_a_commit_that_did_not_happen_is_told_and_can_be_made_again(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("readings")
    real = asyncpg.transaction.Transaction.commit

    async def cut_before(transaction: Any) -> None:
        await cut(postgres_dsn, "dtolbus-postgres")
        await real(transaction)

    async def go() -> None:
        async with opened(postgres_dsn) as destination:
            monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", cut_before)
            with pytest.raises(DtolSinkWriteError):
                await destination.commit(make_batch(run, 0, 2))
            monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", real)
            await destination.commit(make_batch(run, 0, 2))

    asyncio.run(go())
    assert query(postgres_dsn, "SELECT count(*) FROM readings") == [(2,)]


def test_who_lost_the_schema_to_another_worker_stops(postgres_dsn: str) -> None:
    run = make_run()

    async def go() -> None:
        async with opened(postgres_dsn, lock_timeout_s=0.5) as first:
            await first.commit(make_batch(run, 0, 1))
            await cut(postgres_dsn, "dtolbus-postgres")
            async with opened(postgres_dsn) as second:
                with pytest.raises((CannotStartError, DtolSinkWriteError)):
                    await first.commit(make_batch(run, 1, 1))
                with pytest.raises(CannotStartError, match=r"in use by another worker, dtolbus-postgres \(pid \d+\)"):
                    await first.commit(make_batch(run, 1, 1))
                await second.commit(make_batch(run, 1, 2))

    asyncio.run(go())
    assert query(postgres_dsn, "SELECT next FROM dtolbus_position") == [(3,)]


def test_a_position_moved_by_somebody_else_refuses_the_commit(postgres_dsn: str) -> None:
    run = make_run()

    async def go() -> None:
        async with opened(postgres_dsn) as destination:
            await destination.commit(make_batch(run, 0, 2))
            connection = await asyncpg.connect(postgres_dsn)
            await connection.execute("UPDATE dtolbus_position SET next = 7")
            await connection.close()
            with pytest.raises(DtolSinkError, match="is at 7, a batch from 2"):
                await destination.commit(make_batch(run, 2, 1))

    asyncio.run(go())
    assert query(postgres_dsn, "SELECT count(*) FROM blocks") == [(2,)]


@pytest.mark.parametrize("how", ["lost", "too long"])
def test_a_copy_that_the_server_does_not_take_ends(postgres_dsn: str, how: str) -> None:
    run = make_run()
    many = make_batch(run, 0, [make_block(run, index, samples=5000) for index in range(8)])
    config = PostgresConfig(dsn=postgres_dsn, command_timeout_s=30.0 if how == "lost" else 3.0)

    async def go() -> None:
        destination = PostgresDestination(config, blocks="samples")
        await destination.open()
        locker = await asyncpg.connect(postgres_dsn)
        try:
            await locker.execute("BEGIN; LOCK TABLE samples")
            committing = asyncio.ensure_future(destination.commit(many))
            writer = await destination._link.writer()
            while how == "lost" and not writer._transport.get_write_buffer_size():
                await asyncio.sleep(0.01)  # until the socket takes no more
            if how == "lost":
                await cut(postgres_dsn, "dtolbus-postgres")
            with pytest.raises(DtolSinkWriteError):
                await asyncio.wait_for(committing, 20)
        finally:
            await locker.close()
            await destination.close()

    asyncio.run(go())
    commit(postgres_dsn, many, blocks="samples")
    assert query(postgres_dsn, "SELECT count(*) FROM samples") == [(8 * 5000 * 3,)]


def test_a_dropped_table_is_told_and_the_next_open_makes_it_again(postgres_dsn: str) -> None:
    run = make_run()

    async def go() -> None:
        async with opened(postgres_dsn) as destination:
            await destination.commit(make_batch(run, 0, 1))
            connection = await asyncpg.connect(postgres_dsn)
            await connection.execute("DROP TABLE events")
            await connection.close()
            with pytest.raises(DtolSinkWriteError, match="events"):
                await destination.commit(make_batch(run, 1, [make_event(run, 1)]))
        async with opened(postgres_dsn) as destination:
            await destination.commit(make_batch(run, 1, [make_event(run, 1)]))

    asyncio.run(go())


def test_tables_of_somebody_else_are_untouched(postgres_dsn: str) -> None:
    query(postgres_dsn, "CREATE TABLE blocks (mine text)")
    with pytest.raises(CannotStartError, match=r"holds a table 'blocks' that is not dtolbus's; choose another schema"):
        commit(postgres_dsn)
    assert query(postgres_dsn, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == [(1,)]


def test_a_server_that_is_away_is_one_line_without_the_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(CannotStartError) as told:
            commit(f"postgresql://user:secret@127.0.0.1:{port}/lab")
    assert f"postgresql://127.0.0.1:{port}/lab.public is not to be had" in str(told.value)
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)


def test_verify_finds_the_database_by_its_target(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    commit(postgres_dsn, make_batch(run, 0, 2))
    monkeypatch.setenv("DTOLBUS_DSN", postgres_dsn)
    target = PostgresConfig(dsn=postgres_dsn).target()
    back = PostgresDestination.stored(target, {"schema": "public"}, run)
    assert back is not None
    assert back.position == Position(2, 0)
    monkeypatch.delenv("DTOLBUS_DSN")
    with pytest.raises(CannotStartError, match="DTOLBUS_DSN"):
        PostgresDestination.stored("postgresql://127.0.0.1:1/lab.public", {}, run)


def test_an_iterator_that_is_left_early_leaves_no_connection(postgres_dsn: str) -> None:
    run = make_run("readings")
    commit(postgres_dsn, make_batch(run, 0, 20))
    back = stored(PostgresConfig(dsn=postgres_dsn), run)
    assert back is not None
    assert next(iter(back.readings))[0] == 0
    back.readings.close()  # type: ignore[attr-defined]
    assert query(postgres_dsn, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dtolbus-verify'") == [
        (0,)
    ]


def test_commits_are_durable_whatever_the_database_prefers(postgres_dsn: str) -> None:
    (name,) = query(postgres_dsn, "SELECT current_database()")[0]
    query(postgres_dsn, f"ALTER DATABASE {name} SET synchronous_commit = off")

    async def go() -> None:
        async with opened(postgres_dsn) as destination:
            writer = await destination._link.writer()
            assert await writer.fetchval("SHOW synchronous_commit") == "on"

    asyncio.run(go())


def test_many_samples_go_in_several_copies(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtolbus_workers import postgres_samples

    monkeypatch.setattr(postgres_samples, "COPY_ROWS", 50)
    monkeypatch.setattr(postgres_samples, "CHUNK_ROWS", 20)
    run = make_run()
    commit(postgres_dsn, make_batch(run, 0, 5), blocks="samples")
    back = stored(PostgresConfig(dsn=postgres_dsn), run)
    assert back is not None
    for block in back.blocks:
        assert block.values is not None
        np.testing.assert_array_equal(block.values, make_block(run, block.block_index).data)
    assert query(postgres_dsn, "SELECT count(*), count(DISTINCT (channel, sample_index)) FROM samples") == [(150, 150)]
