"""ParquetSink: one file, whatever happens to the process, and types that do not lie."""

import asyncio
import errno
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtolbus import files
from dtolbus.errors import DtolSinkDependencyError, DtolSinkError, DtolSinkSchemaError, DtolSinkWriteError
from dtolbus.records import DaqBlock, DaqReading
from dtolbus.rows import block_to_long_rows, block_to_rows, reading_to_row
from dtolbus_workers.parquet import ParquetSink
from dtolbus_workers.specimens import ODD_NAMES, error_block, error_reading, make_block, make_reading, make_run

BLOCKS = make_run()
READINGS = make_run("readings")


def write(path: Path, *records: DaqBlock | list[DaqReading], **options: Any) -> ParquetSink:
    async def go() -> ParquetSink:
        async with ParquetSink(path, **options) as sink:
            for record in records:
                await (sink.write(record) if isinstance(record, DaqBlock) else sink.write_many(record))
        return sink

    return asyncio.run(go())


def readings(*rows: Mapping[str, Any], first: int = 0) -> list[DaqReading]:
    return [make_reading(READINGS, first + k, row) for k, row in enumerate(rows)]


def column(path: Path, name: str) -> list[Any]:
    values: list[Any] = pq.read_table(path).column(name).to_pylist()
    return values


# ---- blocks ----


def test_a_block_is_a_row_group_of_its_samples(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.parquet"
    blocks = [make_block(BLOCKS, 0), make_block(BLOCKS, 1, samples=3, first_sample=10)]
    sink = write(path, *blocks)
    assert (sink.path, sink.shape, sink.compression) == (path, "blocks", "zstd")
    samples = [sample for block in blocks for sample in block_to_long_rows(block)]
    keys = list(block_to_rows(blocks[0])[0])
    assert [name for name in sink.columns or () if name != "sensor_status"] == keys
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [30, 9]
    table = file.read()
    assert tuple(table.column_names) == sink.columns
    for name in ("device", "task", "channel", "block_index", "sample_index", "t_mono_ns", "value", "unit"):
        assert table.column(name).to_pylist() == [getattr(sample, name) for sample in samples]
    t_utc = table.column("t_utc").cast(pa.timestamp("us", "UTC"), safe=False).to_pylist()
    assert t_utc == [sample.t_utc for sample in samples]
    file.close()


def test_a_failed_block_is_nan_with_its_error_and_status_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    status = {"ai1": [0, 7, 0]}
    write(path, error_block(BLOCKS, 0, samples=2), make_block(BLOCKS, 1, samples=3, sensor_status=status))
    assert np.isnan(column(path, "value")[:6]).all()
    assert column(path, "error_type") == ["dtolbus.errors.BoardError"] * 6 + [None] * 9
    assert column(path, "sensor_status") == [None] * 6 + [None] * 3 + [0, 7, 0] + [None] * 3


def test_row_group_size_compression_and_dictionary_are_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    write(path, make_block(BLOCKS, 0), compression="snappy", use_dictionary=False, row_group_size=12)
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [12, 12, 6]
    chunk = metadata.row_group(0).column(0)
    assert chunk.compression == "SNAPPY"
    assert not chunk.has_dictionary_page
    with pytest.raises(ValueError, match="row_group_size must be >= 1"):
        ParquetSink(path, row_group_size=0)


# ---- readings ----


def test_readings_have_the_columns_of_reading_to_row(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    items = [make_reading(READINGS, k) for k in range(3)]
    sink = write(path, items)
    assert sink.columns == tuple(reading_to_row(items[0]))
    table = pq.read_table(path)
    assert table.column("ai0").to_pylist() == [item.values["ai0"] for item in items]
    assert table.column("ai0_unit").to_pylist() == ["V"] * 3
    instants = table.column("received_at").cast(pa.timestamp("us", "UTC")).to_pylist()
    assert instants == [item.received_at for item in items]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 1.5], pa.float64()),
        ([True, 2], pa.int64()),
        ([True, 2.5], pa.float64()),
        ([True, False], pa.bool_()),
        ([2**62 + 1, -(2**63)], pa.int64()),
        ([None, 1], pa.int64()),
        ([1.0, float("inf")], pa.float64()),
        (["a", None], pa.string()),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_values_are_stored_as_they_are(tmp_path: Path, values: list[Any], kind: Any, together: bool) -> None:
    path = tmp_path / "run.parquet"
    items = readings(*({"ai0": value} for value in values))
    write(path, *([items] if together else [[item] for item in items]))
    assert pq.read_schema(path).field("ai0").type == kind
    assert column(path, "ai0") == values


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("values", "texts"),
    [([1.5, "open", 3], ["1.5", "open", "3"]), ([2**60 + 1, 1.5], ["1152921504606846977", "1.5"])],
)
def test_what_no_number_type_holds_becomes_text(
    tmp_path: Path, values: Sequence[Any], texts: list[str], together: bool
) -> None:
    path = tmp_path / "run.parquet"
    items = readings(*({"ai0": value} for value in values))
    write(path, *([items] if together else [[item] for item in items]))
    assert column(path, "ai0") == texts


@pytest.mark.parametrize("together", [True, False])
def test_a_first_reading_that_failed_locks_nothing_out(tmp_path: Path, together: bool) -> None:
    path = tmp_path / "run.parquet"
    items = [error_reading(READINGS, 0), make_reading(READINGS, 1, {"ai0": 1.5})]
    write(path, *([items] if together else [[item] for item in items]))
    assert column(path, "ai0") == [None, 1.5]
    assert column(path, "error_message") == ["no answer in 1 s", None]


def test_later_channels_are_dropped_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.parquet"
    with caplog.at_level(logging.WARNING):
        write(path, readings({"ai0": 1.0}), readings({"ai0": 2.0, "ai9": 9.0}), readings({"ai9": 9.0}))
    assert [getattr(record, "channel", None) for record in caplog.records] == ["ai9"]
    assert column(path, "ai0") == [1.0, 2.0, None]
    assert "ai9" not in pq.read_schema(path).names


def test_odd_names_overwrite_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    write(path, readings({name: float(k) for k, name in enumerate(ODD_NAMES)}))
    table = pq.read_table(path)
    assert table.column("device").to_pylist() == ["sim0"]
    assert table.column("t_mono_ns").to_pylist() == [READINGS.started_mono_ns]
    numbers = [
        table.column(name).to_pylist()[0] for name in table.column_names if table.schema.field(name).type == "double"
    ]
    assert set(map(float, range(len(ODD_NAMES)))) <= set(numbers)


def test_an_int_beyond_64_bits_is_refused_and_nothing_stored(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"

    async def go() -> None:
        async with ParquetSink(path) as sink:
            await sink.write_many(readings({"ai0": 1}))
            with pytest.raises(DtolSinkSchemaError, match="1180591620717411303424"):
                await sink.write_many(readings({"ai0": 2}, {"ai0": 2**70}))

    asyncio.run(go())
    assert column(path, "ai0") == [1]


def test_sensor_status_of_readings_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    write(path, [make_reading(READINGS, 0)], [make_reading(READINGS, 1, sensor_status={"ai0": 3})])
    assert column(path, "sensor_status") == [None, '{"ai0":3}']


# ---- life cycle ----


def test_shapes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"

    async def go() -> None:
        async with ParquetSink(path) as sink:
            assert sink.shape is None
            assert sink.columns is None
            await sink.write(make_block(BLOCKS, 0))
            with pytest.raises(DtolSinkSchemaError, match="holds blocks"):
                await sink.write_many([make_reading(READINGS, 0)])

    asyncio.run(go())
    with pytest.raises(DtolSinkSchemaError, match="holds blocks"):
        write(path, [make_reading(READINGS, 0)])


def test_writing_before_open_is_an_error(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "run.parquet")
    with pytest.raises(RuntimeError, match=r"write called before open\(\)"):
        asyncio.run(sink.write(make_block(BLOCKS, 0)))
    with pytest.raises(RuntimeError, match=r"write_many called before open\(\)"):
        asyncio.run(sink.write_many([make_reading(READINGS, 0)]))
    asyncio.run(sink.close())


def test_an_own_file_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    write(path, readings({"ai0": 1}))
    write(path, readings({"ai0": 2.5, "later": 1.0}))
    write(path)
    assert column(path, "ai0") == [1.0, 2.5]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run.parquet"]

    async def reopened() -> None:
        sink = ParquetSink(path)
        for value in (3.0, 4.0):
            await sink.open()
            await sink.open()
            await sink.write_many(readings({"ai0": value}))
            await sink.close()
            await sink.close()

    asyncio.run(reopened())
    assert column(path, "ai0") == [1.0, 2.5, 3.0, 4.0]


@pytest.mark.parametrize("content", [b"mine", None])
def test_a_foreign_file_is_refused_untouched_unless_overwrite(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.parquet"
    if content is None:
        pq.write_table(pa.table({"a": [1]}), path)
        content = path.read_bytes()
    else:
        path.write_bytes(content)
    with pytest.raises(DtolSinkError, match="overwrite=True"):
        write(path, make_block(BLOCKS, 0))
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.parquet"]
    write(path, make_block(BLOCKS, 0), overwrite=True)
    assert column(path, "block_index") == [0] * 30
    write(path, make_block(BLOCKS, 5), overwrite=True)
    assert column(path, "block_index") == [5] * 30


def test_two_sinks_cannot_have_one_file(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"

    async def go() -> None:
        async with ParquetSink(path) as sink:
            with pytest.raises(DtolSinkError, match="is open in another"):
                await ParquetSink(path).open()
            await sink.write(make_block(BLOCKS, 0))

    asyncio.run(go())
    assert len(column(path, "value")) == 30


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from dtolbus_workers.parquet import ParquetSink
from dtolbus_workers.specimens import make_block, make_run

async def go():
    async with ParquetSink(Path(sys.argv[1])) as sink:
        for index in range(20):
            await sink.write(make_block(make_run(), index))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(go())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_all_written_blocks_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -signal.SIGKILL
    parts = pq.read_table(f"{path}.parts", partitioning=None)
    assert sorted(set(parts.column("block_index").to_pylist())) == list(range(20))
    write(path, make_block(BLOCKS, 20))
    assert column(path, "block_index") == [index for index in range(21) for _ in range(30)]


def test_a_full_disk_keeps_what_is_there_and_close_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.parquet"
    append = files.append

    def full(fd: int, parts: Sequence[bytes | memoryview]) -> int:
        append(fd, [memoryview(parts[0])[:3]])
        raise OSError(errno.ENOSPC, "No space left on device")

    async def go() -> None:
        sink = ParquetSink(path)
        await sink.open()
        await sink.write(make_block(BLOCKS, 0))
        await sink.write(make_block(BLOCKS, 1))
        monkeypatch.setattr(files, "append", full)
        with pytest.raises(DtolSinkWriteError, match="No space left"):
            await sink.write(make_block(BLOCKS, 2))
        with pytest.raises(DtolSinkWriteError, match=r"its parts stay in .*run\.parquet\.parts"):
            await sink.close()
        await sink.close()

    asyncio.run(go())
    assert not path.exists()
    assert pq.read_table(f"{path}.parts", partitioning=None).num_rows == 60
    monkeypatch.setattr(files, "append", append)
    write(path, make_block(BLOCKS, 2))
    assert column(path, "block_index") == [index for index in range(3) for _ in range(30)]


def test_killed_between_publishing_and_clearing_up_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.parquet"
    from dtolbus_workers.growing_file import GrowingFile

    with monkeypatch.context() as patch:
        patch.setattr(GrowingFile, "_remove_parts", lambda self: None)
        write(path, make_block(BLOCKS, 0), make_block(BLOCKS, 1))
    assert len(list(Path(f"{path}.parts").glob("*.parquet"))) == 2
    write(path, make_block(BLOCKS, 2))
    assert column(path, "block_index") == [index for index in range(3) for _ in range(30)]


def test_the_event_loop_is_free_while_a_block_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtolbus_workers import parquet_parts

    entered, leave = threading.Event(), threading.Event()
    publish = parquet_parts.publish

    def slow(*args: Any) -> None:
        entered.set()
        assert leave.wait(30)
        publish(*args)

    async def go() -> None:
        async with ParquetSink(tmp_path / "run.parquet") as sink:
            monkeypatch.setattr(parquet_parts, "publish", slow)
            writing = asyncio.create_task(sink.write(make_block(BLOCKS, 0)))
            await asyncio.to_thread(entered.wait, 30)
            leave.set()  # only a loop that still runs gets here
            await writing

    asyncio.run(go())


def test_without_pyarrow_the_extra_is_named_at_open(tmp_path: Path) -> None:
    source = (
        "import asyncio, sys\n"
        "sys.modules['pyarrow'] = None\n"
        "from dtolbus_workers.parquet import ParquetSink\n"
        "from dtolbus.errors import DtolSinkDependencyError\n"
        f"sink = ParquetSink({str(tmp_path / 'run.parquet')!r})\n"
        "try: asyncio.run(sink.open())\n"
        "except DtolSinkDependencyError as error: print(error)\n"
    )
    child = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert "pip install 'dtolbus-workers[parquet]'" in child.stdout
    assert DtolSinkDependencyError.exit_code == 3
