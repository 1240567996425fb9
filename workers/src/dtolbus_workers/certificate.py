"""The completeness certificate: what a sink holds of a run, against what the journal holds. Pure: iterators in."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Gap, Record, RunEnd
from dtolbus_workers.columns import block_summary
from dtolbus_workers.destination import Stored, StoredBlock

_SHOWN = 5


class GapLine(msgspec.Struct, frozen=True):
    """A range of records that a sink does not have, and why."""

    from_index: int
    to_index: int
    cause: str


@dataclass
class Line:
    """One sink's account of one run."""

    sink: str
    stream: str
    run_id: str
    state: RunEnd
    expected: int
    """Records in the journal."""
    stored: int = 0
    """Records in the sink, each counted once."""
    backfilled: int = 0
    gaps: list[GapLine] = field(default_factory=list)
    missing: int = 0
    """Records that the sink neither has nor explains."""
    duplicates: int = 0
    different: int = 0
    """Records whose stored values are not the journal's."""
    put_aside: int = 0
    samples: int = 0
    """Values compared with the journal's."""
    summaries: int = 0
    """Block summaries compared with the journal's."""
    remarks: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the sink has all that the journal has, once, with equal values."""
        return not (self.missing or self.gaps or self.duplicates or self.different or self.remarks)

    def remark(self, text: str) -> None:
        """Note what is wrong; the first few are kept."""
        if len(self.remarks) < _SHOWN:
            self.remarks.append(text)


def compare(line: Line, journal: Iterator[Record | Gap], stored: Stored, sink: str) -> None:
    """Hold what a sink of kind `sink` stored against the journal's records, and fill in the line."""
    line.backfilled = stored.position.backfilled
    line.put_aside = len(stored.put_aside)
    line.gaps = [GapLine(gap.from_index, gap.to_index, gap.cause) for gap in stored.gaps]
    blocks, readings = _ByIndex(stored.blocks), _ByIndex(stored.readings)
    events, aside = list(stored.events), set(stored.put_aside)
    for record in journal:
        if isinstance(record, Gap):
            continue
        if record.index in aside:
            line.stored += 1
        elif isinstance(record, DaqEvent):
            _count(line, record.index, events.count(record.index))
        elif isinstance(record, DaqBlock):
            found = blocks.take(record.index)
            # a block without samples has no rows where samples are stored
            _count(line, record.index, len(found) or record.samples_per_channel == 0)
            if found and not _same_block(line, record, found[0][1], sink):
                line.different += 1
                line.remark(f"block {record.index} differs from the journal")
        else:
            got = readings.take(record.index)
            _count(line, record.index, len(got))
            line.samples += len(record.values)
            if got and not _same_values(record, got[0][1], sink):
                line.different += 1
                line.remark(f"reading {record.index} differs from the journal")
    surplus = blocks.rest() + readings.rest()
    if surplus:
        line.remark(f"{surplus} records that the journal does not have")
    explained = sum(min(gap.to_index, line.expected) - min(gap.from_index, line.expected) for gap in line.gaps)
    line.missing = max(0, line.expected - line.stored - explained)


def _count(line: Line, index: int, times: int) -> None:
    line.stored += times > 0
    if times > 1:
        line.duplicates += times - 1
        line.remark(f"record {index} is stored {times} times")


class _ByIndex:
    """Takes records out of an iterator that yields them by index, doubled ones doubled."""

    def __init__(self, records: Iterator[Any]) -> None:
        self._records = records
        self._ahead: Any = next(records, None)
        self._skipped = 0

    def take(self, index: int) -> list[Any]:
        """Return what stands at `index`, as (index, content); what stands before it is surplus."""
        found: list[Any] = []
        while self._ahead is not None and self._ahead[0] <= index:
            if self._ahead[0] == index:
                found.append((index, self._ahead if isinstance(self._ahead, StoredBlock) else self._ahead[1]))
            else:
                self._skipped += 1
            self._ahead = next(self._records, None)
        return found

    def rest(self) -> int:
        """Return how many records were surplus, to the end."""
        return self._skipped + (self._ahead is not None) + sum(1 for _ in self._records)


def _same_block(line: Line, block: DaqBlock, stored: StoredBlock, sink: str) -> bool:
    if stored.first_sample_index != block.first_sample_index:
        return False
    if stored.summary is not None:
        line.summaries += 1
        if not _same_summary(block_summary(block), stored.summary):
            return False
    if stored.values is None:
        return True
    line.samples += stored.values.size
    if stored.values.shape != block.data.shape:
        return False
    return bool(np.array_equal(_bits(block.data, sink), _bits(stored.values, sink)))


def _bits(values: NDArray[np.float64], sink: str) -> NDArray[np.int64]:
    """Return the values as bits, with what the sink's format cannot hold levelled: see `_level`."""
    values = np.ascontiguousarray(values)
    if sink == "sqlite":
        values = values + 0.0
    elif sink == "jsonl":
        values = np.where(np.isfinite(values), values, np.nan)
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def _same_summary(expected: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    return all(expected[key] == value for key, value in stored.items() if key in expected)


def _same_values(reading: DaqReading, stored: Mapping[str, Any], sink: str) -> bool:
    names = {*reading.values, *(name for name, value in stored.items() if value is not None)}
    return all(_level(reading.values.get(name), sink) == _level(stored.get(name), sink) for name in names)


def _level(value: Any, sink: str) -> Any:
    """Return a value in the form that every format can give back.

    NaN is null in SQLite and JSONL, and nothing else than NaN elsewhere; SQLite has no −0.0 and JSONL no infinity;
    bool is a number in SQL and text formats.
    """
    if value is None:
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None if sink in ("sqlite", "jsonl", "csv") else "nan"
        if math.isinf(value) and sink == "jsonl":
            return None
        if value == 0.0 and sink != "sqlite":
            return repr(value).removesuffix(".0") if math.copysign(1, value) < 0 else 0
    if isinstance(value, bool):
        return int(value)
    return value
