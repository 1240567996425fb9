"""Parquet bytes and where they go: encodings by column, parts published whole, and parts joined to one file.

Imports pyarrow: only what writes Parquet imports this.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from dtolbus import files

STATISTICS = ("block_index", "reading_index", "sample_index", "t_mono_ns", "t_utc")
"""Columns whose ranges a reader can use to skip row groups; others have none, for they cost time."""
_BATCH_ROWS = 1 << 17
"""Encoded at once: with the library's 1024, a tenth of the time goes to beginning a batch."""

_PIECE_BYTES = 2 << 20
"""Written and synced at once, while more is encoded: one sync at the end is a tenth of the time."""


def writer_options(schema: Any, compression: str | None, use_dictionary: bool) -> dict[str, Any]:
    """Return the writer's arguments: dictionaries for texts, deltas for integers, split bytes for floats."""
    texts, encodings = [], {}
    for field in schema:
        if pa.types.is_dictionary(field.type) or pa.types.is_string(field.type):
            texts.append(field.name)
        elif pa.types.is_floating(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type):
            encodings[field.name] = "DELTA_BINARY_PACKED"
    return {
        "compression": compression or "none",
        "compression_level": 1 if compression == "zstd" else None,
        "use_dictionary": texts if use_dictionary and texts else False,
        "column_encoding": encodings or None,
        "write_batch_size": _BATCH_ROWS,
        "write_statistics": [name for name in STATISTICS if name in schema.names],
    }


def footer(path: Path) -> dict[str, str]:
    """Return a Parquet file's own keys.

    Raises:
        pyarrow.ArrowInvalid: it is no Parquet file, or is torn.
    """
    os.close(files.open_read(path))  # a pipe would be waited for
    found = pq.read_metadata(path).metadata or {}
    return {key.decode(): value.decode("utf-8", "replace") for key, value in found.items() if key != b"ARROW:schema"}


def publish(
    final: Path,
    schema: Any,
    tables: Iterable[Any],
    metadata: Mapping[str, str],
    options: Mapping[str, Any],
    rows_a_group: int | None = None,
) -> None:
    """Put a Parquet file of the tables in its place: whole and durable, or not at all.

    Each table is drawn when the one before it is encoded; it is a row group, or several of `rows_a_group`. `metadata`
    becomes the footer's keys.

    Raises:
        FileExistsError: the name is taken.
        OSError: the disk is full, or fails.
    """
    temp = final.with_name(f".{final.name}.tmp")
    schema = schema.with_metadata(dict(metadata))
    with appending(temp) as out, pq.ParquetWriter(out, schema, **options) as writer:
        for table in tables:
            if len(table):
                writer.write_table(table, row_group_size=rows_a_group or len(table))
    files.publish_new(temp, final)
    files.sync_dir(final.parent)


@contextlib.contextmanager
def appending(temp: Path) -> Iterator[Any]:
    """Give a new temporary file for pyarrow to write to; it is durable at the end, and goes if anything fails."""
    temp.unlink(missing_ok=True)
    fd = files.open_new(temp)
    try:
        with _Appender(fd) as appender, pa.BufferedOutputStream(pa.PythonFile(appender, "w"), _PIECE_BYTES) as out:
            yield out
    except BaseException:
        os.close(fd)
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    os.close(fd)


class _Appender:
    """A file for pyarrow to write to: another thread appends each piece and syncs it, while the next is encoded.

    All is durable once the `with` block is left. Raises OSError there, or where the next piece is given.
    """

    closed = False

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = 0
        self._thread = ThreadPoolExecutor(1, "parquet-file")
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown()
        if kind is None:
            self._wait()

    def write(self, data: Any) -> int:
        """Take a piece, once the one before it is durable: no more than two are in memory."""
        self._wait()
        piece = bytes(data)
        self._last = self._thread.submit(self._append, piece)
        self._size += len(piece)
        return len(piece)

    def _append(self, piece: bytes) -> None:
        files.append(self._fd, [piece])
        files.sync(self._fd)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def tell(self) -> int:
        """Return how much was given."""
        return self._size

    def flush(self) -> None:
        """Do nothing: each piece is on its way."""

    def close(self) -> None:
        """Do nothing: the descriptor's owner closes it."""


def row_groups(paths: Sequence[Path]) -> Iterator[Any]:
    """Yield the files' row groups as tables, one in memory at a time."""
    for path in paths:
        with pq.ParquetFile(path) as part:
            for number in range(part.num_row_groups):
                yield part.read_row_group(number)
