"""The completeness certificate: what a sink holds of a run, against what the journal holds. Pure: iterators in."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Generic, NamedTuple, TypeVar

import msgspec

from dtolbus.manifest import DELETED
from dtolbus.ranges import in_words
from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Gap, Record, RunEnd, RunInfo
from dtolbus_workers.comparing import (
    did_not_fit,
    had_no_room,
    lacking,
    must_be_aside,
    same_aside,
    same_block,
    same_event,
    same_reading,
)
from dtolbus_workers.destination import Stored, StoredAside, StoredBlock, StoredEvent, StoredReading

_Record = TypeVar("_Record", StoredBlock, StoredReading)
_Kept = TypeVar("_Kept", StoredEvent, StoredAside)
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
    gone: int = 0
    """Of these, the ones that the journal does not have any more either."""
    has_no_room: bool = False
    """Whether the sink's disk is full."""
    duplicates: int = 0
    different: int = 0
    """Records whose stored values are not the journal's."""
    put_aside: int = 0
    behind: int = 0
    """Records that a run which is still recorded has, and the sink not yet."""
    not_compared: int = 0
    """Stored records whose values the journal no longer has: they were deleted from it."""
    unreadable: int = 0
    """Stored records that the journal cannot give any more: it is damaged there."""
    samples: int = 0
    """Values compared with the journal's."""
    float32: int = 0
    """So many of them as the nearest float32, which is what the sink holds."""
    summaries: int = 0
    """Block summaries compared with the journal's."""
    remarks: list[str] = field(default_factory=list)
    mending: str = ""
    """What to do where catching up does not help: what is stored is damaged."""

    @property
    def complete(self) -> bool:
        """Whether the sink has all that the journal has or had, once, with equal values where it still has them."""
        return not (self.missing or self.behind or self.gaps or self.duplicates or self.different or self.remarks)

    def remark(self, text: str) -> None:
        """Note what is wrong; the first few are kept."""
        if len(self.remarks) < _SHOWN:
            self.remarks.append(text)


@dataclass
class Certificate:
    """What `verify` found."""

    lines: list[Line] = field(default_factory=list)
    runs: int = 0
    left_out: int = 0
    """Runs of the journal that were not asked for."""
    losses: list[str] = field(default_factory=list)
    """What never reached the journal: no sink can have it."""
    failures: list[str] = field(default_factory=list)
    """Sinks and runs that could not be compared."""
    remarks: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether there is something to compare, and every sink has all of every run."""
        return bool(self.lines) and not self.failures and all(line.complete for line in self.lines)

    def fail(self, text: str) -> None:
        """Note what could not be compared, each once."""
        if text not in self.failures:
            self.failures.append(text)


def compare(
    line: Line,
    journal: Iterator[Record | Gap],
    stored: Stored,
    sink: str,
    *,
    blocks_mode: str | None = None,
    run: RunInfo | None = None,
) -> None:
    """Hold what a sink of kind `sink` stored against the journal's records, and fill in the line.

    `blocks_mode` is what the sink stores of a block: `summary`, `samples`, `both`; Parquet has all samples. Of what was
    deleted from the journal only the indexes and sample ranges are compared, by its gaps.
    """
    _Comparison(line, stored, sink, blocks_mode, run).go(journal)


class _Comparison:
    """One sink's run against the journal's."""

    def __init__(self, line: Line, stored: Stored, sink: str, blocks_mode: str | None, run: RunInfo | None) -> None:
        self._line = line
        self._stored = stored
        self._sink = sink
        self._blocks_mode = blocks_mode
        self._run = run
        blocks, readings = stored.blocks, stored.readings
        if line.state == "running":  # what was committed since the position was read is not held against it
            blocks = takewhile(lambda block: block.block_index < stored.position.next, blocks)
            readings = takewhile(lambda reading: reading.reading_index < stored.position.next, readings)
        self._blocks, self._readings = _ByIndex(blocks), _ByIndex(readings)
        self._events, self._aside = _at_index(stored.events), _at_index(stored.put_aside)
        self._journal_gaps: list[Gap] = []
        self._gone = 0
        """Records that neither the journal nor the sink has, and the sink does not tell."""

    def go(self, journal: Iterator[Record | Gap]) -> None:
        """Compare all, and fill in the line."""
        line, stored = self._line, self._stored
        line.backfilled = stored.position.backfilled
        line.put_aside = len(stored.put_aside)
        line.gaps = [GapLine(gap.from_index, gap.to_index, gap.cause) for gap in stored.gaps]
        for record in journal:
            if isinstance(record, Gap):
                self._gap(record)
            elif record.index in self._aside:
                self._put_aside(record)
            elif isinstance(record, DaqEvent):
                self._event(record)
            elif isinstance(record, DaqBlock):
                self._block(record)
            else:
                self._reading(record)
        surplus = self._blocks.rest() + self._readings.rest()
        surplus += sum(map(len, self._events.values())) + sum(map(len, self._aside.values()))
        if surplus:
            line.remark(f"{surplus} records that the journal does not have")
        if line.state == "running":
            line.behind = max(0, line.expected - stored.position.next)
        line.missing = max(0, line.expected - line.behind - line.stored - self._explained())
        line.gone = min(line.missing, self._gone)
        self._check_position()
        for text in (*stored.remarks, *(() if line.state == "running" else stored.surplus)):
            line.remark(text)

    def _gap(self, gap: Gap) -> None:
        self._journal_gaps.append(gap)
        within = [index for index in (*self._events, *self._aside) if gap.from_index <= index < gap.to_index]
        others: Counter[int] = Counter()
        for index in within:
            others[index] += len(self._events.pop(index, ())) + len(self._aside.pop(index, ()))
        count = _count_lost(self._line, gap, _Lost(self._blocks, self._readings, others))
        told = sum(_overlap(gap, known) for known in self._line.gaps)
        self._gone += max(0, min(gap.to_index, self._line.expected) - gap.from_index - count - told)
        if gap.cause.startswith(DELETED):
            self._line.not_compared += count
        else:
            self._line.unreadable += count

    def _put_aside(self, record: Record) -> None:
        found = self._aside.pop(record.index)
        _count(self._line, record.index, len(found))
        has_no_place = had_no_room(record, found[0], self._sink) or did_not_fit(record, found[0], self._run)
        if not (has_no_place or must_be_aside(record, self._sink)):
            self._line.stored -= 1
            self._line.remark(f"record {record.index} is put aside without need: {found[0].reason}")
        elif not same_aside(record, found[0], self._run):
            self._differs("record put aside", record.index)

    def _event(self, event: DaqEvent) -> None:
        found = self._events.pop(event.index, [])
        _count(self._line, event.index, len(found))
        if found and not same_event(event, found[0], self._sink):
            self._differs("event", event.index)

    def _block(self, block: DaqBlock) -> None:
        found = self._blocks.take(block.index)
        if found and (half := lacking(block, found[0], self._sink, self._blocks_mode)):
            self._line.remark(f"block {block.index} is stored without its {half}")
            return
        _count(self._line, block.index, len(found))
        if found:
            self._line.summaries += found[0].summary is not None
            values = 0 if found[0].values is None else found[0].values.size
            self._line.samples += values
            self._line.float32 += values if found[0].is_float32 else 0
            if not same_block(block, found[0], self._sink):
                self._differs("block", block.index)

    def _reading(self, reading: DaqReading) -> None:
        found = self._readings.take(reading.index)
        _count(self._line, reading.index, len(found))
        self._line.samples += len(reading.values) if found else 0
        if found and not same_reading(reading, found[0], self._sink):
            self._differs("reading", reading.index)

    def _differs(self, what: str, index: int) -> None:
        self._line.different += 1
        self._line.remark(f"{what} {index} differs from the journal")

    def _explained(self) -> int:
        """Return how many records the sink's gaps explain: those that the journal cannot give either."""
        explained = 0
        for gap in self._line.gaps:
            known = sum(_overlap(journals, gap) for journals in self._journal_gaps)
            explained += known
            if known < min(gap.to_index, self._line.expected) - gap.from_index:
                self._line.remark(f"gap {in_words(gap.from_index, gap.to_index)}, which the journal has")
        return explained

    def _check_position(self) -> None:
        """Hold the position against the end of what is stored."""
        stored = self._stored
        ends = [gap.to_index for gap in stored.gaps]
        ends += [event.record_index + 1 for event in stored.events]
        ends += [aside.record_index + 1 for aside in stored.put_aside]
        end = max([0, self._blocks.end, self._readings.end, *ends])
        if stored.position.next != end:
            self._line.remark(f"its position is {stored.position.next}, what it holds ends at {end}")


def _at_index(records: Iterable[_Kept]) -> dict[int, list[_Kept]]:
    found: dict[int, list[_Kept]] = {}
    for record in records:
        found.setdefault(record.record_index, []).append(record)
    return found


class _Lost(NamedTuple):
    """What a sink may have of a range that the journal does not have any more."""

    blocks: "_ByIndex[StoredBlock]"
    readings: "_ByIndex[StoredReading]"
    others: Counter[int]
    """How often events and put-aside records stand at an index."""


def _count_lost(line: Line, gap: Gap, found: _Lost) -> int:
    """Count the indexes of such a range: each must be there once; blocks must lie within its samples."""
    last = -1
    doubled = found.others.total() - len(found.others)
    count = len(found.others)
    contents: Iterator[StoredBlock | StoredReading] = chain(found.blocks.below(gap), found.readings.below(gap))
    for content in contents:
        index = content.block_index if isinstance(content, StoredBlock) else content.reading_index
        if index == last or index in found.others:
            doubled += 1
            line.remark(f"record {index} is stored twice")
        else:
            count += 1
        last = index
        if isinstance(content, StoredBlock) and not _is_within(content.first_sample_index, gap):
            line.different += 1
            line.remark(f"block {index} begins at sample {content.first_sample_index}, outside of what is gone")
    line.stored += count
    line.duplicates += doubled
    return count


def _overlap(gap: Gap, known: GapLine) -> int:
    return max(0, min(gap.to_index, known.to_index) - max(gap.from_index, known.from_index))


def _is_within(sample: int, gap: Gap) -> bool:
    return (gap.first_sample is None or gap.first_sample <= sample) and (
        gap.end_sample is None or sample <= gap.end_sample
    )


def _count(line: Line, index: int, times: int) -> None:
    line.stored += times > 0
    if times > 1:
        line.duplicates += times - 1
        line.remark(f"record {index} is stored {times} times")


class _ByIndex(Generic[_Record]):
    """Takes records out of an iterator that yields them by index, doubled ones doubled."""

    def __init__(self, records: Iterator[_Record]) -> None:
        self._records: Iterator[_Record] = records
        self._skipped = 0
        self.end = 0
        """One past the highest index so far."""
        self._ahead: _Record | None = self._next()

    def _next(self) -> _Record | None:
        record = next(self._records, None)
        if record is not None:
            self.end = max(self.end, record[0] + 1)
        return record

    def take(self, index: int) -> list[_Record]:
        """Return what stands at `index`; what stands before it is surplus."""
        found: list[_Record] = []
        while self._ahead is not None and self._ahead[0] <= index:
            if self._ahead[0] == index:
                found.append(self._ahead)
            else:
                self._skipped += 1
            self._ahead = self._next()
        return found

    def below(self, gap: Gap) -> Iterator[_Record]:
        """Yield what stands in a gap of the journal; what stands before it is surplus."""
        while self._ahead is not None and self._ahead[0] < gap.to_index:
            if self._ahead[0] >= gap.from_index:
                yield self._ahead
            else:
                self._skipped += 1
            self._ahead = self._next()

    def rest(self) -> int:
        """Return how many records were surplus, to the end."""
        while self._ahead is not None:
            self._skipped += 1
            self._ahead = self._next()
        return self._skipped
