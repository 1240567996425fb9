"""Records as chunks of a `.dt-raw` file, and back. Pure: no file is opened here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np

from dtolbus.blocktext import instant_of, usual_header
from dtolbus.errors import RawFormatError
from dtolbus.framing import ChunkHeader, EventInfo, FileHeader, seal, seal_text
from dtolbus.packing import pack_reading, unpack_reading
from dtolbus.records import Clock, DaqBlock, DaqEvent, DaqReading, ErrorInfo, Record, RunInfo
from dtolbus.runblocks import block_of_run


class Encoded(NamedTuple):
    """A record ready to append."""

    header: ChunkHeader
    payload: bytes | memoryview


def encode_record(record: Record, seq: int) -> list[bytes | memoryview]:
    """Return the framed chunk of a bus record, `seq` being its number within the file."""
    if isinstance(record, DaqBlock):
        usual = usual_header(record, seq)
        if usual is not None:
            return seal_text(usual, _codes_of(record))
        header, payload = encode_block(record, seq)
    elif isinstance(record, DaqReading):
        header, payload = _encode_reading(record, seq)
    else:
        header, payload = _encode_event(record, seq)
    return seal(header, payload)


def _codes_of(block: DaqBlock) -> bytes | memoryview:
    """Return the codes of a block, all of whose samples are valid, as bytes: who adds up lengths may rely on that."""
    codes = block.raw_codes
    assert codes is not None  # noqa: S101  # narrows the type, nothing rests on it
    return np.ascontiguousarray(codes).data.cast("B") if codes.size else b""


def encode_block(block: DaqBlock, seq: int) -> Encoded:
    """Return a block's chunk: its codes, or its floats where it has no codes, or no samples where it has neither."""
    samples = block.samples_per_channel
    values = block.raw_codes if block.raw_codes is not None or block.error is not None else block.data
    payload: bytes | memoryview = b""
    if values is not None:
        payload = np.ascontiguousarray(values[:, :samples]).data.cast("B") if samples and values.size else b""
    flags = _flags(block, values is not None)
    t_utc = block.t_utc.isoformat()
    header = ChunkHeader(
        seq=seq,
        event_kind=("buffer_done_with_flags" if flags else "buffer_done") if values is not None else "error",
        first_sample_index=block.first_sample_index,
        valid_samples=samples if values is not None else 0,
        buffer_capacity=samples if values is None else values.shape[1],
        t_mono_ns=block.t_mono_ns,
        t_utc=t_utc,
        flags=flags,
        block_index=block.block_index,
        clock=block.clock,
        t0=None if block.t0 is None or block.t0 == block.t_utc else block.t0.isoformat(),
        t_midpoint_mono_ns=block.t_midpoint_mono_ns,
        read_started_at=_iso(block.read_started_at),
        read_finished_at=_iso(block.read_finished_at),
        elapsed_s=block.elapsed_s,
        is_linearised=block.is_linearised,
        sensor_status=_runs_of(block.sensor_status) or None,
        told_status=_runs_of(block.told_status) if block.sensor_status and block.told_status is not None else None,
        error=block.error,
        cjc=None if block.cjc_data is None else [_nullable(row) for row in block.cjc_data.tolist()],
        anchor=block.anchor,
    )
    return Encoded(header, payload)


def _flags(block: DaqBlock, has_values: bool) -> tuple[str, ...]:
    flags = []
    if block.error is not None:
        flags.append("overrun_marker")
    if has_values and block.raw_codes is not None and block.samples_per_channel < block.raw_codes.shape[1]:
        flags.append("partial")
    return tuple(flags)


def _nullable(row: list[float]) -> list[float | None]:
    return [None if value != value else value for value in row]


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _runs_of(status: Mapping[str, Any]) -> dict[str, list[tuple[int, int]]]:
    """Return each channel's status as runs of (status, samples)."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, values in status.items():
        edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        found[name] = [(int(values[a]), b - a) for a, b in pairwise(edges) if b > a]
    return found


def _encode_reading(reading: DaqReading, seq: int) -> Encoded:
    payload = pack_reading(reading)
    header = ChunkHeader(
        seq=seq,
        event_kind="buffer_done",
        first_sample_index=reading.reading_index,
        valid_samples=1,
        buffer_capacity=1,
        t_mono_ns=reading.t_mono_ns,
        t_utc=reading.t_utc.isoformat(),
        flags=(),
        block_index=reading.reading_index,
        payload_bytes=len(payload),
    )
    return Encoded(header, payload)


def _encode_event(event: DaqEvent, seq: int) -> Encoded:
    header = ChunkHeader(
        seq=seq,
        event_kind=event.kind if event.kind != "buffer_done" else "event",
        first_sample_index=event.sample_index,
        valid_samples=0,
        buffer_capacity=0,
        t_mono_ns=event.t_mono_ns,
        t_utc=event.t_utc.isoformat(),
        flags=(),
        block_index=event.record_index,
        event=EventInfo(event.kind, event.message, event.lost_samples),
        clock=Clock(event.t_utc_ns, 0.0),
    )
    return Encoded(header, b"")


def decode_record(file: FileHeader, header: ChunkHeader, payload: bytes | memoryview) -> Record:
    """Return the record that a chunk of the bus, or of a stand-alone file, holds. Raises RawFormatError."""
    try:
        if header.event is not None and file.run is not None:
            return _decode_event(file.run, header, header.event)
        if header.payload_bytes is not None:
            return unpack_reading(payload)
        codes = np.frombuffer(payload, dtype=file.dtype).reshape(len(file.channels), header.valid_samples)
        if file.run is not None and header.clock is not None and header.block_index is not None:
            return _decode_bus_block(file.run, header, header.block_index, header.clock, codes)
        return _decode_lone_block(file, header, codes)
    except (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        raise RawFormatError(f"chunk {header.seq} cannot be read: {error}") from error


def _decode_bus_block(run: RunInfo, header: ChunkHeader, index: int, clock: Clock, codes: Any) -> DaqBlock:
    return block_of_run(
        run,
        index=index,
        first_sample=header.first_sample_index,
        codes=codes,
        t_mono_ns=header.t_mono_ns,
        clock=clock,
        read_started_at=None if header.read_started_at is None else instant_of(header.read_started_at),
        read_finished_at=None if header.read_finished_at is None else instant_of(header.read_finished_at),
        sensor_status=_status_of(header.sensor_status, header.valid_samples, run.channel_names),
        told_status=_told_status(header, run.channel_names),
        error=header.error,
        anchor=header.anchor,
    )


def _decode_lone_block(file: FileHeader, header: ChunkHeader, codes: Any) -> DaqBlock:
    """Return a block of a file that no bus wrote; what its header does not say is filled in from the file's."""
    t_utc = datetime.fromisoformat(header.t_utc)
    error = header.error
    if error is None and (header.event is not None or "overrun_marker" in header.flags):
        message = header.event.message if header.event else "the chunk is marked overrun_marker"
        error = ErrorInfo("dtolbus.errors.BoardError", message)
    raw = file.raw
    rate = raw.get("sample_rate_hz")
    started = raw.get("task_started_at")
    floats = file.dtype.kind == "f"
    return DaqBlock(
        device=str(raw.get("device") or ""),
        task=raw.get("task"),
        channels=file.channels,
        block_index=header.seq if header.block_index is None else header.block_index,
        first_sample_index=header.first_sample_index,
        samples_per_channel=header.valid_samples,
        t_mono_ns=header.t_mono_ns,
        t_utc=t_utc,
        data=codes if floats else None,  # type: ignore[arg-type]  # the field takes None for: computed from the codes
        raw_codes=None if floats or (error is not None and not codes.size) else codes,
        calibration=file.calibration,
        cjc_data=None if header.cjc is None else np.array(header.cjc, dtype=np.float64),
        sample_rate_hz=rate,
        block_period_ns=raw.get("block_period_ns"),
        clock=header.clock,
        anchor=header.anchor,
        task_started_at=None if started is None else datetime.fromisoformat(started),
        t0=_instant(header.t0) or t_utc,
        t_midpoint_mono_ns=header.t_midpoint_mono_ns,
        read_started_at=_instant(header.read_started_at) or t_utc,
        read_finished_at=_instant(header.read_finished_at) or t_utc,
        elapsed_s=header.elapsed_s or 0.0,
        units={channel["name"]: channel.get("unit") for channel in raw["channels"]},
        is_linearised=bool(header.is_linearised),
        sensor_status=_status_of(header.sensor_status, header.valid_samples, file.channels),
        error=error,
        run_id=raw.get("run_id"),
    )


def _decode_event(run: RunInfo, header: ChunkHeader, event: EventInfo) -> DaqEvent:
    return DaqEvent(
        device=run.device,
        task=run.task,
        run_id=run.run_id,
        record_index=header.block_index or 0,
        kind=event.kind,
        message=event.message,
        sample_index=header.first_sample_index,
        lost_samples=event.lost_samples,
        t_mono_ns=header.t_mono_ns,
        t_utc_ns=header.clock.utc_ns if header.clock else 0,
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _told_status(header: ChunkHeader, channels: Sequence[str]) -> dict[str, Any] | None:
    """Return what the board told of the status; nothing where there is none, and None where the journal is too old."""
    if header.told_status is None and header.sensor_status is not None:
        return None
    return _status_of(header.told_status, header.valid_samples, channels)


def _status_of(
    status: Mapping[str, list[tuple[int, int]]] | None, samples: int, channels: Sequence[str]
) -> dict[str, Any]:
    if status is None:
        return {}
    for name, runs in status.items():
        told = sum(count for _, count in runs)
        if name not in channels or told != samples:
            raise ValueError(f"{told} statuses of the channel {name!r} for {samples} samples")
    return {
        name: np.repeat([one for one, _ in runs], [count for _, count in runs]).astype(np.int64)
        for name, runs in status.items()
    }
