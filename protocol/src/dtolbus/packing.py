"""Readings as msgpack: the payload of a journal's chunk, and the body of a message."""

import msgspec

from dtolbus.records import DaqReading

_FIRST_YEAR, _LAST_YEAR = 1822, 2117
"""What 64 bits of nanoseconds hold, whatever the time zone."""
_BIG_INT = 1
"""msgpack extension: an integer beyond 64 bits, as decimal text."""


def pack_reading(reading: DaqReading) -> bytes:
    """Return the reading as msgpack; integers beyond 64 bits travel as decimal text of extension type 1."""
    wide = {name: _ext(value) for name, value in reading.values.items() if _is_wide(value)}
    if wide:
        reading = msgspec.structs.replace(reading, values={**reading.values, **wide})
    return msgspec.msgpack.encode(reading)


def unpack_reading(payload: bytes | memoryview) -> DaqReading:
    """Return the reading packed by `pack_reading`.

    Raises msgspec.MsgspecError, ValueError or OverflowError: it is none, or is of no time.
    """
    reading = _reading_decoder.decode(payload)
    for instant in (reading.t_utc, reading.requested_at, reading.received_at):
        if not _FIRST_YEAR < instant.year < _LAST_YEAR:
            raise ValueError(f"{instant} is no instant of a reading")
    return reading


def _is_wide(value: object) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**64


def _ext(value: int) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_BIG_INT, str(value).encode())


def _from_ext(code: int, data: memoryview) -> object:
    if code == _BIG_INT and len(data) <= 4000:
        return int(bytes(data))
    raise ValueError(f"unknown msgpack extension {code}")


_reading_decoder = msgspec.msgpack.Decoder(DaqReading, ext_hook=_from_ext)
