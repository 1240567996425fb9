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

from dtolbus.blockheader import ARRAY_16, BlockFields, PackedRun, RunHeaders, pack_block
from dtolbus.errors import WireError
from dtolbus.identity import ANY, Identity
from dtolbus.numbers import Count, Int64
from dtolbus.packing import pack_reading, unpack_reading
from dtolbus.records import (
    DaqBlock,
    DaqEvent,
    DaqReading,
    Record,
    RunEnd,
    RunInfo,
    RunStatus,
)
from dtolbus.runblocks import block_of_run
from dtolbus.topics import topic

WIRE_VERSION = 2
MAX_FRAMES = 4
MAX_TOPIC_BYTES = 1024
MAX_HEADER_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 64 << 20
"""Largest frame that a socket takes."""

Frame = bytes | memoryview
_DTYPES = {name: np.dtype(name) for name in ("<i2", "<u2", "<i4", "<f4", "<f8")}
_LITTLE_ENDIAN = frozenset(_DTYPES.values())
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
    next: Count


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
    number: Int64 = 0
    """Comes back in the Welcome."""


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """Every run that the journal holds, and the limits of this gateway."""

    runs: tuple[RunStatus, ...]
    fetch_records: Count
    """Records served for one Fetch at most; Done says where it stopped."""
    heartbeat_s: float
    more: bool = False
    """Whether further runs follow in another Welcome."""
    serves: Identity = ANY
    """What this gateway serves."""
    number: Int64 = 0
    """The Hello's that it answers."""


class Fetch(msgspec.Struct, frozen=True, array_like=True):
    """Asks for the records [from_index, to_index) of a run: records, RunGap and Done, or Refused.

    A client has one at a time; records and gaps come as far as it grants Credit, Done and Refused without.
    """

    device: str
    task: str
    run_id: str
    from_index: Int64
    to_index: Int64
    number: Int64 = 0
    """The client's; comes back in the answers."""


class Credit(msgspec.Struct, frozen=True, array_like=True):
    """Lets the gateway send so many more records (or gaps) of the Fetch with this number; it has none to begin with."""

    records: Int64
    number: Int64


class RunGap(msgspec.Struct, frozen=True, array_like=True):
    """The journal no longer has [from_index, to_index)."""

    run_id: str
    from_index: Count
    to_index: Count
    cause: str
    first_sample: Count | None = None
    end_sample: Count | None = None
    number: Int64 = 0
    """The Fetch's that it answers; 0 where that is not told."""


class Done(msgspec.Struct, frozen=True, array_like=True):
    """A Fetch is served up to `next`."""

    run_id: str
    next: Count
    number: Int64 = 0


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """A request is not served."""

    why: str
    run_id: str = ""
    number: Int64 = 0
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
    position: Count
    backfilled: Count = 0


Control = Hello | Welcome | Fetch | RunGap | Done | Refused | Ack | Credit
Message = RunRecord | Heartbeat | Control


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
    first: Count
    head: Count


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
_record_decoder = msgspec.msgpack.Decoder(_RecordHeader)
_heartbeat_decoder = msgspec.msgpack.Decoder(_HeartbeatHeader)
_control_decoder = msgspec.msgpack.Decoder(_ControlHeader)
_event_decoder = msgspec.msgpack.Decoder(DaqEvent)
_body_decoders = {kind: msgspec.msgpack.Decoder(cls) for kind, cls in _CONTROL_KINDS.items()}


_runs = RunHeaders()


def encode(message: Message) -> list[Frame]:
    """Return the frames of a message, topic first. Array frames share memory with the record: do not change it."""
    if isinstance(message, RunRecord):
        return _encode_record(message.run, message.record)
    if isinstance(message, Heartbeat):
        info = message.status.info
        header = _HeartbeatHeader(
            WIRE_VERSION,
            _HEARTBEAT,
            _runs.pack(info).header,
            message.status.state,
            message.status.first,
            message.status.head,
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
    return _runs.pack(run).topic


def _encode_record(run: RunInfo, record: Record) -> list[Frame]:
    packed = _runs.pack(run)
    if isinstance(record, DaqBlock):
        return _encode_block(packed, record)
    if isinstance(record, DaqReading):
        kind, body = _READING, pack_reading(record)
    else:
        kind, body = _EVENT, _pack(record)
    return _sealed(packed.topic, _pack(_RecordHeader(WIRE_VERSION, kind, packed.header, msgspec.Raw(body))))


def _encode_block(packed: PackedRun, block: DaqBlock) -> list[Frame]:
    codes = block.raw_codes
    arrays = [_little_endian(block.data if codes is None else codes)]
    if block.sensor_status:
        arrays.append(np.stack([np.asarray(s, dtype="<i4") for s in block.sensor_status.values()]))
    header = pack_block(WIRE_VERSION, _BLOCK, packed.header, block, arrays)
    return _sealed(packed.topic, header, *[array.data.cast("B") if array.size else b"" for array in arrays])


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype in _LITTLE_ENDIAN and array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def decode(frames: Sequence[Frame]) -> Message:
    """Return the message that the frames hold. Raises WireError for anything that is not one of this wire version."""
    if not 2 <= len(frames) <= MAX_FRAMES:
        raise WireError(f"{len(frames)} frames; a message has 2 to {MAX_FRAMES}")
    if len(frames[0]) > MAX_TOPIC_BYTES:
        raise WireError(f"a topic of {len(frames[0])} bytes")
    sealed = bytes(frames[1])
    kind = _kind_of(sealed)
    header, digest = sealed[:-_DIGEST_BYTES], sealed[-_DIGEST_BYTES:]
    if _digest(frames[0], header, frames[2:]) != digest:
        raise WireError("the checksum does not hold: the message was damaged on its way")
    try:
        if kind == _BLOCK:
            run, rest = _runs.read_block(bytes(frames[0]), header)
            return RunRecord(run, _decode_block(run, rest, frames))
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


def _kind_of(header: bytes) -> int:
    """Return the kind of message; the version and it are the first two fields, small integers both."""
    if not 5 + _DIGEST_BYTES <= len(header) <= MAX_HEADER_BYTES:
        raise WireError(f"a header of {len(header)} bytes")
    at = 1 if header[0] >> 4 == 9 else 3
    if at == 3 and header[0] != ARRAY_16:
        raise WireError("the header is not an array")
    version, kind = header[at], header[at + 1]
    if version != WIRE_VERSION:
        raise WireError(
            f"wire version {version}; this end speaks {WIRE_VERSION}: install the same dtolbus at both ends"
        )
    return kind


def _decode_block(run: RunInfo, header: BlockFields, frames: Sequence[Frame]) -> DaqBlock:
    specs, status_of = header.arrays, header.status_of
    if len(frames) != 2 + len(specs):
        raise WireError(f"{len(frames) - 2} array frames where the header names {len(specs)}")
    if len(specs) != (2 if status_of else 1):
        raise WireError(f"{len(specs)} arrays for {len(run.channels)} channels, {len(status_of)} of them with a status")
    codes = _array(frames[2], *specs[0])
    if codes.shape[0] != len(run.channels):
        raise WireError(f"an array of shape {codes.shape} for {len(run.channels)} channels")
    status: dict[str, NDArray[Any]] = {}
    if status_of:
        found = _array(frames[3], *specs[1])
        if found.shape != (len(status_of), codes.shape[1]):
            raise WireError(f"a status of shape {found.shape} for {len(status_of)} channels")
        status = dict(zip(status_of, found.astype(np.int64), strict=True))
    return block_of_run(
        run,
        index=header.index,
        first_sample=header.first_sample,
        codes=codes,
        t_mono_ns=header.t_mono_ns,
        clock=header.clock,
        read_started_at=header.read_started_ns,
        read_finished_at=header.read_finished_ns,
        sensor_status=status,
        error=header.error,
        anchor=header.anchor,
    )


def _array(frame: Frame, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    kind = _DTYPES.get(dtype)
    if kind is None:
        raise WireError(f"an array of type {dtype!r}; allowed are {', '.join(sorted(_DTYPES))}")
    if len(shape) != 2 or shape[0] < 0 or shape[1] < 0 or shape[0] * shape[1] * kind.itemsize != len(frame):
        raise WireError(f"a frame of {len(frame)} bytes for an array of shape {shape} and type {dtype}")
    return np.ndarray(shape, kind, frame)


def _belonging(run: RunInfo, record: Record) -> RunRecord:
    if record.run_id != run.run_id or (record.device, record.task) != (run.device, run.task):
        raise WireError(f"a record of {record.device}/{record.task} {record.run_id} under run {run.run_id}")
    return RunRecord(run, record)
