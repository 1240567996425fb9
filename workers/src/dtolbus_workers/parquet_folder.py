"""The files of a bus's Parquet folder: `<device>/<task>/<run_id>/part-<from:012d>.parquet`. Imports pyarrow."""

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import msgspec
import pyarrow as pa

from dtolbus import files, topics
from dtolbus.errors import CannotStartError, DtolSinkError
from dtolbus.records import DaqBlock, RunInfo
from dtolbus_workers import parquet_parts
from dtolbus_workers.arrow import SAMPLE_SCHEMA, readings_table, samples_table
from dtolbus_workers.cells import ColumnKey, assign_columns, cell_kind, put_aside_frames, wanted_columns
from dtolbus_workers.destination import Position, RecordRefusedError, RunBatch
from dtolbus_workers.parquet_footer import FORMAT, EmptyBlock, PartFooter, PutAside, footer_keys, parse_footer

IDENTITY = "_dtolbus.json"
"""Readers of a folder skip names that begin with `_`, as this one, or `.`."""
LOCK = ".dtolbus.lock"

_ROWS = 1 << 20
"""About how many rows of samples are in memory at once, by a worker and by who reads the part: a row group."""


class _Identity(msgspec.Struct, frozen=True):
    kind: str
    format: str
    destination_id: str


class _Run(NamedTuple):
    """Where a run stands in the folder."""

    position: Position
    columns: dict[ColumnKey, str]
    parts: int


_NOTHING = _Run(Position(0, 0), {}, 0)


class ParquetFolder:
    """A folder of parts while a worker has it open. Every call blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = filelock.FileLock(folder / LOCK, timeout=0, thread_local=False)
        self._runs: dict[str, _Run] = {}
        self._unsure: set[Path] = set()
        self.destination_id = ""

    def open(self) -> dict[str, Position]:
        """Lock the folder, remove unfinished files, and return the runs' positions. It reads one part of each run.

        Raises:
            CannotStartError: another worker has it, it holds something else, or a run's parts have a hole.
        """
        try:
            files.make_folder(self._folder)
            self._lock.acquire()
        except filelock.Timeout:
            raise CannotStartError(f"{self._folder} is in use by another parquet worker; stop that one first") from None
        except OSError as error:
            raise CannotStartError(f"{self._folder} cannot be written: {error}; choose another folder") from error
        try:
            self.destination_id = self._identity()
            found = {topics.unquote(folder.name): self._found(folder) for folder in self._folder.glob("*/*/*")}
            files.sync_folders(self._folder, 3)  # parts of a process that was killed count from here on
        except OSError as error:
            self._lock.release()
            raise CannotStartError(f"{self._folder} cannot be used: {error}; choose another folder") from error
        except BaseException:
            self._lock.release()
            raise
        self._runs = {run_id: run for run_id, run in found.items() if run.position.next}
        return {run_id: run.position for run_id, run in self._runs.items()}

    def close(self) -> None:
        """Release the folder."""
        self._lock.release()

    def _identity(self) -> str:
        path = self._folder / IDENTITY
        if path.exists():
            return read_identity(self._folder).destination_id
        for temp in self._folder.glob(f".{IDENTITY}.*.tmp"):
            temp.unlink()  # of an open that was killed
        others = sorted(entry.name for entry in self._folder.iterdir() if entry.name != LOCK)
        if any(self._folder.glob("*/*/*/part-*.parquet")):
            raise CannotStartError(
                f"{self._folder} is this sink's folder without its marker {IDENTITY}: restore that file, or move the "
                f"folder away, and what the journal has is stored anew"
            )
        if others:
            raise CannotStartError(
                f"{self._folder} holds {others[0]!r} and is not a dtolbus folder; choose an empty or a new one"
            )
        identity = _Identity("parquet", FORMAT, str(uuid.uuid4()))
        files.replace(path, msgspec.json.format(msgspec.json.encode(identity)))
        return identity.destination_id

    def _found(self, folder: Path) -> _Run:
        """Return where the run stands, after its unfinished files are gone."""
        for temp in folder.glob(".*.tmp"):
            temp.unlink()
        paths = parts_of(folder)
        if not paths:
            return _NOTHING
        last = read_part(paths[-1])
        if last.parts != len(paths):
            _check_joined(paths)
        columns = {
            ColumnKey(last.run.device, last.run.task, channel, kind): column for channel, kind, column in last.columns
        }
        return _Run(Position(last.to_index, last.backfilled), columns, len(paths))

    def commit(self, batch: RunBatch) -> None:
        """Publish the batch as the run's next part, durably.

        Raises:
            DtolSinkError: the batch does not continue the run, or the run's parts are not there any more.
            RecordRefusedError: a record at fault.
            OSError: the disk is full, or fails; nothing is stored.
        """
        run = self._runs.get(batch.run.run_id, _NOTHING)
        if batch.from_index != run.position.next:
            raise DtolSinkError(
                f"{self._folder}: run {batch.run.run_id} is at {run.position.next}, a batch from {batch.from_index} "
                f"does not continue it"
            )
        if batch.to_index == batch.from_index:
            return
        schema, tables, columns = _tables(batch, run.columns)
        position = Position(batch.to_index, run.position.backfilled + batch.backfilled)
        footer = _footer(batch, position, columns, run.parts + 1)
        options = parquet_parts.writer_options(schema, "zstd", use_dictionary=True)
        data = parquet_parts.encoded(schema, tables, footer_keys(footer, self.destination_id), options)
        folder = run_folder(self._folder, batch.run)
        if not run.position.next:
            files.make_folder(folder)
        elif not folder.exists():
            raise DtolSinkError(
                f"{folder} was removed while its worker had it open; nothing of this batch counts as stored: start the "
                f"worker again, it stores the run anew"
            )
        self._publish(data, folder / f"part-{batch.from_index:012d}.parquet")
        self._runs[batch.run.run_id] = _Run(position, columns, footer.parts)

    def _publish(self, data: Any, final: Path) -> None:
        if final in self._unsure:
            final.unlink(missing_ok=True)  # published by a call that then failed: its position was never told
        self._unsure.add(final)
        parquet_parts.publish(data, final)
        self._unsure.discard(final)


def _tables(batch: RunBatch, known: dict[ColumnKey, str]) -> tuple[Any, Iterable[Any], dict[ColumnKey, str]]:
    """Return the schema of the batch's rows, the rows, and the run's columns after it."""
    if batch.run.kind == "blocks":
        return SAMPLE_SCHEMA, _sample_tables([block for block in batch.blocks if block.samples_per_channel]), known
    readings = batch.readings
    _refuse_first(readings, lambda reading: [cell_kind(value) for value in reading.values.values()])
    wanted = wanted_columns(batch.run, readings)
    columns = known | assign_columns(known, wanted)
    try:
        table = readings_table(readings, columns)
    except (ValueError, OverflowError, pa.ArrowException):
        _refuse_first(readings, lambda reading: readings_table([reading], columns))
        raise
    return table.schema, [table], columns


def _sample_tables(blocks: list[DaqBlock]) -> Iterator[Any]:
    """Yield the blocks' samples, whole blocks at a time: a row takes many times the bytes of its code."""
    ends = list(accumulate(len(block.channels) * block.samples_per_channel for block in blocks))
    for _, group in groupby(zip(blocks, ends, strict=True), key=lambda block_end: (block_end[1] - 1) // _ROWS):
        piece = [block for block, _ in group]
        try:
            table = samples_table(piece)
        except (ValueError, OverflowError, pa.ArrowException):
            _refuse_first(piece, lambda block: samples_table([block]))
            raise
        yield table


def _refuse_first(records: Iterable[Any], check: Any) -> None:
    """Raise RecordRefusedError for the first record that fails the check."""
    for record in records:
        try:
            check(record)
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise RecordRefusedError(record.index, str(error)) from error


def _footer(batch: RunBatch, position: Position, columns: dict[ColumnKey, str], parts: int) -> PartFooter:
    return PartFooter(
        run=batch.run,
        from_index=batch.from_index,
        to_index=position.next,
        backfilled=position.backfilled,
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
        columns=tuple((key.channel, key.kind, column) for key, column in columns.items()),
        parts=parts,
    )


def run_folder(folder: Path, run: RunInfo) -> Path:
    """Return where the run's parts lie."""
    return folder / topics.quote(run.device) / topics.quote(run.task) / topics.quote(run.run_id)


def parts_of(folder: Path) -> list[Path]:
    """Return the run's parts in order."""
    return sorted(folder.glob("part-*.parquet"))


def _check_joined(paths: list[Path]) -> None:
    """Raise CannotStartError where a run's parts do not follow each other."""
    end = 0
    for path in paths:
        footer = read_part(path)
        if footer.from_index != end:
            raise CannotStartError(
                f"{path} begins at record {footer.from_index}, but the parts before it end at {end}: put the missing "
                f"part back, or move {path.parent} away to fetch the run again"
            )
        end = footer.to_index


def read_identity(folder: Path) -> _Identity:
    """Return what the folder says it is.

    Raises:
        CannotStartError: it is no Parquet folder of ours.
    """
    path = folder / IDENTITY
    with contextlib.suppress(msgspec.MsgspecError, OSError):
        identity = msgspec.json.decode(files.read(path), type=_Identity)
        if identity.kind == "parquet" and identity.format == FORMAT:
            return identity
    raise CannotStartError(f"{path} is not that of a parquet folder in format {FORMAT}; choose another folder")


def read_part(path: Path) -> PartFooter:
    """Return what the part says about itself.

    Raises:
        CannotStartError: it is damaged, or no part.
    """
    try:
        return parse_footer(parquet_parts.footer(path))
    except (ValueError, OSError, msgspec.MsgspecError, pa.ArrowException) as error:
        raise CannotStartError(
            f"{path} cannot be read ({error}): put it back, or move {path.parent} away to fetch the run again"
        ) from error
