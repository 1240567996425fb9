"""Several byte strings as one, so that a fuzzer can cut, grow and swap them: each with its length before it."""

import struct
from collections.abc import Sequence

MAX_PARTS = 64
_LENGTH = struct.Struct("<I")


def joined(parts: Sequence[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def split(data: bytes) -> list[bytes]:
    """Whatever the bytes are, they are some parts: a length beyond the end takes what is left."""
    parts: list[bytes] = []
    at = 0
    while at + _LENGTH.size <= len(data) and len(parts) < MAX_PARTS:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        parts.append(data[at : at + length])
        at += min(length, len(data) - at)
    return parts
