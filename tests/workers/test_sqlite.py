"""SQLite: the bus's file and the stand-alone sink."""

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tests.workers import committing

from dtolbus.errors import CannotStartError, DtolSinkError, DtolSinkSchemaError, DtolSinkWriteError, UsageError
from dtolbus.records import Clock, RunInfo
from dtolbus.rows import block_to_long_rows, reading_to_row
from dtolbus_workers.columns import BLOCK_COLUMNS, SAMPLE_COLUMNS, block_summary
from dtolbus_workers.destination import BlocksMode, Stored
from dtolbus_workers.specimens import (
    ODD_NAMES,
    error_block,
    error_reading,
    float_block,
    make_batch,
    make_block,
    make_reading,
    make_run,
)
from dtolbus_workers.sqlite import SqliteSink
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.testing import SinkConformance


class TestSqliteSamples(SinkConformance):
    keeps_negative_zero = False
    mode: BlocksMode = "samples"

    def make(self, place: Path) -> SqliteDestination:
        return SqliteDestination(place / "bus.sqlite", blocks=self.mode)

    async def stored(self, place: Path, run: RunInfo) -> Stored | None:
        return SqliteDestination.stored(str(place / "bus.sqlite"), {}, run)

    def construct(self, place: Path) -> str:
        return (
            "from dtolbus_workers.sqlite_destination import SqliteDestination\n"
            f"destination = SqliteDestination({str(place / 'bus.sqlite')!r}, blocks={self.mode!r})"
        )


class TestSqliteSummaries(TestSqliteSamples):
    mode = "summary"
    gives_samples = False
    test_killed_at_each_step_of_a_commit = None  # a commit's steps do not depend on what the rows hold


class TestSqliteBoth(TestSqliteSamples):
    mode = "both"


def query(path, sql, *args):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, args).fetchall()


def columns(path, table):
    return [row[1] for row in query(path, f"PRAGMA table_info({table})")]


def commit(path, *batches, blocks="summary"):
    committing.commit(SqliteDestination(path, blocks=blocks), *batches)


class TestBusTables:
    def test_every_table_has_the_columns_of_the_design(self, tmp_path):
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(make_run("readings", channels=("tc0",)), 0, 1))
        assert columns(path, "samples") == list(SAMPLE_COLUMNS)
        assert columns(path, "blocks") == list(BLOCK_COLUMNS)
        row = reading_to_row(make_reading(make_run("readings", channels=("tc0",)), 0))
        assert sorted(columns(path, "readings")) == sorted(["run_id", "reading_index", *row, "sensor_status"])
        assert columns(path, "events") == "run_id stream record_index sample_index t_utc kind message".split()
        assert columns(path, "gaps") == "run_id stream from_index to_index first_sample end_sample cause".split()
        assert columns(path, "put_aside") == "run_id stream record_index reason frames".split()
        assert columns(path, "runs") == ["run_id", "stream", "header"]
        assert columns(path, "dtolbus_position") == ["run_id", "stream", "next", "backfilled", "updated_at"]

    def test_each_sample_has_its_own_row_time_and_value(self, tmp_path):
        run = make_run(rate_hz=3000.0)
        block = make_block(run, 7, samples=1000, sensor_status={"ai0": [0] * 1000, "ai1": [0] * 999 + [2]})
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(run, 0, [*make_batch(run, 0, 7).records, block]), blocks="samples")
        rows = query(path, "SELECT * FROM samples WHERE block_index = 7 ORDER BY rowid")
        samples = block_to_long_rows(block)
        t_utc = [row[7] for row in rows]
        assert len(set(t_utc)) == 1000
        assert t_utc[1] == "2026-01-01T00:00:02.333666666+00:00", "nine digits where the ns are no whole µs"
        assert [(*row[1:7], row[9], row[10]) for row in rows] == [
            (s.device, s.task, s.channel, s.block_index, s.sample_index, s.t_mono_ns, s.unit, s.sensor_status)
            for s in samples
        ]
        assert [row[8] for row in rows] == [None if s.sensor_status else s.value for s in samples]

    @pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32])
    def test_codes_scaled_inside_sqlite_are_bit_for_bit_those_of_the_block(self, tmp_path, dtype):
        run = make_run()
        limits = np.iinfo(dtype)
        edges = np.array([limits.min, limits.min + 1, 0, limits.max, limits.max - 1], dtype=dtype)
        block = make_block(run, 0, codes=np.tile(edges, (3, 1)))
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(run, 0, [block]), blocks="samples")
        values = np.array(query(path, "SELECT value FROM samples ORDER BY rowid")).reshape(3, 5)
        assert np.array_equal(values.view(np.int64), block.data.view(np.int64))

    def test_values_that_are_not_the_scaled_codes_are_stored_as_they_are(self, tmp_path):
        run = make_run(channels=("tc0",))
        block = float_block(run, 0, [[20.5, 21.5]], raw_codes=np.array([[7, 8]], np.int16), calibration=run.channels)
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(run, 0, [block]), blocks="samples")
        assert query(path, "SELECT value FROM samples") == [(20.5,), (21.5,)]

    def test_times_are_rounded_as_the_block_rounds_them(self, tmp_path):
        run = make_run(channels=("a",))
        codes, clock = np.arange(6, dtype=np.int16)[None], Clock(run.started_utc_ns, 1000.5)
        block = float_block(run, 0, [[0.0] * 6], data=None, raw_codes=codes, clock=clock)
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(run, 0, [block]), blocks="samples")
        offsets = [t - block.t_mono_ns for (t,) in query(path, "SELECT t_mono_ns FROM samples ORDER BY rowid")]
        assert offsets == block.sample_offsets_ns().tolist() == [0, 1000, 2001, 3002, 4002, 5002]

    def test_a_failed_block_keeps_its_error_and_no_value(self, tmp_path):
        run = make_run()
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(run, 0, [error_block(run, 0, samples=2), error_block(run, 1)]), blocks="samples")
        error = "dtolbus.errors.BoardError"
        assert query(path, "SELECT value, error_type FROM samples") == [(None, error)] * 6
        assert query(path, "SELECT block_index, error_type, min FROM blocks") == [(1, error, "[null,null,null]")]

    def test_a_reading_nan_is_null_with_a_status(self, tmp_path):
        run = make_run("readings", channels=("a", "b"))
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(run, 0, [make_reading(run, 0, {"a": float("nan"), "b": 1.0})]))
        assert query(path, "SELECT a, b, sensor_status FROM readings") == [(None, 1.0, '{"a":"nan"}')]

    def test_types_stay_what_they_are(self, tmp_path):
        run = make_run("readings", channels=("a",))
        path = tmp_path / "bus.sqlite"
        values = [1, 1.5, True, "1", -(2**63)]
        commit(path, make_batch(run, 0, [make_reading(run, k, {"a": v}) for k, v in enumerate(values)]))
        given = [value for (value,) in query(path, "SELECT a FROM readings ORDER BY reading_index")]
        assert list(zip(given, map(type, given), strict=True)) == [
            (1, int), (1.5, float), (1, int), ("1", str), (-(2**63), int),
        ]  # fmt: skip

    def test_a_new_channel_becomes_a_column_and_numbered_ones_are_mapped(self, tmp_path):
        run = make_run("readings", channels=("device", "ai0"))
        path = tmp_path / "bus.sqlite"
        late = make_reading(run, 1, {"device": 5.0, 'x"; drop table readings; --': 2.0})
        commit(path, make_batch(run, 0, 1), make_batch(run, 1, [late]))
        mapped = dict(query(path, 'SELECT channel, "column" FROM dtolbus_columns'))
        assert mapped == {"device": "ch_0", "ai0": "ai0", 'x"; drop table readings; --': 'x"; drop table readings; --'}
        assert query(path, 'SELECT device, ch_0, "x""; drop table readings; --" FROM readings') == [
            ("sim0", 20.0, None),
            ("sim0", 5.0, 2.0),
        ]

    def test_the_run_header_and_what_was_put_aside_are_there(self, tmp_path):
        run = make_run("readings", meta={"operator": "Zoë", "sensor": {"serial": 12}})
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(run, 0, 2, put_aside={1: "no room"}))
        ((stream, header),) = query(path, "SELECT stream, header FROM runs")
        assert stream == "sim0/temperature"
        assert json.loads(header)["meta"] == {"operator": "Zoë", "sensor": {"serial": 12}}
        ((reason, frames),) = query(path, "SELECT reason, frames FROM put_aside")
        assert reason == "no room"
        assert frames

    def test_the_database_itself_refuses_doubles(self, tmp_path):
        run = make_run("readings")
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(run, 0, 1))
        with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO readings SELECT * FROM readings")

    def test_rows_that_are_there_already_are_refused_for_good(self, tmp_path):
        run = make_run("readings")
        path = tmp_path / "bus.sqlite"
        commit(path, make_batch(run, 0, 2))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE dtolbus_position SET next = 0")
            connection.commit()
        with pytest.raises(DtolSinkError, match="UNIQUE") as refused:
            commit(path, make_batch(run, 0, 2))
        assert not isinstance(refused.value, DtolSinkWriteError)
        assert query(path, "SELECT count(*) FROM readings") == [(2,)]

    def test_a_database_locked_by_somebody_else_is_tried_again_later(self, tmp_path):
        path = tmp_path / "bus.sqlite"
        batch = make_batch(make_run("readings"), 0, 2)

        async def go():
            destination = SqliteDestination(path)
            await destination.open()
            await destination._thread.run(destination._connection.execute, "PRAGMA busy_timeout=1")
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(DtolSinkWriteError, match="locked"):
                    await destination.commit(batch)
            await destination.commit(batch)
            await destination.close()

        asyncio.run(go())
        assert query(path, "SELECT count(*) FROM readings") == [(2,)]

    def test_it_commits_durably_in_wal(self, tmp_path):
        async def go():
            destination = SqliteDestination(tmp_path / "bus.sqlite")
            await destination.open()
            await destination.commit(make_batch(make_run(), 0, 1))
            assert destination._connection is not None
            pragma = lambda name: destination._connection.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
            found = [await destination._thread.run(pragma, name) for name in ("journal_mode", "synchronous")]
            await destination.close()
            return found

        assert asyncio.run(go()) == ["wal", 2]


class TestWhatIsRefused:
    def refused(self, path):
        before = path.read_bytes()
        with pytest.raises(CannotStartError, match=path.name) as refused:
            commit(path)
        assert path.read_bytes() == before
        assert "\n" not in str(refused.value)

    def test_a_file_of_something_else(self, tmp_path):
        path = tmp_path / "other.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE blocks (height INTEGER)")
            connection.commit()
        self.refused(path)

    def test_a_file_that_is_no_database(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("my notes " * 1000)
        self.refused(path)

    def test_a_newer_format(self, tmp_path):
        path = tmp_path / "bus.sqlite"
        commit(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE dtolbus SET value = '2' WHERE key = 'format_version'")
            connection.commit()
        self.refused(path)

    def test_a_wrong_mode_and_a_place_that_cannot_be_written(self, tmp_path):
        with pytest.raises(UsageError, match="'raw'"):
            SqliteDestination(tmp_path / "x", blocks="raw")
        (tmp_path / "file").write_text("")
        with pytest.raises(CannotStartError):
            commit(tmp_path / "file" / "bus.sqlite")

    def test_a_commit_before_open(self, tmp_path):
        with pytest.raises(DtolSinkError, match="not open"):
            asyncio.run(SqliteDestination(tmp_path / "x").commit(make_batch(make_run(), 0, 1)))

    def test_a_second_process_is_named_the_file(self, tmp_path):
        path = tmp_path / "bus.sqlite"

        async def go():
            destination = SqliteDestination(path)
            await destination.open()
            source = (
                "import asyncio\nfrom dtolbus.errors import CannotStartError\n"
                "from dtolbus_workers.sqlite_destination import SqliteDestination\n"
                f"try: asyncio.run(SqliteDestination({str(path)!r}).open())\n"
                "except CannotStartError as error: print(error.exit_code, error)"
            )
            child = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", source], capture_output=True, text=True, check=True
            )
            await destination.close()
            return child.stdout

        said = asyncio.run(go())
        assert said.startswith("3 ")
        assert str(path) in said


def write(path, *writes, **options):
    """Open a stand-alone sink, write blocks and lists of readings, close it."""

    async def go():
        async with SqliteSink(path, **options) as sink:
            for item in writes:
                await (sink.write_many(item) if isinstance(item, list) else sink.write(item))

    asyncio.run(go())


class TestSqliteSink:
    def test_readings_and_summaries_go_to_their_tables(self, tmp_path):
        path = tmp_path / "own.sqlite"
        readings, block = make_run("readings", channels=("tc0",)), make_block(make_run(), 0)
        write(path, [make_reading(readings, 0), make_reading(readings, 1)], block, table_readings="r", table_blocks="b")
        assert columns(path, "r") == [*reading_to_row(make_reading(readings, 0)), "sensor_status"]
        assert query(path, "SELECT tc0, t_utc FROM r") == [
            (20.0, "2026-01-01T00:00:00.000450+00:00"),
            (20.0 + 1 / 3, "2026-01-01T00:00:00.000783+00:00"),
        ]
        summary = block_summary(block)
        assert columns(path, "b") == list(BLOCK_COLUMNS[1:])
        assert query(path, "SELECT min, t_utc, channels FROM b") == [
            (summary["min"], summary["t_utc"], '["ai0","ai1","ai2"]')
        ]

    def test_a_closed_sink_opens_again_and_a_restart_appends(self, tmp_path):
        run = make_run("readings", channels=("device", "ai0"))

        async def go():
            sink = SqliteSink(tmp_path / "own.sqlite")
            for k in range(2):
                async with sink:
                    await sink.open()
                    await sink.write_many([make_reading(run, k)])
            await sink.close()

        asyncio.run(go())
        write(tmp_path / "own.sqlite", [make_reading(run, 2, {"ai0": 7.0, "device": 8.0})])
        assert query(tmp_path / "own.sqlite", "SELECT ai0, ch_0, device FROM readings") == [
            (21.0, 20.0, "sim0"),
            (21.0 + 1 / 3, 20.0 + 1 / 3, "sim0"),
            (7.0, 8.0, "sim0"),
        ]

    def test_a_first_reading_that_failed_does_not_lock_the_values_out(self, tmp_path):
        run = make_run("readings", channels=("tc0",))
        path = tmp_path / "own.sqlite"
        write(path, [error_reading(run, 0)], [make_reading(run, 1)])
        write(path, [make_reading(run, 2)])
        assert query(path, "SELECT error_type, tc0 FROM readings") == [
            ("builtins.TimeoutError", None),
            (None, 20.0 + 1 / 3),
            (None, 20.0 + 2 / 3),
        ]

    def test_a_later_channel_is_dropped_with_one_warning(self, tmp_path, caplog):
        run = make_run("readings", channels=("tc0",))
        path = tmp_path / "own.sqlite"
        with caplog.at_level(logging.WARNING):
            later = [make_reading(run, k, {"tc0": 1.0, "new": 2.0}) for k in (1, 2)]
            write(path, [make_reading(run, 0)], later, later)
        assert sorted(r.column for r in caplog.records) == ["new", "new_unit"]
        assert query(path, "SELECT count(*), count(tc0) FROM readings") == [(5, 5)]
        assert "new" not in columns(path, "readings")

    def test_odd_names_break_nothing(self, tmp_path):
        run = make_run("readings", channels=ODD_NAMES)
        path = tmp_path / "own.sqlite"
        write(path, [make_reading(run, 0)])
        write(path, [make_reading(run, 1)])
        mapped = dict(query(path, "SELECT channel, column_name FROM readings_columns"))
        for place, name in enumerate(ODD_NAMES):
            column = mapped.get(name, name).replace('"', '""')
            assert query(path, f'SELECT "{column}" FROM readings') == [(20.0 + place,), (20.0 + 1 / 3 + place,)]
        assert query(path, "SELECT DISTINCT device, t_mono_ns > 0 FROM readings") == [("sim0", 1)]

    def test_an_int_beyond_64_bits_is_refused_whole(self, tmp_path):
        run = make_run("readings")
        path = tmp_path / "own.sqlite"
        with pytest.raises(DtolSinkSchemaError, match=f"ai1.*{2**64}"):
            write(path, [make_reading(run, 0)], [make_reading(run, 1), make_reading(run, 2, {"ai1": 2**64})])
        assert query(path, "SELECT count(*) FROM readings") == [(1,)]

    def test_nan_is_null_with_a_status_and_infinity_stays(self, tmp_path):
        run = make_run("readings", channels=("a", "b"))
        path = tmp_path / "own.sqlite"
        write(path, [make_reading(run, 0, {"a": float("nan"), "b": float("-inf")})])
        assert query(path, "SELECT a, b, sensor_status FROM readings") == [(None, float("-inf"), '{"a":"nan"}')]

    def test_a_block_of_floats_with_nan_is_summed_up_over_the_others(self, tmp_path):
        run = make_run(channels=("a",))
        path = tmp_path / "own.sqlite"
        write(path, float_block(run, 0, [[1.0, float("nan"), 3.0]]))
        assert query(path, "SELECT min, max, mean FROM blocks") == [("[1.0]", "[3.0]", "[2.0]")]

    def test_writing_before_open(self, tmp_path):
        sink = SqliteSink(tmp_path / "own.sqlite")
        with pytest.raises(RuntimeError, match="write called before open"):
            asyncio.run(sink.write(make_block(make_run(), 0)))
        with pytest.raises(RuntimeError, match="write_many called before open"):
            asyncio.run(sink.write_many([]))

    @pytest.mark.parametrize(
        "options",
        [
            {"table_readings": "a b"},
            {"table_blocks": 'x"; drop table y'},
            {"table_blocks": "Readings"},
            {"busy_timeout_ms": -1},
            {"journal_mode": "wild"},
            {"synchronous": "1; drop table y"},
        ],
    )
    def test_wrong_arguments(self, tmp_path, options):
        with pytest.raises(ValueError, match=next(iter(options)).split("_", maxsplit=1)[0]):
            SqliteSink(tmp_path / "own.sqlite", **options)

    def test_a_table_or_a_file_of_somebody_else_is_refused_untouched(self, tmp_path):
        path = tmp_path / "other.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE readings (title TEXT)")
            connection.commit()
        with pytest.raises(CannotStartError, match="'readings' is not this sink's"):
            write(path)
        assert columns(path, "readings") == ["title"]
        (tmp_path / "text").write_text("no database " * 500)
        with pytest.raises(CannotStartError, match="text"):
            write(tmp_path / "text")
        commit(tmp_path / "bus.sqlite")
        with pytest.raises(CannotStartError, match="worker"):
            write(tmp_path / "bus.sqlite")

    def test_what_was_written_survives_a_kill(self, tmp_path):
        path = tmp_path / "own.sqlite"
        source = (
            "import asyncio, os\nfrom dtolbus_workers.specimens import *\n"
            "from dtolbus_workers.sqlite import SqliteSink\n"
            "async def go():\n"
            f"    sink = SqliteSink({str(path)!r}); await sink.open(); run = make_run('readings')\n"
            "    for k in range(63): await sink.write_many([make_reading(run, k)])\n"
            "    os.kill(os.getpid(), 9)\n"
            "asyncio.run(go())"
        )
        assert subprocess.run([sys.executable, "-c", source], check=False).returncode != 0
        assert query(path, "SELECT count(*) FROM readings") == [(63,)]
