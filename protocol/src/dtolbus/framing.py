"""`.dt-raw` version 2 as bytes: a file header, then chunks of header and payload. Pure: no file is opened here.

File: `u32 header length · JSON file header · chunk*`, chunk: `u32 header length · JSON chunk header · payload`; numbers
are little-endian, the payload holds the codes of `(channels, valid_samples)` in C order. Version 2's keys keep their
meaning; ours are added behind them. The last key of each header, `checksum`, holds the xxh3_64 (16 hex digits) over
the header's bytes before `,"checksum"` and then the payload. Where the file header has one, every chunk must.
"""

import struct
from typing import Any

import msgspec
import numpy as np
import xxhash

from dtolbus.errors import RawFormatError
from dtolbus.jsonreading import read_json
from dtolbus.numbers import Count, Instant
from dtolbus.records import (
    Anchor,
    Channel,
    Clock,
    ErrorInfo,
    RunInfo,
    utc_from_ns,
)

RAW_FORMAT_VERSION = 2
"""Version of the `.dt-raw` files written here."""

LENGTH = struct.Struct("<I")
MAX_HEADER_BYTES = 4 * 1024 * 1024
_CHECKSUM = b',"checksum":"'
_SEAL_BYTES = len(_CHECKSUM) + 16 + len(b'"}')


class EventInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk without samples tells."""

    kind: str
    message: str
    lost_samples: Count = 0


class ChunkHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """One chunk's header; the first eight keys are version 2's, the others ours."""

    seq: Count
    event_kind: str
    first_sample_index: Count
    valid_samples: Count
    buffer_capacity: Count
    t_mono_ns: Instant
    t_utc: str
    flags: tuple[str, ...]
    block_index: Count | None = None
    event: EventInfo | None = None
    clock: Clock | None = None
    payload_bytes: Count | None = None
    """Only where the payload is no array of codes (readings)."""
    t0: str | None = None
    t_midpoint_mono_ns: Instant | None = None
    read_started_at: str | None = None
    read_finished_at: str | None = None
    elapsed_s: float | None = None
    is_linearised: bool | None = None
    sensor_status: dict[str, list[tuple[int, int]]] | None = None
    """By channel: runs of (status, samples)."""
    told_status: dict[str, list[tuple[int, int]]] | None = None
    """What of it the board told, in the same form; absent beside `sensor_status`: not known."""
    error: ErrorInfo | None = None
    cjc: list[list[float | None]] | None = None
    anchor: Anchor | None = None
    checksum: str | None = None


class FileHeader(msgspec.Struct, frozen=True):
    """A file's header, with what is needed to read its chunks."""

    raw: dict[str, Any]
    """The header as it stands in the file."""
    dtype: np.dtype[Any]
    channels: tuple[str, ...]
    run: RunInfo | None
    """Present in files of the bus, absent in stand-alone ones."""
    calibration: tuple[Channel, ...] | None
    checked: bool
    """Whether its chunks carry checksums."""


_encoder = msgspec.json.Encoder()
_chunk_decoder = msgspec.json.Decoder(ChunkHeader)


def file_header_of(run: RunInfo) -> dict[str, Any]:
    """Return the file header of a run's segments."""
    return {
        "format_version": RAW_FORMAT_VERSION,
        "task": run.task,
        "device": run.device,
        "channels": [{"name": channel.name, "unit": channel.unit} for channel in run.channels],
        "sample_rate_hz": run.rate_hz,
        "block_period_ns": round(1e9 / run.rate_hz),
        "dtype": run.dtype,
        "n_channels": len(run.channels),
        "samples_per_buffer": run.block_samples,
        "task_started_at": utc_from_ns(run.started_utc_ns).isoformat(),
        "metadata": run.meta,
        "run_id": run.run_id,
        "calibration": run.channels,
        "meta": run.meta,
        "run": run,
    }


def encode_file_header(run: RunInfo) -> bytes:
    """Return the framed file header of a run's segments."""
    return seal_file_header(file_header_of(run))


def file_header_for(run: RunInfo) -> FileHeader:
    """Return the file header of a run's segments as a reader has it."""
    return parse_file_header(encode_file_header(run)[LENGTH.size :])


def seal_file_header(header: dict[str, Any]) -> bytes:
    """Return the file header as it stands at the file's start, with its checksum."""
    return _sealed(_encoder.encode(header)[:-1], b"")


def parse_file_header(text: bytes) -> FileHeader:
    """Return the file header. Raises RawFormatError where it is not one of version 2."""
    if checksum_holds(text, b"") is False:
        raise RawFormatError("the file header is damaged: its checksum does not hold")
    try:
        raw: dict[str, Any] = read_json(text, dict[str, Any])
        version = raw.get("format_version")
        if version != RAW_FORMAT_VERSION:
            raise RawFormatError(f"format_version is {version!r}; this reader knows {RAW_FORMAT_VERSION}")
        names = tuple(str(channel["name"]) for channel in raw["channels"])
        run = msgspec.convert(raw["run"], RunInfo) if "run" in raw else None
        calibration = raw.get("calibration")
        known = msgspec.convert(calibration, tuple[Channel, ...]) if calibration else None
        dtype = np.dtype(raw["dtype"])
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise RawFormatError(f"the file header is not one of a .dt-raw file: {error}") from error
    if dtype.kind not in "iuf" or len(names) != raw.get("n_channels", len(names)):
        raise RawFormatError(f"the file header names dtype {dtype} and {raw.get('n_channels')} channels: {names}")
    if known is not None and len(known) != len(names):
        raise RawFormatError(f"the file header has {len(names)} channels and {len(known)} calibrations")
    return FileHeader(raw, dtype, names, run, known, checked="checksum" in raw)


def seal(header: ChunkHeader, payload: bytes | memoryview) -> list[bytes | memoryview]:
    """Return the chunk to append: framed header with its checksum, payload."""
    return seal_text(_encoder.encode(header)[:-1], payload)


def seal_text(header: bytes, payload: bytes | memoryview) -> list[bytes | memoryview]:
    """Return the chunk to append of a header as JSON without its closing brace."""
    return [_sealed(header, payload), payload]


def _sealed(body: bytes, payload: bytes | memoryview) -> bytes:
    digest = xxhash.xxh3_64(body)
    digest.update(payload)
    size = len(body) + _SEAL_BYTES
    return b'%b%b%b%016x"}' % (LENGTH.pack(size), body, _CHECKSUM, digest.intdigest())


def checksum_holds(header: bytes, payload: bytes | memoryview) -> bool | None:
    """Return whether the chunk's checksum holds; None where it has none (files of others)."""
    end = header.rfind(_CHECKSUM)
    if end < 0:
        return None
    digest = xxhash.xxh3_64(header[:end])
    digest.update(payload)
    return header[end + len(_CHECKSUM) : -2] == digest.hexdigest().encode()


def parse_chunk_header(text: bytes) -> ChunkHeader:
    """Return the chunk header. Raises RawFormatError where it is none."""
    try:
        return _chunk_decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError) as error:
        raise RawFormatError(f"not a chunk header: {error}") from error


def payload_size(file: FileHeader, header: ChunkHeader) -> int:
    """Return how many bytes of payload follow the header. Raises RawFormatError where it says nonsense."""
    if header.payload_bytes is not None:
        size = header.payload_bytes
    else:
        size = header.valid_samples * len(file.channels) * file.dtype.itemsize
    if size < 0 or header.valid_samples < 0:
        raise RawFormatError(f"a chunk of {header.valid_samples} samples and {size} bytes")
    return size
