"""A run read back from a bus's Parquet folder, while a worker may be writing to it. Imports pyarrow."""

import heapq
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dtolbus.records import Gap, RunInfo
from dtolbus_workers.destination import Position, Stored, StoredBlock
from dtolbus_workers.parquet_folder import parts_of, read_part, run_folder
from dtolbus_workers.parquet_footer import EmptyBlock

_SAMPLES = ["block_index", "channel", "sample_index", "value"]


def read_run(folder: Path, run: RunInfo) -> Stored | None:
    """Return what the folder holds of the run, or None."""
    paths = parts_of(run_folder(folder, run))
    if not paths:
        return None
    footers = [read_part(path) for path in paths]
    gaps: list[Gap] = [gap for footer in footers for gap in footer.gaps]
    empty = [block for footer in footers for block in footer.empty_blocks]
    is_blocks = footers[0].run.kind == "blocks"
    return Stored(
        position=Position(_contiguous(footers), footers[-1].backfilled),
        gaps=gaps,
        events=[event.record_index for footer in footers for event in footer.events],
        put_aside=[record.record_index for footer in footers for record in footer.put_aside],
        blocks=_blocks(paths, empty, run.channel_names) if is_blocks else iter(()),
        readings=iter(()) if is_blocks else _readings(paths),
    )


def _contiguous(footers: list[Any]) -> int:
    """Return where the parts end that follow one another without a hole."""
    end = 0
    for footer in footers:
        if footer.from_index != end:
            break
        end = footer.to_index
    return end


def _blocks(paths: list[Path], empty: list[EmptyBlock], channels: tuple[str, ...]) -> Iterator[StoredBlock]:
    without_rows = (
        StoredBlock(block.block_index, block.first_sample_index, np.empty((len(channels), 0)), None) for block in empty
    )
    with_rows = (block for path in paths for block in _blocks_of_part(path, channels))
    return heapq.merge(with_rows, without_rows, key=lambda block: block.block_index)


def _blocks_of_part(path: Path, channels: tuple[str, ...]) -> Iterator[StoredBlock]:
    table = pq.read_table(path, columns=_SAMPLES, partitioning=None)
    index, sample, value = (table.column(name).to_numpy() for name in ("block_index", "sample_index", "value"))
    channel = table.column("channel").combine_chunks().dictionary_decode().to_numpy(zero_copy_only=False)
    edges = np.flatnonzero(index[1:] != index[:-1]) + 1
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(index)], strict=True):
        if end > start:
            rows = slice(start, end)
            values = _by_channel(channel[rows], value[rows], channels)
            yield StoredBlock(int(index[start]), int(sample[rows].min()), values, None)


def _by_channel(channel: NDArray[Any], value: NDArray[np.float64], channels: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the values by channel, shape (channels, samples); NaN where a channel has fewer than another."""
    rows = [value[channel == name] for name in channels]
    values = np.full((len(channels), max(map(len, rows), default=0)), np.nan)
    for out, row in zip(values, rows, strict=True):
        out[: len(row)] = row
    return values


def _readings(paths: list[Path]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for path in paths:
        table = pq.read_table(path, partitioning=None)
        owners = [
            (name, about[b"dtolbus.channel"].decode())
            for name, about in ((field.name, field.metadata or {}) for field in table.schema)
            if b"dtolbus.channel" in about
        ]
        cells = [(channel, table.column(name).to_pylist()) for name, channel in owners]
        for place, index in enumerate(table.column("reading_index").to_pylist()):
            values: dict[str, Any] = {}
            for channel, column in cells:
                values[channel] = column[place] if values.get(channel) is None else values[channel]
            yield index, values
