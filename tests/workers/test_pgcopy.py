"""Binary COPY: the numpy encoder against a plain one, and against a real server."""

import asyncio
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtolbus.records import Clock, DaqBlock, ErrorInfo, utc_from_ns
from dtolbus_workers import pgcopy, postgres_samples
from dtolbus_workers.columns import SAMPLE_COLUMNS
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_tables import BusTables
from dtolbus_workers.specimens import make_block, make_run

TYPES = BusTables(PostgresConfig(dsn="postgresql://h/d")).types("samples")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
int64s = st.integers(-(2**62), 2**62)


@st.composite
def blocks(draw: Any) -> DaqBlock:
    channels = draw(st.lists(texts, min_size=0, max_size=4, unique=True))
    samples = draw(st.integers(0, 5))
    numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
    values = [draw(st.lists(numbers, min_size=samples, max_size=samples)) for _ in channels]
    status = st.lists(st.integers(-(2**31), 2**31 - 1), min_size=samples, max_size=samples)
    utc_ns = draw(st.integers(0, 4_000_000_000_000_000_000))
    return DaqBlock(
        device=draw(texts),
        task=draw(st.none() | texts),
        channels=tuple(channels),
        block_index=draw(int64s),
        first_sample_index=draw(int64s),
        samples_per_channel=samples,
        t_mono_ns=draw(st.integers(0, 2**60)),
        t_utc=utc_from_ns(utc_ns),
        clock=Clock(utc_ns, draw(st.floats(1.0, 1e9))),
        data=np.array(values, dtype=np.float64).reshape(len(channels), samples),
        units={channel: draw(st.none() | texts) for channel in channels},
        sensor_status={channel: draw(status) for channel in channels if draw(st.booleans())},
        error=draw(st.none() | st.builds(ErrorInfo, texts, texts)),
        run_id=draw(st.none() | texts),
    )


def plain_rows(block: DaqBlock) -> bytes:
    """The rows cell by cell, by nothing but the manual and the block's own arithmetic."""
    out = b""
    offsets = block.sample_offsets_ns().tolist()
    for channel, values in zip(block.channels, block.data, strict=True):
        status = block.sensor_status.get(channel)
        for k, offset in enumerate(offsets):
            cells = [
                *(block.run_id, block.device, block.task, channel, block.block_index, block.first_sample_index + k),
                block.t_mono_ns + offset,
                (block.t_utc_ns + offset) // 1000 - 946_684_800_000_000,
                float(values[k]),
                block.units.get(channel),
                None if status is None else int(status[k]),
                *((block.error.type, block.error.message) if block.error else (None, None)),
            ]
            out += struct.pack(">h", 13)
            for cell in cells:
                if cell is None:
                    out += struct.pack(">i", -1)
                elif isinstance(cell, str):
                    out += struct.pack(">i", len(cell.encode())) + cell.encode()
                else:
                    out += struct.pack(">i", 8) + struct.pack(">d" if isinstance(cell, float) else ">q", cell)
    return out


@settings(max_examples=150, deadline=None)
@given(blocks())
def test_samples_are_those_of_a_plain_encoder(block: DaqBlock) -> None:
    assert b"".join(pgcopy.sample_rows(block)) == plain_rows(block)


@settings(max_examples=60, deadline=None)
@given(st.lists(blocks(), max_size=6), st.integers(1, 400), st.integers(1, 12))
def test_a_stream_in_chunks_has_the_rows_of_its_blocks_in_order(
    many: list[DaqBlock], chunk_bytes: int, rows: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_samples, "_CHUNK_BYTES", chunk_bytes)
        groups = list(postgres_samples.in_groups(many, rows))
        chunks = [bytes(chunk) for group in groups for chunk in postgres_samples.encoded(group)]
    assert [block for group in groups for block in group] == many
    assert b"".join(chunks) == b"".join(map(plain_rows, many))
    assert all(chunks)


def test_a_server_takes_both_encoders_and_gives_the_same(postgres_dsn: str) -> None:
    block = make_block(make_run(), 3, sensor_status={"ai1": range(10)})
    instant = datetime(1969, 7, 20, 20, 17, 40, 123456, UTC)
    cells = ["r", "d", None, "c", -1, 2**63 - 1, -(2**63), instant, float("-inf"), "", 5, "é\n\\N", None]
    source = pgcopy.stream([*pgcopy.sample_rows(block), pgcopy.encode_row(TYPES, cells)])

    async def go() -> list[Any]:
        connection = await asyncpg.connect(postgres_dsn)
        try:
            columns = ", ".join(f"{name} {kind}" for name, kind in zip(SAMPLE_COLUMNS, TYPES, strict=True))
            await connection.execute(f"CREATE TABLE samples ({columns})")
            await connection.copy_to_table("samples", source=source, format="binary")
            return await connection.fetch("SELECT * FROM samples")
        finally:
            await connection.close()

    rows = [list(row) for row in asyncio.run(go())]
    assert rows[-1] == cells
    assert np.array([row[8] for row in rows[:-1]]).tobytes() == block.data.tobytes()
    start = block.t_utc.replace(microsecond=0) + timedelta(microseconds=block.t_utc_ns % 10**9 // 1000)
    assert rows[0][7] == start
    assert [row[10] for row in rows[10:20]] == list(range(10))


@pytest.mark.parametrize(("kind", "cell"), [("text", "a\0b"), ("bigint", 2**63), ("text", "\ud800")])
def test_what_no_column_holds_is_refused(kind: Any, cell: Any) -> None:
    with pytest.raises(ValueError, match=r"NUL|beyond 64 bits|surrogates"):
        pgcopy.encode_row([kind], [cell])
