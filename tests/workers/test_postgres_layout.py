"""How the samples' table is laid out in Postgres: index, months, hypertable; and a table that is otherwise."""

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers.postgres import query
from tests.workers.test_postgres_destination import Conformance, commit

from dtolbus.errors import CannotStartError, DtolSinkWriteError, UsageError
from dtolbus.records import Clock, DaqBlock, RunInfo, ns_from_utc, utc_from_ns
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_destination import PostgresDestination, stored
from dtolbus_workers.postgres_layout import SamplesLayout
from dtolbus_workers.postgres_months import Range, free_name, months_of, uncovered
from dtolbus_workers.specimens import make_batch, make_block, make_run

BY_MONTH = SamplesLayout(partition="month")
PLAIN = SamplesLayout(index="none")
DAY_NS = 86_400_000_000_000


def at(run: RunInfo, index: int, instant: datetime, *, period_ns: float = 1000.0, samples: int = 10) -> DaqBlock:
    """Return the run's block at `index`, its first sample at the instant."""
    utc_ns = ns_from_utc(instant)
    block = make_block(run, index, samples=samples)
    values = {name: getattr(block, name) for name in ("device", "task", "channels", "block_index", "run_id", "units")}
    return DaqBlock(
        **values,
        first_sample_index=block.first_sample_index,
        samples_per_channel=samples,
        t_mono_ns=block.t_mono_ns,
        t_utc=utc_from_ns(utc_ns),
        clock=Clock(utc_ns, period_ns),
        raw_codes=block.raw_codes,
        calibration=block.calibration,
    )


def parts(dsn: str) -> dict[str, int]:
    """Return the partitions of `samples` by name, and how many rows each has."""
    names = query(
        dsn, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'samples'::regclass ORDER BY 1"
    )
    return {name: query(dsn, f"SELECT count(*) FROM {name}")[0][0] for (name,) in names}


def check_stored(dsn: str, run: RunInfo, blocks: list[DaqBlock]) -> None:
    back = stored(PostgresConfig(dsn=dsn), run)
    assert back is not None
    given = list(back.blocks)
    assert [block.block_index for block in given] == [block.block_index for block in blocks]
    for found, block in zip(given, blocks, strict=True):
        assert found.values is not None
        np.testing.assert_array_equal(found.values, block.data)
    assert back.remarks == []


class TestPostgresByMonth(Conformance):
    mode = "both"
    layout = SamplesLayout(index="brin", partition="month")

    def test_disk_full(self, tmp_path: Path) -> None:
        """That of the usual layout shows it."""


class TestPostgresWithoutIndex(Conformance):
    mode = "samples"
    layout = PLAIN

    def test_disk_full(self, tmp_path: Path) -> None:
        """That of the usual layout shows it."""

    def test_killed_at_each_step_of_a_commit(self, tmp_path: Path) -> None:
        """That of the usual layout shows it."""


@pytest.mark.parametrize(("index", "expected"), [(None, 1), ("brin", 1), ("none", 0)])
@pytest.mark.parametrize("partition", [None, "month"])
def test_the_index_is_made_where_it_is_asked_for(postgres_dsn: str, index: Any, expected: int, partition: Any) -> None:
    run = make_run()
    blocks = [make_block(run, k) for k in range(3)]
    commit(postgres_dsn, make_batch(run, 0, blocks), blocks="samples", layout=SamplesLayout(index, partition))
    table = "samples_2026_01" if partition else "samples"
    found = query(postgres_dsn, "SELECT indexdef FROM pg_indexes WHERE tablename = $1", table)
    assert len(found) == expected
    assert all("USING brin" in text and "t_utc" in text for (text,) in found)
    check_stored(postgres_dsn, run, blocks)


def test_months_are_made_as_samples_need_them_also_at_odd_times(postgres_dsn: str) -> None:
    run = make_run()
    midnight = datetime(2026, 2, 1, tzinfo=UTC)
    instants = [
        (datetime(2026, 1, 31, 23, 59, 59, 999995, UTC), 1000.0),  # five samples in either month
        (datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), 1000.0),
        (datetime(1700, 2, 28, tzinfo=UTC), 1000.0),
        (datetime(2261, 12, 31, 23, tzinfo=UTC), 1000.0),
        (midnight, 20.0 * DAY_NS),  # a sample every 20 days
        (midnight, 0.0),
        (midnight, 200.0 * DAY_NS),  # months without any between
    ]
    blocks = [at(run, k, instant, period_ns=period) for k, (instant, period) in enumerate(instants)]
    batches = [make_batch(run, 0, blocks[:4]), make_batch(run, 4, blocks[4:])]
    commit(postgres_dsn, *batches, blocks="samples", layout=BY_MONTH)
    check_stored(postgres_dsn, run, blocks)
    found = parts(postgres_dsn)
    assert (found["samples_2026_01"], found["samples_1969_12"], found["samples_1700_02"]) == (15, 3, 30)
    assert sum(found.values()) == 7 * 30
    assert all(found.values())  # none was made that nothing needs
    utc = [value for (value,) in query(postgres_dsn, "SELECT DISTINCT t_utc FROM samples WHERE block_index = 0")]
    assert len(utc) == 10


def test_a_reader_in_a_long_transaction_does_not_keep_a_month_from_being_made(postgres_dsn: str) -> None:
    run = make_run()
    blocks = [at(run, k, datetime(2026, 1 + k, 3, tzinfo=UTC)) for k in range(2)]

    async def go() -> None:
        config = PostgresConfig(dsn=postgres_dsn, command_timeout_s=5.0)
        destination = PostgresDestination(config, blocks="samples", layout=BY_MONTH)
        await destination.open()
        reader = await asyncpg.connect(postgres_dsn)
        try:
            await destination.commit(make_batch(run, 0, blocks[:1]))
            await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            assert await reader.fetchval("SELECT count(*) FROM samples") == 30
            await destination.commit(make_batch(run, 1, blocks[1:]))
            assert await reader.fetchval("SELECT count(*) FROM samples") == 30
        finally:
            await reader.close()
            await destination.close()

    asyncio.run(go())
    check_stored(postgres_dsn, run, blocks)


def test_a_month_that_was_detached_or_dropped_is_made_again(postgres_dsn: str) -> None:
    run = make_run()
    instant = datetime(2026, 3, 3, tzinfo=UTC)
    blocks = [at(run, k, instant) for k in range(3)]

    async def go() -> None:
        destination = PostgresDestination(PostgresConfig(dsn=postgres_dsn), blocks="samples", layout=BY_MONTH)
        await destination.open()
        other = await asyncpg.connect(postgres_dsn)
        try:
            await destination.commit(make_batch(run, 0, blocks[:1]))
            await other.execute("ALTER TABLE samples DETACH PARTITION samples_2026_03")
            with pytest.raises(DtolSinkWriteError, match="no partition"):
                await destination.commit(make_batch(run, 1, blocks[1:2]))
            await destination.commit(make_batch(run, 1, blocks[1:2]))  # as the worker does
            await other.execute("DROP TABLE samples_2026_03_2")
        finally:
            await other.close()
            await destination.close()

    asyncio.run(go())
    commit(postgres_dsn, make_batch(run, 2, blocks[2:]), blocks="samples", layout=BY_MONTH)
    assert parts(postgres_dsn) == {"samples_2026_03_2": 30}
    assert query(postgres_dsn, "SELECT count(*) FROM samples_2026_03") == [(30,)]


def test_somebodys_own_partitions_are_used(postgres_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run()
    commit(postgres_dsn, blocks="samples", layout=BY_MONTH)
    own = [
        "CREATE TABLE old PARTITION OF samples FOR VALUES FROM (MINVALUE) TO ('2026-01-01 00:00+00')",
        "CREATE TABLE half PARTITION OF samples FOR VALUES FROM ('2026-02-10 00:00+00') TO ('2026-02-20 00:00+00')",
        "CREATE TABLE rest PARTITION OF samples DEFAULT",
    ]
    for statement in own:
        query(postgres_dsn, statement)
    instants = [datetime(1999, 1, 1), datetime(2026, 2, 15), datetime(2026, 2, 3), datetime(2026, 5, 5)]
    blocks = [at(run, k, instant.replace(tzinfo=UTC)) for k, instant in enumerate(instants)]
    commit(postgres_dsn, make_batch(run, 0, blocks), blocks="samples", layout=BY_MONTH)
    assert parts(postgres_dsn) == {"half": 30, "old": 30, "rest": 30, "samples_2026_05": 30}
    assert "partition not made" in caplog.text
    check_stored(postgres_dsn, run, blocks)


@pytest.mark.parametrize(
    ("made", "asked", "why"),
    [
        (SamplesLayout(), BY_MONTH, r"--partition month was asked for, and it is one table"),
        (BY_MONTH, SamplesLayout(partition="none"), r"--partition none .* partitioned by RANGE \(t_utc\)"),
        (SamplesLayout(), SamplesLayout(hypertable=True), "--hypertable was asked for, and it is a plain table"),
    ],
)
def test_a_table_that_is_partitioned_otherwise_is_refused_and_untouched(
    postgres_dsn: str, made: SamplesLayout, asked: SamplesLayout, why: str
) -> None:
    run = make_run()
    blocks = [make_block(run, k) for k in range(2)]
    commit(postgres_dsn, make_batch(run, 0, blocks[:1]), blocks="samples", layout=made)
    with pytest.raises(CannotStartError, match=f"{why}.*; no table is ever rewritten"):
        commit(postgres_dsn, make_batch(run, 1, blocks[1:]), blocks="samples", layout=asked)
    commit(postgres_dsn, make_batch(run, 1, blocks[1:]), blocks="samples")  # nothing asked for: it goes on as it is
    check_stored(postgres_dsn, run, blocks)


@pytest.mark.parametrize(("made", "asked", "told"), [("brin", "none", "drop that"), ("none", "brin", "CREATE INDEX")])
def test_another_index_than_asked_for_is_kept_and_told(
    postgres_dsn: str, caplog: pytest.LogCaptureFixture, made: Any, asked: Any, told: str
) -> None:
    run = make_run()
    with caplog.at_level(logging.WARNING):
        commit(postgres_dsn, make_batch(run, 0, 1), blocks="samples", layout=SamplesLayout(made))
        assert caplog.records == []
        commit(postgres_dsn, make_batch(run, 1, 1), blocks="samples", layout=SamplesLayout(asked))
    (record,) = caplog.records
    assert told in record.__dict__["why"]
    count = query(postgres_dsn, "SELECT count(*) FROM pg_indexes WHERE tablename = 'samples'")
    assert count == [(1 if made == "brin" else 0,)]


def test_a_server_without_timescale_is_told_in_a_line_and_nothing_is_made(postgres_dsn: str) -> None:
    with pytest.raises(CannotStartError, match=r"--hypertable: this server has no TimescaleDB: install it, or leave"):
        commit(postgres_dsn, layout=SamplesLayout(hypertable=True))
    assert query(postgres_dsn, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == [(0,)]


STAND_IN = """
SET allow_system_table_mods = on;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    SELECT 987654, 'timescaledb', 10, oid, false, '2.17.0' FROM pg_namespace WHERE nspname = 'Time';
RESET allow_system_table_mods;
CREATE SCHEMA timescaledb_information;
CREATE TABLE timescaledb_information.hypertables (hypertable_schema name, hypertable_name name, indexes boolean);
CREATE FUNCTION "Time".create_hypertable(
    relation regclass, time_column_name name, chunk_time_interval anyelement = NULL::bigint,
    create_default_indexes boolean = true
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ALTER %I SET NOT NULL', relation, time_column_name);
    INSERT INTO timescaledb_information.hypertables SELECT n.nspname, c.relname, create_default_indexes
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
END $$;
"""
"""What the worker asks TimescaleDB for, with its names."""


def test_where_timescale_is_there_samples_are_a_hypertable_without_its_index(postgres_dsn: str) -> None:
    async def prepare() -> None:
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute('CREATE SCHEMA "Time"')
        await connection.execute(STAND_IN)
        await connection.close()

    asyncio.run(prepare())
    run = make_run()
    blocks = [make_block(run, k) for k in range(2)]
    layout = SamplesLayout(hypertable=True)
    commit(postgres_dsn, make_batch(run, 0, blocks[:1]), blocks="samples", layout=layout)
    commit(postgres_dsn, make_batch(run, 1, blocks[1:]), blocks="samples", layout=layout)
    assert query(postgres_dsn, "SELECT * FROM timescaledb_information.hypertables") == [("public", "samples", False)]
    check_stored(postgres_dsn, run, blocks)


def test_what_does_not_go_together_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="--hypertable and --partition month"):
        SamplesLayout(partition="month", hypertable=True)
    with pytest.raises(UsageError, match="index must be one of none, brin, got 'btree'"):
        SamplesLayout(index="btree")  # type: ignore[arg-type]  # what is tested


def plain_months(block: DaqBlock) -> set[int]:
    months = set()
    for offset in block.sample_offsets_ns().tolist():
        instant = utc_from_ns(block.t_utc_ns + offset)
        months.add((instant.year - 1970) * 12 + instant.month - 1)
    return months


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    st.sampled_from([0.0, 1.0, 1e9, 0.3 * DAY_NS, 7.0 * DAY_NS, 29.53 * DAY_NS, 400.0 * DAY_NS]),
    st.integers(0, 12),
)
def test_months_are_those_of_every_sample(instant: datetime, period_ns: float, samples: int) -> None:
    block = at(make_run(), 0, instant, period_ns=period_ns, samples=samples)
    assert months_of([block]) == (plain_months(block) if samples else set())


def test_a_month_is_covered_by_a_partition_that_holds_all_of_it() -> None:
    day = 86400.0
    whole, half, later = Range(0.0, 31 * day), Range(31 * day, 45 * day), Range(59 * day, None)
    assert uncovered({0, 1, 2, 3, -1}, [whole, half, later]) == [-1, 1]
    assert uncovered({-1200, 0}, [Range(None, 31 * day)]) == []
    assert free_name("samples", 675, {"samples_2026_04", "samples_2026_04_2"}) == "samples_2026_04_3"
    assert free_name("samples", -3, ()) == "samples_1969_10"


def test_a_run_header_alone_needs_no_month() -> None:
    run = msgspec.structs.replace(make_run(), channels=())
    assert months_of([make_block(run, 0, codes=np.zeros((0, 0), np.uint16))]) == set()
