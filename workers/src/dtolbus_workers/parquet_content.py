"""What a commit writes into a part: the tables of a batch, and the footer beside them. Imports pyarrow."""

from collections.abc import Iterable, Iterator
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import pyarrow as pa

from dtolbus.parquet.footer import BlockRows, EmptyBlock, Form, PartFooter, PutAside, Span
from dtolbus.parquet.wide import wide_columns
from dtolbus.records import DaqBlock
from dtolbus_workers.arrow import SAMPLE_SCHEMA, SAMPLE_SCHEMA_FLOAT32, readings_table, samples_table
from dtolbus_workers.arrow_wide import WideTables
from dtolbus_workers.cells import ColumnKey, assign_columns, cell_kind, put_aside_frames, wanted_columns
from dtolbus_workers.destination import RecordRefusedError, RunBatch

_ROWS = 1 << 20
"""About how many rows of samples are in memory at once, by a worker and by who reads the part: a row group."""


class Content(NamedTuple):
    """The rows of a part."""

    schema: Any
    tables: Iterable[Any]
    """Each a row group; made when it is drawn."""
    form: Form
    columns: dict[ColumnKey, str]
    """The run's after it."""
    rows: tuple[BlockRows, ...] = ()
    compression: str | None = "zstd"


def content(batch: RunBatch, form: Form, known: dict[ColumnKey, str]) -> Content:
    """Return the rows of a batch; `known` are the run's columns before it.

    Raises RecordRefusedError for a record at fault, here or when the tables are drawn.
    """
    if batch.run.kind == "readings":
        return _readings(batch, known)
    blocks = [block for block in batch.blocks if block.samples_per_channel]
    if form.layout == "wide":
        columns = wide_columns(batch.run.channel_names)
        tables = WideTables(batch.run, form.values, columns, blocks)
        keys = {ColumnKey(batch.run.device, batch.run.task, name, "number"): own for name, own in columns.items()}
        # deltas leave nothing to compress
        compression = None if form.values == "codes" else "zstd"
        return Content(tables.schema, iter(tables), form, keys, tables.rows, compression)
    schema = SAMPLE_SCHEMA_FLOAT32 if form.values == "float32" else SAMPLE_SCHEMA
    return Content(schema, _sample_tables(blocks, schema), form, known)


def _readings(batch: RunBatch, known: dict[ColumnKey, str]) -> Content:
    readings = batch.readings
    _refuse_first(readings, lambda reading: [cell_kind(value) for value in reading.values.values()])
    columns = known | assign_columns(known, wanted_columns(batch.run, readings))
    try:
        table = readings_table(readings, columns)
    except (ValueError, OverflowError, pa.ArrowException):
        _refuse_first(readings, lambda reading: readings_table([reading], columns))
        raise
    return Content(table.schema, [table], Form(), columns)


def _sample_tables(blocks: list[DaqBlock], schema: Any) -> Iterator[Any]:
    """Yield the blocks' samples, whole blocks at a time: a row takes many times the bytes of its code."""
    ends = list(accumulate(len(block.channels) * block.samples_per_channel for block in blocks))
    for _, group in groupby(zip(blocks, ends, strict=True), key=lambda block_end: (block_end[1] - 1) // _ROWS):
        piece = [block for block, _ in group]
        try:
            table = samples_table(piece, schema)
        except (ValueError, OverflowError, pa.ArrowException):
            _refuse_first(piece, lambda block: samples_table([block], schema))
            raise
        yield table


def _refuse_first(records: Iterable[Any], check: Any) -> None:
    """Raise RecordRefusedError for the first record that fails the check."""
    for record in records:
        try:
            check(record)
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise RecordRefusedError(record.index, str(error)) from error


def part_footer(batch: RunBatch, found: Content, backfilled: int, parts: int, before: Span | None) -> PartFooter:
    """Return what a part says of itself.

    `backfilled`: records of the parts before it; `parts`: how many the run has with it; `before`: the last one's span.
    """
    return PartFooter(
        run=batch.run,
        from_index=batch.from_index,
        to_index=batch.to_index,
        backfilled=backfilled + batch.backfilled,
        gaps=tuple(batch.gaps),
        events=tuple(batch.events),
        put_aside=tuple(
            PutAside(record.index, batch.put_aside[record.index], put_aside_frames(batch.run, record))
            for record in batch.records
            if record.index in batch.put_aside
        ),
        empty_blocks=tuple(
            EmptyBlock(block.block_index, block.first_sample_index, block.error)
            for block in batch.blocks
            if not block.samples_per_channel
        ),
        columns=tuple((key.channel, key.kind, column) for key, column in found.columns.items()),
        parts=parts,
        layout=found.form.layout,
        values=found.form.values,
        blocks=found.rows,
        span=_span(batch.blocks, before, parts) if batch.run.kind == "blocks" else None,
    )


def _span(blocks: list[DaqBlock], before: Span | None, parts: int) -> Span | None:
    """Return the span of a part; None where it has no samples and what is before it is not known."""
    given = [block for block in blocks if block.samples_per_channel]
    if before is None and parts == 1:
        before = Span(0, 0, 0, 0)
    if not given:
        return before and Span(before.end_sample, before.end_sample, before.end_utc_ns, before.end_utc_ns)
    ends_ns = [block.t_utc_ns + round((block.samples_per_channel - 1) * block.period_ns) + 1 for block in given]
    return Span(
        min(block.first_sample_index for block in given),
        max(block.end_sample_index for block in given),
        min(block.t_utc_ns for block in given),
        max(ends_ns),
    )
