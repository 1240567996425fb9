"""`.dt-raw` files as users have them: iterating over one, and `RawCountsSink`, which writes one by itself."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dtolbus import files
from dtolbus.chunkfile import Chunk, ChunkFile, Damage
from dtolbus.chunks import decode_record, encode_block
from dtolbus.errors import DtolSinkError, DtolSinkSchemaError, DtolSinkWriteError, RawFormatError
from dtolbus.framing import RAW_FORMAT_VERSION, FileHeader, seal, seal_file_header
from dtolbus.records import Channel, DaqBlock, DaqReading, ErrorInfo, Record, utc_from_ns
from dtolbus.sinks import SinkBase

log = logging.getLogger(__name__)


def read_file_header(path: Path | str) -> dict[str, Any]:
    """Return the JSON header of a `.dt-raw` file. Raises RawFormatError where it is none, OSError."""
    with ChunkFile(Path(path)) as file:
        return file.header.raw


def iter_records(path: Path | str) -> Iterator[Record]:
    """Yield a file's records in order; a damaged chunk is a block without samples whose `error` says so.

    A torn tail ends the iteration with a warning in the log: what was written whole comes first, whatever follows.
    Raises RawFormatError where it is no `.dt-raw` file, OSError.
    """
    with ChunkFile(Path(path)) as file:
        known: Record | None = None
        for found in file.chunks(file.start):
            if isinstance(found, Chunk):
                known = decode_record(file.header, found.header, found.payload)
                yield known
            elif found.is_tail:
                log.warning("torn tail", extra={"path": str(path), "bytes": found.end - found.offset})
            else:
                log.warning("damaged chunk", extra={"path": str(path), "offset": found.offset, "cause": found.reason})
                yield _damaged_block(file.header, found, known)


def iter_blocks(path: Path | str) -> Iterator[DaqBlock]:
    """Yield the blocks of a `.dt-raw` file in order, with their codes, times, flags and numbers as they were written.

    Events and damaged chunks are blocks without samples whose `error` tells what happened. A torn tail ends the
    iteration with a warning. Raises RawFormatError where it is no `.dt-raw` file, OSError.
    """
    with ChunkFile(Path(path)) as file:
        names = file.header.channels
    for record in iter_records(path):
        if isinstance(record, DaqBlock):
            yield record
        elif isinstance(record, DaqReading):
            raise RawFormatError(f"{path}: holds readings, not blocks; use iter_records")
        else:
            yield DaqBlock(
                device=record.device,
                task=record.task,
                channels=names,
                block_index=record.record_index,
                first_sample_index=record.sample_index,
                samples_per_channel=0,
                t_mono_ns=record.t_mono_ns,
                t_utc=record.t_utc,
                error=ErrorInfo(f"dtolbus.{record.kind}", record.message),
                run_id=record.run_id,
            )


def _damaged_block(file: FileHeader, damage: Damage, before: Record | None) -> DaqBlock:
    index = before.index + 1 if before is not None else 0
    header = damage.header
    return DaqBlock(
        device=str(file.raw.get("device") or ""),
        task=file.raw.get("task"),
        channels=file.channels,
        block_index=index,
        first_sample_index=before.end_sample_index if isinstance(before, DaqBlock) else 0,
        samples_per_channel=0,
        t_mono_ns=header.t_mono_ns if header else 0,
        t_utc=utc_from_ns(0),
        error=ErrorInfo("dtolbus.errors.RawFormatError", f"bytes {damage.offset} to {damage.end}: {damage.reason}"),
        run_id=file.raw.get("run_id"),
    )


class RawCountsSink(SinkBase):
    """Writes the raw codes of blocks to one `.dt-raw` version 2 file, each on disk when `write_raw` returns.

    `file_metadata` is kept in the file header under `metadata`. The file must not exist, unless `overwrite` is set;
    a sink that is closed and opened again appends to its own file.
    """

    def __init__(
        self, path: Path | str, *, file_metadata: Mapping[str, Any] | None = None, overwrite: bool = False
    ) -> None:
        self._path = Path(path)
        self._metadata = dict(file_metadata or {})
        self._overwrite = overwrite
        self._fd = -1
        self._size = 0
        self._seq = 0
        self._shape: tuple[str, tuple[str, ...]] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    async def open(self) -> None:
        """Make the file. Raises DtolSinkError where it exists or its folder cannot be written."""
        if self._fd >= 0:
            return
        try:
            if self._seq:
                self._fd = files.open_existing(self._path)
                return
            if self._overwrite:
                self._path.unlink(missing_ok=True)
            self._fd = files.open_new(self._path)
        except FileExistsError as error:
            raise DtolSinkError(
                f"RawCountsSink: {self._path} exists; choose another name, or pass overwrite=True to lose it"
            ) from error
        except OSError as error:
            raise DtolSinkError(f"RawCountsSink: cannot open {self._path}: {error}") from error

    async def close(self) -> None:
        """Sync and close the file. Does nothing when it is closed."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            files.sync(fd)
        finally:
            os.close(fd)

    async def write(self, block: DaqBlock) -> None:
        """Append one block: `write_raw`, so that `pipe_blocks` takes this sink."""
        await self.write_raw(block)

    async def write_raw(self, block: DaqBlock) -> None:
        """Append one block's codes; a block with an error and no codes is kept as a chunk without samples.

        Raises:
            DtolSinkError: the sink is not open.
            DtolSinkSchemaError: the codes' type or the channels are not those of the first block.
            DtolSinkWriteError: the block has neither codes nor an error, or the disk refused; nothing half-written.
        """
        if self._fd < 0:
            raise DtolSinkError("RawCountsSink: write_raw before open()")
        if block.raw_codes is None and block.error is None:
            raise DtolSinkWriteError(f"RawCountsSink: block {block.block_index} has no raw_codes")
        parts = self._start_of_file(block)
        parts += seal(*encode_block(block, self._seq))
        try:
            self._size += files.append(self._fd, parts)
        except OSError as error:
            with contextlib.suppress(OSError):
                files.truncate(self._fd, self._size)
            if self._seq == 0:
                self._shape = None
            raise DtolSinkWriteError(f"RawCountsSink: cannot write {self._path}: {error}") from error
        self._seq += 1

    def _start_of_file(self, block: DaqBlock) -> list[bytes | memoryview]:
        """Return the file header before the first block; hold later blocks against it."""
        dtype = None if block.raw_codes is None else str(block.raw_codes.dtype)
        if self._shape is None:
            self._shape = (dtype or "int16", block.channels)
            return [seal_file_header(_lone_file_header(block, self._shape[0], self._metadata))]
        if (dtype or self._shape[0], block.channels) != self._shape:
            raise DtolSinkSchemaError(
                f"RawCountsSink: {self._path} holds {self._shape[0]} codes of {self._shape[1]}; block "
                f"{block.block_index} has {dtype} of {block.channels}: write it to another file"
            )
        return []


def _lone_file_header(block: DaqBlock, dtype: str, metadata: dict[str, Any]) -> dict[str, Any]:
    calibration = block.calibration or tuple(Channel(name, block.units.get(name)) for name in block.channels)
    return {
        "format_version": RAW_FORMAT_VERSION,
        "task": block.task,
        "device": block.device,
        "channels": [{"name": name, "unit": block.units.get(name)} for name in block.channels],
        "sample_rate_hz": block.sample_rate_hz,
        "block_period_ns": block.block_period_ns,
        "dtype": dtype,
        "n_channels": len(block.channels),
        "samples_per_buffer": block.samples_per_channel,
        "task_started_at": block.task_started_at and block.task_started_at.isoformat(),
        "metadata": metadata,
        "run_id": block.run_id,
        "calibration": calibration if block.calibration else None,
    }
