"""The least that two ends do which bring blocks over a wire, for `wire`: how much of it is Python's, and nobody's.

Of each block a header by msgspec, a checksum at either end, and at the far one an array: no order is kept, no gap
noticed, no record made, nothing asked again.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import xxhash

from bench.codec import Header
from dtolbus.records import DaqBlock, RunInfo
from dtolbus.runblocks import read_ns

_DIGEST_BYTES = 8
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Header).decode


class Packer:
    """Makes the two frames of a run's blocks that follow the topic."""

    def __init__(self, run: RunInfo) -> None:
        self._run = msgspec.Raw(_pack(run))

    def frames(self, block: DaqBlock) -> tuple[bytes, memoryview]:
        """Return the header with the checksum behind it, and the codes."""
        codes, clock = block.raw_codes, block.clock
        assert codes is not None  # noqa: S101  # narrows the type, nothing rests on it
        assert clock is not None  # noqa: S101  # narrows the type, nothing rests on it
        fields = (block.block_index, block.first_sample_index, block.t_mono_ns, clock)
        arrays = ((codes.dtype.str, codes.shape),)
        header = _pack(Header(2, 1, self._run, *fields, arrays, (), *read_ns(block), None, None))
        payload = codes.data.cast("B")
        return header + _digest(header, payload), payload


def unpack(frames: Sequence[Any]) -> Any:
    """Return the codes of the frames behind the topic, an array. Raises ValueError where the checksum does not hold."""
    sealed, payload = bytes(frames[1]), frames[2]
    header = sealed[:-_DIGEST_BYTES]
    if _digest(header, payload) != sealed[-_DIGEST_BYTES:]:
        raise ValueError("the checksum does not hold")
    ((dtype, shape),) = _unpack(header).arrays
    return np.ndarray(shape, dtype, payload)


def _digest(header: bytes, payload: Any) -> bytes:
    digest = xxhash.xxh3_64(header)
    digest.update(payload)
    return digest.digest()
