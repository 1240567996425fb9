"""Recordings that can be played, `.npz` and `.dt-raw`: what they hold, checked before anything starts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtolbus.chunkfile import Chunk, ChunkFile, Damage
from dtolbus.chunks import decode_record
from dtolbus.errors import RawFormatError
from dtolbus.framing import ChunkHeader
from dtolbus.records import Channel, DaqBlock, DaqEvent, DaqReading, Record
from dtolbus.remarks import is_remark
from dtolbus_producer.boards import Fault
from dtolbus_producer.boards.delivered import RATES_HZ, calibration_problem
from dtolbus_producer.corrections import CHANGES, FROM, ORIGINAL
from dtolbus_producer.tasks import WrongKeyError
from dtolbus_producer.words import word_fault

Piece = NDArray[Any] | Fault
"""Some samples, shape (channels, samples), or what happened between them."""

_NPZ_KEYS = ("channels", "codes", "full_scale", "rate_hz", "unit")
_OF_ITS_RUN = (FROM, ORIGINAL, CHANGES)
"""What a correction says of its run; what is played is a run of its own."""
_CODES = ("int16", "uint16", "int32")
_FULL_SCALES = (1e-100, 1e100)
"""Beyond them codes would have no values."""


class _WrongValueError(Exception):
    """A key of the recording has a value that cannot be; the message begins with the key."""


@dataclass(frozen=True)
class Recording:
    """What a file holds, before its samples are read."""

    path: Path
    channels: tuple[Channel, ...]
    rate_hz: float
    dtype: str
    meta: dict[str, Any]

    def pieces(self) -> Iterator[Piece]:
        """Yield the samples in order. Raises RawFormatError, OSError where the file can no longer be read."""
        if self.path.suffix != ".npz":
            yield from _raw_pieces(self.path)
            return
        try:
            yield _npz_arrays(self.path)["codes"]
        except (_WrongValueError, ValueError) as error:
            raise RawFormatError(f"{self.path}: {error}") from error


def open_recording(path: Path) -> Recording:
    """Return what the file holds. Raises WrongKeyError where it is missing or no recording."""
    if not path.is_file():
        raise WrongKeyError("board", f"playback:{path}: there is no such file")
    if path.suffix not in (".npz", ".dt-raw"):
        raise WrongKeyError("board", f"playback:{path}: a recording is a .npz or a .dt-raw file")
    try:
        return _open_npz(path) if path.suffix == ".npz" else _open_raw(path)
    except _WrongValueError as error:
        raise WrongKeyError("board", f"playback:{path}: {error}") from error
    except (RawFormatError, ValueError, OSError) as error:
        raise WrongKeyError("board", f"playback:{path}: not a recording that can be played: {error}") from error


def _npz_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of the file. Raises ValueError where it is no whole `.npz`, _WrongValueError for one array."""
    with path.open("rb") as file:  # numpy leaves its own open where the file is damaged
        try:
            arrays = np.load(file, allow_pickle=False)
        except Exception as error:  # numpy and zipfile raise whatever a damaged file makes them
            raise ValueError(_one_line(error)) from error
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it is one array without a name; save it with numpy.savez")
        missing = [key for key in _NPZ_KEYS if key not in arrays.files]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return {key: _array(arrays, key) for key in _NPZ_KEYS}


def _array(arrays: np.lib.npyio.NpzFile, key: str) -> NDArray[Any]:
    try:
        found: NDArray[Any] = arrays[key]
    except Exception as error:  # as above
        raise _WrongValueError(f"{key}: {_one_line(error)}") from error
    return found


def _open_npz(path: Path) -> Recording:
    arrays = _npz_arrays(path)
    codes = arrays["codes"]
    if codes.ndim != 2 or not codes.size or str(codes.dtype) not in _CODES:
        allowed = f"give {', '.join(_CODES[:-1])} or {_CODES[-1]}, channels × samples, at least one of each"
        raise _WrongValueError(f"codes of shape {codes.shape} and type {codes.dtype}: {allowed}")
    names = _checked_names(arrays["channels"].tolist(), codes.shape[0])
    full_scale = _checked_full_scale(arrays["full_scale"], len(names))
    rate_hz = _checked_rate("rate_hz", arrays["rate_hz"].tolist())
    unit = arrays["unit"].tolist()
    if not isinstance(unit, str):
        raise _WrongValueError(f"unit = {unit!r}: give one text")
    for key, word in (("unit", unit), *(("channels", name) for name in names)):
        if fault := word_fault(word):
            raise _WrongValueError(f"{key}: {fault}")
    half = float(2 ** (8 * codes.dtype.itemsize - 1))
    is_offset = codes.dtype.kind == "u"
    channels = tuple(
        Channel(
            name,
            unit=unit,
            scale=scale / half,
            offset=-scale if is_offset else 0.0,
            range=(-scale, scale),
            encoding="offset_binary" if is_offset else "twos_complement",
            resolution_bits=8 * codes.dtype.itemsize,
            physical=place,
        )
        for place, (name, scale) in enumerate(zip(names, full_scale, strict=True))
    )
    return Recording(path, channels, rate_hz, str(codes.dtype), {"recording": path.name})


def _open_raw(path: Path) -> Recording:
    with ChunkFile(path) as file:
        header = file.header
    rate_hz = _checked_rate("sample_rate_hz", header.raw.get("sample_rate_hz"))
    units = {channel["name"]: channel.get("unit") for channel in header.raw["channels"]}
    plain = tuple(Channel(name, unit=units[name], physical=place) for place, name in enumerate(header.channels))
    channels = header.calibration or plain
    _checked_names([channel.name for channel in channels], max(1, len(header.channels)))
    for place, channel in enumerate(channels):
        problem = calibration_problem(channel)
        if problem is not None:
            raise _WrongValueError(f"calibration[{place}].{problem}")
    meta = {key: value for key, value in (header.raw.get("meta") or {}).items() if key not in _OF_ITS_RUN}
    if header.run is not None:
        meta["recorded_run"] = header.run.run_id
    return Recording(path, channels, rate_hz, str(header.dtype), {**meta, "recording": path.name})


def _checked_rate(key: str, value: object) -> float:
    lowest, highest = RATES_HZ
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise _WrongValueError(f"{key} = {value!r}: give one number above 0, {lowest:g} to {highest:g}")
    return float(value)


def _checked_names(names: object, rows: int) -> Sequence[str]:
    is_list = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    if not isinstance(names, list) or not is_list or len(names) != rows or len(set(names)) != rows:
        raise _WrongValueError(f"channels = {names!r}: give each of the {rows} rows of codes a name of its own")
    return names


def _checked_full_scale(value: NDArray[Any], count: int) -> list[float]:
    is_real = value.dtype.kind in "iuf" and value.shape in ((), (count,))
    lowest, highest = _FULL_SCALES
    if not is_real or not np.all((value >= lowest) & (value <= highest)):
        allowed = f"give a number from {lowest:g} to {highest:g} for all channels, or one for each of the {count}"
        raise _WrongValueError(f"full_scale = {value.tolist()!r}: {allowed}")
    return [float(scale) for scale in np.broadcast_to(value, count)]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _raw_pieces(path: Path) -> Iterator[Piece]:
    """Yield a `.dt-raw` file's samples; whatever of it is damaged or missing is a fault in its place."""
    end: int | None = None
    is_told = False
    with ChunkFile(path) as file:
        for found in file.chunks(file.start):
            record = _record_at(file, found)
            if isinstance(record, Fault):
                is_told = True
                yield record
                continue
            if end is None and isinstance(found, Chunk):
                end, is_hidden = _beginning(found.header)
                if is_hidden and not is_told:
                    yield Fault("sdk_error", f"{path.name}: {found.header.seq} chunks before the first are missing")
            yield from _pieces_of(record, end or 0)
            end = max(end or 0, _end_of(record))


def _record_at(file: ChunkFile, found: Chunk | Damage) -> DaqBlock | DaqEvent | Fault:
    """Return what stands there; a Fault where it cannot be read. Raises RawFormatError where it is a reading."""
    reason = ""
    if isinstance(found, Damage):
        reason = found.reason
    else:
        try:
            record: Record = decode_record(file.header, found.header, found.payload)
        except RawFormatError as error:
            reason = str(error)
        else:
            if isinstance(record, DaqReading):
                raise RawFormatError(f"{file.path}: holds readings, not blocks: it cannot be played")
            return record
    return Fault("sdk_error", f"{file.path.name}: bytes {found.offset} to {found.end}: {reason}")


def _beginning(header: ChunkHeader) -> tuple[int, bool]:
    """Return at which sample the file began, told by its first whole chunk, and whether chunks of it are lost.

    A segment that is not its run's first begins at a later sample; how many were lost there, nobody knows.
    """
    if header.seq > 0 and header.block_index in (None, header.seq):
        return 0, False
    return header.first_sample_index, header.seq > 0


def _pieces_of(record: DaqBlock | DaqEvent, end: int) -> Iterator[Piece]:
    """Yield what is to be played of a record, and before it the hole since the sample `end`."""
    first = record.sample_index if isinstance(record, DaqEvent) else record.first_sample_index
    if first > end:
        missing = first - end
        yield Fault("overrun", f"{missing} samples of each channel are not in the recording", missing)
    if isinstance(record, DaqEvent):
        if is_remark(record):  # of signals, which whoever plays them looks at
            return
        is_loss = record.lost_samples > 0
        kind = "overrun" if is_loss else "sdk_error"
        yield Fault(kind, f"dtolbus.{record.kind}: {record.message}", record.lost_samples)
        return
    if record.error is not None:
        yield Fault("sdk_error", str(record.error))
    if record.samples_per_channel:
        codes = record.raw_codes
        yield record.data if codes is None else codes[:, : record.samples_per_channel]


def _end_of(record: DaqBlock | DaqEvent) -> int:
    return record.sample_index + record.lost_samples if isinstance(record, DaqEvent) else record.end_sample_index
