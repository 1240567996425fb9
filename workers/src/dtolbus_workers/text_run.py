"""One run's text files: which there are, how long their whole rows are, and what a batch adds to them. Pure."""

import base64
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from dtolbus.numbers import Count
from dtolbus.records import DaqBlock, DaqReading, RunInfo, Scalar
from dtolbus.rows import READING_KEYS
from dtolbus.topics import quote, stream_name
from dtolbus_workers.cells import put_aside_frames
from dtolbus_workers.columns import BLOCK_COLUMNS, SAMPLE_COLUMNS, block_summary
from dtolbus_workers.destination import RecordRefusedError, RunBatch
from dtolbus_workers.schema import STATUS_COLUMN, ColumnNames, reading_names, reading_row, unwritable
from dtolbus_workers.text_format import JsonlFormat, TextFormat

TextBlocks = Literal["skip", "samples", "summary"]
"""What a text sink stores of a block: nothing (it takes readings only), a row for each sample, or one summary row."""

GAPS, EVENTS, PUT_ASIDE, BLOCKS = "gaps.jsonl", "events.jsonl", "put-aside.jsonl", "blocks.jsonl"
POSITION = "position.json"

_JSONL = JsonlFormat()
_ELSEWHERE = frozenset("/\\:\0")
"""Letters by which a name may be a path."""


class RunFiles(msgspec.Struct, frozen=True):
    """The sidecar `<run_id>.position.json`: what of the run's files counts."""

    run: RunInfo
    next: Count = 0
    """Number of records stored, from 0 on without holes."""
    backfilled: Count = 0
    files: dict[str, Count] = {}
    """Length of each file's whole rows, bytes."""
    data: tuple[str, ...] = ()
    """The files of rows, in the order of their rows; a new one begins where a column comes in."""
    header: tuple[str, ...] = ()
    """Columns of the newest of them (CSV)."""
    columns: dict[str, str] = {}
    """Each channel's column."""
    updated_at: str = ""


class Addition(NamedTuple):
    """What a batch adds: bytes at the end of files, and the sidecar after them, its lengths not yet filled in."""

    chunks: dict[str, bytes]
    after: RunFiles


def file_name(run: RunInfo, ending: str) -> str:
    """Return the name of one of the run's files."""
    return f"{quote(run.run_id)}.{ending}"


def is_of_run(name: str, run: RunInfo) -> bool:
    """Return whether it may be the name of one of the run's files: it leads nowhere else."""
    return name.startswith(file_name(run, "")) and not _ELSEWHERE & set(name)


def addition(batch: RunBatch, before: RunFiles, text: TextFormat, blocks: TextBlocks) -> Addition:
    """Return what the batch adds to the run's files.

    Raises RecordRefusedError for a reading with a value that is neither number nor text.
    """
    chunks: dict[str, bytes] = {}
    after = msgspec.structs.replace(before, next=batch.to_index, backfilled=before.backfilled + batch.backfilled)
    if batch.readings:
        after = _add_readings(chunks, batch, after, text)
    if batch.blocks:
        after = _add_blocks(chunks, batch, after, text, summaries=blocks == "summary")
    for ending, rows in _other_rows(batch).items():
        if rows:
            chunks[file_name(batch.run, ending)] = b"".join(map(_JSONL.row, rows))
    return Addition(chunks, after)


def _add_readings(chunks: dict[str, bytes], batch: RunBatch, files: RunFiles, text: TextFormat) -> RunFiles:
    readings = batch.readings
    for reading in readings:
        for name, value in reading.values.items():
            if (why := unwritable(value)) is not None:
                raise RecordRefusedError(reading.index, f"channel {name!r}: {why}")
    names = ColumnNames(files.columns)
    columns = names.of([*batch.run.channel_names, *reading_names(readings)])
    files = msgspec.structs.replace(files, columns=dict(names.columns))
    kept = text.keeps_nonfinite
    rows: list[Mapping[str, Scalar]] = [
        _key(reading) | reading_row(reading, columns, keeps_nan=kept, keeps_inf=kept) for reading in readings
    ]
    files = _with_file(chunks, files, text, _reading_columns(list(files.columns.values())))
    if text.fixed_columns:
        rows = [{column: row.get(column) for column in files.header} for row in rows]
    chunks[files.data[-1]] += b"".join(map(text.row, rows))
    return files


def _key(reading: DaqReading) -> dict[str, Scalar]:
    return {"run_id": reading.run_id, "reading_index": reading.reading_index}


def _reading_columns(channels: Sequence[str]) -> tuple[str, ...]:
    *fixed, error_type, error_message = READING_KEYS
    units = [f"{column}_unit" for column in channels]
    return ("run_id", "reading_index", *fixed, *channels, *units, error_type, error_message, STATUS_COLUMN)


def _add_blocks(
    chunks: dict[str, bytes], batch: RunBatch, files: RunFiles, text: TextFormat, *, summaries: bool
) -> RunFiles:
    if summaries:
        files = _with_file(chunks, files, text, BLOCK_COLUMNS)
        chunks[files.data[-1]] += b"".join(text.row(block_summary(block)) for block in batch.blocks)
        return files
    filled = [block for block in batch.blocks if block.samples_per_channel]
    if filled:
        files = _with_file(chunks, files, text, SAMPLE_COLUMNS)
        chunks[files.data[-1]] += b"".join(map(text.block_rows, filled))
    _add_empty(chunks, batch, [block for block in batch.blocks if not block.samples_per_channel])
    return files


def _add_empty(chunks: dict[str, bytes], batch: RunBatch, empty: Sequence[DaqBlock]) -> None:
    """Add a summary of the blocks without samples, so that their errors are not lost."""
    if empty:
        chunks[file_name(batch.run, BLOCKS)] = b"".join(_JSONL.row(block_summary(block)) for block in empty)


def _with_file(chunks: dict[str, bytes], files: RunFiles, text: TextFormat, columns: tuple[str, ...]) -> RunFiles:
    """Return the files with a newest one that has the columns, begun with its header if it must be a new one."""
    if not files.data or (text.fixed_columns and columns != files.header):
        number = len(files.data) + 1
        ending = text.extension if number == 1 else f"{number}.{text.extension}"
        name = file_name(files.run, ending)
        chunks[name] = text.header(columns)
        files = msgspec.structs.replace(files, data=(*files.data, name), header=columns if text.fixed_columns else ())
    chunks.setdefault(files.data[-1], b"")
    return files


def _other_rows(batch: RunBatch) -> dict[str, list[dict[str, Scalar]]]:
    """Return the rows of the gaps, the events and the records put aside, by the file's ending."""
    run = batch.run
    key: dict[str, Scalar] = {"run_id": run.run_id, "stream": stream_name(run.device, run.task)}
    records = {record.index: record for record in batch.records}
    return {
        GAPS: [key | msgspec.to_builtins(gap) for gap in batch.gaps],
        EVENTS: [
            key
            | {
                "record_index": event.index,
                "sample_index": event.sample_index,
                "t_utc": event.t_utc.isoformat(),
                "kind": event.kind,
                "message": event.message,
            }
            for event in batch.events
        ],
        PUT_ASIDE: [
            key
            | {
                "record_index": index,
                "reason": reason,
                "frames": base64.b64encode(put_aside_frames(run, records[index])).decode(),
            }
            for index, reason in batch.put_aside.items()
        ],
    }
