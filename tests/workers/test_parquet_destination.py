"""The bus's Parquet folder: the suite of all destinations, and what its readers see."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tests.workers import committing

from dtolbus import files, topics
from dtolbus.errors import CannotStartError, DtolSinkWriteError
from dtolbus.records import DaqBlock, DaqReading, RunInfo
from dtolbus_workers import parquet_content, parquet_parts
from dtolbus_workers.columns import SAMPLE_COLUMNS
from dtolbus_workers.comparing import as_float32
from dtolbus_workers.destination import Position, RecordRefusedError, RunBatch, Stored
from dtolbus_workers.parquet_destination import ParquetDestination, stored
from dtolbus_workers.specimens import error_block, error_reading, make_batch, make_block, make_reading, make_run
from dtolbus_workers.testing import SinkConformance


class TestParquetDestination(SinkConformance):
    keeps_ints = False
    form: ClassVar[dict[str, Any]] = {}

    def make(self, place: Path) -> ParquetDestination:
        return ParquetDestination(place / "parquet", **self.form)

    def check_blocks(self, stored: Stored, expected: Sequence[DaqBlock]) -> None:
        """Rounded to float32 where that is what is asked for."""
        if self.form.get("values") == "float32":
            expected = [replace(block, data=as_float32(block.data)) for block in expected]
        super().check_blocks(stored, expected)

    async def stored(self, place: Path, run: RunInfo) -> Stored | None:
        return stored(place / "parquet", run)

    def construct(self, place: Path) -> str:
        return (
            "from dtolbus_workers.parquet_destination import ParquetDestination\n"
            f"destination = ParquetDestination({str(place / 'parquet')!r}, **{self.form!r})"
        )


class TestWide(TestParquetDestination):
    form: ClassVar[dict[str, Any]] = {"layout": "wide"}


class TestWideCodes(TestParquetDestination):
    form: ClassVar[dict[str, Any]] = {"layout": "wide", "values": "codes"}


class TestWideFloat32(TestParquetDestination):
    form: ClassVar[dict[str, Any]] = {"layout": "wide", "values": "float32"}


class TestLongFloat32(TestParquetDestination):
    form: ClassVar[dict[str, Any]] = {"values": "float32"}


def commit(folder: Path, *batches: RunBatch) -> None:
    committing.commit(ParquetDestination(folder), *batches)


def part(folder: Path, run: RunInfo, start: int) -> Path:
    return folder / topics.quote(run.device) / topics.quote(run.task) / run.run_id / f"part-{start:012d}.parquet"


def test_samples_have_the_columns_types_and_instants_of_the_design(tmp_path: Path) -> None:
    run = make_run()
    block = make_block(run, 0, sensor_status={"ai1": [0, 0, 3, 0, 0, 0, 1, 0, 0, 0]})
    commit(tmp_path, make_batch(run, 0, [block, error_block(run, 1, samples=2)]))
    table = pq.read_table(part(tmp_path, run, 0), partitioning=None)
    assert tuple(table.column_names) == SAMPLE_COLUMNS
    assert table.schema.field("t_utc").type == pa.timestamp("ns", "UTC")
    assert table.schema.field("value").type == pa.float64()
    good = table.slice(0, 30).drop_columns("t_utc").to_pydict()
    assert good["channel"] == [name for name in ("ai0", "ai1", "ai2") for _ in range(10)]
    offsets = [round(k * 1e9 / 3000.0) for k in range(10)]
    assert (
        table.slice(0, 30).column("t_utc").cast(pa.int64()).to_pylist() == [run.started_utc_ns + k for k in offsets] * 3
    )
    assert good["t_mono_ns"] == [run.started_mono_ns + k for k in offsets] * 3
    assert good["sample_index"] == [*range(10)] * 3
    assert good["sensor_status"] == [None] * 10 + [0, 0, 3, 0, 0, 0, 1, 0, 0, 0] + [None] * 10
    np.testing.assert_array_equal(np.array(good["value"]).reshape(3, 10), block.data)
    failed = table.slice(30).drop_columns("t_utc").to_pydict()
    assert all(np.isnan(failed["value"]))
    assert set(failed["error_type"]) == {"dtolbus.errors.BoardError"}


def test_readings_have_the_same_columns_whatever_the_first_reading_is(tmp_path: Path) -> None:
    run = make_run("readings", channels=("ai0", "device"))
    commit(
        tmp_path,
        make_batch(run, 0, [error_reading(run, 0)]),
        make_batch(run, 1, [make_reading(run, 1, {"ai0": 1, "device": True}, sensor_status={"ai0": 2})]),
        make_batch(run, 2, [make_reading(run, 2, {"ai0": 1.5, "device": 0.25})]),
    )
    table = ds.dataset(run_parts(tmp_path, run), format="parquet").to_table()
    assert table.column_names == [
        *("run_id", "reading_index", "device", "task", "t_mono_ns", "t_utc", "t_midpoint_mono_ns", "requested_at"),
        *("received_at", "latency_s", "ai0", "ch_1", "ai0_unit", "ch_1_unit", "error_type", "error_message"),
        "sensor_status",
    ]
    rows = table.to_pydict()
    assert rows["ai0"] == [None, 1.0, 1.5]
    assert rows["ch_1"] == [None, 1.0, 0.25]
    assert rows["device"] == ["sim0"] * 3
    assert rows["error_message"] == ["no answer in 1 s", None, None]
    assert rows["sensor_status"] == [None, '{"ai0":2}', None]


def run_parts(folder: Path, run: RunInfo) -> str:
    return str(part(folder, run, 0).parent)


def test_texts_and_large_ints_are_kept_beside_the_numbers(tmp_path: Path) -> None:
    run = make_run("readings")
    values = [{"ai0": "1.5"}, {"ai0": 2**60 + 1}, {"ai0": 1.5}, {"ai0": -(2**63)}]
    batch = make_batch(run, 0, [make_reading(run, index, row) for index, row in enumerate(values)])
    commit(tmp_path, batch)
    back = stored(tmp_path, run)
    assert back is not None
    assert [reading.values["ai0"] for reading in back.readings] == ["1.5", 2**60 + 1, 1.5, -(2**63)]
    assert pq.read_schema(part(tmp_path, run, 0)).field("ai0").type == pa.float64()


def test_duckdb_and_pyarrow_read_the_whole_folder(tmp_path: Path) -> None:
    blocks, readings = make_run(number=1), make_run("readings", number=2, channels=("ai0", "task"))
    empty = make_batch(blocks, 2, [error_block(blocks, 2)])
    commit(
        tmp_path,
        make_batch(blocks, 0, 2),
        make_batch(readings, 0, 3),
        empty,
        make_batch(readings, 3, [make_reading(readings, 3, {"new": 4.0})]),
    )
    query = f"SELECT task, count(*), count(value), count(ai0), count(new) FROM read_parquet('{tmp_path}/**/*.parquet', union_by_name=true) GROUP BY task ORDER BY task"  # noqa: E501  # the README's query
    with duckdb.connect() as database:
        assert database.execute(query).fetchall() == [("temperature", 4, 0, 3, 1), ("vibration", 60, 60, 0, 0)]
    assert ds.dataset(str(tmp_path), format="parquet").count_rows() == 64
    assert pq.read_table(str(tmp_path), partitioning=None).num_rows == 64
    found = ds.dataset(str(tmp_path / "sim0" / "vibration"), format="parquet").to_table()
    assert found.num_rows == 60
    assert found.column("run_id").unique().to_pylist() == [blocks.run_id]


def test_an_unfinished_file_goes_and_a_missing_part_is_told(tmp_path: Path) -> None:
    run = make_run()
    commit(tmp_path, make_batch(run, 0, 2), make_batch(run, 2, 2), make_batch(run, 4, 1))
    temp = part(tmp_path, run, 5).with_name(".part-000000000005.parquet.tmp")
    temp.write_bytes(b"PAR1")
    commit(tmp_path)
    assert not temp.exists()
    part(tmp_path, run, 2).rename(tmp_path / ".away")
    with pytest.raises(CannotStartError, match=r"part-000000000004.parquet begins at record 4.*end at 2"):
        commit(tmp_path)
    (tmp_path / ".away").rename(part(tmp_path, run, 2))
    part(tmp_path, run, 4).write_bytes(b"PAR1PAR1")
    with pytest.raises(CannotStartError, match="cannot be read"):
        commit(tmp_path)


def test_a_missing_first_part_is_told_and_of_a_missing_last_one_it_goes_on_before_it(tmp_path: Path) -> None:
    run = make_run()
    commit(tmp_path, make_batch(run, 0, 2), make_batch(run, 2, 2), make_batch(run, 4, 1))
    part(tmp_path, run, 0).rename(tmp_path / ".away")
    with pytest.raises(CannotStartError, match=r"part-000000000002.parquet begins at record 2.*end at 0"):
        commit(tmp_path)
    (tmp_path / ".away").rename(part(tmp_path, run, 0))
    part(tmp_path, run, 4).unlink()
    commit(tmp_path, make_batch(run, 4, 1))
    back = stored(tmp_path, run)
    assert back is not None
    assert [block.block_index for block in back.blocks] == [0, 1, 2, 3, 4]


def test_opening_reads_the_last_part_of_each_run_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_run(number=number) for number in (1, 2)]
    commit(tmp_path, *(make_batch(run, index, 1) for run in runs for index in range(5)))
    read = []
    real = parquet_parts.footer

    def noted(path: Path) -> dict[str, str]:
        read.append(path)
        return real(path)

    monkeypatch.setattr(parquet_parts, "footer", noted)
    commit(tmp_path, make_batch(runs[0], 5, 1))
    assert sorted(read) == [part(tmp_path, run, 4) for run in runs]


def test_parts_from_before_they_were_counted_are_read_through_once_more_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    with monkeypatch.context() as patched:
        real = parquet_content.part_footer
        patched.setattr(
            parquet_content, "part_footer", lambda *args: msgspec.structs.replace(real(*args), parts=0, span=None)
        )
        commit(tmp_path, make_batch(run, 0, 2), make_batch(run, 2, 2), make_batch(run, 4, 1))
    part(tmp_path, run, 2).rename(tmp_path / ".away")
    with pytest.raises(CannotStartError, match=r"begins at record 4.*end at 2"):
        commit(tmp_path)
    (tmp_path / ".away").rename(part(tmp_path, run, 2))
    commit(tmp_path, make_batch(run, 5, 1))
    back = stored(tmp_path, run)
    assert back is not None
    assert [block.block_index for block in back.blocks] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("content", ["notes.txt", "_dtolbus.json"])
def test_a_folder_that_holds_something_else_is_untouched(tmp_path: Path, content: str) -> None:
    (tmp_path / content).write_text("mine")
    with pytest.raises(CannotStartError, match="choose"):
        commit(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [content]
    assert (tmp_path / content).read_text() == "mine"


def test_a_commit_that_failed_after_publishing_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()

    async def go() -> None:
        destination = ParquetDestination(tmp_path)
        await destination.open()
        await destination.commit(make_batch(run, 0, 1))
        real = files.sync_dir
        monkeypatch.setattr(files, "sync_dir", fails)
        with pytest.raises(DtolSinkWriteError, match="I/O"):
            await destination.commit(make_batch(run, 1, 1))
        monkeypatch.setattr(files, "sync_dir", real)
        await destination.commit(make_batch(run, 1, 2))
        await destination.close()

    def fails(folder: Path) -> None:
        raise OSError(5, "I/O error")

    asyncio.run(go())
    back = stored(tmp_path, run)
    assert back is not None
    assert back.position == Position(3, 0)
    assert [block.block_index for block in back.blocks] == [0, 1, 2]


def test_a_reading_of_no_scalar_type_is_refused(tmp_path: Path) -> None:
    run = make_run("readings")
    odd: DaqReading = make_reading(run, 1, {"ai0": [1, 2]})
    with pytest.raises(RecordRefusedError, match="list"):
        commit(tmp_path, make_batch(run, 0, [make_reading(run, 0), odd]))
    assert stored(tmp_path, run) is None


def test_a_part_is_synced_before_it_is_published_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    commit(tmp_path, make_batch(run, 0, 1))
    calls: list[str] = []
    for name in ("open_new", "append", "sync", "publish_new", "sync_dir"):
        real = getattr(files, name)
        monkeypatch.setattr(files, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    commit(tmp_path, make_batch(run, 1, 1))
    assert calls[calls.index("open_new") :] == ["open_new", "append", "sync", "publish_new", "sync_dir"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStartError, match="choose another folder"):
        commit(tmp_path / "file" / "parquet")
