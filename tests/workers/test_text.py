"""CSV and JSONL: the bus's folders and the stand-alone sinks."""

import asyncio
import csv
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.committing import commit

from dtolbus.errors import (
    CannotStartError,
    DtolSinkError,
    DtolSinkSchemaError,
    DtolSinkWriteError,
    UsageError,
)
from dtolbus.records import RunInfo
from dtolbus.rows import block_to_long_rows, reading_to_row
from dtolbus_workers import text_file
from dtolbus_workers.columns import BLOCK_COLUMNS, SAMPLE_COLUMNS
from dtolbus_workers.destination import RecordRefusedError, Stored
from dtolbus_workers.specimens import (
    ODD_FLOATS,
    ODD_NAMES,
    error_block,
    error_reading,
    float_block,
    make_batch,
    make_block,
    make_event,
    make_reading,
    make_run,
)
from dtolbus_workers.testing import SinkConformance, fill, small_disk
from dtolbus_workers.text import CsvSink, JsonlSink
from dtolbus_workers.text_destination import CsvDestination, JsonlDestination
from dtolbus_workers.text_format import CsvFormat, JsonlFormat


class TestCsvSamples(SinkConformance):
    keeps_big_ints = True
    mode = "samples"
    destination: Any = CsvDestination

    def make(self, place: Path) -> CsvDestination:
        return self.destination(place / "text", blocks=self.mode)

    async def stored(self, place: Path, run: RunInfo) -> Stored | None:
        return self.destination.stored(str(place / "text"), {}, run)

    def construct(self, place: Path) -> str:
        return (
            f"from dtolbus_workers.text_destination import {self.destination.__name__} as D\n"
            f"destination = D({str(place / 'text')!r}, blocks={self.mode!r})"
        )


class TestCsvReadings(TestCsvSamples):
    test_killed_at_each_step_of_a_commit = None  # a commit's steps do not depend on what the rows hold
    kinds = ("readings",)
    mode = "skip"


class TestJsonlReadings(TestCsvReadings):
    destination = JsonlDestination
    test_killed_at_each_step_of_a_commit = SinkConformance.test_killed_at_each_step_of_a_commit


class TestJsonlSummaries(TestCsvSamples):
    destination = JsonlDestination
    mode = "summary"
    gives_samples = False
    test_killed_at_each_step_of_a_commit = None  # a commit's steps do not depend on what the rows hold


class TestJsonlSamples(TestCsvSamples):
    destination = JsonlDestination
    test_killed_at_each_step_of_a_commit = None  # a commit's steps do not depend on what the rows hold


BOTH = pytest.mark.parametrize(
    ("kind", "destination"), [("csv", CsvDestination), ("jsonl", JsonlDestination)], ids=["csv", "jsonl"]
)


def strict(line):
    """Return a line of JSON; NaN and Infinity are errors."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def csv_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestBusFolder:
    def test_a_run_is_one_csv_file_under_quoted_names(self, tmp_path):
        run = make_run("readings", device="dé/v", task="..", channels=("tc0", "t_utc"))
        commit(CsvDestination(tmp_path / "csv"), make_batch(run, 0, 2))
        path = tmp_path / "csv" / "d%C3%A9%2Fv" / "%2E%2E" / f"{run.run_id}.csv"
        rows = csv_rows(path)
        assert list(rows[0])[:3] == ["run_id", "reading_index", "device"]
        assert [(r["reading_index"], r["tc0"], r["ch_1"], r["t_utc"]) for r in rows] == [
            ("0", "20.0", "21.0", "2026-01-01T00:00:00.000450+00:00"),
            ("1", repr(20 + 1 / 3), repr(21 + 1 / 3), "2026-01-01T00:00:00.000783+00:00"),
        ]
        sidecar = json.loads((path.parent / f"{run.run_id}.position.json").read_text())
        assert sidecar["next"] == 2
        assert sidecar["columns"] == {"tc0": "tc0", "t_utc": "ch_1"}
        assert sidecar["files"] == {path.name: path.stat().st_size}
        assert sidecar["run"]["meta"] == {"operator": "Zoë"}

    def test_a_new_channel_begins_a_new_csv_file_and_changes_no_old_row(self, tmp_path):
        run = make_run("readings", channels=("tc0",))
        batches = [make_batch(run, 0, 1), make_batch(run, 1, [make_reading(run, 1, {"tc0": 1.0, "new": 2.0})])]
        commit(CsvDestination(tmp_path), *batches, make_batch(run, 2, 1))
        first, second = (tmp_path / "sim0/temperature" / f"{run.run_id}{n}.csv" for n in ("", ".2"))
        assert [row["reading_index"] for row in csv_rows(first)] == ["0"]
        assert [(row["tc0"], row["new"]) for row in csv_rows(second)] == [("1.0", "2.0"), (repr(20 + 2 / 3), "")]

    def test_jsonl_is_strict_json_with_nan_as_null_and_a_status(self, tmp_path):
        run = make_run("readings", channels=("a", "b", "c"))
        odd = make_reading(run, 0, {"a": float("nan"), "b": float("inf"), "c": 2**70})
        commit(JsonlDestination(tmp_path), make_batch(run, 0, [odd, error_reading(run, 1)]))
        lines = (tmp_path / f"sim0/temperature/{run.run_id}.jsonl").read_text().splitlines()
        first, second = map(strict, lines)
        assert (first["a"], first["b"], first["c"]) == (None, None, 2**70)
        assert strict(first["sensor_status"]) == {"a": "nan", "b": "inf"}
        assert (second["error_type"], second["error_message"]) == ("builtins.TimeoutError", "no answer in 1 s")

    def test_gaps_events_and_records_put_aside_lie_beside(self, tmp_path):
        run = make_run("readings")
        batch = make_batch(run, 0, [*make_batch(run, 0, 2).records, make_event(run, 2)], put_aside={1: "why\nnot"})
        commit(CsvDestination(tmp_path), batch)
        place = tmp_path / "sim0" / "temperature"
        event = strict((place / f"{run.run_id}.events.jsonl").read_text())
        assert (event["stream"], event["record_index"], event["kind"]) == ("sim0/temperature", 2, "overrun")
        aside = strict((place / f"{run.run_id}.put-aside.jsonl").read_text())
        assert (aside["record_index"], aside["reason"]) == (1, "why\nnot")
        assert aside["frames"]

    def test_every_sample_has_its_own_time_in_csv_and_jsonl(self, tmp_path):
        run = make_run(rate_hz=3000.0)
        block = make_block(run, 0, samples=500, sensor_status={"ai1": [0] * 499 + [4]})
        commit(CsvDestination(tmp_path / "c", blocks="samples"), make_batch(run, 0, [block]))
        commit(JsonlDestination(tmp_path / "j", blocks="samples"), make_batch(run, 0, [block]))
        rows = csv_rows(tmp_path / f"c/sim0/vibration/{run.run_id}.csv")
        lines = [strict(x) for x in (tmp_path / f"j/sim0/vibration/{run.run_id}.jsonl").read_text().splitlines()]
        assert tuple(rows[0]) == tuple(lines[0]) == SAMPLE_COLUMNS
        for row, line, sample in zip(rows, lines, block_to_long_rows(block), strict=True):
            assert (line["channel"], line["sample_index"], line["t_mono_ns"]) == (
                row["channel"],
                *map(int, (row["sample_index"], row["t_mono_ns"])),
            )
            assert (line["channel"], line["sample_index"], line["t_mono_ns"]) == (
                sample.channel,
                sample.sample_index,
                sample.t_mono_ns,
            )
            assert (line["value"], row["value"]) == (
                (None, "nan") if sample.sensor_status else (sample.value, repr(sample.value))
            )
            assert line["sensor_status"] == sample.sensor_status
        assert len({row["t_utc"] for row in rows}) == 500
        assert rows[1]["t_utc"] == "2026-01-01T00:00:00.000333333+00:00"

    def test_a_failed_block_keeps_its_error(self, tmp_path):
        run = make_run()
        batch = make_batch(run, 0, [error_block(run, 0, samples=2), error_block(run, 1)])
        commit(CsvDestination(tmp_path, blocks="samples"), batch)
        rows = csv_rows(tmp_path / f"sim0/vibration/{run.run_id}.csv")
        assert {(row["value"], row["error_type"]) for row in rows} == {("nan", "dtolbus.errors.BoardError")}
        empty = strict((tmp_path / f"sim0/vibration/{run.run_id}.blocks.jsonl").read_text())
        assert (empty["block_index"], empty["error_message"]) == (1, "A/D FIFO over\nrun, «schnell»")

    def test_summaries_are_rows_of_the_blocks_table(self, tmp_path):
        run = make_run()
        commit(CsvDestination(tmp_path, blocks="summary"), make_batch(run, 0, 2))
        rows = csv_rows(tmp_path / f"sim0/vibration/{run.run_id}.csv")
        assert tuple(rows[0]) == BLOCK_COLUMNS
        assert json.loads(rows[1]["channels"]) == list(run.channel_names)

    @BOTH
    def test_blocks_are_a_usage_error_unless_asked_for(self, tmp_path, kind, destination):
        run = make_run()
        with pytest.raises(UsageError, match=f"{kind} sink stores readings.*--blocks"):
            commit(destination(tmp_path), make_batch(run, 0, 1))
        with pytest.raises(UsageError, match="'all'"):
            destination(tmp_path, blocks="all")

    @BOTH
    def test_text_that_is_no_unicode_is_put_aside(self, tmp_path, kind, destination):
        run = make_run("readings")
        with pytest.raises(RecordRefusedError, match="ai0") as refused:
            commit(destination(tmp_path), make_batch(run, 0, [make_reading(run, 0, {"ai0": "\udcff"})]))
        assert refused.value.index == 0

    @BOTH
    def test_a_folder_of_something_else_is_refused_untouched(self, tmp_path, kind, destination):
        (tmp_path / "holiday.jpg").write_bytes(b"\xff")
        with pytest.raises(CannotStartError, match=r"'holiday\.jpg'"):
            commit(destination(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
        with pytest.raises(CannotStartError, match="is a file"):
            commit(destination(tmp_path / "holiday.jpg"))

    def test_a_folder_of_the_other_format_is_refused(self, tmp_path):
        commit(CsvDestination(tmp_path))
        with pytest.raises(CannotStartError, match="holds csv"):
            commit(JsonlDestination(tmp_path))

    @BOTH
    def test_a_torn_tail_is_cut_off_and_other_peoples_files_are_left(self, tmp_path, kind, destination):
        run = make_run("readings")
        commit(destination(tmp_path), make_batch(run, 0, 2))
        place = tmp_path / "sim0" / "temperature"
        data = place / f"{run.run_id}.{kind}"
        whole = data.read_bytes()
        data.write_bytes(whole + b'019b0000,"torn')
        (place / f"{run.run_id}.gaps.jsonl").write_bytes(b'{"from_index"')
        (place / "notes.txt").write_text("mine")
        commit(destination(tmp_path))
        assert data.read_bytes() == whole
        assert sorted(path.name for path in place.iterdir()) == sorted(
            [data.name, f"{run.run_id}.position.json", "notes.txt"]
        )

    @BOTH
    def test_rows_that_were_removed_are_noticed(self, tmp_path, kind, destination):
        run = make_run("readings")
        commit(destination(tmp_path), make_batch(run, 0, 2))
        data = tmp_path / "sim0" / "temperature" / f"{run.run_id}.{kind}"
        data.write_bytes(data.read_bytes()[:-5])
        with pytest.raises(CannotStartError, match="rows were removed"):
            commit(destination(tmp_path))

    def test_writing_happens_off_the_event_loop(self, tmp_path, monkeypatch):
        threads = []
        append = text_file.append_at
        monkeypatch.setattr(
            text_file, "append_at", lambda *args: (threads.append(threading.current_thread()), append(*args))[1]
        )
        commit(CsvDestination(tmp_path), make_batch(make_run("readings"), 0, 2))
        assert threads
        assert threading.main_thread() not in threads


def write(sink, *writes):
    """Open a stand-alone sink, write blocks and lists of readings, close it."""

    async def go():
        async with sink:
            for item in writes:
                await (sink.write_many(item) if isinstance(item, list) else sink.write(item))

    asyncio.run(go())


SINKS = pytest.mark.parametrize("sink", [CsvSink, JsonlSink])


class TestStandAlone:
    def test_csv_rows_are_those_of_reading_to_row(self, tmp_path):
        run = make_run("readings", channels=("tc0",))
        readings = [make_reading(run, k) for k in range(3)]
        write(CsvSink(tmp_path / "r.csv"), readings[:2], readings[2:])
        rows = csv_rows(tmp_path / "r.csv")
        expected = [reading_to_row(reading) | {"sensor_status": None} for reading in readings]
        assert rows == [{k: "" if v is None else str(v) for k, v in row.items()} for row in expected]
        assert list(rows[0]) == list(expected[0])

    def test_jsonl_rows_are_those_of_reading_to_row(self, tmp_path):
        run = make_run("readings", channels=("tc0",))
        readings = [make_reading(run, 0), make_reading(run, 1, {"tc0": 7, "late": True}), error_reading(run, 2)]
        write(JsonlSink(tmp_path / "r.jsonl"), readings)
        rows = [strict(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
        assert rows == [reading_to_row(reading) | {"sensor_status": None} for reading in readings]

    @SINKS
    def test_blocks_are_refused_with_what_to_do(self, tmp_path, sink):
        with pytest.raises(DtolSinkError, match="accept_blocks=True"):
            write(sink(tmp_path / "r"), make_block(make_run(), 0))

    @SINKS
    def test_writing_before_open_and_after_close(self, tmp_path, sink):
        run = make_run("readings")
        one = sink(tmp_path / "r", accept_blocks=True)
        for call in (one.write_many([make_reading(run, 0)]), one.write(make_block(make_run(), 0))):
            with pytest.raises(DtolSinkError, match="called before open"):
                asyncio.run(call)
        write(one)
        with pytest.raises(DtolSinkError, match="called before open"):
            asyncio.run(one.write_many([]))

    @SINKS
    def test_samples_have_their_own_times_and_the_error(self, tmp_path, sink):
        run = make_run()
        block = make_block(run, 0)
        write(sink(tmp_path / "r", accept_blocks=True), block, error_block(run, 1, samples=1))
        if sink is CsvSink:
            rows = csv_rows(tmp_path / "r")
        else:
            rows = [strict(line) for line in (tmp_path / "r").read_text().splitlines()]
        assert len({row["t_utc"] for row in rows[:30]}) == 10
        assert [float(row["value"]) for row in rows[:30]] == block.data.ravel().tolist()
        assert rows[-1]["value"] in ("nan", None)
        assert rows[-1]["error_type"] == "dtolbus.errors.BoardError"

    @SINKS
    def test_a_closed_sink_opens_again_and_a_restart_continues(self, tmp_path, sink):
        run = make_run("readings", channels=("device", "ai0", "new\nline"))
        one = sink(tmp_path / "r")
        write(one, [make_reading(run, 0)])
        write(one, [make_reading(run, 1)])
        write(sink(tmp_path / "r"), [make_reading(run, 2)])
        once = sink(tmp_path / "once")
        write(once, [make_reading(run, k) for k in range(3)])
        assert (tmp_path / "r").read_bytes() == (tmp_path / "once").read_bytes()

    @SINKS
    def test_an_existing_file_is_refused_untouched_unless_overwritten(self, tmp_path, sink):
        path = tmp_path / "r"
        for foreign in (b"my notes\n", b"a,b\n1,2\n", b'{"a": 1}\n', b"\xff\xfe\x00", b"[1]\n", b"no line end"):
            path.write_bytes(foreign)
            with pytest.raises(CannotStartError, match="overwrite=True"):
                write(sink(path))
            assert path.read_bytes() == foreign
        run = make_run("readings")
        one = sink(path, overwrite=True)
        write(one, [make_reading(run, 0)])
        size = path.stat().st_size
        write(one, [make_reading(run, 1)])
        assert path.stat().st_size > size, "opened again, it goes on"

    @SINKS
    def test_a_torn_last_row_is_cut_off(self, tmp_path, sink):
        run = make_run("readings")
        write(sink(tmp_path / "whole"), [make_reading(run, 0), make_reading(run, 1)])
        whole = (tmp_path / "whole").read_bytes()
        for length in range(5, len(whole), 7):
            (tmp_path / "r").write_bytes(whole[:length])
            write(sink(tmp_path / "r"))
            kept = (tmp_path / "r").read_bytes()
            assert whole.startswith(kept)
            assert len(kept) <= length
            assert not kept or kept.endswith(b"\n")

    @SINKS
    def test_what_was_written_survives_a_kill(self, tmp_path, sink):
        source = (
            "import asyncio, os\nfrom dtolbus_workers.specimens import *\nfrom dtolbus_workers.text import *\n"
            "async def go():\n"
            f"    sink = {sink.__name__}({str(tmp_path / 'r')!r}); await sink.open(); run = make_run('readings')\n"
            "    for k in range(20): await sink.write_many([make_reading(run, k)])\n"
            "    os.kill(os.getpid(), 9)\n"
            "asyncio.run(go())"
        )
        assert subprocess.run([sys.executable, "-c", source], check=False).returncode != 0
        assert (tmp_path / "r").read_bytes().count(b"\n") == 20 + (sink is CsvSink)

    @SINKS
    def test_a_full_disk_tears_no_row(self, tmp_path, sink):
        run = make_run("readings")

        async def go(disk):
            path = disk / "r"
            async with sink(path) as one:
                await one.write_many([make_reading(run, 0)])
                before = path.read_bytes()
                fill(disk / "filler")
                many = [make_reading(run, k) for k in range(200)]
                with pytest.raises(DtolSinkWriteError, match="nothing of this write"):
                    await one.write_many(many)
                assert path.read_bytes() == before
                (disk / "filler").unlink()
                await one.write_many(many)
            assert path.read_bytes().count(b"\n") == 201 + (sink is CsvSink)

        with small_disk(tmp_path / "disk") as disk:
            asyncio.run(go(disk))

    @SINKS
    def test_a_value_that_is_no_scalar_is_refused_whole(self, tmp_path, sink):
        run = make_run("readings")
        readings = [make_reading(run, 0), make_reading(run, 1, {"ai0": [1, 2]})]
        with pytest.raises(DtolSinkSchemaError, match=r"'ai0'.*list"):
            write(sink(tmp_path / "r"), readings)
        assert (tmp_path / "r").read_bytes() == b""

    def test_a_first_reading_that_failed_does_not_lock_the_values_out(self, tmp_path):
        run = make_run("readings", channels=("tc0",))
        path = tmp_path / "r.csv"
        write(CsvSink(path), [error_reading(run, 0)], [error_reading(run, 1)])
        assert len(csv_rows(path)) == 2
        write(CsvSink(path), [make_reading(run, 2)], [error_reading(run, 3)])
        rows = csv_rows(path)
        assert [row["error_type"] for row in rows] == ["builtins.TimeoutError"] * 2 + ["", "builtins.TimeoutError"]
        assert [row["tc0"] for row in rows] == ["", "", repr(20 + 2 / 3), ""]
        assert [row["t_mono_ns"] for row in rows] == sorted(row["t_mono_ns"] for row in rows)

    def test_a_channel_called_like_a_samples_column_is_continued_too(self, tmp_path):
        run = make_run("readings", channels=("value",))
        write(CsvSink(tmp_path / "r.csv"), [make_reading(run, 0, {"value": 1.0}, units={})])
        write(CsvSink(tmp_path / "r.csv"), [error_reading(run, 1)], [make_reading(run, 2, {"value": 3}, units={})])
        assert [row["value"] for row in csv_rows(tmp_path / "r.csv")] == ["1.0", "", "3"]

    def test_a_later_channel_is_dropped_from_csv_with_one_warning(self, tmp_path, caplog):
        run = make_run("readings", channels=("tc0",))
        later = [make_reading(run, k, {"new": 2.0, "tc0": 1.0}) for k in (1, 2)]
        with caplog.at_level(logging.WARNING):
            write(CsvSink(tmp_path / "r.csv"), [make_reading(run, 0)], later, later)
        assert sorted(record.column for record in caplog.records) == ["new", "new_unit"]
        assert [row["tc0"] for row in csv_rows(tmp_path / "r.csv")] == ["20.0", "1.0", "1.0", "1.0", "1.0"]

    def test_readings_and_samples_do_not_share_a_csv_file(self, tmp_path):
        readings = [make_reading(make_run("readings"), 0)]
        with pytest.raises(DtolSinkSchemaError, match="file of their own"):
            write(CsvSink(tmp_path / "r.csv", accept_blocks=True), readings, make_block(make_run(), 0))
        with pytest.raises(DtolSinkSchemaError, match="file of their own"):
            write(CsvSink(tmp_path / "b.csv", accept_blocks=True), make_block(make_run(), 0), readings)
        with pytest.raises(DtolSinkSchemaError, match="file of their own"):
            write(CsvSink(tmp_path / "b.csv"), readings)

    @SINKS
    def test_odd_names_overwrite_nothing(self, tmp_path, sink):
        run = make_run("readings", channels=ODD_NAMES)
        write(sink(tmp_path / "r"), [make_reading(run, 0)])
        rows = csv_rows(tmp_path / "r") if sink is CsvSink else [strict((tmp_path / "r").read_text())]
        assert len(rows) == 1
        assert (rows[0]["device"], int(rows[0]["t_mono_ns"])) == ("sim0", run.started_mono_ns)
        values = [
            float(v)
            for k, v in rows[0].items()
            if v not in ("", None) and k in {*ODD_NAMES, *(f"ch_{n}" for n in range(20))} - {"device", "t_mono_ns"}
        ]
        assert sorted(values) == [20.0 + place for place in range(len(ODD_NAMES))]


def test_an_append_begins_where_the_whole_rows_end(tmp_path):
    path = tmp_path / "rows"
    assert text_file.append_at(path, 0, b"one\n") == 4
    path.write_bytes(b"one\ntorn")
    assert text_file.append_at(path, 4, b"two\n") == 8
    assert path.read_bytes() == b"one\ntwo\n"
    assert list(text_file.lines(path, 6)) == [b"one\n", b"tw"]


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(exclude_categories=["Cs"]))
)


@given(st.lists(st.tuples(scalars, scalars, scalars), min_size=1, max_size=5))
def test_csv_gives_every_value_back_with_its_type(rows):
    text = CsvFormat()
    columns = ("a", 'b "x", y', "c\nd")
    data = text.header(columns) + b"".join(text.row(dict(zip(columns, row, strict=True))) for row in rows)
    lines = [line + b"\n" for line in data.split(b"\n")[:-1]]
    back = [tuple(row.values()) for row in text.parse(lines)]
    assert repr(back) == repr(rows)


@given(st.lists(st.tuples(scalars, scalars), min_size=1, max_size=5))
def test_jsonl_gives_every_value_back_but_those_json_lacks(rows):
    text = JsonlFormat()
    data = b"".join(text.row({"a": a, "b": b}) for a, b in rows)
    lines = [line + b"\n" for line in data.split(b"\n")[:-1]]
    level = lambda v: None if isinstance(v, float) and not np.isfinite(v) else v  # noqa: E731
    assert repr([tuple(row.values()) for row in text.parse(lines)]) == repr([(level(a), level(b)) for a, b in rows])


@pytest.mark.parametrize("text", [CsvFormat(), JsonlFormat()], ids=["csv", "jsonl"])
def test_a_block_by_column_is_what_its_rows_are(text):
    run = make_run(channels=("a", "b,\n"))
    status = {"a": np.array([0, 3, 0, 1])}
    block = float_block(run, 1, [ODD_FLOATS[:4], (0.0, 1.5, -2.0, 1e-7)], sensor_status=status)
    rendered = text.block_rows(block)
    lines = [line + b"\n" for line in rendered.split(b"\n")[:-1]]
    rows = list(text.parse([text.header(SAMPLE_COLUMNS), *lines] if text.fixed_columns else lines))
    for row, sample in zip(rows, block_to_long_rows(block), strict=True):
        assert tuple(row) == SAMPLE_COLUMNS
        assert (row["channel"], row["sample_index"], row["t_mono_ns"]) == (
            sample.channel,
            sample.sample_index,
            sample.t_mono_ns,
        )
        assert row["t_utc"] == sample.t_utc.isoformat()
        if text.keeps_nonfinite or np.isfinite(sample.value):
            assert repr(row["value"]) == repr(sample.value)
            assert row["sensor_status"] == sample.sensor_status
        else:
            assert row["value"] is None
            assert row["sensor_status"] == (sample.sensor_status or repr(sample.value))
