"""read_parquet gives what the blocks were, from every layout, and reads only what it needs."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers import committing

from dtolbus import ParquetSamples, RawFormatError, UsageError, read_parquet
from dtolbus.channels import status_of_codes
from dtolbus.parquet.places import parts_of, run_folder
from dtolbus.records import DaqBlock, DaqEvent, Gap, Record, RunInfo
from dtolbus_workers.comparing import as_float32
from dtolbus_workers.conformance import assert_same_floats
from dtolbus_workers.destination import RunBatch
from dtolbus_workers.parquet_destination import ParquetDestination
from dtolbus_workers.specimens import (
    error_block,
    float_block,
    make_batch,
    make_block,
    make_event,
    make_run,
    sensor_block,
    sensor_run,
)

FORMS: list[dict[str, Any]] = [
    {},
    {"values": "float32"},
    {"layout": "wide"},
    {"layout": "wide", "values": "float32"},
    {"layout": "wide", "values": "codes"},
]
forms = pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()) or "long")


def commit(folder: Path, *batches: RunBatch, **form: Any) -> None:
    committing.commit(ParquetDestination(folder, **form), *batches)


def instants(block: DaqBlock) -> np.ndarray[Any, np.dtype[np.int64]]:
    return block.sample_offsets_ns() + block.t_utc_ns


def assert_is(found: ParquetSamples, run: RunInfo, blocks: Sequence[DaqBlock], form: dict[str, Any]) -> None:
    """All of the blocks' samples, of the channels that were found."""
    rows = [run.channel_names.index(name) for name in found.channels]
    blocks = [block for block in blocks if block.samples_per_channel]
    data = np.concatenate([b.data[rows] for b in blocks], axis=1) if blocks else np.empty((len(rows), 0))
    assert_same_floats(found.data, as_float32(data) if form.get("values") == "float32" else data)
    indexes = [np.arange(block.first_sample_index, block.end_sample_index) for block in blocks]
    np.testing.assert_array_equal(found.sample_index, np.concatenate(indexes) if blocks else [])
    np.testing.assert_array_equal(
        found.t_utc.view(np.int64), np.concatenate([instants(block) for block in blocks]) if blocks else []
    )
    assert found.t_utc.dtype == "datetime64[ns]"
    for name in found.channels:
        wanted = [b.sensor_status.get(name, np.zeros(b.samples_per_channel, np.int64)) for b in blocks]
        if any(name in block.sensor_status for block in blocks):
            np.testing.assert_array_equal(found.status[name], np.concatenate(wanted))
        else:
            assert name not in found.status


@st.composite
def recordings(draw: st.DrawFn) -> tuple[RunInfo, list[list[Record]], int]:
    """A run, its records by commit, and its number of samples."""
    kind = draw(st.sampled_from(["plain", "sensors", "floats", "int32"]))
    run = sensor_run() if kind == "sensors" else make_run(channels=("ai0", "sample_index", "AI0", "Ü"))
    if kind != "sensors":
        run = msgspec.structs.replace(run, dtype={"plain": "int16", "floats": "float64", "int32": "int32"}[kind])
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    commits: list[list[Record]] = [[]]
    sample = 0
    for index, what in enumerate(draw(st.lists(st.sampled_from("bbbbsfeElc"), min_size=1, max_size=14))):
        samples = draw(st.integers(1, 40))
        if what == "c":
            commits.append([])
        shape = (len(run.channels), samples)
        codes: Any = random.integers(-30000, 30000, shape)
        codes = np.abs(codes).astype("uint16") if kind == "sensors" else codes.astype(run.dtype)
        status = status_of_codes(codes, run.channels)
        block = make_block(run, index, samples=samples, first_sample=sample, codes=codes, sensor_status=status)
        match what:
            case "s":
                name = run.channel_names[samples % 3]
                status |= {name: random.choice([0, 0, 3], samples)}
                block = make_block(run, index, samples=samples, first_sample=sample, codes=codes, sensor_status=status)
            case "f":
                given = random.choice([0.1, -0.0, np.nan, np.inf, 1e300, 5e-324], shape)
                floats = float_block(run, index, given)
                block = replace(floats, first_sample_index=sample, t_utc=block.t_utc, block_period_ns=333_333)
            case "e":
                block = replace(block, error=error_block(run, 0).error)
            case "E":
                block = replace(error_block(run, index), first_sample_index=sample)
            case "l":
                commits[-1].append(replace_event(make_event(run, index), sample, samples))
                sample += samples
                continue
        commits[-1].append(block)
        sample += block.samples_per_channel
    return run, commits, sample


def replace_event(event: DaqEvent, sample: int, samples: int) -> DaqEvent:
    return msgspec.structs.replace(event, sample_index=sample, lost_samples=samples)


def batches(run: RunInfo, commits: list[list[Record]]) -> list[RunBatch]:
    return [make_batch(run, records[0].index, records) for records in commits if records]


@given(recordings(), st.sampled_from(FORMS), st.data())
@settings(max_examples=50, deadline=None)
def test_random_blocks_come_back_from_every_layout(
    recording: tuple[RunInfo, list[list[Record]], int], form: dict[str, Any], data: st.DataObject
) -> None:
    run, commits, end = recording
    blocks = [record for records in commits for record in records if isinstance(record, DaqBlock)]
    events = [record for records in commits for record in records if isinstance(record, DaqEvent)]
    with TemporaryDirectory() as place:
        folder = Path(place)
        commit(folder, *batches(run, commits), **form)
        found = read_parquet(folder)
        assert_is(found, run, blocks, form)
        assert found.run == run
        assert found.units == tuple(channel.unit for channel in run.channels)
        assert [(gap.first_sample, gap.end_sample) for gap in found.gaps] == [
            (event.sample_index, event.sample_index + event.lost_samples) for event in events
        ]
        first = data.draw(st.integers(0, end + 1))
        last = data.draw(st.integers(0, end + 1))
        names = data.draw(st.lists(st.sampled_from(run.channel_names), min_size=1, unique=True))
        part = read_parquet(folder, channels=names, start=first, stop=last)
        assert part.channels == tuple(names)
        rows = [run.channel_names.index(name) for name in names]
        places = [k for k, sample in enumerate(found.sample_index.tolist()) if first <= sample < last]
        assert_same_floats(part.data, found.data[rows][:, places])
        np.testing.assert_array_equal(part.sample_index, found.sample_index[places])
        np.testing.assert_array_equal(part.t_utc, found.t_utc[places])
        if len(places) and first < last:
            begin, beyond = part.t_utc[0], part.t_utc[-1] + np.timedelta64(1, "ns")
            again = read_parquet(folder, channels=names, start=begin, stop=beyond)
            assert_same_floats(again.data, part.data)
            assert again.gaps == tuple(
                g
                for g in found.gaps
                if (g.first_sample or 0) < part.sample_index[-1] and (g.end_sample or 0) > part.sample_index[0]
            )


# ---- what is read ----


@pytest.fixture
def many(tmp_path: Path) -> tuple[Path, RunInfo]:
    """A run of 40 parts of a block each, 10 samples a block, in each layout by turns of the test."""
    run = make_run(rate_hz=1000.0)
    commit(tmp_path, *(make_batch(run, index, 1) for index in range(40)), layout="wide", values="codes")
    return tmp_path, run


def test_parts_outside_of_what_is_asked_for_are_not_read(many: tuple[Path, RunInfo], monkeypatch: Any) -> None:
    folder, run = many
    for number, path in enumerate(parts_of(run_folder(folder, run))):
        if number not in (10, 11, 12):
            content, columns = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(0)
            start = columns.column(0).data_page_offset
            size = sum(columns.column(place).total_compressed_size for place in range(columns.num_columns))
            content[start : start + size] = bytes(size)
            path.write_bytes(content)
    with pytest.raises(RawFormatError, match=r"part-0000000000\d\d.parquet cannot be read"):
        read_parquet(folder)
    footers: list[Path] = []
    real = pq.read_metadata
    monkeypatch.setattr(pq, "read_metadata", lambda path: (footers.append(path), real(path))[1])
    found = read_parquet(folder, start=105, stop=125)
    assert found.sample_index.tolist() == [*range(105, 125)]
    assert len(set(footers)) <= 9  # of the first part, the halving, those read, and the two beside them


@forms
def test_columns_that_are_not_asked_for_are_not_read(tmp_path: Path, form: dict[str, Any]) -> None:
    run = make_run(channels=[f"ai{k}" for k in range(8)])
    codes = np.random.default_rng(1).integers(0, 65535, (8, 4000)).astype(np.uint16)
    blocks = [make_block(run, index, samples=4000, codes=codes) for index in range(3)]
    commit(tmp_path, make_batch(run, 0, list(blocks)), **form)
    whole = read_parquet(tmp_path)
    one = read_parquet(tmp_path, channels="ai5")
    assert_same_floats(one.data, whole.data[5:6])
    (path,) = parts_of(run_folder(tmp_path, run))
    if form.get("layout") != "wide":
        return
    metadata = pq.read_metadata(path)
    content = bytearray(path.read_bytes())
    for group in range(metadata.num_row_groups):  # whatever is not asked for is overwritten
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            if column.path_in_schema not in ("ai5", "sample_index", "t_utc"):
                start = column.data_page_offset
                content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)
    assert_same_floats(read_parquet(tmp_path, channels=["ai5"]).data, one.data)
    with pytest.raises(RawFormatError, match="cannot be read"):
        read_parquet(tmp_path)


@forms
def test_row_groups_outside_of_what_is_asked_for_are_not_read(tmp_path: Path, form: dict[str, Any]) -> None:
    run = make_run(channels=("ai0", "ai1"), rate_hz=1e6)
    samples = 600_000
    codes = np.random.default_rng(1).integers(0, 65535, (2, samples)).astype(np.uint16)
    commit(tmp_path, make_batch(run, 0, [make_block(run, n, samples=samples, codes=codes) for n in range(3)]), **form)
    (path,) = parts_of(run_folder(tmp_path, run))
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups == 3
    content = bytearray(path.read_bytes())
    for group in (0, 2):
        columns = [metadata.row_group(group).column(number) for number in range(metadata.num_columns)]
        start = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
        size = sum(column.total_compressed_size for column in columns)
        content[start : start + size] = bytes(size)
    path.write_bytes(content)
    for window in ({"start": samples, "stop": samples + 5}, {"start": at(run, samples), "stop": at(run, samples + 5)}):
        found = read_parquet(tmp_path, **window)  # type: ignore[arg-type]  # by keyword
        assert found.sample_index.tolist() == [samples + k for k in range(5)]
        assert found.data.shape == (2, 5)


def at(run: RunInfo, sample: int) -> np.datetime64:
    return np.datetime64(run.started_utc_ns + round(sample * 1e9 / run.rate_hz), "ns")


def test_a_thermocouple_alone_is_read_with_its_cold_junction(tmp_path: Path) -> None:
    run = sensor_run()
    blocks: list[Record] = [sensor_block(run, index) for index in range(3)]
    commit(tmp_path, make_batch(run, 0, blocks), layout="wide", values="codes")
    found = read_parquet(tmp_path, channels=["plain", "tc"])
    assert_is(found, run, [block for block in blocks if isinstance(block, DaqBlock)], {})
    assert list(found.status) == ["tc"]
    assert found.units == ("V", "°C")


# ---- what is asked for ----


@forms
def test_a_range_is_half_open_by_instant_and_by_index(tmp_path: Path, form: dict[str, Any]) -> None:
    run = make_run(rate_hz=1000.0)
    commit(tmp_path, make_batch(run, 0, 5), make_batch(run, 5, 5), **form)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for start, stop, expected in (
        (None, None, range(100)),
        (95, None, range(95, 100)),
        (None, begin + timedelta(milliseconds=3), range(3)),
        (begin + timedelta(microseconds=500), 4, range(1, 4)),
        (at(run, 48), at(run, 53), range(48, 53)),
        (at(run, 48).astype("datetime64[ms]"), 50, range(48, 50)),
        (-5, 2, range(2)),
        (100, None, range(0)),
        (30, 30, range(0)),
        (50, 30, range(0)),
    ):
        found = read_parquet(tmp_path, channels=["ai2", "ai0"], start=start, stop=stop)
        assert found.sample_index.tolist() == [*expected], (start, stop)
        assert found.data.shape == (2, len(expected))
    assert found.channels == ("ai2", "ai0")


def test_gaps_are_those_of_what_is_asked_for(tmp_path: Path) -> None:
    run = make_run(rate_hz=1000.0)
    gap = Gap(1, 3, "the journal is damaged", 10, 30)
    lost = msgspec.structs.replace(make_event(run, 5), sample_index=50, lost_samples=20)
    commit(
        tmp_path,
        make_batch(run, 0, 1),
        make_batch(run, 1, [], gaps=[gap]),
        make_batch(run, 3, [make_block(run, 3, first_sample=30)]),
        make_batch(run, 4, [make_block(run, 4, first_sample=40), lost]),
        make_batch(run, 6, [make_block(run, 6, first_sample=70)]),
    )
    found = read_parquet(tmp_path)
    overrun = Gap(5, 6, "overrun: 12 samples lost", 50, 70)
    assert found.gaps == (gap, overrun)
    assert found.sample_index.tolist() == [*range(10), *range(30, 50), *range(70, 80)]
    for start, stop, expected in (
        (0, 10, ()),
        (0, 11, (gap,)),
        (29, 40, (gap,)),
        (30, 50, ()),
        (30, 51, (overrun,)),
        (55, 60, (overrun,)),
        (15, 20, (gap,)),
        (15, 60, (gap, overrun)),
        (70, None, ()),
    ):
        assert read_parquet(tmp_path, start=start, stop=stop).gaps == expected, (start, stop)
        begin, end = at(run, start), None if stop is None else at(run, stop)
        assert read_parquet(tmp_path, start=begin, stop=end).gaps == expected, (begin, end)


def test_arrow_has_the_same_with_units(tmp_path: Path) -> None:
    run = make_run()
    block = make_block(run, 0, sensor_status={"ai1": [0] * 9 + [2]})
    commit(tmp_path, make_batch(run, 0, [block]), layout="wide")
    found = read_parquet(tmp_path)
    table = found.to_arrow()
    assert table.column_names == ["sample_index", "t_utc", "ai0", "ai1", "ai2", "ai1_status"]
    assert table.schema.field("t_utc").type == pa.timestamp("ns", "UTC")
    assert table.schema.field("ai0").metadata == {b"unit": b"V"}
    assert table.column("ai1_status").to_pylist() == [0] * 9 + [2]
    np.testing.assert_array_equal(table.column("ai0").to_numpy(), block.data[0])
    np.testing.assert_array_equal(table.column("t_utc").cast(pa.int64()).to_numpy(), instants(block))


def test_which_run_is_told_where_there_are_several(tmp_path: Path) -> None:
    runs = [make_run(number=1), make_run(number=2, device="dé/v[1]"), make_run(number=3, task="other")]
    commit(tmp_path, *(make_batch(run, 0, 1) for run in runs), make_batch(make_run("readings", number=9), 0, 2))
    with pytest.raises(
        UsageError, match=f"3 runs that match; say which by run_id: {runs[0].run_id} .sim0/vibration, 2026"
    ):
        read_parquet(tmp_path)
    assert read_parquet(tmp_path, device="dé/v[1]").run == runs[1]
    assert read_parquet(tmp_path, device="sim0", task="other").run == runs[2]
    assert read_parquet(tmp_path, run_id=runs[0].run_id).run == runs[0]
    assert read_parquet(run_folder(tmp_path, runs[1])).run == runs[1]
    with pytest.raises(UsageError, match="holds no run of device 'sim9'"):
        read_parquet(tmp_path, device="sim9")
    with pytest.raises(UsageError, match="no run of task 'temperature' blocks; a table of readings"):
        read_parquet(tmp_path, task="temperature")
    with pytest.raises(UsageError, match=r"there is no 'ai9' in .*; there are ai0, ai1, ai2"):
        read_parquet(tmp_path, run_id=runs[0].run_id, channels=["ai0", "ai9"])


@pytest.mark.parametrize("bound", [datetime(2026, 1, 1), 1.5, True, "2026-01-01", np.datetime64("NaT")])  # no time zone
def test_what_is_no_bound_is_told(tmp_path: Path, bound: Any) -> None:
    with pytest.raises(UsageError, match=r"^stop: .*(has no time zone|is neither an instant)"):
        read_parquet(tmp_path, stop=bound)


def test_a_missing_part_is_told(many: tuple[Path, RunInfo]) -> None:
    folder, run = many
    parts_of(run_folder(folder, run))[7].unlink()
    with pytest.raises(RawFormatError, match=r"part-000000000008.parquet begins at record 8.*end at 7"):
        read_parquet(folder)
    assert read_parquet(folder, start=200).data.shape == (3, 200)


def test_parts_from_before_spans_were_told_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtolbus_workers import parquet_content

    run = make_run()
    with monkeypatch.context() as patched:
        patched.setattr(parquet_content, "_span", lambda *_: None)
        commit(tmp_path, make_batch(run, 0, 2), make_batch(run, 2, 2))
    commit(tmp_path, make_batch(run, 4, 2))
    assert read_parquet(tmp_path, start=15, stop=45).sample_index.tolist() == [*range(15, 45)]


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    source = (
        "import sys\nsys.modules['pyarrow'] = None\n"
        "from dtolbus import DtolSinkDependencyError, read_parquet\n"
        f"try: read_parquet({str(tmp_path)!r})\nexcept DtolSinkDependencyError as error: print(error)\n"
    )
    child = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "pyarrow is not installed; install it with: pip install 'dtolbus[parquet]'"


def test_importing_dtolbus_does_not_load_pyarrow() -> None:
    source = "import sys, dtolbus\nsys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
