"""A record in the middle of a segment: found without reading what lies before it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.protocol.specimens import block, block_run

from dtolbus import files
from dtolbus.chunkfile import ChunkFile
from dtolbus.manifest import MISSING
from dtolbus.records import DaqBlock, Gap
from dtolbus.runs import RunFolder, run_path, segment_name
from dtolbus_producer.journal import RunWriter

SIZES = (5, 40_000, 200)
"""Samples a channel, by turns: blocks of 20 bytes and of 160 kB."""
RECORDS = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one segment, of some 3 MB."""
    place, info = tmp_path_factory.mktemp("journal"), block_run()
    writer = RunWriter(place, info, sync_ms=1000)
    for index in range(RECORDS):
        writer.append(block(info, index, SIZES[index % len(SIZES)]))
    writer.close("ended")
    return run_path(place, info.device, info.task, info.run_id)


def told(run: Path, start: int) -> dict[int, object]:
    """What is read of each record from `start` on: its codes, or why it is lost."""
    found: dict[int, object] = {}
    with RunFolder(run) as folder:
        for one in folder.records(start, RECORDS):
            if isinstance(one, Gap):
                found |= dict.fromkeys(range(one.from_index, one.to_index), one.cause)
            else:
                assert isinstance(one, DaqBlock)
                assert one.raw_codes is not None
                found[one.index] = one.raw_codes.tobytes()
    return found


@settings(max_examples=100, deadline=None)
@given(
    hurt=st.lists(st.floats(0, 1, exclude_max=True), max_size=6),
    size=st.floats(0.3, 1),
    starts=st.lists(st.integers(0, RECORDS - 1), min_size=1, max_size=5),
)
def test_reading_from_anywhere_gives_what_reading_from_the_start_gives(
    run: Path, hurt: list[float], size: float, starts: list[int]
) -> None:
    path = run / segment_name("blocks", 0)
    whole = path.read_bytes()
    data = bytearray(whole[: round(size * len(whole))])
    for place in hurt:
        data[int(place * len(data))] ^= 0x10
    try:
        path.write_bytes(data)
        expected = told(run, 0)
        for start in starts:
            assert told(run, start) == {index: what for index, what in expected.items() if index >= start}
    finally:
        path.write_bytes(whole)


def test_damage_further_up_is_not_why_the_end_is_missing(run: Path) -> None:
    path = run / segment_name("blocks", 0)
    whole = path.read_bytes()
    with ChunkFile(path) as file:
        chunks = list(file.chunks(file.start))
    data = bytearray(whole[: chunks[RECORDS // 2].offset])
    data[chunks[2].end - 1] ^= 1
    try:
        path.write_bytes(data)
        found = told(run, 0)
    finally:
        path.write_bytes(whole)
    assert found[2] == "damaged in the journal: the checksum does not hold"
    assert {found[index] for index in range(RECORDS // 2, RECORDS)} == {MISSING}


def test_little_is_read_to_find_a_record(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_at, sizes = files.read_at, list[int]()

    def counted(fd: int, size: int, offset: int) -> bytes:
        found = read_at(fd, size, offset)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(files, "read_at", counted)
    assert list(told(run, RECORDS - 1)) == [RECORDS - 1]
    assert sum(sizes) < (run / segment_name("blocks", 0)).stat().st_size / 2
