"""Records as Arrow tables, column by column. Imports pyarrow: only what writes Parquet imports this."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dtolbus.parquet.footer import CellKind
from dtolbus.records import DaqBlock, DaqReading, ns_from_utc
from dtolbus.rows import READING_KEYS
from dtolbus_workers.cells import ColumnKey, Columns, cell_kind, status_text
from dtolbus_workers.columns import SAMPLE_COLUMNS, SampleColumns, sample_columns

TEXT = pa.dictionary(pa.int32(), pa.string())
UTC_NS = pa.timestamp("ns", "UTC")
TIMES = ("t_utc", "requested_at", "received_at")
"""The columns of readings that are instants."""
ERROR_KEYS = ("error_type", "error_message")
FIXED = {
    "reading_index": pa.int64(),
    "t_mono_ns": pa.int64(),
    "t_midpoint_mono_ns": pa.int64(),
    "latency_s": pa.float64(),
    "device": TEXT,
    "task": TEXT,
    "run_id": TEXT,
    "error_type": TEXT,
    "error_message": TEXT,
    "sensor_status": pa.string(),
    **dict.fromkeys(TIMES, UTC_NS),
}
_TYPES: dict[CellKind, Any] = {"number": pa.float64(), "integer": pa.int64(), "text": pa.string()}

SAMPLE_SCHEMA = pa.schema(
    [
        (name, {"value": pa.float64(), "t_utc": UTC_NS}.get(name, TEXT if name in texts else pa.int64()))
        for texts in [{"run_id", "device", "task", "channel", "unit", "error_type", "error_message"}]
        for name in SAMPLE_COLUMNS
    ]
)
"""The bus's sample table."""
SAMPLE_SCHEMA_FLOAT32 = SAMPLE_SCHEMA.set(
    SAMPLE_SCHEMA.get_field_index("value"), pa.field("value", pa.float32(), metadata={"dtolbus.values": "float32"})
)
"""The same with values of half the bytes."""


def samples_table(blocks: Sequence[DaqBlock], schema: Any = SAMPLE_SCHEMA) -> Any:
    """Return the blocks' samples as a table of the schema: block by block, channel by channel, sample by sample.

    Raises:
        ValueError: a block's arrays do not fit its number of samples.
    """
    parts = [sample_columns(block) for block in blocks]
    shapes = [(len(block.channels), block.samples_per_channel) for block in blocks]
    rows = [channels * samples for channels, samples in shapes]
    errors = [(block.error.type, block.error.message) if block.error else (None, None) for block in blocks]
    by_channel = [(block, channel) for block in blocks for channel in block.channels]
    counts = tuple(block.samples_per_channel for block, _ in by_channel)
    columns = {
        "run_id": _text(tuple(block.run_id for block in blocks), tuple(rows)),
        "device": _text(tuple(block.device for block in blocks), tuple(rows)),
        "task": _text(tuple(block.task for block in blocks), tuple(rows)),
        "channel": _text(tuple(channel for _, channel in by_channel), counts),
        "block_index": pa.array(np.repeat(np.array([block.block_index for block in blocks], np.int64), rows)),
        "sample_index": pa.array(_tiled([part.sample_index for part in parts], shapes, np.int64)),
        "t_mono_ns": pa.array(_tiled([part.t_mono_ns for part in parts], shapes, np.int64)),
        "t_utc": instants(_tiled([part.t_utc_ns for part in parts], shapes, np.int64)),
        "value": _values(parts, shapes, schema.field("value").type.to_pandas_dtype()),
        "unit": _text(tuple(block.units.get(channel) for block, channel in by_channel), counts),
        "sensor_status": _status(parts, sum(rows)),
        "error_type": _text(tuple(kind for kind, _ in errors), tuple(rows)),
        "error_message": _text(tuple(message for _, message in errors), tuple(rows)),
    }
    return pa.table(columns, schema=schema)


def _values(parts: Sequence[SampleColumns], shapes: Sequence[tuple[int, int]], dtype: type) -> Any:
    for part, (_, samples) in zip(parts, shapes, strict=True):
        if part.values.shape[1] < samples:  # NumPy might repeat what is there
            raise ValueError(f"values of {part.values.shape[1]} samples for {samples}")
    with np.errstate(over="ignore"):  # beyond float32 is infinity
        values = [part.values[:, : shape[1]] for part, shape in zip(parts, shapes, strict=True)]
        return pa.array(_tiled(values, shapes, dtype))


def _tiled(arrays: Sequence[NDArray[Any]], shapes: Sequence[tuple[int, int]], dtype: type) -> NDArray[Any]:
    """Return the blocks' arrays, each broadcast to its (channels, samples), one after another."""
    out: NDArray[Any] = np.empty(sum(channels * samples for channels, samples in shapes), dtype)
    start = 0
    for array, shape in zip(arrays, shapes, strict=True):
        end = start + shape[0] * shape[1]
        out[start:end].reshape(shape)[:] = array
        start = end
    return out


@lru_cache(maxsize=16)
def _text(texts: tuple[str | None, ...], counts: tuple[int, ...]) -> Any:
    """Return a dictionary array of each text so many times; kept, for batches differ in few of them."""
    words = list(dict.fromkeys(text for text in texts if text is not None))
    if not words:
        return pa.nulls(sum(counts), TEXT)
    place = {word: number for number, word in enumerate(words)}
    codes = np.repeat(np.array([place.get(text, -1) for text in texts], np.int32), counts)  # type: ignore[arg-type]  # None is no word
    indices = pa.array(codes, mask=codes < 0) if None in texts else pa.array(codes)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))


def _status(parts: Sequence[SampleColumns], rows: int) -> Any:
    """Return each sample's sensor status; null where its channel has none."""
    if not any(part.block.sensor_status for part in parts):
        return pa.nulls(rows, pa.int64())
    values, known = np.zeros(rows, np.int64), np.zeros(rows, bool)
    start = 0
    for part in parts:
        samples = part.block.samples_per_channel
        for channel in part.block.channels:
            status = part.status_of(channel)
            if status is not None:
                values[start : start + samples] = status[:samples]
                known[start : start + samples] = True
            start += samples
    return pa.array(values, mask=~known)


def instants(ns: NDArray[np.int64]) -> Any:
    """Return ns since 1970 as timestamps, without a copy."""
    return pa.Array.from_buffers(UTC_NS, len(ns), [None, pa.py_buffer(ns)])


def readings_table(readings: Sequence[DaqReading], columns: Columns) -> Any:
    """Return a run's readings as the bus's table; the channels' columns have a type that never changes.

    `columns` has all that the readings need; each of these fields tells in its metadata which channel it holds.
    """
    names = {key.channel: column for key, column in columns.items() if key.kind == "number"}
    fields: list[tuple[str, Any, ColumnKey | None]] = [("run_id", TEXT, None), ("reading_index", pa.int64(), None)]
    fields += [(key, FIXED[key], None) for key in READING_KEYS if key not in ERROR_KEYS]
    fields += [(column, _TYPES[key.kind], key) for key, column in columns.items()]
    fields += [(f"{column}_unit", TEXT, None) for column in names.values()]
    fields += [(key, TEXT, None) for key in ERROR_KEYS] + [("sensor_status", pa.string(), None)]
    cells = [[_cell(reading, key) for reading in readings] for key in columns]
    units = [[reading.units.get(channel) for reading in readings] for channel in names]
    fixed = {name: fixed_cells(name, readings) for name, _, owner in fields if name in FIXED}
    given = iter([*cells, *units])
    arrays = [pa.array(fixed[name] if name in fixed else next(given), kind) for name, kind, _ in fields]
    return pa.table(arrays, schema=pa.schema([_field(*field) for field in fields]))


def fixed_cells(name: str, readings: Sequence[DaqReading]) -> list[Any]:
    """Return the cells of a column that is no channel's; instants as ns since 1970, which Arrow takes."""
    if name in TIMES:
        return [ns_from_utc(getattr(reading, name)) for reading in readings]
    if name == "sensor_status":
        return [status_text(reading) for reading in readings]
    if name in ERROR_KEYS:
        part = name.removeprefix("error_")
        return [None if reading.error is None else getattr(reading.error, part) for reading in readings]
    return [getattr(reading, name) for reading in readings]


def _field(name: str, kind: Any, owner: ColumnKey | None) -> Any:
    about = None if owner is None else {"dtolbus.channel": owner.channel, "dtolbus.kind": owner.kind}
    return pa.field(name, kind, metadata=about)


def _cell(reading: DaqReading, key: ColumnKey) -> Any:
    value: Any = reading.values.get(key.channel)
    if cell_kind(value) != key.kind:
        return None
    return float(value) if key.kind == "number" else value
