"""Messages as frames: `topic`, `header`, array frames. Pure: no socket is opened here.

A header is a msgpack array whose first field is the wire version and whose second is the message's kind. It names the
type and shape of each array frame; both are held against the frame's length before anybody looks inside. Every record
carries its run header, encoded once a run and decoded once for each distinct one.

The last 8 bytes of the header frame are the xxh3_64 of all frames without them. They are checked before anything else
but the wire version.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from dtolbus.errors import WireError
from dtolbus.identity import ANY, Identity
from dtolbus.packing import pack_reading, unpack_reading
from dtolbus.records import (
    Anchor,
    Clock,
    DaqBlock,
    DaqEvent,
    DaqReading,
    ErrorInfo,
    Record,
    RunEnd,
    RunInfo,
    RunStatus,
    block_of_run,
    ns_from_utc,
    utc_from_ns,
)
from dtolbus.topics import topic

WIRE_VERSION = 2
MAX_FRAMES = 4
MAX_HEADER_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 64 << 20
"""Largest frame that a socket takes."""

Frame = bytes | memoryview
_DTYPES = frozenset({"<i2", "<u2", "<i4", "<f4", "<f8"})
_CACHED_RUNS = 256
_DIGEST_BYTES = 8


class RunRecord(NamedTuple):
    """A record with the header of its run."""

    run: RunInfo
    record: Record


class Heartbeat(NamedTuple):
    """How far a run is; sent at least once a second while it is of interest."""

    status: RunStatus


class RunPosition(msgspec.Struct, frozen=True, array_like=True):
    """How far a worker is in a run."""

    device: str
    task: str
    run_id: str
    next: int


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """A worker presents itself; the gateway answers with Welcome."""

    worker: str
    """Its name; empty for a subscriber that keeps no position."""
    sink: str = ""
    """The kind of its sink."""
    place: str = ""
    """Where its destination is, for people and for `verify`; never with a password."""
    destination_id: str = ""
    topics: tuple[str, ...] = ()
    options: dict[str, str] = {}
    """What `verify` must know to read the destination back."""
    positions: tuple[RunPosition, ...] = ()
    more: bool = False
    """Whether further positions follow in another Hello; only the last one is answered."""
    expects: Identity = ANY
    """Whom it is meant for: another gateway refuses it, and registers nobody."""
    number: int = 0
    """Comes back in the Welcome."""


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """Every run that the journal holds, and the limits of this gateway."""

    runs: tuple[RunStatus, ...]
    fetch_records: int
    """Records served for one Fetch at most; Done says where it stopped."""
    heartbeat_s: float
    more: bool = False
    """Whether further runs follow in another Welcome."""
    serves: Identity = ANY
    """What this gateway serves."""
    number: int = 0
    """The Hello's that it answers."""


class Fetch(msgspec.Struct, frozen=True, array_like=True):
    """Asks for the records [from_index, to_index) of a run: records, RunGap and Done, or Refused.

    A client has one at a time; records and gaps come as far as it grants Credit, Done and Refused without.
    """

    device: str
    task: str
    run_id: str
    from_index: int
    to_index: int
    number: int = 0
    """The client's; comes back in the answers."""


class Credit(msgspec.Struct, frozen=True, array_like=True):
    """Lets the gateway send so many more records (or gaps) of the Fetch with this number; it has none to begin with."""

    records: int
    number: int


class RunGap(msgspec.Struct, frozen=True, array_like=True):
    """The journal no longer has [from_index, to_index)."""

    run_id: str
    from_index: int
    to_index: int
    cause: str
    first_sample: int | None = None
    end_sample: int | None = None
    number: int = 0
    """The Fetch's that it answers; 0 where that is not told."""


class Done(msgspec.Struct, frozen=True, array_like=True):
    """A Fetch is served up to `next`."""

    run_id: str
    next: int
    number: int = 0


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """A request is not served."""

    why: str
    run_id: str = ""
    number: int = 0
    is_final: bool = False
    """Whether asking again cannot help: the client ends with it."""
    was_damaged: bool = False
    """Whether the request could not be read, so that nobody knows which it was."""
    is_unregistered: bool = False
    """Whether the gateway knows no such sink (any more): it must say Hello."""
    is_foreign: bool = False
    """Whether the Hello was meant for another gateway; `why` then says what this one serves."""


class Ack(msgspec.Struct, frozen=True, array_like=True):
    """A worker has committed up to `position`."""

    worker: str
    device: str
    task: str
    run_id: str
    position: int
    backfilled: int = 0


Control = Hello | Welcome | Fetch | RunGap | Done | Refused | Ack | Credit
Message = RunRecord | Heartbeat | Control


class _BlockHeader(msgspec.Struct, frozen=True, array_like=True):
    version: int
    kind: int
    run: msgspec.Raw
    index: int
    first_sample: int
    t_mono_ns: int
    clock: Clock
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    """The codes; then, where any channel has one, the status of the channels named next."""
    status_of: tuple[str, ...] = ()
    read_started_ns: int | None = None
    read_finished_ns: int | None = None
    error: ErrorInfo | None = None
    anchor: Anchor | None = None


class _RecordHeader(msgspec.Struct, frozen=True, array_like=True):
    version: int
    kind: int
    run: msgspec.Raw
    body: msgspec.Raw


class _HeartbeatHeader(msgspec.Struct, frozen=True, array_like=True):
    version: int
    kind: int
    run: msgspec.Raw
    state: RunEnd
    first: int
    head: int


class _ControlHeader(msgspec.Struct, frozen=True, array_like=True):
    version: int
    kind: int
    body: msgspec.Raw


_BLOCK, _READING, _EVENT, _HEARTBEAT = 1, 2, 3, 4
_CONTROL_KINDS: dict[int, type[Control]] = {
    10: Hello,
    11: Welcome,
    12: Fetch,
    13: RunGap,
    14: Done,
    15: Refused,
    16: Ack,
    17: Credit,
}
_KIND_OF = {cls: kind for kind, cls in _CONTROL_KINDS.items()}
_CONTROL_TOPIC = b"control/"

_pack = msgspec.msgpack.Encoder().encode
_block_decoder = msgspec.msgpack.Decoder(_BlockHeader)
_record_decoder = msgspec.msgpack.Decoder(_RecordHeader)
_heartbeat_decoder = msgspec.msgpack.Decoder(_HeartbeatHeader)
_control_decoder = msgspec.msgpack.Decoder(_ControlHeader)
_run_decoder = msgspec.msgpack.Decoder(RunInfo)
_event_decoder = msgspec.msgpack.Decoder(DaqEvent)
_body_decoders = {kind: msgspec.msgpack.Decoder(cls) for kind, cls in _CONTROL_KINDS.items()}


class _RunCache:
    """Run headers as bytes and back, each worked out once; the oldest are forgotten beyond a bound."""

    def __init__(self) -> None:
        self._packed: dict[str, tuple[RunInfo, msgspec.Raw]] = {}
        self._read: dict[bytes, RunInfo] = {}

    def pack(self, run: RunInfo) -> msgspec.Raw:
        known = self._packed.get(run.run_id)
        if known is None or known[0] is not run:
            known = self._packed[run.run_id] = (run, msgspec.Raw(_pack(run)))
            self._bound(self._packed)
        return known[1]

    def read(self, raw: msgspec.Raw) -> RunInfo:
        key = bytes(raw)
        run = self._read.get(key)
        if run is None:
            run = self._read[key] = _run_decoder.decode(key)
            self._bound(self._read)
        return run

    def _bound(self, cache: "dict[Any, Any]") -> None:
        while len(cache) > _CACHED_RUNS:
            del cache[next(iter(cache))]


_runs = _RunCache()


def encode(message: Message) -> list[Frame]:
    """Return the frames of a message, topic first. Array frames share memory with the record: do not change it."""
    if isinstance(message, RunRecord):
        return _encode_record(message.run, message.record)
    if isinstance(message, Heartbeat):
        info = message.status.info
        header = _HeartbeatHeader(
            WIRE_VERSION, _HEARTBEAT, _runs.pack(info), message.status.state, message.status.first, message.status.head
        )
        return _sealed(topic("heartbeat", info.device, info.task), _pack(header))
    kind = _KIND_OF[type(message)]
    return _sealed(_CONTROL_TOPIC, _pack(_ControlHeader(WIRE_VERSION, kind, msgspec.Raw(_pack(message)))))


def _sealed(subject: bytes, header: bytes, *arrays: Frame) -> list[Frame]:
    """Return the frames, the header with the checksum of them all behind it."""
    return [subject, header + _digest(subject, header, arrays), *arrays]


def _digest(subject: Frame, header: Frame, arrays: Sequence[Frame]) -> bytes:
    digest = xxhash.xxh3_64(subject)
    digest.update(header)
    for array in arrays:
        digest.update(array)
    return digest.digest()


def topic_of_run(run: RunInfo) -> bytes:
    """Return the topic of a run's records, events included."""
    return topic("block" if run.kind == "blocks" else "reading", run.device, run.task)


def _encode_record(run: RunInfo, record: Record) -> list[Frame]:
    subject = topic_of_run(run)
    if isinstance(record, DaqBlock):
        return _encode_block(subject, run, record)
    if isinstance(record, DaqReading):
        kind, body = _READING, pack_reading(record)
    else:
        kind, body = _EVENT, _pack(record)
    return _sealed(subject, _pack(_RecordHeader(WIRE_VERSION, kind, _runs.pack(run), msgspec.Raw(body))))


def _encode_block(subject: bytes, run: RunInfo, block: DaqBlock) -> list[Frame]:
    arrays: list[NDArray[Any]] = []
    codes = block.raw_codes if block.raw_codes is not None else block.data
    arrays.append(_little_endian(codes))
    if block.sensor_status:
        arrays.append(np.stack([np.asarray(s, dtype="<i4") for s in block.sensor_status.values()]))
    header = _BlockHeader(
        version=WIRE_VERSION,
        kind=_BLOCK,
        run=_runs.pack(run),
        index=block.block_index,
        first_sample=block.first_sample_index,
        t_mono_ns=block.t_mono_ns,
        clock=block.clock or Clock(block.t_utc_ns, block.period_ns),
        arrays=tuple((array.dtype.str, array.shape) for array in arrays),
        status_of=tuple(block.sensor_status),
        read_started_ns=None if block.read_started_at is None else ns_from_utc(block.read_started_at),
        read_finished_ns=None if block.read_finished_at is None else ns_from_utc(block.read_finished_at),
        error=block.error,
        anchor=block.anchor,
    )
    return _sealed(subject, _pack(header), *(array.data.cast("B") if array.size else b"" for array in arrays))


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def decode(frames: Sequence[Frame]) -> Message:
    """Return the message that the frames hold. Raises WireError for anything that is not one of this wire version."""
    if not 2 <= len(frames) <= MAX_FRAMES:
        raise WireError(f"{len(frames)} frames; a message has 2 to {MAX_FRAMES}")
    kind = _kind_of(frames[1])
    header, digest = frames[1][:-_DIGEST_BYTES], frames[1][-_DIGEST_BYTES:]
    if _digest(frames[0], header, frames[2:]) != digest:
        raise WireError("the checksum does not hold: the message was damaged on its way")
    try:
        if kind == _BLOCK:
            return _decode_block(_block_decoder.decode(header), frames[2:])
        if len(frames) > 2:
            raise WireError(f"a message of kind {kind} has 2 frames, not {len(frames)}")
        if kind == _HEARTBEAT:
            beat = _heartbeat_decoder.decode(header)
            return Heartbeat(RunStatus(_runs.read(beat.run), beat.state, beat.first, beat.head))
        if kind in (_READING, _EVENT):
            found = _record_decoder.decode(header)
            read: Callable[[bytes], Record] = unpack_reading if kind == _READING else _event_decoder.decode
            return _belonging(_runs.read(found.run), read(bytes(found.body)))
        if kind in _CONTROL_KINDS:
            return _body_decoders[kind].decode(_control_decoder.decode(header).body)
    except (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        raise WireError(f"a message of kind {kind} cannot be read: {error}") from error
    raise WireError(f"a message of unknown kind {kind}")


def _kind_of(header: Frame) -> int:
    """Return the kind of message; the version and it are the first two fields, small integers both."""
    if not 5 + _DIGEST_BYTES <= len(header) <= MAX_HEADER_BYTES:
        raise WireError(f"a header of {len(header)} bytes")
    at = 1 if header[0] >> 4 == 9 else 3
    if at == 3 and header[0] != 0xDC:
        raise WireError("the header is not an array")
    version, kind = header[at], header[at + 1]
    if version != WIRE_VERSION:
        raise WireError(
            f"wire version {version}; this end speaks {WIRE_VERSION}: install the same dtolbus at both ends"
        )
    return kind


def _decode_block(header: _BlockHeader, frames: Sequence[Frame]) -> RunRecord:
    run = _runs.read(header.run)
    if len(frames) != len(header.arrays):
        raise WireError(f"{len(frames)} array frames where the header names {len(header.arrays)}")
    arrays = [_array(frame, *spec) for frame, spec in zip(frames, header.arrays, strict=True)]
    if len(arrays) != (2 if header.status_of else 1) or arrays[0].shape[0] != len(run.channels):
        raise WireError(f"{len(arrays)} arrays, the first of shape {arrays[0].shape}, for {len(run.channels)} channels")
    status: dict[str, NDArray[Any]] = {}
    if header.status_of:
        if arrays[1].shape != (len(header.status_of), arrays[0].shape[1]):
            raise WireError(f"a status of shape {arrays[1].shape} for {len(header.status_of)} channels")
        status = dict(zip(header.status_of, arrays[1].astype(np.int64), strict=True))
    block = block_of_run(
        run,
        index=header.index,
        first_sample=header.first_sample,
        codes=arrays[0],
        t_mono_ns=header.t_mono_ns,
        clock=header.clock,
        read_started_at=None if header.read_started_ns is None else utc_from_ns(header.read_started_ns),
        read_finished_at=None if header.read_finished_ns is None else utc_from_ns(header.read_finished_ns),
        sensor_status=status,
        error=header.error,
        anchor=header.anchor,
    )
    return RunRecord(run, block)


def _array(frame: Frame, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if dtype not in _DTYPES:
        raise WireError(f"an array of type {dtype!r}; allowed are {', '.join(sorted(_DTYPES))}")
    if len(shape) != 2 or min(shape) < 0 or shape[0] * shape[1] * np.dtype(dtype).itemsize != len(frame):
        raise WireError(f"a frame of {len(frame)} bytes for an array of shape {shape} and type {dtype}")
    return np.frombuffer(frame, dtype=dtype).reshape(shape)


def _belonging(run: RunInfo, record: Record) -> RunRecord:
    if record.run_id != run.run_id or (record.device, record.task) != (run.device, run.task):
        raise WireError(f"a record of {record.device}/{record.task} {record.run_id} under run {run.run_id}")
    return RunRecord(run, record)
