"""Runs whose `run.json` says that they are running, and that nobody writes: their producer was killed.

A gateway, the next producer or `dtolbus up` ends them. Until then their `head` may be behind what their files hold.
"""

import os
import sys
from pathlib import Path

from dtolbus import files
from dtolbus.chunkfile import Chunk, ChunkFile
from dtolbus.framing import file_header_for
from dtolbus.runs import LOCK_FILE, RunFolder, segment_name


def is_abandoned(run: RunFolder) -> bool | None:
    """Return whether the run is not over, and no process of this machine writes it; None where that cannot be told."""
    if run.refresh().state != "running":
        return False
    held = is_held(run.path / LOCK_FILE)
    if held is None:
        return None
    return not held and run.refresh().state == "running"  # a producer writes how its run ended before it lets go


def records_on_disk(run: RunFolder) -> int:
    """Return one past the last record that its files hold whole, or that was durable: what recovery would make final.

    Reads its newest segment. Raises RawFormatError, OSError.
    """
    known = max(run.head(), run.manifest().end)
    for first_index in reversed(run.segments()):
        path = run.path / segment_name(run.info.kind, first_index)
        with ChunkFile(path, instead=file_header_for(run.info)) as file:
            whole = (found.header.block_index for found in file.chunks(file.start) if isinstance(found, Chunk))
            last = max((index for index in whole if index is not None), default=-1)
            is_begun = file.start > 0 or last >= 0
        if is_begun:
            return max(known, last + 1, first_index)
    return known


def is_held(path: Path) -> bool | None:
    """Return whether a process holds the lock file; None where that cannot be told. The file is not made or changed.

    It may be read-only. A process that wants the lock at this very instant may have to try again.
    """
    try:
        fd = files.open_read(path)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        return _is_locked(fd)
    finally:
        os.close(fd)


def _is_locked(fd: int) -> bool | None:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415  # Windows only

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl  # noqa: PLC0415  # Unix only

            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who only look do not see each other
    except (BlockingIOError, PermissionError):
        return True
    except OSError:  # a file system without such locks
        return None
    return False
