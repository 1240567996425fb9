"""A run read back from a bus's Parquet folder, while a worker may be writing to it. Imports pyarrow."""

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dtolbus.parquet.footer import EmptyBlock, PartFooter, Span
from dtolbus.parquet.places import IDENTITY, parts_of, run_folder
from dtolbus.records import RunInfo
from dtolbus.rows import READING_KEYS
from dtolbus_workers.arrow import SAMPLE_SCHEMA, TIMES
from dtolbus_workers.destination import (
    Position,
    SampleRun,
    SampleTexts,
    Stored,
    StoredAside,
    StoredBlock,
    StoredEvent,
    StoredReading,
)
from dtolbus_workers.parquet_folder import read_identity, read_part
from dtolbus_workers.parquet_parts import row_groups
from dtolbus_workers.parquet_wide import wide_blocks
from dtolbus_workers.stored_blocks import ROW_TEXTS, guarded, header_remarks, sampled

_NUMBERS = ("block_index", "sample_index", "t_mono_ns", "t_utc", "value")
_FIXED = ("run_id", *READING_KEYS, "sensor_status")


def read_run(folder: Path, run: RunInfo) -> Stored | None:
    """Return what the folder holds of the run, or None."""
    paths = parts_of(run_folder(folder, run))
    if not paths:
        return None
    footers = [read_part(path) for path in paths]
    parts = list(zip(paths, footers, strict=True))
    empty = [block for footer in footers for block in footer.empty_blocks]
    remarks = _remarks(parts, run)
    is_blocks = run.kind == "blocks"
    return Stored(
        position=Position(_contiguous(footers), footers[-1].backfilled),
        gaps=[gap for footer in footers for gap in footer.gaps],
        events=[
            StoredEvent(event.record_index, event.sample_index, event.t_utc.isoformat(), event.kind, event.message)
            for footer in footers
            for event in footer.events
        ],
        put_aside=[
            StoredAside(aside.record_index, aside.reason, aside.frames)
            for footer in footers
            for aside in footer.put_aside
        ],
        blocks=guarded(_blocks(parts, empty, len(run.channels), remarks), remarks, "blocks") if is_blocks else iter(()),
        readings=iter(()) if is_blocks else guarded(_readings(paths), remarks, "readings"),
        destination_id=read_identity(folder).destination_id if (folder / IDENTITY).exists() else None,
        remarks=remarks,
    )


def _remarks(parts: list[tuple[Path, PartFooter]], run: RunInfo) -> list[str]:
    """Return what is wrong with the parts by their footers alone."""
    remarks = [
        f"{path.name}: {remark}"
        for path, footer in parts
        for remark in header_remarks(msgspec.json.encode(footer.run), run)
    ]
    end = 0
    for path, footer in parts:
        if footer.from_index != end:
            remarks.append(f"{path.name} begins at record {footer.from_index}, the parts before it end at {end}")
        end = footer.to_index
    return remarks


def _contiguous(footers: list[PartFooter]) -> int:
    """Return where the parts end that follow one another without a hole."""
    end = 0
    for footer in footers:
        if footer.from_index != end:
            break
        end = footer.to_index
    return end


def _blocks(
    parts: list[tuple[Path, PartFooter]], empty: list[EmptyBlock], channels: int, remarks: list[str]
) -> Iterator[StoredBlock]:
    without_rows = (
        StoredBlock(block.block_index, block.first_sample_index, np.empty((channels, 0)), None, error=block.error)
        for block in empty
    )
    with_rows = (block for path, footer in parts for block in _blocks_of_part(path, footer, remarks))
    return heapq.merge(with_rows, without_rows, key=lambda block: block.block_index)


def _blocks_of_part(path: Path, footer: PartFooter, remarks: list[str]) -> Iterator[StoredBlock]:
    held: Span | None = None
    for block in wide_blocks(path, footer) if footer.layout == "wide" else _long_blocks(path, footer):
        if not footer.from_index <= block.block_index < footer.to_index:
            remarks.append(f"{path.name} holds block {block.block_index}, outside of its range")
        held = _widened(held, block.runs[0])
        yield block
    told = footer.span
    if told is not None and (told != held if held else told.first_sample != told.end_sample):
        remarks.append(f"{path.name}: its footer tells of other samples than it holds")


def _widened(span: Span | None, run: SampleRun) -> Span:
    """Return the span with a block's samples."""
    samples, utc = np.asarray(run.sample_index), np.asarray(run.t_utc)
    own = Span(int(samples.min()), int(samples.max()) + 1, int(utc.min()), int(utc.max()) + 1)
    if span is None:
        return own
    return Span(
        min(span.first_sample, own.first_sample),
        max(span.end_sample, own.end_sample),
        min(span.first_utc_ns, own.first_utc_ns),
        max(span.end_utc_ns, own.end_utc_ns),
    )


def _long_blocks(path: Path, footer: PartFooter) -> Iterator[StoredBlock]:
    tables = (table.select(SAMPLE_SCHEMA.names).cast(SAMPLE_SCHEMA) for table in row_groups([path]))
    blocks = sampled(run for table in tables for run in _runs(table))
    return (block._replace(is_float32=footer.values == "float32") for block in blocks)


def _runs(table: Any) -> Iterator[SampleRun]:
    """Yield the rows as runs: where any text or the block changes, the next begins."""
    rows = len(table)
    if not rows:
        return
    if lacking := [name for name in _NUMBERS if table.column(name).null_count]:
        raise ValueError(f"the column {lacking[0]} has nulls")
    block, sample, mono, value = (
        table.column(n).to_numpy() for n in ("block_index", "sample_index", "t_mono_ns", "value")
    )
    utc = table.column("t_utc").cast(pa.int64()).to_numpy()
    codes, words = zip(*(_coded(table.column(name)) for name in ROW_TEXTS), strict=True)
    begins = np.zeros(rows, bool)
    begins[0] = True
    for column in (block, *codes):
        begins[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(begins).tolist()
    status = table.column("sensor_status")
    for start, end in zip(starts, [*starts[1:], rows], strict=True):
        texts = SampleTexts(*(known[code[start]] for known, code in zip(words, codes, strict=True)))
        own = status.slice(start, end - start)
        yield SampleRun(
            int(block[start]),
            texts,
            sample[start:end],
            mono[start:end],
            utc[start:end],
            value[start:end],
            None if own.null_count == end - start else own.to_pylist(),
        )


def _coded(column: Any) -> tuple[NDArray[np.int32], list[str | None]]:
    """Return a column of dictionary texts as places in a list of texts; null is its last."""
    array = column.unify_dictionaries().combine_chunks()
    codes: NDArray[np.int32] = array.indices.fill_null(-1).to_numpy()
    return codes, [*array.dictionary.to_pylist(), None]


def _readings(paths: list[Path]) -> Iterator[StoredReading]:
    for path in paths:
        table = pq.read_table(path, partitioning=None)
        owners = [
            (field.name, field.metadata[b"dtolbus.channel"].decode(), field.metadata[b"dtolbus.kind"] == b"number")
            for field in table.schema
            if b"dtolbus.channel" in (field.metadata or {})
        ]
        cells = [(channel, table.column(name).to_pylist()) for name, channel, _ in owners]
        units = {channel: table.column(f"{name}_unit").to_pylist() for name, channel, is_main in owners if is_main}
        fixed = {name: _cells(table.column(name), name) for name in _FIXED}
        for place, index in enumerate(table.column("reading_index").to_pylist()):
            values: dict[str, Any] = {}
            for channel, column in cells:
                values[channel] = column[place] if values.get(channel) is None else values[channel]
            yield StoredReading(
                index,
                values,
                {channel: column[place] for channel, column in units.items()},
                {name: column[place] for name, column in fixed.items()},
            )


def _cells(column: Any, name: str) -> list[Any]:
    cells: list[Any] = (
        column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()) if name in TIMES else column
    ).to_pylist()
    return cells
