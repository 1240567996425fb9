"""A block's header as bytes and back, the run's part of it worked out once a run. Pure.

A header is a msgpack array: wire version, kind, the run's header, then BlockFields. Only the last differ from one block
of a run to the next.
"""

from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from numpy.typing import NDArray

from dtolbus.numbers import Count, Instant
from dtolbus.records import Anchor, Clock, DaqBlock, ErrorInfo, RunInfo
from dtolbus.runblocks import read_ns
from dtolbus.topics import topic

K = TypeVar("K")
V = TypeVar("V")
ARRAY_16: Final = 0xDC
"""How msgpack begins an array of 16 fields or more; fewer are 0x90 + fields."""
_CACHED_RUNS = 256
_CACHED_BYTES = 4 << 20
"""Of the headers that are kept; what is read from them may take 60 times as much."""


class BlockFields(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a block's header says beside what all blocks of its run have in common."""

    index: Count
    first_sample: Count
    t_mono_ns: Instant
    clock: Clock
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    """The codes; then, where any channel has one, the status of the channels named next."""
    status_of: tuple[str, ...] = ()
    read_started_ns: int | None = None
    read_finished_ns: int | None = None
    error: ErrorInfo | None = None
    anchor: Anchor | None = None


class _BlockStart(msgspec.Struct, frozen=True, array_like=True):
    """The fields before those."""

    version: int
    kind: int
    run: msgspec.Raw


class PackedRun(NamedTuple):
    """What every record of a run carries."""

    run: RunInfo
    topic: bytes
    header: msgspec.Raw


class _Start(NamedTuple):
    """How the headers of a run's blocks begin."""

    begins: bytes
    """The array's head, version, kind and the run."""
    run: RunInfo
    rest_begins: bytes
    """The head of an array of what follows."""


_pack = msgspec.msgpack.Encoder().encode
_start_decoder = msgspec.msgpack.Decoder(_BlockStart)
_fields_decoder = msgspec.msgpack.Decoder(BlockFields)
_run_decoder = msgspec.msgpack.Decoder(RunInfo)


def pack_block(version: int, kind: int, run: msgspec.Raw, block: DaqBlock, arrays: Sequence[NDArray[Any]]) -> bytes:
    """Return the header of a block whose array frames hold `arrays`."""
    started, finished = read_ns(block)
    return _pack(
        (
            version,
            kind,
            run,
            block.block_index,
            block.first_sample_index,
            block.t_mono_ns,
            block.clock or Clock(block.t_utc_ns, block.period_ns),
            [(array.dtype.str, array.shape) for array in arrays],
            tuple(block.sensor_status),
            started,
            finished,
            block.error,
            block.anchor,
        )
    )


class _Kept(Generic[K, V]):
    """What was worked out, by key; the oldest is forgotten beyond a number of them, and beyond their bytes."""

    def __init__(self) -> None:
        self.found: dict[K, V] = {}
        self._sizes: dict[K, int] = {}
        self._bytes = 0

    def put(self, key: K, value: V, size: int) -> None:
        """Keep it, also where it alone is beyond the bounds."""
        self._forget(key)
        while self.found and (len(self.found) >= _CACHED_RUNS or self._bytes + size > _CACHED_BYTES):
            self._forget(next(iter(self.found)))
        self.found[key], self._sizes[key] = value, size
        self._bytes += size

    def _forget(self, key: K) -> None:
        self.found.pop(key, None)
        self._bytes -= self._sizes.pop(key, 0)


class RunHeaders:
    """Run headers as bytes and back, each worked out once; the oldest are forgotten beyond a bound."""

    def __init__(self) -> None:
        self._packed: _Kept[str, PackedRun] = _Kept()
        self._read: _Kept[bytes, RunInfo] = _Kept()
        self._starts: _Kept[bytes, _Start] = _Kept()

    def pack(self, run: RunInfo) -> PackedRun:
        """Return what the run's records begin with."""
        known = self._packed.found.get(run.run_id)
        if known is None or known.run is not run:
            known = PackedRun(run, _topic_of(run), msgspec.Raw(_pack(run)))
            self._packed.put(run.run_id, known, size=0)
        return known

    def read(self, raw: msgspec.Raw) -> RunInfo:
        """Return the run of a header. Raises msgspec.MsgspecError."""
        key = bytes(raw)
        run = self._read.found.get(key)
        if run is None:
            run = _run_decoder.decode(key)
            self._read.put(key, run, len(key))
        return run

    def read_block(self, subject: bytes, header: bytes) -> tuple[RunInfo, BlockFields]:
        """Return what a block's header says. Raises msgspec.MsgspecError.

        Of the blocks of a topic it nearly always begins as the one before's did.
        """
        known = self._starts.found.get(subject)
        if known is None or not header.startswith(known.begins):
            known = self._read_start(header)
            self._starts.put(subject, known, len(subject) + len(known.begins))
        return known.run, _fields_decoder.decode(known.rest_begins + header[len(known.begins) :])

    def _read_start(self, header: bytes) -> _Start:
        raw = _start_decoder.decode(header).run
        at, fields = (1, header[0] & 0x0F) if header[0] != ARRAY_16 else (3, int.from_bytes(header[1:3], "big"))
        rest = fields - len(_BlockStart.__struct_fields__)
        head = bytes([0x90 | rest]) if rest < 16 else bytes([ARRAY_16]) + rest.to_bytes(2, "big")
        return _Start(header[: at + 2] + bytes(raw), self.read(raw), head)


def _topic_of(run: RunInfo) -> bytes:
    return topic("block" if run.kind == "blocks" else "reading", run.device, run.task)
