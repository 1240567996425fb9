"""PostgresConfig and the stand-alone PostgresSink."""

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from tests.workers.postgres import cut, query

from dtolbus.errors import DtolSinkSchemaError, DtolSinkWriteError
from dtolbus.records import DaqBlock, DaqReading
from dtolbus.rows import reading_to_row
from dtolbus_workers.columns import BLOCK_COLUMNS
from dtolbus_workers.postgres import PostgresConfig, PostgresSink
from dtolbus_workers.specimens import ODD_NAMES, error_block, error_reading, make_block, make_reading, make_run

READINGS = make_run("readings")


def readings(*rows: Mapping[str, Any]) -> list[DaqReading]:
    return [make_reading(READINGS, index, row) for index, row in enumerate(rows)]


def write(dsn: str, *records: DaqBlock | list[DaqReading], **options: Any) -> None:
    async def go() -> None:
        config = PostgresConfig(dsn=dsn, **{"create_tables": True, **options})
        async with PostgresSink(config) as sink:
            for record in records:
                await (sink.write(record) if isinstance(record, DaqBlock) else sink.write_many(record))

    asyncio.run(go())


def columns(dsn: str, table: str) -> list[str]:
    sql = "SELECT column_name FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position"
    return [name for (name,) in query(dsn, sql, table)]


class TestConfig:
    @pytest.mark.parametrize(
        ("fields", "target"),
        [
            ({"dsn": "postgres://u:secret@db.lab:5433/bench"}, "postgres://db.lab:5433/bench.public"),
            ({"dsn": "postgresql://u:secret@db/bench", "schema": "s"}, "postgresql://db:5432/bench.s"),
            ({"dsn": "postgresql://db/bench?password=secret&user=u"}, "postgresql://db:5432/bench.public"),
            ({"dsn": "postgresql://u:secret@/b?host=/var/run/pg"}, "postgresql://%2Fvar%2Frun%2Fpg:5432/b.public"),
            ({"dsn": "postgresql://u:secret@h1,h2:7/b"}, "postgresql://h1:5432,h2:7/b.public"),
            ({"dsn": "postgresql://u:secret@[::1]:7/b"}, "postgresql://[::1]:7/b.public"),
            ({"dsn": "postgresql://u:secret%40x@h/b"}, "postgresql://h:5432/b.public"),
            (
                {"host": "h", "user": "u", "password": "secret", "database": "b"},
                "postgresql://h:5432/b.public",
            ),
        ],
    )
    def test_the_target_never_has_the_password(self, fields: dict[str, Any], target: str) -> None:
        config = PostgresConfig(**fields)
        assert config.target() == target
        assert "secret" not in repr(config) + str(config)

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"host": "h", "user": "u"},
            {"dsn": "postgresql://u:secret@h/b", "host": "h"},
            {"dsn": "mysql://u:secret@h/b"},
            {"dsn": "host=h password=secret"},
            {"dsn": "postgresql://u:secret@x@h/b/c@d"},
            {"dsn": "postgresql://u:secret/x@h/b"},
            {"dsn": "postgresql://u:secret#x@h/b"},
            {"dsn": "postgresql://h/b", "schema": "a; drop"},
            {"dsn": "postgresql://h/b", "table_readings": 'x"'},
            {"dsn": "postgresql://h/b", "table_blocks": "a" * 64},
            {"dsn": "postgresql://h/b", "port": 0},
            {"dsn": "postgresql://h/b", "pool_min_size": 5},
            {"dsn": "postgresql://h/b", "statement_timeout_ms": 0},
        ],
    )
    def test_what_cannot_be_right_is_refused_without_the_password(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="PostgresConfig") as told:
            PostgresConfig(**fields)
        assert "secret" not in str(told.value)

    def test_defaults_are_the_documented_ones(self) -> None:
        config = PostgresConfig(dsn="postgresql://h/b")
        assert (config.port, config.schema, config.table_readings, config.table_blocks) == (
            *(5432, "public", "readings", "blocks"),
        )
        assert (config.pool_min_size, config.pool_max_size, config.statement_timeout_ms) == (1, 4, 30000)
        assert (config.command_timeout_s, config.create_tables, config.use_copy) == (10.0, False, True)


@pytest.mark.parametrize("use_copy", [True, False])
class TestWriting:
    def test_readings_and_summaries_go_to_their_tables(self, postgres_dsn: str, use_copy: bool) -> None:
        items = [make_reading(READINGS, index) for index in range(3)]
        block = make_block(make_run(), 7)
        write(postgres_dsn, items, block, error_block(make_run(), 8), use_copy=use_copy)
        keys = [*reading_to_row(items[0]), "sensor_status"]
        assert columns(postgres_dsn, "readings") == keys
        rows = query(
            postgres_dsn, "SELECT device, t_mono_ns, t_utc, received_at, ai2, ai2_unit FROM readings ORDER BY 2"
        )
        assert rows == [("sim0", r.t_mono_ns, r.t_utc, r.received_at, r.values["ai2"], "V") for r in items]
        assert columns(postgres_dsn, "blocks") == list(BLOCK_COLUMNS[1:])
        found = query(postgres_dsn, "SELECT block_index, t_utc, max::text, error_type FROM blocks ORDER BY 1")
        assert found[0][:2] == (7, block.t_utc)
        assert found[0][2].startswith("[")
        assert found[1][3] == "dtolbus.errors.BoardError"

    def test_an_int_and_then_a_float_and_odd_numbers(self, postgres_dsn: str, use_copy: bool) -> None:
        values = [1, 1.5, True, float("inf"), -0.0, None]
        write(postgres_dsn, readings({"ai0": 1}), readings(*({"ai0": v} for v in values)), use_copy=use_copy)
        found = [value for (value,) in query(postgres_dsn, "SELECT ai0 FROM readings")]
        assert found == [1.0, 1.0, 1.5, 1.0, float("inf"), -0.0, None]

    def test_what_does_not_fit_is_refused_and_nothing_stored(self, postgres_dsn: str, use_copy: bool) -> None:
        write(postgres_dsn, readings({"ai0": 1}), use_copy=use_copy)
        for odd in (2**70, 2**60, "text", "nul\0", [1]):
            with pytest.raises(DtolSinkSchemaError, match="ai0"):
                write(postgres_dsn, readings({"ai0": 2}, {"ai0": odd}), use_copy=use_copy)
        assert query(postgres_dsn, "SELECT ai0 FROM readings") == [(1.0,)]


def test_odd_names_overwrite_and_run_nothing(postgres_dsn: str) -> None:
    write(postgres_dsn, readings({name: float(k) for k, name in enumerate(ODD_NAMES)}))
    assert query(postgres_dsn, "SELECT device, t_mono_ns FROM readings") == [("sim0", READINGS.started_mono_ns)]
    (row,) = query(postgres_dsn, "SELECT * FROM readings")
    assert set(map(float, range(len(ODD_NAMES)))) <= {value for value in row if isinstance(value, float)}


def test_a_first_reading_that_failed_locks_nothing_out(postgres_dsn: str) -> None:
    write(postgres_dsn, [error_reading(READINGS, 0)], readings({"ai0": 1.5}))
    rows = query(postgres_dsn, "SELECT ai0, error_message FROM readings ORDER BY 1 NULLS FIRST")
    assert rows == [(None, "no answer in 1 s"), (1.5, None)]


def test_later_channels_are_dropped_with_one_warning_and_added_by_the_next_start(
    postgres_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        write(postgres_dsn, readings({"ai0": 1.0}), readings({"ai9": 9.0}), readings({"ai9": 9.0}))
    assert sum("ai9" == getattr(record, "column", None) for record in caplog.records) == 1
    write(postgres_dsn, readings({"ai9": 3.0}))
    assert query(postgres_dsn, "SELECT ai0, ai9 FROM readings") == [
        (1.0, None),
        (None, None),
        (None, None),
        (None, 3.0),
    ]


def test_tables_of_ones_own_are_kept_to(postgres_dsn: str) -> None:
    query(
        postgres_dsn,
        "CREATE TABLE readings "
        "(id bigserial, device text, t_utc text, received_at timestamp, ai0 integer, ai1 numeric)",
    )
    rows = readings({"ai0": 2.0, "ai1": 0.1, "ai2": 5.0})
    write(postgres_dsn, rows, create_tables=False)
    (found,) = query(postgres_dsn, "SELECT id, device, t_utc, received_at, ai0, ai1::text FROM readings")
    assert found == (1, "sim0", rows[0].t_utc.isoformat(), rows[0].received_at.replace(tzinfo=None), 2, "0.1")
    with pytest.raises(DtolSinkSchemaError, match=r"ai0.*1\.5 does not fit a column of type integer"):
        write(postgres_dsn, readings({"ai0": 1.5}), create_tables=False)
    with pytest.raises(DtolSinkSchemaError, match=r"no table 'blocks'.*create_tables=True"):
        write(postgres_dsn, make_block(make_run(), 0), create_tables=False)


def test_tables_that_are_not_there_and_tables_of_somebody_else(postgres_dsn: str) -> None:
    with pytest.raises(DtolSinkSchemaError, match="no table 'readings'"):
        write(postgres_dsn, create_tables=False)
    query(postgres_dsn, "CREATE TABLE blocks (mine text)")
    with pytest.raises(DtolSinkSchemaError, match="not this sink's"):
        write(postgres_dsn, make_block(make_run(), 0))
    assert columns(postgres_dsn, "blocks") == ["mine"]


def test_a_cut_connection_does_not_stop_the_sink(postgres_dsn: str) -> None:
    async def go() -> None:
        async with PostgresSink(PostgresConfig(dsn=postgres_dsn, create_tables=True, pool_max_size=1)) as sink:
            await sink.write_many(readings({"ai0": 1.0}))
            assert await cut(postgres_dsn, "dtolbus") == 1
            for _ in range(2):  # the client may have seen the end before it wrote
                with contextlib.suppress(DtolSinkWriteError):
                    await sink.write_many(readings({"ai0": 2.0}))
                    break
            else:
                pytest.fail("the sink did not recover")

    asyncio.run(go())
    assert query(postgres_dsn, "SELECT ai0 FROM readings ORDER BY 1") == [(1.0,), (2.0,)]


def test_a_wedged_statement_ends_and_the_next_write_works(postgres_dsn: str) -> None:
    import asyncpg

    async def go() -> None:
        config = PostgresConfig(dsn=postgres_dsn, create_tables=True, statement_timeout_ms=200)
        async with PostgresSink(config) as sink:
            await sink.write_many(readings({"ai0": 1.0}))
            other = await asyncpg.connect(postgres_dsn)
            async with other.transaction():
                await other.execute("LOCK TABLE readings")
                with pytest.raises(DtolSinkWriteError, match="statement timeout"):
                    await sink.write_many(readings({"ai0": 2.0}))
            await other.close()
            await sink.write_many(readings({"ai0": 3.0}))

    asyncio.run(go())
    assert query(postgres_dsn, "SELECT ai0 FROM readings ORDER BY 1") == [(1.0,), (3.0,)]


def test_life_cycle(postgres_dsn: str) -> None:
    async def go() -> None:
        sink = PostgresSink(PostgresConfig(dsn=postgres_dsn, create_tables=True))
        with pytest.raises(RuntimeError, match=r"write_many called before open\(\)"):
            await sink.write_many(readings({"ai0": 1.0}))
        with pytest.raises(RuntimeError, match=r"write called before open\(\)"):
            await sink.write(make_block(make_run(), 0))
        for value in (1.0, 2.0):
            await sink.open()
            await sink.open()
            await sink.write_many([])
            await sink.write_many(readings({"ai0": value}))
            await sink.close()
            await sink.close()
        assert sink.config.create_tables

    asyncio.run(go())
    assert query(postgres_dsn, "SELECT ai0 FROM readings") == [(1.0,), (2.0,)]


def test_a_server_that_is_away_is_told_without_the_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(DtolSinkWriteError, match="is not to be had") as told:
            write(f"postgresql://u:secret@127.0.0.1:{free.getsockname()[1]}/lab")
    assert "secret" not in str(told.value)


def test_without_asyncpg_the_extra_is_named_at_open() -> None:
    source = (
        "import asyncio, sys\n"
        "sys.modules['asyncpg'] = None\n"
        "from dtolbus_workers.postgres import PostgresConfig, PostgresSink\n"
        "from dtolbus.errors import DtolSinkDependencyError\n"
        "sink = PostgresSink(PostgresConfig(dsn='postgresql://h/b'))\n"
        "try: asyncio.run(sink.open())\n"
        "except DtolSinkDependencyError as error: print(error)\n"
    )
    child = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert "pip install 'dtolbus-workers[postgres]'" in child.stdout
