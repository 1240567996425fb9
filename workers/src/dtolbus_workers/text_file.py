"""Whole rows at the end of a text file: appended durably, cut back where an append was torn."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dtolbus import files

_CHUNK = 1 << 20


def append_at(path: Path, length: int, data: bytes) -> int:
    """Append to a file that is `length` bytes long, made if that is 0; return its new length, once it is durable.

    What lies beyond `length`, of an append that was torn, is cut off first. Raises OSError (ENOSPC, EIO).
    """
    is_new = False
    try:
        fd = files.open_existing(path)
    except FileNotFoundError:
        if length:
            raise
        fd, is_new = files.open_new(path), True
    try:
        if os.fstat(fd).st_size > length:
            files.truncate(fd, length)
        files.append(fd, [data])
        files.sync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            files.truncate(fd, length)
        raise
    finally:
        os.close(fd)
    if is_new:
        files.sync_dir(path.parent)
    return length + len(data)


def cut_back(path: Path, length: int) -> None:
    """Cut the file back to `length` bytes, durably. Does nothing where it is not longer."""
    if path.stat().st_size > length:
        fd = files.open_existing(path)
        try:
            files.truncate(fd, length)
            files.sync(fd)
        finally:
            os.close(fd)


def holds(path: Path, length: int) -> bool:
    """Return whether the file is there, with `length` bytes or more."""
    try:
        return path.stat().st_size >= length
    except FileNotFoundError:
        return False


def lines(path: Path, length: int | None = None) -> Iterator[bytes]:
    """Yield the lines of the file's first `length` bytes, each with its line feed; a torn last one has none."""
    fd = files.open_read(path)
    try:
        left = os.fstat(fd).st_size if length is None else length
        at, rest = 0, b""
        while left > at and (chunk := files.read_at(fd, min(_CHUNK, left - at), at)):
            at += len(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"
        if rest:
            yield rest
    finally:
        os.close(fd)
