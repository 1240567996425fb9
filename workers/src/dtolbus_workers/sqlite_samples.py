"""A block's samples into SQLite: one statement for each channel, which unrolls the codes inside SQLite.

A statement that unrolls a JSON array of codes and scales them is several times as fast as binding a row a sample. Its
values are bit for bit those of `block.data`: code × scale + offset on the same doubles. What it cannot give exactly
(floats, as text to double is not exact in every SQLite; conversions; NaN; a status that changes) is bound row by row,
of a channel that has it.
"""

import math
import sqlite3
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock
from dtolbus_workers.columns import SAMPLE_COLUMNS, SampleColumns, sample_columns
from dtolbus_workers.iso import LENGTHS, iso_bytes, iso_texts
from dtolbus_workers.sqlite_file import insert

_BOUND = insert("samples", SAMPLE_COLUMNS)
_UNROLLED = """
INSERT INTO samples
SELECT :run_id, :device, :task, :channel, :block_index, :first_sample + code.key,
       :t_mono_ns + CAST(code.key * :period_ns + 0.5 AS INTEGER),
       {t_utc}, code.value * :scale + :offset,
       :unit, :status, :error_type, :error_message
FROM json_each(:codes) AS code
"""
_ONE_WIDTH = _UNROLLED.format(t_utc="CAST(substr(:t_utc, code.key * :width + 1, :width) AS TEXT)")
_PADDED = _UNROLLED.format(t_utc="rtrim(CAST(substr(:t_utc, code.key * :width + 1, :width) AS TEXT))")


def insert_samples(connection: sqlite3.Connection, block: DaqBlock) -> None:
    """Insert a row for each sample, channel by channel, into `samples`."""
    if not block.samples_per_channel:
        return
    samples = sample_columns(block)
    if _unrolls(block, samples):
        _insert_unrolled(connection, samples)
    else:
        for place in range(len(block.channels)):
            _insert_bound(connection, samples, place)


def _unrolls(block: DaqBlock, samples: SampleColumns) -> bool:
    """Tell whether SQLite's own arithmetic gives exactly the block's times, and the values of its linear channels."""
    codes = block.raw_codes
    if codes is None or codes.dtype.kind not in "iu" or block.error is not None:
        return False
    scales = [] if block.calibration is None else [(c.scale, c.offset) for c in block.calibration]
    if not all(math.isfinite(number) for pair in scales for number in pair):
        return False
    half_up = (np.arange(block.samples_per_channel) * block.period_ns + 0.5).astype(np.int64)
    return np.array_equal(half_up, samples.t_mono_ns - block.t_mono_ns)


def _linear(samples: SampleColumns) -> list[bool]:
    """Tell of each channel whether its values are its codes × scale + offset and nothing more."""
    same: list[bool] = (samples.values == samples.block.scaled()).all(axis=1).tolist()
    calibration = samples.block.calibration
    if calibration is None:
        return same
    return [equal and channel.conversion is None for equal, channel in zip(same, calibration, strict=True)]


def _constant_status(status: NDArray[np.int64] | None) -> tuple[bool, int | None]:
    """Tell whether all samples have one status, and which."""
    if status is None or not len(status):
        return True, None
    return bool((status == status[0]).all()), int(status[0])


def _insert_unrolled(connection: sqlite3.Connection, samples: SampleColumns) -> None:
    block = samples.block
    assert block.raw_codes is not None  # noqa: S101  # narrows the type, nothing rests on it
    texts, width = _fixed_width(samples.t_utc_ns)
    statement = _ONE_WIDTH if b" " not in texts else _PADDED
    shared = _constants(block) | {
        "first_sample": block.first_sample_index,
        "t_mono_ns": block.t_mono_ns,
        "period_ns": float(block.period_ns),
        "t_utc": texts,
        "width": width,
        "error_type": None,
        "error_message": None,
    }
    linear = _linear(samples)
    for place, channel in enumerate(block.channels):
        constant, status = _constant_status(samples.status_of(channel))
        if not constant or not linear[place]:
            _insert_bound(connection, samples, place)
            continue
        calibration = block.calibration[place] if block.calibration is not None else None
        own = {
            "channel": channel,
            "scale": float(calibration.scale) if calibration else 1.0,
            "offset": float(calibration.offset) if calibration else 0.0,
            "unit": block.units.get(channel),
            "status": status,
            "codes": codes_json(block.raw_codes[place, : block.samples_per_channel]),
        }
        connection.execute(statement, shared | own)


def _fixed_width(t_utc_ns: NDArray[np.int64]) -> tuple[bytes, int]:
    """Return the instants' texts one behind another, padded with blanks to the same width, and that width."""
    letters = iso_bytes(t_utc_ns).view(np.uint8).reshape(len(t_utc_ns), -1)
    width = max(length for length in LENGTHS if letters[:, length - 1].any())
    cut = letters[:, :width]
    if not cut[:, -1].all():
        cut = np.where(cut == 0, np.uint8(ord(" ")), cut)
    return cut.tobytes(), width


def codes_json(codes: NDArray[Any]) -> str:
    """Return the codes, one at least, as a JSON array; those of 16 bits as texts of one length, with blanks."""
    if codes.dtype not in (np.int16, np.uint16):
        return msgspec.json.encode(codes.tolist()).decode()
    texts = _texts_of_16_bits(codes.dtype.char)[codes.view(np.uint16)].tobytes()
    return f"[{texts[:-1].decode('ascii')}]"


@lru_cache(maxsize=2)
def _texts_of_16_bits(dtype: str) -> NDArray[np.uint64]:
    """Return the text of each code with its comma, eight bytes, by the code's bits; shape (65536,)."""
    codes = np.arange(65536, dtype=np.uint16).view(dtype).tolist()
    return np.frombuffer(b"".join(b"%7d," % code for code in codes), np.uint64)


def _constants(block: DaqBlock) -> dict[str, str | int | float | bytes | None]:
    return {
        "run_id": block.run_id,
        "device": block.device,
        "task": block.task,
        "block_index": block.block_index,
    }


def _insert_bound(connection: sqlite3.Connection, samples: SampleColumns, place: int) -> None:
    block = samples.block
    channel = block.channels[place]
    status = samples.status_of(channel)
    count = block.samples_per_channel
    statuses = [None] * count if status is None else status.tolist()
    error = (block.error.type, block.error.message) if block.error else (None, None)
    before = (block.run_id, block.device, block.task, channel, block.block_index)
    unit = block.units.get(channel)
    columns = (
        samples.sample_index.tolist(),
        samples.t_mono_ns.tolist(),
        iso_texts(samples.t_utc_ns),
        samples.values[place].tolist(),
        statuses,
    )
    rows = ((*before, i, mono, utc, value, unit, s, *error) for i, mono, utc, value, s in zip(*columns, strict=True))
    connection.executemany(_BOUND, rows)
