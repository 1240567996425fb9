"""Runs on disk, as whoever reads the journal sees them: gateway, verify, `up`. Only the producer writes them.

`<journal>/<device>/<task>/<run_id>/`: `run.json`, segments `<first index:012d>.dt-raw` (readings: `.dt-readings`),
`head`, the number of durable records, and `manifest.json` where segments were deleted.
"""

import errno
import logging
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from dtolbus import files
from dtolbus.chunkfile import Chunk, ChunkFile
from dtolbus.chunks import decode_record
from dtolbus.errors import MisplacedRunError, RawFormatError, UsageError
from dtolbus.framing import file_header_for
from dtolbus.jsonreading import read_json
from dtolbus.manifest import MANIFEST_FILE, MISSING, Manifest, read_manifest
from dtolbus.numbers import LARGEST, Count, Int64
from dtolbus.records import DaqReading, Gap, Record, RunEnd, RunInfo, RunStatus
from dtolbus.topics import quote

log = logging.getLogger(__name__)

RUN_FILE = "run.json"
HEAD_FILE = "head"
LOCK_FILE = "lock"
RESTORE = (
    "restore the file from a backup, or move the run's folder out of the journal, whose segments can be read by "
    "themselves"
)
"""What to do where `run.json` is damaged or missing."""
SUFFIXES = {"blocks": ".dt-raw", "readings": ".dt-readings"}

_HEAD = struct.Struct("<4sHHQQI")
_HEAD_MAGIC = b"dtbh"
_HEAD_VERSION = 1
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM}
"""What says nothing of a segment, only of who reads it now: no gap may come of it."""


class Head(NamedTuple):
    """How much of a run is durable."""

    head: int
    """Number of durable records."""
    end: int
    """Byte after the last durable record in the newest segment."""


class RunClock(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run's clock went, of a run that its producer closed (it was not killed)."""

    utc_moved_ns: Int64
    """How far the wall clock moved against the run's own UTC, which keeps the offset of its start, ns."""
    rate_hz: float | None = None
    """Mean true rate by the clock fit; None where the samples were not timed (readings, recordings)."""
    drift_ppm: float | None = None
    """How far that is off the nominal rate; positive: the board is fast."""
    drift_uncertainty_ppm: float | None = None
    uncertainty_ns: Int64 | None = None
    """How far the monotonic instants of the last samples may be off, ns."""


class RunFile(msgspec.Struct, frozen=True):
    """`run.json`: what a run is and, once it is over, how it ended."""

    info: RunInfo
    state: RunEnd = "running"
    final: Count | None = None
    """Number of records of a run that is over."""
    samples: Count | None = None
    """Samples a channel (polls) journaled, of a run that is over."""
    bytes: Count | None = None
    """Bytes of all segments of a run that is over."""
    clock: RunClock | None = None


def encode_head(head: Head) -> bytes:
    """Return the content of a `head` file."""
    body = _HEAD.pack(_HEAD_MAGIC, _HEAD_VERSION, 0, head.head, head.end, 0)[:-4]
    return body + struct.pack("<I", zlib.crc32(body))


def decode_head(data: bytes) -> Head | None:
    """Return what a `head` file says; None where it is torn, and to be read again."""
    if len(data) != _HEAD.size or zlib.crc32(data[:-4]) != _HEAD.unpack(data)[5]:
        return None
    magic, version, _flags, head, end, _crc = _HEAD.unpack(data)
    if magic != _HEAD_MAGIC or version != _HEAD_VERSION:
        raise RawFormatError(f"a head file of version {version} ({magic!r}); this reader knows {_HEAD_VERSION}")
    if max(head, end) > LARGEST:
        raise RawFormatError(f"a head of {head} records in {end} bytes")
    return Head(head, end)


def whole_run_id(given: str, known: Iterable[str]) -> str:
    """Return the one of these run_ids that begins with what was given; that itself, where none does.

    Raises UsageError where several do.
    """
    found = sorted({run_id for run_id in known if run_id.startswith(given)}) if given else []
    if given in found or not found:
        return given
    if len(found) > 1:
        raise UsageError(f"run {given}: {len(found)} runs begin so, {found[0]} and {found[1]} among them: give more")
    return found[0]


def run_path(journal: Path, device: str, task: str, run_id: str) -> Path:
    """Return the folder of a run."""
    return journal / quote(device) / quote(task) / quote(run_id)


def segment_name(kind: str, first_index: int) -> str:
    """Return the file name of the segment that begins with record `first_index`."""
    return f"{first_index:012d}{SUFFIXES[kind]}"


def list_runs(journal: Path) -> list["RunFolder"]:
    """Return the runs of a journal by device, task and age.

    A folder whose `run.json` is not there yet is left out, and a misplaced one, which is logged.
    """
    found = []
    for path in sorted(journal.glob(f"*/*/*/{RUN_FILE}")):
        try:
            found.append(placed_run(path.parent))
        except MisplacedRunError as error:
            log.warning("run left out", extra={"cause": str(error)})
    return found


def placed_run(path: Path) -> "RunFolder":
    """Return the run of a journal's folder. Raises MisplacedRunError where that is not the run's own: a copy, say."""
    folder = RunFolder(path)
    info = folder.info
    names = tuple(quote(name) if name else "?" for name in (info.device, info.task, info.run_id))
    if path.parts[-3:] != names:
        own = Path(*path.parts[:-3], *names)
        if path == own:  # but for the case, on a system that knows none
            return folder
        error = MisplacedRunError(
            f"{path} is left out: its {RUN_FILE} says that it is the run of {own}; move it out of the journal, or "
            f"back to there, where that is gone"
        )
        error.is_only = not (own / RUN_FILE).exists()
        raise error
    return folder


class RunFolder:
    """One run's folder. Keeps at most two descriptors open; close it after use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = self._read_run_file()
        self._head_fd = -1
        self._head = Head(0, 0)
        self._open: ChunkFile | None = None
        self._next = (-1, 0)
        self._tried_bytes = -1
        """The open file's length when nothing more stood whole in it."""
        self._manifest = Manifest()
        self._manifest_stamp = (-1, -1)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; reading opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None
            self._next = (-1, 0)
        if self._head_fd >= 0:
            os.close(self._head_fd)
            self._head_fd = -1

    @property
    def info(self) -> RunInfo:
        """The run header."""
        return self._file.info

    def refresh(self) -> RunFile:
        """Read `run.json` again, unless the run was over already; return it."""
        if self._file.state == "running":
            self._file = self._read_run_file()
        return self._file

    def head(self) -> int:
        """Return the number of durable records now."""
        if self._file.final is not None:
            return self._file.final
        try:
            if self._head_fd < 0:
                self._head_fd = files.open_read(self.path / HEAD_FILE)
        except FileNotFoundError:
            return 0
        for _ in range(100):  # a read may fall into a rewrite
            found = decode_head(files.read_at(self._head_fd, _HEAD.size, 0))
            if found is not None:
                self._head = found
                break
        return self._head.head

    def first(self) -> int:
        """Return the first index still there; the head where none is."""
        segments = self.segments()
        return min(segments[0], self.head()) if segments else self.head()

    def status(self) -> RunStatus:
        """Return how far the run is."""
        file = self.refresh()
        return RunStatus(file.info, file.state, self.first(), self.head())

    def segments(self) -> list[int]:
        """Return the first index of each segment, in order."""
        suffix = SUFFIXES[self.info.kind]
        names = (name.removesuffix(suffix) for name in os.listdir(self.path) if name.endswith(suffix))
        return sorted(int(name) for name in names if name.isdigit())

    def manifest(self) -> Manifest:
        """Return what was deleted; nothing where that cannot be read, which is logged. Raises OSError."""
        try:
            stat = (self.path / MANIFEST_FILE).stat()
        except FileNotFoundError:
            return Manifest()
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._manifest_stamp:
            self._manifest_stamp = stamp
            try:
                self._manifest = read_manifest(self.path)
            except RawFormatError as error:
                self._manifest = Manifest()
                log.warning("manifest cannot be read", extra={"run": str(self.path), "cause": str(error)})
        return self._manifest

    def records(self, from_index: int, to_index: int) -> Iterator[Record | Gap]:
        """Yield the records [from_index, to_index) in order, and a Gap for each range that cannot be read.

        `to_index` must not be beyond the head. Reading on where the last call ended is cheap. Raises OSError where
        it is the reader who is short of something (descriptors, memory, permission).
        """
        position = from_index
        for record in self.read_on(position, to_index):
            position = record.index + 1
            yield record
        while position < to_index:
            segments = self.segments()
            gone = [s for s in self.manifest().segments if s.first_index not in segments]  # read after the listing
            place = bisect_right(segments, position) - 1
            behind = segments[place + 1] if place + 1 < len(segments) else to_index
            if place < 0 or any(s.first_index <= position < s.end_index for s in gone):
                end = min(behind, to_index)
                yield from self.manifest().gaps(position, end)
            else:
                end = min([behind, to_index, *(s.first_index for s in gone if s.first_index > position)])
                yield from self._segment_records(segments[place], position, end)
            position = end

    def read_on(self, position: int, end: int) -> Iterator[Record]:
        """Yield the records [position, end) as far as they stand whole where the last reading ended, maybe none.

        Most reading is that: of a run as it grows, which needs no look at the folder.
        """
        if self._open is None or self._next[0] != position:
            return
        file, offset = self._open, self._next[1]
        size = file.size
        while position < end and offset < size:
            found = file.whole(offset, size)
            if found is None or found.header.block_index != position:
                return
            record = _decoded(file, found, self.info)
            if isinstance(record, Gap):
                return
            position, offset = position + 1, found.end
            self._ended_at(file, position, offset)
            yield record

    def read_ahead(self, position: int, end: int) -> Iterator[Record]:
        """Yield what `read_on` does, beyond the head too; where that was not all, nothing until the file has grown."""
        size = -1 if self._open is None else self._open.size
        if size == self._tried_bytes:
            return
        for record in self.read_on(position, end):
            position = record.index + 1
            yield record
        if position < end:
            self._tried_bytes = size

    def _segment_records(self, segment: int, position: int, end: int) -> Iterator[Record | Gap]:
        cause = MISSING
        try:
            file, offset = self._seek(segment, position)
        except FileNotFoundError:  # deleted since it was listed
            yield from self.manifest().gaps(position, end)
            return
        except (RawFormatError, OSError) as error:
            if isinstance(error, OSError) and error.errno in _SHORTAGES:
                raise
            yield Gap(position, end, f"the segment cannot be read: {error}")
            return
        for found in file.chunks(offset):
            if not isinstance(found, Chunk):
                cause = f"damaged in the journal: {found.reason}"
                continue
            index = found.header.block_index
            if index is None or index < position:
                continue
            if index > position:
                yield Gap(position, min(index, end), cause)
            if index >= end:
                break
            record = _decoded(file, found, self.info)
            position, cause = index + 1, MISSING
            self._ended_at(file, position, found.end)
            yield record
            if position == end:
                return
        else:
            yield Gap(position, end, cause)

    def _seek(self, segment: int, index: int) -> tuple[ChunkFile, int]:
        """Return the segment's file and the offset of a chunk at or before the record `index`."""
        if self._open is None or self._open.path.stem != f"{segment:012d}":
            if self._open is not None:
                self._open.close()
                self._open = None
            path = self.path / segment_name(self.info.kind, segment)
            self._open = self._own(ChunkFile(path, instead=file_header_for(self.info)))
        elif self._next[0] == index:
            return self._open, self._next[1]
        return self._open, self._open.start if index == segment else self._open.before(index)

    def _ended_at(self, file: ChunkFile, position: int, offset: int) -> None:
        """Note where reading may go on, unless another file was opened meanwhile."""
        if file is self._open:
            self._next = (position, offset)

    def _own(self, file: ChunkFile) -> ChunkFile:
        """Return the file, unless it says that it is another run's."""
        run = file.header.run
        if run is not None and _stream(run) != _stream(self.info):
            file.close()
            raise RawFormatError(f"it is of the run {run.run_id} of {run.device}/{run.task}")
        return file

    def _read_run_file(self) -> RunFile:
        path = self.path / RUN_FILE
        try:
            return read_json(files.read(path), RunFile)
        except ValueError as error:
            raise RawFormatError(f"{path} is damaged: it does not say what the run is") from error


def _stream(run: RunInfo) -> tuple[str, str, str, str]:
    return run.run_id, run.device, run.task, run.kind


def _decoded(file: ChunkFile, chunk: Chunk, run: RunInfo) -> Record | Gap:
    index = chunk.header.block_index or 0
    try:
        record = decode_record(file.header, chunk.header, chunk.payload)
    except RawFormatError as error:
        return Gap(index, index + 1, f"damaged in the journal: {error}")
    if isinstance(record, DaqReading) and not (record.is_of(run) and record.index == index):
        return Gap(index, index + 1, "damaged in the journal: a reading of another run, or place")
    return record
