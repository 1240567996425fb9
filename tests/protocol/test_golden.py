"""Rows and version-2 journals against what the predecessor gave for the same inputs."""

import asyncio
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.protocol.golden import GOLDEN, block_of, load, needs_golden, number, reading_of, same

from dtolbus import framing
from dtolbus.dtraw import RawCountsSink, iter_blocks, read_file_header
from dtolbus.rows import block_to_rows, reading_to_row

pytestmark = needs_golden


def test_rows_of_blocks_equal_except_that_a_failed_block_is_nan_and_not_zero() -> None:
    golden = load("block_to_rows.json")
    inputs = load("inputs.json")["blocks"]
    for name, blocks in golden["runs"].items():
        for raw, expected in zip(inputs[name], blocks, strict=True):
            rows = block_to_rows(block_of(raw))
            assert [list(row) for row in rows] == [golden["columns"]] * len(expected)
            for row, cells in zip(rows, expected, strict=True):
                for column, cell in zip(golden["columns"], cells, strict=True):
                    if column == "value" and raw["error"] is not None:
                        assert math.isnan(row["value"])  # type: ignore[arg-type]
                    else:
                        assert same(row[column], number(cell)), (name, column, row[column], cell)


def test_rows_of_readings_equal_in_keys_order_and_values() -> None:
    inputs = load("inputs.json")["readings"]
    for name, batches in load("reading_to_row.json").items():
        for raws, expected in zip(inputs[name], batches, strict=True):
            for raw, pairs in zip(raws, expected, strict=True):
                row = reading_to_row(reading_of(raw))
                assert list(row) == [key for key, _ in pairs]
                assert all(same(row[key], number(value)) for key, value in pairs)


@pytest.mark.parametrize("name", ["basic.dt-raw", "status.dt-raw"])
def test_the_predecessors_journals_are_read(name: str) -> None:
    expected = load("replay.json")[name]
    assert read_file_header(GOLDEN / name) == expected["header"]
    blocks = list(iter_blocks(GOLDEN / name))
    assert len(blocks) == len(expected["blocks"])
    for block, raw in zip(blocks, expected["blocks"], strict=True):
        known = block_of(raw)
        assert np.array_equal(block.raw_codes, known.raw_codes)  # type: ignore[arg-type]
        assert block.raw_codes.dtype == known.raw_codes.dtype  # type: ignore[union-attr]
        for field in ("device", "task", "channels", "block_index", "first_sample_index", "samples_per_channel"):
            assert getattr(block, field) == getattr(known, field)
        for field in ("sample_rate_hz", "block_period_ns", "task_started_at", "t0", "t_mono_ns", "t_utc", "units"):
            assert getattr(block, field) == getattr(known, field)
        assert (block.error is None) == (known.error is None)
        assert np.isnan(block.data).all() if known.error else np.array_equal(block.data, known.data)


def version_2_reader(path: Path) -> tuple[dict[str, Any], list[tuple[dict[str, Any], np.ndarray]]]:
    """A reader that knows version 2 and nothing of ours."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    offset, chunks = 4 + length, []
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        chunk = json.loads(data[offset + 4 : offset + 4 + length])
        offset += 4 + length
        count = header["n_channels"] * chunk["valid_samples"]
        codes = np.frombuffer(data, header["dtype"], count, offset).reshape(header["n_channels"], -1)
        offset += codes.nbytes
        chunks.append((chunk, codes))
    return header, chunks


@pytest.mark.parametrize("name", ["basic", "status"])
def test_our_journals_are_version_2_and_read_by_any_reader_of_it(name: str, tmp_path: Path) -> None:
    blocks = [block_of(raw) for raw in load("inputs.json")["blocks"][name]]
    golden = load("replay.json")[f"{name}.dt-raw"]
    path = tmp_path / "ours.dt-raw"

    async def write() -> None:
        async with RawCountsSink(path, file_metadata=golden["header"]["metadata"]) as sink:
            for block in blocks:
                await sink.write_raw(block)

    asyncio.run(write())
    header, chunks = version_2_reader(path)
    assert header["format_version"] == framing.RAW_FORMAT_VERSION == 2
    assert {key: header[key] for key in golden["header"]} == golden["header"]
    for (chunk, codes), expected, block in zip(chunks, golden["chunks"], blocks, strict=True):
        assert {key: chunk[key] for key in expected["header"]} == expected["header"]
        assert np.array_equal(codes, block.raw_codes)  # type: ignore[arg-type]


def test_a_journal_of_ours_gives_back_numbers_times_flags_and_status(tmp_path: Path) -> None:
    blocks = [block_of(raw) for raw in load("inputs.json")["blocks"]["status"]]
    path = tmp_path / "ours.dt-raw"

    async def write() -> None:
        async with RawCountsSink(path) as sink:
            for block in blocks:
                await sink.write_raw(block)

    asyncio.run(write())
    for block, known in zip(iter_blocks(path), blocks, strict=True):
        for field in ("block_index", "first_sample_index", "t0", "t_utc", "t_midpoint_mono_ns", "read_started_at"):
            assert getattr(block, field) == getattr(known, field)
        assert block.is_linearised == known.is_linearised
        assert block.sensor_status.keys() == known.sensor_status.keys()
        for channel, status in known.sensor_status.items():
            assert np.array_equal(block.sensor_status[channel], status)
