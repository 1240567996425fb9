"""Binary COPY streams: few rows cell by cell, samples by numpy structured arrays.

The format stands in the PostgreSQL manual, COPY, "Binary Format": a header, for each row the number of its fields and
for each field its length (-1: null) and its bytes, all big-endian, and a trailer.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock, ns_from_utc
from dtolbus_workers.columns import SAMPLE_COLUMNS, sample_columns

PgType = Literal["text", "json", "bigint", "double precision", "boolean", "timestamptz", "bytea"]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
EPOCH_US = 946_684_800_000_000
"""2000-01-01 UTC, from where timestamptz counts, in µs since 1970."""

_NULL = b"\xff\xff\xff\xff"
_SAMPLE_FIELDS = {
    "block_index": ">i8",
    "sample_index": ">i8",
    "t_mono_ns": ">i8",
    "t_utc": ">i8",
    "value": ">f8",
    "sensor_status": ">i8",
}


def utf8(text: str) -> bytes:
    """Return the text as the server takes it.

    Raises:
        ValueError: it has a NUL character or half a surrogate pair, which no Postgres text holds.
    """
    if "\0" in text:
        raise ValueError(f"the text {text!r:.80} has a NUL character, which Postgres cannot hold")
    return text.encode()


def int8(value: int) -> bytes:
    """Return the int as bigint. Raises ValueError beyond 64 bits."""
    try:
        return struct.pack(">q", value)
    except struct.error as error:
        raise ValueError(f"the int {value} is beyond 64 bits") from error


def _timestamp(instant: datetime) -> bytes:
    return struct.pack(">q", ns_from_utc(instant) // 1000 - EPOCH_US)


_ENCODE: dict[PgType, Callable[[Any], bytes]] = {
    "text": utf8,
    "json": utf8,
    "bigint": int8,
    "double precision": struct.Struct(">d").pack,
    "boolean": struct.Struct(">?").pack,
    "timestamptz": _timestamp,
    "bytea": bytes,
}


def encode_row(types: Sequence[PgType], cells: Sequence[Any]) -> bytes:
    """Return one row; None is null.

    Raises:
        ValueError: a text with a NUL character, an int beyond 64 bits.
    """
    out = [struct.pack(">h", len(types))]
    for kind, cell in zip(types, cells, strict=True):
        if cell is None:
            out.append(_NULL)
        else:
            data = _ENCODE[kind](cell)
            out += (struct.pack(">i", len(data)), data)
    return b"".join(out)


def stream(rows: Iterable[bytes | memoryview]) -> memoryview:
    """Return rows as a whole COPY stream (as a view: asyncpg takes bytes for a path)."""
    return memoryview(b"".join([HEADER, *rows, TRAILER]))


def sample_rows(block: DaqBlock) -> list[memoryview]:
    """Return the block's rows in `samples`, a piece for each channel.

    Raises:
        ValueError: a text with a NUL character, or arrays that do not fit the block's number of samples.
    """
    part = sample_columns(block)
    t_utc_us = part.t_utc_ns // 1000 - EPOCH_US
    error = (block.error.type, block.error.message) if block.error else (None, None)
    pieces = []
    for channel, values in zip(block.channels, part.values, strict=True):
        status = part.status_of(channel)
        unit = block.units.get(channel)
        row, dtype = _template((block.run_id, block.device, block.task, channel, unit, *error), status is not None)
        rows: NDArray[Any] = np.empty(block.samples_per_channel, dtype)
        rows.view(f"V{dtype.itemsize}")[:] = row
        rows["block_index"] = block.block_index
        rows["sample_index"] = part.sample_index
        rows["t_mono_ns"] = part.t_mono_ns
        rows["t_utc"] = t_utc_us
        rows["value"] = values[: block.samples_per_channel]
        if status is not None:
            rows["sensor_status"] = status[: block.samples_per_channel]
        pieces.append(rows.view(np.uint8).data if len(rows) else memoryview(b""))
    return pieces


@lru_cache(maxsize=1024)
def _template(texts: tuple[str | None, ...], has_status: bool) -> tuple[np.void, np.dtype[np.void]]:
    """Return a row with the texts and all lengths filled in, and the dtype of what is still to be filled in."""
    by_name = dict(
        zip(("run_id", "device", "task", "channel", "unit", "error_type", "error_message"), texts, strict=True)
    )
    row = struct.pack(">h", len(SAMPLE_COLUMNS))
    offsets: dict[str, int] = {}
    for name in SAMPLE_COLUMNS:
        if name in _SAMPLE_FIELDS and (has_status or name != "sensor_status"):
            offsets[name] = len(row) + 4
            row += struct.pack(">i", 8) + bytes(8)
        elif by_name.get(name) is None:
            row += _NULL
        else:
            data = utf8(by_name[name] or "")
            row += struct.pack(">i", len(data)) + data
    formats = [_SAMPLE_FIELDS[name] for name in offsets]
    dtype = np.dtype({"names": [*offsets], "formats": formats, "offsets": [*offsets.values()], "itemsize": len(row)})
    return np.void(row), dtype
