"""Deleting segments of a journal: first the manifest, durably, then the file."""

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import xxhash
from filelock import FileLock, Timeout

from dtolbus import files
from dtolbus.chunkfile import Chunk, ChunkFile
from dtolbus.errors import CannotStartError, DtolbusError, RawFormatError
from dtolbus.framing import file_header_for
from dtolbus.manifest import DeletedSegment, Manifest, read_manifest, write_manifest
from dtolbus.records import RunInfo
from dtolbus.runs import run_path, segment_name
from dtolbus_producer.retention import Removal, SegmentFacts

log = logging.getLogger(__name__)

LOCK_FILE = ".prune.lock"
RESERVE_FILE = ".prune.reserve"
_RESERVE_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def deleting(data: Path, wait_s: float) -> Iterator[None]:
    """Be the only one that deletes from the journal. Raises CannotStartError where another is at it."""
    lock = FileLock(data / LOCK_FILE)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise CannotStartError(f"{data}: another process is deleting from the journal; try again later") from error
    except OSError as error:
        raise CannotStartError(f"{data} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def set_aside_room(data: Path) -> None:
    """Keep some bytes of the disk, so that on a full one a manifest can still be written. Raises OSError."""
    fd = files.open_in_place(data / RESERVE_FILE)
    try:
        missing = _RESERVE_BYTES - os.fstat(fd).st_size
        if missing > 0:
            files.write_at_start(fd, bytes(_RESERVE_BYTES))
    finally:
        os.close(fd)


def delete(data: Path, removals: Sequence[Removal], cause_of: Callable[[Removal], str]) -> list[Removal]:
    """Delete the segments in this order; return those that are gone.

    What cannot be deleted (Windows: somebody reads it) is logged, and stays with all of its run for the next time.
    Raises DtolbusError where there is no room for a manifest.
    """
    gone, stuck = [], set()
    for removal in removals:
        if removal.run.run_id in stuck:
            continue
        try:
            _delete_one(data, removal, cause_of(removal))
        except (RawFormatError, OSError) as error:
            stuck.add(removal.run.run_id)
            log.warning(
                "segment not deleted",
                extra={"run": removal.run.run_id, "segment": removal.segment.first_index, "cause": str(error)},
            )
            continue
        gone.append(removal)
    return gone


def describe(path: Path, run: RunInfo, segment: SegmentFacts, cause: str) -> DeletedSegment:
    """Return what the manifest says of a segment. Raises OSError, RawFormatError."""
    first_sample: int | None = None
    end_sample = lost_samples = without_samples = 0
    with ChunkFile(path, instead=file_header_for(run)) as file:
        for found in file.chunks(file.start, check=False):
            index = found.header.block_index if isinstance(found, Chunk) else None
            if found.header is None or index is None or not segment.first_index <= index < segment.end_index:
                continue
            header = found.header
            lost = 0 if header.event is None else header.event.lost_samples
            lost_samples += lost
            without_samples += header.event is None and header.valid_samples == 0
            first_sample = header.first_sample_index if first_sample is None else first_sample
            end_sample = max(end_sample, header.first_sample_index + header.valid_samples + lost)
    if run.kind == "readings":  # a reading's sample is its record; an event's is a poll
        first_sample, end_sample = segment.first_index, segment.end_index
    return DeletedSegment(
        first_index=segment.first_index,
        end_index=segment.end_index,
        first_sample=first_sample or 0,
        end_sample=end_sample,
        bytes=segment.bytes,
        xxh3_64=_checksum(path),
        cause=cause,
        deleted_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        lost_samples=lost_samples,
        without_samples=without_samples,
    )


def _delete_one(data: Path, removal: Removal, cause: str) -> None:
    run, segment = removal.run, removal.segment
    folder = run_path(data / "journal", run.device, run.task, run.run_id)
    path = folder / segment_name(run.kind, segment.first_index)
    if not segment.is_condemned:
        known = read_manifest(folder)
        _write_manifest(data, folder, known.having(describe(path, run, segment, cause)))
    path.unlink(missing_ok=True)
    files.sync_dir(folder)
    log.info("segment deleted", extra={"segment": str(path), "bytes": segment.bytes, "cause": cause})


def _write_manifest(data: Path, folder: Path, manifest: Manifest) -> None:
    """Write the manifest, on a full disk into the room that was set aside."""
    try:
        write_manifest(folder, manifest)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        try:
            (data / RESERVE_FILE).unlink(missing_ok=True)
            write_manifest(folder, manifest)
        except OSError as again:
            raise DtolbusError(
                f"{folder}: the disk has no room even for the list of what is deleted ({again.strerror}); free some "
                f"kilobytes elsewhere on it, and call again"
            ) from again


def _checksum(path: Path) -> str:
    digest, offset = xxhash.xxh3_64(), 0
    fd = files.open_read(path)
    try:
        while piece := files.read_at(fd, _PIECE_BYTES, offset):
            digest.update(piece)
            offset += len(piece)
    finally:
        os.close(fd)
    return digest.hexdigest()
