"""A `.dt-raw` file as chunks, whole or damaged, read from any place, or from where a record stands."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dtolbus import files
from dtolbus.errors import RawFormatError
from dtolbus.framing import (
    LENGTH,
    MAX_HEADER_BYTES,
    ChunkHeader,
    FileHeader,
    checksum_holds,
    parse_chunk_header,
    parse_file_header,
    payload_size,
)

log = logging.getLogger(__name__)

_HEADER_DAMAGED = "the chunk's header is damaged"

_WINDOW_BYTES = 120 << 10
"""Memory below 128 KiB is used again; more is mapped anew for each read, page by page, at many times the cost."""
_SLACK_BYTES = 4096
_CHUNK_START = b'{"seq":'


class Chunk(NamedTuple):
    """One whole chunk and where it stands in its file."""

    offset: int
    end: int
    header: ChunkHeader
    payload: memoryview


class Damage(NamedTuple):
    """Bytes that are no chunk, or one whose checksum does not hold. `is_tail`: nothing whole follows."""

    offset: int
    end: int
    reason: str
    is_tail: bool
    header: ChunkHeader | None = None
    """The damaged chunk's header, where it can be read; it may be what is damaged."""


class ChunkFile:
    """An open `.dt-raw` file. Reads only; close it after use.

    `instead` is what to read it by where its own header is damaged; without it such a file raises RawFormatError.
    """

    def __init__(self, path: Path, instead: FileHeader | None = None) -> None:
        self.path = path
        self._instead = instead
        self._fd = files.open_read(path)
        self._window = b""
        self._window_at = 0
        self._read_bytes = _WINDOW_BYTES
        """So much is read at once: a chunk as large as the last one, at least."""
        try:
            self.header, self.start = self._read_file_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ChunkFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Does nothing when it is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def size(self) -> int:
        """The file's length now, in bytes."""
        return os.fstat(self._fd).st_size

    def chunks(self, offset: int, *, check: bool = True) -> Iterator[Chunk | Damage]:
        """Yield what stands from `offset` to the end of the file as it is now. `check` holds the checksums against it.

        A chunk that is followed by whole ones and cannot be read is one Damage; what cannot be read up to the end is
        one Damage with `is_tail`.
        """
        end = self.size
        while offset < end:
            found = self._chunk_at(offset, end, check)
            yield found
            offset = found.end

    def whole(self, offset: int, end: int) -> Chunk | None:
        """Return the chunk at `offset` of a file that ends at `end`; None where none is, or not all of it yet."""
        try:
            chunk, sound = self._parse(offset, end, check=True)
            if sound:
                return chunk
        except RawFormatError:
            pass
        self._window = b""  # what is being written may have been read half-written: it is read anew
        return None

    def before(self, index: int) -> int:
        """Return the offset of a whole chunk at, or not far before, the record `index`; `start` where none is known.

        Halves the file again and again: reading a long one from its start would take seconds.
        """
        low, high = self.start, self.size
        end = high
        while high - low > _WINDOW_BYTES:
            middle = (low + high) // 2
            found = self._first_whole(middle, high, end)
            here = None if found is None else found.header.block_index
            if found is not None and here is not None and here <= index:
                low = found.offset
            else:
                high = middle
        self._window = b""  # what was read ahead of the head may be written anew
        return low

    def _read_file_header(self) -> tuple[FileHeader, int]:
        lead = files.read_at(self._fd, LENGTH.size, 0)
        length = LENGTH.unpack(lead)[0] if len(lead) == LENGTH.size else 0
        try:
            if not 2 <= length <= MAX_HEADER_BYTES or length > self.size - LENGTH.size:
                raise RawFormatError(f"not a .dt-raw file ({self.size} bytes, no file header)")
            return parse_file_header(files.read_at(self._fd, length, LENGTH.size)), LENGTH.size + length
        except RawFormatError as error:
            if self._instead is None:
                raise RawFormatError(f"{self.path}: {error}") from error
            log.warning("damaged file header", extra={"path": str(self.path), "cause": str(error)})
            return self._instead, 0

    def _bytes(self, offset: int, size: int) -> memoryview:
        """Return the bytes [offset, offset + size) through a window, so that small chunks share a read."""
        at = offset - self._window_at
        if at < 0 or at + size > len(self._window):
            self._window = files.read_at(self._fd, max(size, self._read_bytes), offset)
            self._window_at, at = offset, 0
        return memoryview(self._window)[at : at + size]

    def _chunk_at(self, offset: int, end: int, check: bool) -> Chunk | Damage:
        try:
            chunk, sound = self._parse(offset, end, check)
        except RawFormatError as error:
            log.debug("chunk header damaged", extra={"path": str(self.path), "offset": offset, "cause": str(error)})
            return self._damage(offset, end, _HEADER_DAMAGED)
        if sound:
            return chunk
        reason = "the checksum does not hold"
        if chunk.end == end or self.whole(chunk.end, end) is not None:
            return Damage(offset, chunk.end, reason, is_tail=False, header=chunk.header)
        return self._damage(offset, end, reason)

    def _parse(self, offset: int, end: int, check: bool) -> tuple[Chunk, bool]:
        """Return the chunk at `offset` and whether its checksum holds. Raises RawFormatError where there is none."""
        left = end - offset - LENGTH.size
        length = LENGTH.unpack(self._bytes(offset, LENGTH.size))[0] if left >= 0 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, left):
            raise RawFormatError(f"a header of {length} bytes where {max(left, 0)} are left")
        text = bytes(self._bytes(offset + LENGTH.size, length))
        header = parse_chunk_header(text)
        size = payload_size(self.header, header)
        if size > left - length:
            raise RawFormatError(f"a payload of {size} bytes where {left - length} are left")
        payload = self._bytes(offset + LENGTH.size + length, size)
        self._read_bytes = max(_WINDOW_BYTES, length + size + _SLACK_BYTES)
        holds = checksum_holds(text, payload) if check else True
        sound = holds is True or (holds is None and not self.header.checked)
        return Chunk(offset, offset + LENGTH.size + length + size, header, payload), sound

    def _damage(self, offset: int, end: int, reason: str) -> Damage:
        """Return what is damaged from `offset` on: up to the next whole chunk, or to the end."""
        found = self._first_whole(offset + 1, end, end)
        return Damage(offset, end if found is None else found.offset, reason, is_tail=found is None)

    def _first_whole(self, at: int, below: int, end: int) -> Chunk | None:
        """Return the first whole chunk that begins in [at, below), of a file that ends at `end`."""
        while at < below:
            # the same window that `_bytes` reads through: what is found in it is mostly parsed there
            self._window, self._window_at = files.read_at(self._fd, _WINDOW_BYTES, at), at
            place = self._window.find(_CHUNK_START, LENGTH.size)
            if place < 0:
                at += max(1, len(self._window) - LENGTH.size - len(_CHUNK_START) + 1)
                continue
            at += place - LENGTH.size
            if at < below and (found := self.whole(at, end)) is not None:
                return found
            at += 1
        return None
