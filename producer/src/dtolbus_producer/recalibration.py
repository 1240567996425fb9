"""A run's channels as they should have been, and its records by them. Pure."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from dtolbus.channels import Channel, status_of_codes
from dtolbus.errors import UsageError
from dtolbus.ranges import in_words
from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Gap, Record, RunInfo
from dtolbus.remarks import is_remark
from dtolbus.runblocks import block_of_run
from dtolbus.units.conversion import Thermocouple
from dtolbus_producer.boards.calibration import linear, measuring
from dtolbus_producer.conversions import CELSIUS, conversion_key
from dtolbus_producer.corrections import CHANGES, FROM, ORIGINAL, original_run
from dtolbus_producer.sensing import merged
from dtolbus_producer.signals import Signals
from dtolbus_producer.tasks import ChannelConfig
from dtolbus_producer.words import word_fault

_MOST_CODE = 2.0**32
"""Beyond every code of a converter, and every voltage."""
_CALIBRATION = ("unit", "scale", "offset", "sensor", "conversion")
GAP = "gap"
"""Kind of the event in the place of what the old run has no more."""


class Linear(NamedTuple):
    """A new linear calibration; what is None stays."""

    sensitivity_v: float | None = None
    """Volts for one unit; in the place of scale and offset."""
    scale: float | None = None
    offset: float | None = None
    unit: str | None = None


def linearly(channel: Channel, wanted: Linear) -> Channel:
    """Return the channel with its new linear calibration. Raises UsageError where that cannot be."""
    numbers = {name: value for name, value in wanted._asdict().items() if name != "unit" and value is not None}
    for name, value in numbers.items():
        if not math.isfinite(value) or (value == 0 and name != "offset"):
            raise UsageError(f"--{name.replace('_', '-')} {value}: give a finite number{'' if value else ', not 0'}")
    if wanted.unit is not None:
        fault = word_fault(wanted.unit) if wanted.unit else "'' is no unit: name it, or leave the option out"
        if fault:
            raise UsageError(f"--unit {fault}")
    if "sensitivity_v" in numbers and len(numbers) > 1:
        raise UsageError("--sensitivity-v stands for --scale and --offset: give it alone")
    if channel.conversion is not None:
        raise UsageError(f"channel {channel.name!r} has a conversion: give its new settings with --config")
    scale, offset = channel.scale, channel.offset
    if wanted.sensitivity_v is not None:
        scale, offset = linear(_of_known_range(channel, "--scale and --offset"), wanted.sensitivity_v)
    return msgspec.structs.replace(
        channel,
        scale=scale if wanted.scale is None else wanted.scale,
        offset=offset if wanted.offset is None else wanted.offset,
        unit=channel.unit if wanted.unit is None else wanted.unit,
    )


def configured(channel: Channel, config: ChannelConfig, channels: Iterable[Channel]) -> Channel:
    """Return the channel measuring what the configuration says; range, gain and input stay as they were.

    A thermocouple without `cold_junction` keeps the one it has; a cold junction of which nothing is said keeps its
    calibration. Raises UsageError where that cannot be.
    """
    if conversion_key(config) is None and config.unit is None and config.sensitivity_v is None:
        if channel.name in [other.cold_junction for other in channels]:
            return channel
    if config.thermocouple is not None and config.cold_junction is None:
        if not isinstance(channel.conversion, Thermocouple):
            raise UsageError(f"channel {channel.name!r}: a thermocouple needs its cold_junction in the config")
        config = msgspec.structs.replace(config, cold_junction=channel.conversion.cold_junction)
    return measuring(config, _of_known_range(channel, "--scale and --offset in the place of --config"))


def checked(channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
    """Return the channels.

    Raises UsageError where one's scale or offset cannot be, or a thermocouple's cold junction is none of them in °C.
    """
    by_name = {channel.name: channel for channel in channels}
    for channel in channels:
        if not (channel.scale and math.isfinite(abs(channel.scale) * _MOST_CODE + abs(channel.offset))):
            why = f"code × {channel.scale} + {channel.offset} gives no values: give another sensitivity or scale"
            raise UsageError(f"channel {channel.name!r}: {why}")
        junction = None if channel.cold_junction is None else by_name.get(channel.cold_junction)
        if channel.cold_junction is None:
            continue
        if junction is None or junction.unit != CELSIUS or junction.cold_junction is not None:
            why = f"the run has no such channel in {CELSIUS}; it has {', '.join(by_name)}"
            raise UsageError(f"channel {channel.name!r}: cold_junction {channel.cold_junction!r}: {why}")
    return channels


def changes(old: Iterable[Channel], new: Iterable[Channel]) -> dict[str, dict[str, list[Any]]]:
    """Return by channel and field what was before and what is now, as plain data."""
    found = {}
    for before, after in zip(old, new, strict=True):
        pairs = {name: [getattr(before, name), getattr(after, name)] for name in _CALIBRATION}
        differing = {name: msgspec.to_builtins(pair) for name, pair in pairs.items() if pair[0] != pair[1]}
        if differing:
            found[before.name] = differing
    return found


def header(old: RunInfo, run_id: str, channels: tuple[Channel, ...]) -> RunInfo:
    """Return the header of the new run: the old one's, with where it is from and what changed in `meta`."""
    meta: Mapping[str, Any] = {
        FROM: old.run_id,
        ORIGINAL: original_run(old),
        CHANGES: changes(old.channels, channels),
    }
    return msgspec.structs.replace(old, run_id=run_id, channels=channels, meta={**old.meta, **meta})


def recalibrated(records: Iterable[Record | Gap], old: RunInfo, new: RunInfo) -> Iterator[DaqBlock | DaqEvent]:
    """Yield the old run's records as the new one's: same codes, sample indexes, times and events.

    What is missing there is an event of the kind `gap`, and what there is to say of the signals is found again, so that
    records have other numbers.
    """
    signals = Signals(new)
    index, end, t_mono_ns, t_utc_ns = 0, 0, old.started_mono_ns, old.started_utc_ns
    gaps: list[Gap] = []
    for record in records:
        if isinstance(record, Gap):
            gaps.append(record)
            continue
        assert not isinstance(record, DaqReading)  # noqa: S101  # narrows the type, nothing rests on it
        if gaps:
            first = record.sample_index if isinstance(record, DaqEvent) else record.first_sample_index
            yield _gap_event(new, old.run_id, index, gaps, (end, first), (t_mono_ns, t_utc_ns))
            index, gaps = index + 1, []
        if isinstance(record, DaqEvent):
            if is_remark(record):
                continue
            signals.look(record, index)
            yield msgspec.structs.replace(record, run_id=new.run_id, record_index=index)
            end = max(end, record.sample_index + record.lost_samples)
        else:
            block = _block(record, new, index)
            if told := signals.look(block, index):
                yield from told
                index += len(told)
                block = _block(record, new, index)
            yield block
            end = record.end_sample_index
            length_ns = round(record.samples_per_channel * record.period_ns)
            t_mono_ns, t_utc_ns = record.t_mono_ns + length_ns, record.t_utc_ns + length_ns
        index += 1
    if gaps:
        behind = gaps[-1].end_sample
        yield _gap_event(new, old.run_id, index, gaps, (end, end if behind is None else behind), (t_mono_ns, t_utc_ns))
        index += 1
    yield from signals.rest(index)


def _block(block: DaqBlock, new: RunInfo, index: int) -> DaqBlock:
    codes = block.raw_codes
    assert codes is not None  # noqa: S101  # narrows the type, nothing rests on it
    assert block.clock is not None  # noqa: S101  # narrows the type, nothing rests on it
    told = block.sensor_status if block.told_status is None else block.told_status
    return block_of_run(
        new,
        index=index,
        first_sample=block.first_sample_index,
        codes=codes,
        t_mono_ns=block.t_mono_ns,
        clock=block.clock,
        read_started_at=block.read_started_at,
        read_finished_at=block.read_finished_at,
        sensor_status=merged(told, status_of_codes(codes, new.channels)),
        told_status=block.told_status,
        error=block.error,
        anchor=block.anchor,
    )


def _gap_event(
    new: RunInfo, old_id: str, index: int, gaps: list[Gap], samples: tuple[int, int], at_ns: tuple[int, int]
) -> DaqEvent:
    first, end = samples
    causes = "; ".join(dict.fromkeys(gap.cause for gap in gaps))
    missing = in_words(gaps[0].from_index, gaps[-1].to_index)
    number = "" if end > first else "; how many samples that were, it does not tell"
    return DaqEvent(
        device=new.device,
        task=new.task,
        run_id=new.run_id,
        record_index=index,
        kind=GAP,
        message=f"records {missing} of run {old_id} are missing: {causes}{number}",
        sample_index=first,
        lost_samples=max(end - first, 0),
        t_mono_ns=at_ns[0],
        t_utc_ns=at_ns[1],
    )


def _of_known_range(channel: Channel, instead: str) -> Channel:
    if channel.range is None or channel.resolution_bits is None:
        raise UsageError(f"channel {channel.name!r}: the run does not say the volts of its codes: give {instead}")
    return channel


def holds_codes(run: RunInfo) -> bool:
    """Return whether the run's journal has what a calibration can be applied to again: codes, or a board's volts."""
    return run.kind == "blocks"
