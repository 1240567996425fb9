"""What is wrong with a run's signals, told from its records while they are made: events in their place. Pure.

A channel at an end of its converter's range, a sensor that is open or beyond its table: the first samples of it are an
event at once; while it lasts, or comes and goes, one a minute and channel tells how many since; the rest at the end of
the run. So a run of a month has few of them, and none of the samples goes untold.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.channels import Channel
from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Record, RunInfo, ns_from_utc
from dtolbus.remarks import (
    ALL_CHANNELS,
    GOOD_AGAIN,
    LOST,
    NO_VALUE,
    OVER_RANGE,
    STATUS_KINDS,
    WORDS,
    Remark,
    message_of,
    watched_ends,
    what_of,
)
from dtolbus.units.conversion import OPENS

AGAIN_S = 60.0
"""At most one event a channel and kind in so many seconds of the run."""


class Signals:
    """Looks at one run's records in their order."""

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._what = what_of(info)
        self._ends = _ends_of(info)
        self._channels: dict[str, _Channel] = {}
        self._every = max(1, round(AGAIN_S * info.rate_hz))
        self._end = 0
        self._last: DaqBlock | DaqReading | None = None
        self._looked = 0
        self._lost: Remark | None = None

    def look(self, record: Record, index: int) -> list[DaqEvent]:
        """Return the events, numbered from `index` on, that belong before the record; none as a rule."""
        if isinstance(record, DaqEvent):
            self._end = max(self._end, record.sample_index + record.lost_samples)
            if record.lost_samples:
                before = self._lost or Remark(ALL_CHANNELS, LOST, 0, 0, record.sample_index)
                self._lost = msgspec.structs.replace(before, samples=before.samples + record.lost_samples)
            return []
        self._last = record
        first, count = _samples_of(record, self._info)
        self._end = first + count
        if record.error is not None or not count:
            return []
        found = (
            _in_block(record, self._ends) if isinstance(record, DaqBlock) else _in_reading(record, first, self._ends)
        )
        for name in found:
            self._channels.setdefault(name, _Channel(name))
        for channel in self._channels.values():
            channel.take(found.get(channel.name, _WELL), first, self._looked)
        self._looked += count
        return self._events(self._every, index, first, _begin_ns(record)) if self._channels else []

    def rest(self, index: int) -> list[DaqEvent]:
        """Return the events, numbered from `index` on, of what was not told yet when the run is over."""
        started_ns = (self._info.started_mono_ns, self._info.started_utc_ns)
        return self._events(0, index, self._end, started_ns if self._last is None else _end_ns(self._last))

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """All that there is to say so far, told in an event or not yet; what was lost, first."""
        told = tuple(
            msgspec.structs.replace(remark, of=self._looked)
            for channel in self._channels.values()
            for remark in channel.total.values()
        )
        if self._lost is None:
            return told
        return (msgspec.structs.replace(self._lost, of=self._looked + self._lost.samples), *told)

    def _events(self, every: int, index: int, sample: int, at_ns: tuple[int, int]) -> list[DaqEvent]:
        told = [one for channel in self._channels.values() for one in channel.told(self._looked, every, self._what)]
        return [
            DaqEvent(
                device=self._info.device,
                task=self._info.task,
                run_id=self._info.run_id,
                record_index=index + place,
                kind=kind,
                message=message,
                sample_index=sample,
                t_mono_ns=at_ns[0],
                t_utc_ns=at_ns[1],
            )
            for place, (kind, message) in enumerate(told)
        ]


class _Found(NamedTuple):
    """What one record says of one channel."""

    kinds: Mapping[str, tuple[int, int]]
    """By kind: how many samples, and the number of the first."""
    good_from: int | None
    """One past its last sample without a value; None where each has one."""
    is_good: bool
    """Whether its last sample has a value."""


_WELL = _Found({}, None, True)


@dataclass
class _Channel:
    """What was told of one channel, and what not yet."""

    name: str
    total: dict[str, Remark] = field(default_factory=dict)
    _untold: dict[str, tuple[Remark, int]] = field(default_factory=dict)
    """With how many samples had been looked at before."""
    _told_at: dict[str, int] = field(default_factory=dict)
    _good_from: int = 0
    _is_good: bool = True
    _is_told_bad: bool = False

    def take(self, found: _Found, record_first: int, looked: int) -> None:
        """Add what a record says, told its first sample; `looked` samples were looked at before it."""
        for kind, (samples, first) in found.kinds.items():
            before, since = self._untold.get(kind, (Remark(self.name, kind, 0, 0, first), looked))
            self._untold[kind] = (_more(before, samples), since)
            self.total[kind] = _more(self.total.get(kind, Remark(self.name, kind, 0, 0, first)), samples)
        if found.good_from is not None:
            self._good_from = found.good_from
        elif not self._is_good:
            self._good_from = record_first
        self._is_good = found.is_good

    def told(self, looked: int, every: int, what: str) -> Iterable[tuple[str, str]]:
        """Yield kind and message of what is to be told now, after `looked` samples."""
        for kind in WORDS:
            told_at = self._told_at.get(kind)
            if kind not in self._untold or (told_at is not None and looked - told_at < every):
                continue
            remark, since = self._untold.pop(kind)
            self._told_at[kind] = looked
            is_over = kind != OVER_RANGE and self._is_good
            self._is_told_bad = self._is_told_bad or not (kind == OVER_RANGE or is_over)
            good_from = self._good_from if is_over else None
            remark = msgspec.structs.replace(remark, of=looked - since)
            yield kind, message_of(remark, what=what, good_from=good_from)
        if self._is_told_bad and self._is_good:
            self._is_told_bad = False
            yield GOOD_AGAIN, f"{self.name}: good again from number {self._good_from} on"


def _more(remark: Remark, samples: int) -> Remark:
    return msgspec.structs.replace(remark, samples=remark.samples + samples)


class _Ends(NamedTuple):
    """At or beyond which codes (of readings: values) the channels' inputs are at an end; NaN: they have none."""

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    names: tuple[str, ...]


def _ends_of(info: RunInfo) -> _Ends:
    of_channel = _code_ends if info.kind == "blocks" else _value_ends
    ends = np.array([of_channel(channel) for channel in info.channels], dtype=np.float64).reshape(-1, 2)
    return _Ends(ends[:, 0].copy(), ends[:, 1].copy(), info.channel_names)


def _code_ends(channel: Channel) -> tuple[float, float]:
    """Return the ends in codes; those of a sensor that is open there are its status already."""
    if isinstance(channel.conversion, OPENS):
        return np.nan, np.nan
    lowest, highest = watched_ends(channel)
    return np.nan if lowest is None else lowest, np.nan if highest is None else highest


def _value_ends(channel: Channel) -> tuple[float, float]:
    """Return the ends in the channel's unit; only of a linear one."""
    if channel.conversion is not None or (channel.encoding == "float" and channel.range is None):
        return np.nan, np.nan
    lowest, highest = (code * channel.scale + channel.offset for code in _code_ends(channel))
    return (lowest, highest) if channel.scale > 0 else (highest, lowest)


def _samples_of(record: DaqBlock | DaqReading, info: RunInfo) -> tuple[int, int]:
    """Return the record's first sample (poll), and how many it has."""
    if isinstance(record, DaqBlock):
        return record.first_sample_index, record.samples_per_channel
    since_ns = record.t_mono_ns - info.started_mono_ns + 1  # when a poll is due is rounded to whole ns
    return int(since_ns * info.rate_hz // 1e9), 1


def _begin_ns(record: DaqBlock | DaqReading) -> tuple[int, int]:
    """Return the record's monotonic and UTC instant, ns."""
    return record.t_mono_ns, record.t_utc_ns if isinstance(record, DaqBlock) else ns_from_utc(record.requested_at)


def _end_ns(record: DaqBlock | DaqReading) -> tuple[int, int]:
    mono_ns, utc_ns = _begin_ns(record)
    length_ns = round(record.samples_per_channel * record.period_ns) if isinstance(record, DaqBlock) else 0
    return mono_ns + length_ns, utc_ns + length_ns


def _in_block(block: DaqBlock, ends: _Ends) -> dict[str, _Found]:
    """Return what the block says of the channels of which it says anything."""
    codes: NDArray[Any] = block.data if block.raw_codes is None else block.raw_codes
    codes = codes[:, : block.samples_per_channel]
    if codes.strides[1] != codes.itemsize:  # one after another is several times as fast, the copy included
        codes = np.ascontiguousarray(codes)
    is_float = codes.dtype.kind == "f"
    with np.errstate(invalid="ignore"):
        lows, highs = codes.min(axis=1), codes.max(axis=1)
        suspect = (lows <= ends.lowest) | (highs >= ends.highest) | (np.isnan(lows) if is_float else False)
    if not block.sensor_status and not suspect.any():
        return {}
    names = {ends.names[place] for place in np.flatnonzero(suspect)}
    found = {}
    for place, name in enumerate(ends.names):
        status = block.sensor_status.get(name)
        if name not in names and status is None:
            continue
        row = codes[place]
        status = np.zeros(row.shape, dtype=np.int64) if status is None else status[: row.size]
        with np.errstate(invalid="ignore"):
            is_at_end = (row <= ends.lowest[place]) | (row >= ends.highest[place])
        has_none = (status == 0) & np.isnan(row) if is_float else np.zeros(row.shape, dtype=np.bool_)
        masks = {kind: status == code for code, kind in STATUS_KINDS.items()}
        masks |= {OVER_RANGE: is_at_end, NO_VALUE: has_none | (status != 0) & ~np.isin(status, list(STATUS_KINDS))}
        if any(mask.any() for mask in masks.values()):
            found[name] = _found(masks, block.first_sample_index)
    return found


def _found(masks: Mapping[str, NDArray[np.bool_]], first: int) -> _Found:
    kinds = {
        kind: (int(np.count_nonzero(mask)), first + int(mask.argmax())) for kind, mask in masks.items() if mask.any()
    }
    bad = np.flatnonzero(np.logical_or.reduce([mask for kind, mask in masks.items() if kind != OVER_RANGE]))
    size = masks[OVER_RANGE].size
    return _Found(kinds, first + int(bad[-1]) + 1 if bad.size else None, not bad.size or int(bad[-1]) != size - 1)


def _in_reading(reading: DaqReading, slot: int, ends: _Ends) -> dict[str, _Found]:
    """Return what the reading says of the channels of which it says anything."""
    found = {}
    for place, name in enumerate(ends.names):
        value, status = reading.values.get(name), reading.sensor_status.get(name, 0)
        kind = None
        if status or value is None or value != value:
            kind = STATUS_KINDS.get(status, NO_VALUE)  # type: ignore[call-overload]  # whatever number it is
        elif isinstance(value, int | float) and (value <= ends.lowest[place] or value >= ends.highest[place]):
            kind = OVER_RANGE
        if kind is not None:
            is_good = kind == OVER_RANGE
            found[name] = _Found({kind: (1, slot)}, None if is_good else slot + 1, is_good)
    return found
