"""read_parquet gives what the blocks were, from every layout, and reads only what it needs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtolbus import ParquetSamples, read_parquet
from dtolbus.channels import status_of_codes
from dtolbus.records import DaqBlock, DaqEvent, Record, RunInfo
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
    async def go() -> None:
        destination = ParquetDestination(folder, **form)
        await destination.open()
        for batch in batches:
            await destination.commit(batch)
        await destination.close()

    asyncio.run(go())


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
