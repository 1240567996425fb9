"""Records as every receiver can take them: text that is text, and no more of it than a message has room for. Pure."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from dtolbus.bounds import MAX_RUN_BYTES
from dtolbus.errors import WireError
from dtolbus.packing import pack_reading, unpack_reading
from dtolbus.records import DaqBlock, DaqEvent, DaqReading, ErrorInfo, Record
from dtolbus.wire import MAX_HEADER_BYTES

MAX_RECORD_BYTES = MAX_HEADER_BYTES - MAX_RUN_BYTES - 4096
"""What a record may say of itself, as it travels; an array frame is not counted."""
MAX_TEXT_BYTES = MAX_RECORD_BYTES // 4
"""Longest message of an event or an error."""

_LEFT_OUT = f"{WireError.__module__}.{WireError.__qualname__}"
_NAMED = 10
_MARK_BYTES = 64
_NAME_CHARS = 100

Made = TypeVar("Made", bound=msgspec.Struct)


def storable(record: Record) -> Record:
    """Return the record; where it could not be stored or sent, what can be of it, with a word for the rest.

    What is no Unicode (a lone surrogate) is escaped.
    """
    if isinstance(record, DaqBlock):
        return record if record.error is None else dataclasses.replace(record, error=_error(record.error))
    if isinstance(record, DaqEvent):
        return _changed(record, kind=text(record.kind), message=cut(record.message))
    return record if _size(record) <= MAX_RECORD_BYTES else _mended(record)


def text(said: str) -> str:
    """Return the text with what is no Unicode escaped."""
    return said if said.isascii() else said.encode("utf-8", "backslashreplace").decode()


def cut(said: str) -> str:
    """Return the text, cut with a mark where it is too long for a message."""
    whole = text(said).encode()
    if len(whole) <= MAX_TEXT_BYTES:
        return whole.decode()
    return f"{whole[: MAX_TEXT_BYTES - _MARK_BYTES].decode(errors='ignore')} … [cut: {len(whole)} bytes]"


def plain(value: Any) -> Any:
    """Return what free metadata hold, every text in it as `text` gives it."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _error(error: ErrorInfo) -> ErrorInfo:
    return _changed(error, type=cut(error.type), message=cut(error.message))


def _changed(struct: Made, **fields: Any) -> Made:
    is_same = all(getattr(struct, name) == value for name, value in fields.items())
    return struct if is_same else msgspec.structs.replace(struct, **fields)


def _size(reading: DaqReading) -> float:
    """Return how many bytes the reading takes; infinity where it cannot be packed, or not unpacked again."""
    try:
        packed = pack_reading(reading)
        unpack_reading(packed)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return math.inf
    return len(packed)


def _mended(reading: DaqReading) -> DaqReading:
    """Return the reading with None for the values that cannot travel, the largest first; its error tells which."""
    reading = msgspec.structs.replace(
        reading,
        values=plain(reading.values),
        units=plain(reading.units),
        sensor_status=plain(reading.sensor_status),
        metadata=plain(reading.metadata),
        error=None if reading.error is None else _error(reading.error),
    )
    if _size(reading) <= MAX_RECORD_BYTES:
        return reading
    left_out = []
    empty = msgspec.structs.replace(reading, values={})
    if _size(empty) > MAX_RECORD_BYTES // 2:
        left_out.append("metadata")
        reading, empty = (msgspec.structs.replace(one, metadata={}) for one in (reading, empty))
    sizes = {name: _size(msgspec.structs.replace(empty, values={name: v})) for name, v in reading.values.items()}
    least = _size(empty)
    room, values = MAX_RECORD_BYTES - MAX_TEXT_BYTES - least, dict(reading.values)
    for name in sorted(sizes, key=lambda name: sizes[name]):
        room -= sizes[name] - least
        if not room >= 0:
            values[name] = None
            left_out.append(f"{name[:_NAME_CHARS]} ({_told(reading.values[name], sizes[name])})")
    found = _with_error(msgspec.structs.replace(reading, values=values), left_out)
    if _size(found) <= MAX_RECORD_BYTES:
        return found
    bare = msgspec.structs.replace(empty, units={}, sensor_status={}, metadata={}, error=None)
    return _with_error(bare, ["all channels"])


def _told(value: object, size: float) -> str:
    if isinstance(value, str):
        return f"a text of {len(value.encode())} bytes"
    return f"{type(value).__name__}, {size:.0f} bytes" if math.isfinite(size) else f"{type(value).__name__}"


def _with_error(reading: DaqReading, left_out: list[str]) -> DaqReading:
    """Return the reading with an error that tells what of it is not stored, behind the one it had."""
    some = ", ".join(left_out[-_NAMED:])
    message = f"not stored, a record holds {MAX_RECORD_BYTES} bytes: {some}"
    if len(left_out) > _NAMED:
        message += f" and {len(left_out) - _NAMED} more"
    before = reading.error
    if before is not None:
        return msgspec.structs.replace(reading, error=_changed(before, message=cut(f"{before.message}; {message}")))
    return msgspec.structs.replace(reading, error=ErrorInfo(_LEFT_OUT, message))
