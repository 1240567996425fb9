"""One record of the journal against what a sink gives back of it. Pure.

Nothing may differ but what the sink's format cannot hold: NaN is null in SQLite and JSONL, where the status says so;
SQLite has no −0.0; JSONL has no infinity; Postgres keeps instants in µs and no NUL.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Record, RunInfo, Scalar, ns_from_utc
from dtolbus_workers.cells import NO_ROOM, put_aside_frames, status_text
from dtolbus_workers.columns import SampleColumns, block_summary, sample_columns
from dtolbus_workers.destination import SampleRun, SampleTexts, StoredAside, StoredBlock, StoredEvent, StoredReading
from dtolbus_workers.iso import iso_texts
from dtolbus_workers.misfit import MISFIT, Described
from dtolbus_workers.schema import STATUS_COLUMN, ColumnNames, reading_names, reading_row

_INT64 = range(-(2**63), 2**63)
_INT_LIMITED = ("sqlite", "postgres", "parquet")


def lacking(block: DaqBlock, stored: StoredBlock, sink: str, mode: str | None) -> str | None:
    """Return which half of a block is not there that a sink with this blocks mode must have, or None."""
    has_samples = block.samples_per_channel > 0
    if (mode in ("samples", "both") or sink == "parquet") and has_samples and stored.values is None:
        return "samples"
    if (mode in ("summary", "both") or not has_samples) and sink != "parquet" and stored.summary is None:
        return "summary"
    return None


def same_block(block: DaqBlock, stored: StoredBlock, sink: str) -> bool:
    """Return whether all that the sink gives back of a block is the journal's."""
    if stored.first_sample_index != block.first_sample_index:
        return False
    if stored.summary is not None and not _same_summary(block_summary(block), stored.summary):
        return False
    if stored.values is None:
        return True
    if not block.samples_per_channel and stored.summary is None and stored.error != block.error:
        return False
    expected = as_float32(block.data) if stored.is_float32 else block.data
    if stored.values.shape != expected.shape or not _same_values(expected, stored.values, sink):
        return False
    if stored.codes is not None and not _same_codes(block, stored.codes):
        return False
    return not stored.runs or _same_rows(block, stored, sink)


def _same_values(expected: NDArray[np.float64], given: NDArray[np.float64], sink: str) -> bool:
    """Return whether the values are equal but for what the sink's format cannot hold."""
    wanted, found = (np.ascontiguousarray(values).view(np.int64) for values in (expected, given))
    return np.array_equal(wanted, found) or np.array_equal(_bits(expected, sink), _bits(given, sink))


def as_float32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values rounded to what a float32 holds; beyond it is infinity."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)


def _same_codes(block: DaqBlock, codes: NDArray[Any]) -> bool:
    """Return whether the codes are the block's: also where the value says nothing of them."""
    if block.raw_codes is None or block.raw_codes.dtype != codes.dtype:
        return False
    return np.array_equal(block.raw_codes[:, : block.samples_per_channel], codes)


def _same_rows(block: DaqBlock, stored: StoredBlock, sink: str) -> bool:
    if len(stored.runs) != len(block.channels):
        return False
    expected = sample_columns(block)
    error = (block.error.type, block.error.message) if block.error else (None, None)
    last: SampleRun | None = None
    for place, (channel, run) in enumerate(zip(block.channels, stored.runs, strict=True)):
        texts = SampleTexts(block.run_id, block.device, block.task, channel, block.units.get(channel), *error)
        if run.texts != texts or not (_shares_columns(run, last) or _same_columns(expected, run, sink)):
            return False
        last = run
        if not _same_status(expected.status_of(channel), expected.values[place], run.status, sink):
            return False
    return True


def _shares_columns(run: SampleRun, last: SampleRun | None) -> bool:
    """Return whether a run's instants are the very arrays of the last one, which were found equal."""
    return (
        last is not None
        and run.sample_index is last.sample_index
        and run.t_mono_ns is last.t_mono_ns
        and run.t_utc is last.t_utc
    )


def _same_columns(expected: SampleColumns, run: SampleRun, sink: str) -> bool:
    t_utc_ns = expected.t_utc_ns // 1000 * 1000 if sink == "postgres" else expected.t_utc_ns
    same_utc = run.t_utc == iso_texts(t_utc_ns) if isinstance(run.t_utc, list) else np.array_equal(run.t_utc, t_utc_ns)
    return same_utc and _equals(expected.sample_index, run.sample_index) and _equals(expected.t_mono_ns, run.t_mono_ns)


def _equals(expected: NDArray[np.int64], given: NDArray[np.int64] | list[Any]) -> bool:
    return expected.tolist() == given if isinstance(given, list) else np.array_equal(expected, given)


def _same_status(
    expected: NDArray[np.int64] | None, values: NDArray[np.float64], given: list[Any] | None, sink: str
) -> bool:
    """Return whether the samples' status is the journal's; JSONL names there what it has no number for."""
    wanted: list[Any] | None = None if expected is None or not len(expected) else expected.tolist()
    if sink == "jsonl" and not np.isfinite(values).all():
        codes = wanted or [None] * len(values)
        wanted = [
            code or (code if math.isfinite(value) else repr(value))
            for code, value in zip(codes, values.tolist(), strict=True)
        ]
    return wanted == given


def _bits(values: NDArray[np.float64], sink: str) -> NDArray[np.int64]:
    """Return the values as bits, with what the sink's format cannot hold levelled."""
    values = np.ascontiguousarray(values)
    if sink == "sqlite":
        values = values + 0.0
    elif sink == "jsonl":
        values = np.where(np.isfinite(values), values, np.nan)
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def _same_summary(expected: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    return all(key in stored and _same_scalar(value, stored[key]) for key, value in expected.items())


def same_reading(reading: DaqReading, stored: StoredReading, sink: str) -> bool:
    """Return whether all that the sink gives back of a reading is the journal's."""
    names = {*reading.values, *(name for name, value in stored.values.items() if value is not None)}
    if not all(_level(reading.values.get(name), sink) == _level(stored.values.get(name), sink) for name in names):
        return False
    if stored.row is None:
        return True
    units = {*reading.units, *(name for name, unit in stored.units.items() if unit is not None)}
    if not all(reading.units.get(name) == stored.units.get(name) for name in units):
        return False
    return all(_same_cell(value, stored.row.get(key)) for key, value in _fixed_cells(reading, sink).items())


def _fixed_cells(reading: DaqReading, sink: str) -> dict[str, Scalar | datetime]:
    """Return the cells of a reading's row that are no channel's."""
    if sink in ("sqlite", "csv", "jsonl"):
        columns = ColumnNames().of(reading_names([reading]))
        kept = reading_row(reading, columns, keeps_nan=sink == "csv", keeps_inf=sink != "jsonl")
        status = kept[STATUS_COLUMN]
    else:
        status = status_text(reading)
    return {
        "run_id": reading.run_id,
        "device": reading.device,
        "task": reading.task,
        "t_mono_ns": reading.t_mono_ns,
        "t_utc": reading.t_utc,
        "t_midpoint_mono_ns": reading.t_midpoint_mono_ns,
        "requested_at": reading.requested_at,
        "received_at": reading.received_at,
        "latency_s": reading.latency_s,
        "error_type": reading.error.type if reading.error else None,
        "error_message": reading.error.message if reading.error else None,
        STATUS_COLUMN: status,
    }


def _same_scalar(expected: Scalar, given: Any) -> bool:
    if isinstance(expected, float) and math.isnan(expected):
        return given is None or (isinstance(given, float) and math.isnan(given))
    return bool(expected == given)


def _same_cell(expected: Scalar | datetime, given: Any) -> bool:
    if not isinstance(expected, datetime):
        return _same_scalar(expected, given)
    if isinstance(given, str):
        return given in (expected.isoformat(), expected.astimezone(UTC).isoformat())
    return bool(given == (ns_from_utc(expected) if isinstance(given, int) else expected))


def _level(value: Any, sink: str) -> Any:
    """Return a value in the form that every format can give back; bool is a number in SQL and text formats."""
    if value is None:
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None if sink in ("sqlite", "jsonl") else "nan"
        if math.isinf(value) and sink == "jsonl":
            return None
        if value == 0.0 and sink != "sqlite":
            return repr(value).removesuffix(".0") if math.copysign(1, value) < 0 else 0
    if isinstance(value, bool):
        return int(value)
    return value


def same_event(event: DaqEvent, stored: StoredEvent, sink: str) -> bool:
    """Return whether the stored event is the journal's."""
    texts = (event.kind, event.message)
    if sink == "postgres":
        texts = (_without_nul(event.kind), _without_nul(event.message))
    return stored == StoredEvent(event.index, event.sample_index, event.t_utc.isoformat(), *texts)


def _without_nul(text: str) -> str:
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def same_aside(record: Record, stored: StoredAside, run: RunInfo | None) -> bool:
    """Return whether what is kept of a record that is put aside is the journal's."""
    return run is None or stored.frames == put_aside_frames(run, record)


def must_be_aside(record: Record, sink: str) -> bool:
    """Return whether a sink cannot hold a record: an int beyond 64 bits, no scalar, a text that is not to be kept."""
    if isinstance(record, DaqEvent):
        return False
    error = record.error
    texts: list[Any] = [record.device, record.task, *record.units, *record.units.values()]
    texts += [error.type, error.message] if error else []
    values: list[Any] = []
    if isinstance(record, DaqReading):
        values = [value.item() if isinstance(value, np.generic) else value for value in record.values.values()]
        texts += [*record.values, *record.sensor_status]
    else:
        texts += record.channels
    numbers = [value for value in (*values, *_own_numbers(record)) if isinstance(value, int)]
    return (
        any(not (value is None or isinstance(value, str | int | float)) for value in values)
        or (sink in _INT_LIMITED and any(number not in _INT64 for number in numbers))
        or any(isinstance(text, str) and _is_refused(text, sink) for text in chain(texts, values))
    )


def had_no_room(record: Record, stored: StoredAside, sink: str) -> bool:
    """Return whether a reading was put aside for want of columns, which depends on all that the sink holds."""
    return sink in ("sqlite", "postgres") and isinstance(record, DaqReading) and stored.reason.startswith(NO_ROOM)


def did_not_fit(record: Record, stored: StoredAside, run: RunInfo | None) -> bool:
    """Return whether a block was put aside by the wide layout of Parquet, because it says otherwise than its run."""
    if run is None or not isinstance(record, DaqBlock) or not stored.reason.startswith(MISFIT):
        return False
    return Described(run).misfit(record) is not None


def _own_numbers(record: DaqBlock | DaqReading) -> list[int | None]:
    """Return a record's numbers that are no channel's, instants as ns since 1970."""
    instants = [record.t_utc]
    if isinstance(record, DaqReading):
        instants += [record.requested_at, record.received_at]
    return [record.t_mono_ns, record.t_midpoint_mono_ns, *map(ns_from_utc, instants)]


def _is_refused(text: str, sink: str) -> bool:
    if sink == "postgres" and "\0" in text:
        return True
    return any("\ud800" <= letter <= "\udfff" for letter in text)
