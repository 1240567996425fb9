"""Samples unrolled inside SQLite against rows bound one by one: the same, whatever the block."""

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtolbus.records import Channel, Clock, DaqBlock, ErrorInfo, utc_from_ns
from dtolbus_workers.iso import iso_bytes, iso_texts
from dtolbus_workers.sqlite_samples import codes_json, insert_samples
from dtolbus_workers.sqlite_tables import CREATE

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
DTYPES = ("int16", "uint16", "int32", "uint8", "int64", "float32", "float64", ">i2")


@st.composite
def codes(draw: Any, channels: int, samples: int) -> np.ndarray[Any, Any]:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    if dtype.kind == "f":
        numbers: Any = st.floats(width=32)
    else:
        limits = np.iinfo(dtype)
        numbers = st.integers(max(limits.min, -(2**53)), min(limits.max, 2**53))
    values = draw(st.lists(numbers, min_size=channels * samples, max_size=channels * samples))
    grid: np.ndarray[Any, Any] = np.array(values, dtype).reshape(channels, samples)
    return grid


@st.composite
def blocks(draw: Any) -> DaqBlock:
    names = draw(st.lists(texts, min_size=1, max_size=3, unique=True))
    samples = draw(st.integers(0, 6))
    utc_ns = draw(st.sampled_from([0, 999, 1000, 999_999_000, 10**9 - 1]) | st.integers(0, 4 * 10**18))
    status = st.lists(st.integers(0, 3), min_size=samples, max_size=samples) | st.just([0] * samples)
    scales = finite if draw(st.booleans()) else st.just(20 / 65536)
    calibration = tuple(Channel(name, "V", scale=draw(scales), offset=draw(scales)) for name in names)
    own = draw(codes(len(names), samples))
    given_data = draw(st.booleans()) and draw(st.booleans())
    return DaqBlock(
        device=draw(texts),
        task=draw(st.none() | texts),
        channels=tuple(names),
        block_index=draw(st.integers(0, 2**62)),
        first_sample_index=draw(st.integers(0, 2**62)),
        samples_per_channel=samples,
        t_mono_ns=draw(st.integers(0, 2**60)),
        t_utc=utc_from_ns(utc_ns),
        clock=Clock(utc_ns, draw(st.sampled_from([1.0, 0.5, 1000.0, 1e9 / 3, 2.5e9]) | st.floats(0.0, 1e9))),
        raw_codes=None if draw(st.integers(0, 9)) == 0 else own,
        calibration=calibration if draw(st.booleans()) else None,
        data=own.astype(np.float64) * 3 if given_data else None,
        units={name: draw(st.none() | texts) for name in names},
        sensor_status={name: draw(status) for name in names if draw(st.integers(0, 3)) == 0},
        error=draw(st.none() | st.none() | st.none() | st.builds(ErrorInfo, texts, texts)),
        run_id=draw(st.none() | texts),
    )


def plain_rows(block: DaqBlock) -> list[tuple[Any, ...]]:
    """The block's rows one by one, by nothing but its own arithmetic."""
    rows = []
    offsets = block.sample_offsets_ns().tolist()
    for channel, values in zip(block.channels, block.data.tolist(), strict=True):
        status = block.sensor_status.get(channel)
        for k, offset in enumerate(offsets):
            rows.append(
                (
                    *(block.run_id, block.device, block.task, channel, block.block_index),
                    *(block.first_sample_index + k, block.t_mono_ns + offset, plain_iso(block.t_utc_ns + offset)),
                    None if np.isnan(values[k]) else values[k] + 0.0,
                    block.units.get(channel),
                    None if status is None else int(status[k]),
                    *((block.error.type, block.error.message) if block.error else (None, None)),
                )
            )
    return rows


def plain_iso(utc_ns: int) -> str:
    seconds, nanos = divmod(utc_ns, 10**9)
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    if nanos % 1000 == 0:
        return (instant + timedelta(microseconds=nanos // 1000)).isoformat()
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{nanos:09d}+00:00"


@settings(max_examples=300, deadline=None)
@given(blocks())
def test_rows_are_those_of_a_plain_insert(block: DaqBlock) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in CREATE:
            connection.execute(statement)
        with np.errstate(all="ignore"):
            insert_samples(connection, block)
            expected = plain_rows(block)
        rows = connection.execute("SELECT * FROM samples ORDER BY rowid").fetchall()
    finally:
        connection.close()
    assert [list(map(repr, row)) for row in rows] == [list(map(repr, row)) for row in expected]


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
def test_every_code_of_16_bits_has_its_own_text(dtype: str) -> None:
    every = np.arange(65536, dtype=np.uint16).view(dtype)
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        (total,) = connection.execute("SELECT json_array_length(?)", (codes_json(every),)).fetchone()
    assert total == 65536
    assert [int(text) for text in codes_json(every)[1:-1].split(",")] == every.tolist()
    strided = np.repeat(every[:1000], 3)[::3]
    assert [int(text) for text in codes_json(strided)[1:-1].split(",")] == every[:1000].tolist()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.integers(-(9 * 10**18), 9 * 10**18)
        | st.integers(0, 3).map(lambda k: k * 10**9)
        | st.integers(0, 10**6).map(lambda k: k * 1000),
        max_size=8,
    )
)
def test_instants_as_text_are_those_of_datetime(instants: list[int]) -> None:
    expected = [plain_iso(instant) for instant in instants]
    assert iso_texts(np.array(instants, np.int64)) == expected
    assert [text.decode() for text in iso_bytes(np.array(instants, np.int64)).tolist()] == expected
