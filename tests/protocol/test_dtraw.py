"""`.dt-raw` files: torn, damaged, mixed, reopened, refused."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.protocol.specimens import block, block_run

from dtolbus import (
    DaqBlock,
    DtolSinkError,
    DtolSinkSchemaError,
    DtolSinkWriteError,
    ErrorInfo,
    RawCountsSink,
    RawFormatError,
    iter_blocks,
    pipe_blocks,
    read_file_header,
)
from dtolbus.chunkfile import ChunkFile, Damage


def write(path: Path, blocks: Iterable[DaqBlock], sink: RawCountsSink | None = None) -> None:
    async def run() -> None:
        async with sink or RawCountsSink(path) as opened:
            for one in blocks:
                await opened.write_raw(one)

    asyncio.run(run())


def codes_of(path: Path) -> list[list[list[int]]]:
    return [[] if b.raw_codes is None else b.raw_codes.tolist() for b in iter_blocks(path)]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    run = block_run()
    path = tmp_path / "a.dt-raw"
    write(path, [block(run, k) for k in range(5)])
    return path


def test_int16_codes_stay_two_bytes_wide(tmp_path: Path) -> None:
    run = block_run(dtype="int16")
    path = tmp_path / "a.dt-raw"
    write(path, [block(run, k, samples=10_000) for k in range(3)])
    assert read_file_header(path)["dtype"] == "int16"
    assert path.stat().st_size < 3 * 2 * 10_000 * 2 * 1.05


def test_offset_binary_codes_replay_as_volts(tmp_path: Path) -> None:
    run = block_run()
    codes = np.array([[32768, 34406, 49152, 0], [32768, 34406, 49152, 65535]], dtype=np.uint16)
    path = tmp_path / "a.dt-raw"
    write(path, [block(run, 0, samples=4, codes=codes)])
    (got,) = iter_blocks(path)
    assert got.data.tolist() == [[0.0, 0.49987792968750, 5.0, -10.0], [0.0, 0.49987792968750, 5.0, 9.99969482421875]]
    assert got.calibration is not None
    assert (got.calibration[0].range, got.calibration[0].encoding) == ((-10.0, 10.0), "offset_binary")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 10_000))
def test_a_torn_tail_ends_after_everything_that_is_whole(journal: Path, cut: int) -> None:
    whole = codes_of(journal)
    data = journal.read_bytes()
    with ChunkFile(journal) as file:
        ends = [found.end for found in file.chunks(file.start)]
        start = file.start
    size = start + cut % (len(data) - start)
    torn = journal.with_name("torn.dt-raw")
    torn.write_bytes(data[:size])
    assert codes_of(torn) == whole[: sum(end <= size for end in ends)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_and_the_rest_is_read(journal: Path, place: int, bit: int) -> None:
    whole = codes_of(journal)
    data = bytearray(journal.read_bytes())
    with ChunkFile(journal) as file:
        chunks = list(file.chunks(file.start))
        start = file.start
    at = start + place % (len(data) - start)
    data[at] ^= 1 << bit
    hurt = next(k for k, chunk in enumerate(chunks) if chunk.offset <= at < chunk.end)
    flipped = journal.with_name("flipped.dt-raw")
    flipped.write_bytes(data)
    got = list(iter_blocks(flipped))
    good = [b.raw_codes.tolist() for b in got if b.error is None and b.raw_codes is not None]
    assert good == whole[:hurt] + whole[hurt + 1 :]
    if hurt < len(chunks) - 1:
        (bad,) = [b for b in got if b.error is not None]
        assert bad.samples_per_channel == 0
        assert bad.error is not None
        assert bad.error.type.endswith("RawFormatError")


def test_damage_names_its_bytes(journal: Path) -> None:
    with ChunkFile(journal) as file:
        second = list(file.chunks(file.start))[1]
    data = bytearray(journal.read_bytes())
    data[second.end - 1] ^= 1
    journal.write_bytes(data)
    with ChunkFile(journal) as file:
        damage = list(file.chunks(file.start))[1]
    assert isinstance(damage, Damage)
    assert (damage.offset, damage.end, damage.reason) == (second.offset, second.end, "the checksum does not hold")


def test_an_error_block_without_codes_is_kept_with_its_place_and_reason(tmp_path: Path) -> None:
    run = block_run()
    failed = DaqBlock(
        device="d", task="t", channels=("ai0", "ai1"), block_index=1, first_sample_index=10, samples_per_channel=10,
        t_mono_ns=1, t_utc=block(run, 1).t_utc, error=ErrorInfo("board.Overrun", "overran"),
    )  # fmt: skip
    path = tmp_path / "a.dt-raw"
    write(path, [block(run, 0), failed, block(run, 2)])
    got = list(iter_blocks(path))
    assert [b.block_index for b in got] == [0, 1, 2]
    assert got[1].error == failed.error
    assert got[1].samples_per_channel == 0


def test_a_block_of_another_type_or_shape_is_refused_and_nothing_is_written(journal: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.dt-raw"
    sink = RawCountsSink(path)
    write(path, [block(block_run(), 0)], sink)
    size = path.stat().st_size
    for run in (block_run(dtype="int16"), block_run(channels=3)):
        with pytest.raises(DtolSinkSchemaError, match="write it to another file"):
            write(path, [block(run, 1)], sink)
    assert path.stat().st_size == size


def test_an_existing_file_is_refused_and_untouched_unless_overwritten(journal: Path) -> None:
    before = journal.read_bytes()
    with pytest.raises(DtolSinkError, match="exists"):
        write(journal, [block(block_run(), 0)])
    assert journal.read_bytes() == before
    write(journal, [block(block_run(), 0)], RawCountsSink(journal, overwrite=True))
    assert len(codes_of(journal)) == 1


def test_a_closed_sink_opens_again_and_appends(tmp_path: Path) -> None:
    run, path = block_run(), tmp_path / "a.dt-raw"
    sink = RawCountsSink(path)
    write(path, [block(run, 0)], sink)
    write(path, [block(run, 1)], sink)
    assert [b.block_index for b in iter_blocks(path)] == [0, 1]


def test_pipe_blocks_takes_the_raw_sink(tmp_path: Path) -> None:
    run, path = block_run(), tmp_path / "a.dt-raw"

    async def go() -> int:
        async def stream():  # type: ignore[no-untyped-def]
            for k in range(4):
                yield block(run, k)

        async with RawCountsSink(path) as sink:
            return await pipe_blocks(stream(), sink)

    assert asyncio.run(go()) == 4
    assert len(codes_of(path)) == 4


def test_using_a_sink_wrongly_says_how_to_use_it(tmp_path: Path) -> None:
    run = block_run()
    sink = RawCountsSink(tmp_path / "a.dt-raw")
    with pytest.raises(DtolSinkError, match="before open"):
        asyncio.run(sink.write_raw(block(run, 0)))
    floats = DaqBlock(
        device="d", task="t", channels=("a",), block_index=0, first_sample_index=0, samples_per_channel=1,
        t_mono_ns=0, t_utc=block(run, 0).t_utc, data=np.zeros((1, 1)),
    )  # fmt: skip
    with pytest.raises(DtolSinkWriteError, match="no raw_codes"):
        write(tmp_path / "b.dt-raw", [floats])
    with pytest.raises(DtolSinkError, match="cannot open"):
        write(tmp_path / "no" / "c.dt-raw", [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"\xff\xff\xff\xff rest",
        b"\x02\x00\x00\x00{}",
        b'\x14\x00\x00\x00{"format_version": 1}',
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_a_file_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.dt-raw"
    path.write_bytes(content)
    calls: list[Callable[[Path], object]] = [read_file_header, lambda p: list(iter_blocks(p))]
    for call in calls:
        with pytest.raises(RawFormatError, match=r"odd\.dt-raw"):
            call(path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a tmpfs of a given size needs root on Linux"
)
def test_a_full_disk_leaves_every_accepted_block_readable(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        run, path, accepted = block_run(), tmp_path / "a.dt-raw", 0

        async def fill() -> None:
            nonlocal accepted
            async with RawCountsSink(path) as sink:
                while accepted < 10_000:
                    await sink.write_raw(block(run, accepted, samples=1000))
                    accepted += 1

        with pytest.raises(DtolSinkWriteError, match="No space left"):
            asyncio.run(fill())
        assert accepted > 10
        assert [b.block_index for b in iter_blocks(path)] == list(range(accepted))
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
