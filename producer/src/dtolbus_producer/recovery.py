"""What a killed producer left behind: runs are ended, torn tails cut off and kept aside."""

import logging
import os
from bisect import bisect_right
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from dtolbus import files
from dtolbus.chunkfile import Chunk, ChunkFile, Damage
from dtolbus.errors import MisplacedRunError, RawFormatError
from dtolbus.framing import FileHeader, file_header_for
from dtolbus.jsonreading import read_json
from dtolbus.runs import HEAD_FILE, LOCK_FILE, RUN_FILE, Head, RunFile, RunFolder, decode_head, encode_head, placed_run
from dtolbus.runs import segment_name as name_of
from dtolbus.topics import quote

log = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 64
_LOCK_S = 0.2
"""Whoever looks whether a run is written holds its lock for an instant."""


def recover_device(journal: Path, device: str) -> list[Path]:
    """Recover the device's runs that nobody writes any more; return their folders."""
    folders = sorted(path.parent for path in (journal / quote(device)).glob(f"*/*/{RUN_FILE}"))
    return [folder for folder in folders if _is_placed(folder) and recover_run(folder) is not None]


def _is_placed(folder: Path) -> bool:
    """Return whether it is the folder of its run; a copy is told, and stays as it is."""
    try:
        placed_run(folder)
    except MisplacedRunError as error:
        log.warning("run left out", extra={"cause": str(error)})
        return False
    except (RawFormatError, OSError):
        pass  # whoever recovers it tells
    return True


def recover_run(folder: Path) -> RunFile | None:
    """End a run whose producer is gone: its last chunk is cut off where it is torn, its final is what is readable.

    Where the head says that more was durable, its final is that head: whoever reads on gets a gap.
    Returns None where the run is over already, is being written, or cannot be read (that is logged). What is cut off
    is kept as `<segment>.torn`.
    """
    try:
        if _read_run_file(folder).state != "running":
            return None
        with FileLock(str(folder / LOCK_FILE), timeout=_LOCK_S):
            file = _read_run_file(folder)
            return _recover(folder, file) if file.state == "running" else None
    except Timeout:
        return None
    except (OSError, ValueError, RawFormatError) as error:
        log.warning("run not recovered", extra={"run": str(folder), "error": str(error)})
        return None


def _read_run_file(folder: Path) -> RunFile:
    return read_json(files.read(folder / RUN_FILE), RunFile)


def _recover(folder: Path, file: RunFile) -> RunFile:
    head = _readable_head(folder)
    final = end = 0
    for first_index in reversed(RunFolder(folder).segments()):
        path = folder / name_of(file.info.kind, first_index)
        found = _recover_segment(path, first_index, head, file_header_for(file.info))
        if found is not None:
            final, end = found
            break
    if head > final:
        extra = {"run": str(folder), "readable_to": final, "head": head}
        log.error("records that were safe on disk are missing in the journal", extra=extra)
    final = max(final, head, RunFolder(folder).manifest().end)  # all that was durable counts: what is gone is a gap
    _make_durable(folder, file.info.kind, head)
    ended = RunFile(file.info, "interrupted", final, None, _segment_bytes(folder, file.info.kind))
    fd = files.open_in_place(folder / HEAD_FILE)
    try:
        files.write_at_start(fd, encode_head(Head(final, end)))
    finally:
        os.close(fd)
    (folder / ".reserve").unlink(missing_ok=True)
    files.replace(folder / RUN_FILE, msgspec.json.encode(ended))
    log.warning("run recovered", extra={"run": str(folder), "final": final})
    return ended


def _make_durable(folder: Path, kind: str, head: int) -> None:
    """Sync what the producer had no time to: once the run is over, its records are published as safe."""
    firsts = RunFolder(folder).segments()
    for first in firsts[max(0, bisect_right(firsts, head) - 1) :]:
        fd = files.open_existing(folder / name_of(kind, first))
        try:
            files.sync(fd)
        finally:
            os.close(fd)
    files.sync_dir(folder)


def _readable_head(folder: Path) -> int:
    """Return how many records were durable: the head is written after their sync. 0 where it is damaged."""
    try:
        found = decode_head(files.read(folder / HEAD_FILE)[:_HEAD_BYTES])
    except (OSError, RawFormatError):
        return 0
    return found.head if found else 0


def _recover_segment(path: Path, first_index: int, head: int, header: FileHeader) -> tuple[int, int] | None:
    """Cut the segment's torn tail off; return the index and the byte after its last record.

    None where neither its file header nor any record is whole: then all of it is put aside.
    """
    with ChunkFile(path, instead=header) as file:
        next_index, end, size = first_index, file.start, file.size
        for found in file.chunks(file.start):
            if isinstance(found, Chunk) or _was_durable(found, head):
                index = None if found.header is None else found.header.block_index
                next_index, end = next_index if index is None else index + 1, found.end
    if end == 0:
        os.replace(path, _free_name(path))
        files.sync_dir(path.parent)
        return None
    if end < size:
        _cut(path, end, size)
    return next_index, end


def _was_durable(damage: Damage, head: int) -> bool:
    """Tell a chunk that was damaged after it was durable (it stays, and is a gap) from one that never was."""
    index = None if damage.header is None else damage.header.block_index
    return not damage.is_tail and index is not None and index < head


def _cut(path: Path, end: int, size: int) -> None:
    """Copy the bytes [end, size) aside, then cut them off."""
    source = files.open_existing(path)
    try:
        aside = files.open_new(_free_name(path))
        try:
            for offset in range(end, size, _PIECE_BYTES):
                files.append(aside, [files.read_at(source, min(_PIECE_BYTES, size - offset), offset)])
            files.sync(aside)
        finally:
            os.close(aside)
        files.truncate(source, end)
        files.sync(source)
    finally:
        os.close(source)
    files.sync_dir(path.parent)
    log.warning("torn tail cut off", extra={"segment": str(path), "bytes": size - end})


def _free_name(path: Path) -> Path:
    """Return the segment's name with `.torn`, numbered where that is taken."""
    name, number = path.with_name(f"{path.name}.torn"), 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.{number}.torn")
    return name


def _segment_bytes(folder: Path, kind: str) -> int:
    return sum((folder / name_of(kind, first)).stat().st_size for first in RunFolder(folder).segments())
