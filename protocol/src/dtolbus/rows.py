"""Records as rows: plain dicts and typed samples, for tabular sinks, tests and notebooks.

The bus's own sinks work by column and never make a row for each sample; these helpers are for everybody else.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta

from dtolbus.records import DaqBlock, DaqReading, DaqSample, Scalar, utc_from_ns


def block_to_long_rows(block: DaqBlock) -> list[DaqSample]:
    """Unroll a block into one typed sample for each (channel, sample), channel by channel."""
    offsets = block.sample_offsets_ns().tolist()
    if block.clock is not None:
        instants = [utc_from_ns(block.clock.utc_ns + offset) for offset in offsets]
    else:
        instants = [block.t_utc + timedelta(microseconds=offset / 1000) for offset in offsets]
    samples: list[DaqSample] = []
    for channel, values in zip(block.channels, block.data.tolist(), strict=True):
        status = block.sensor_status.get(channel)
        samples += [
            DaqSample(
                device=block.device,
                task=block.task,
                channel=channel,
                block_index=block.block_index,
                sample_index=block.first_sample_index + k,
                t_mono_ns=block.t_mono_ns + offsets[k],
                t_utc=instants[k],
                value=values[k],
                unit=block.units.get(channel),
                sensor_status=None if status is None else int(status[k]),
                error=block.error,
            )
            for k in range(block.samples_per_channel)
        ]
    return samples


def block_to_rows(block: DaqBlock) -> list[dict[str, Scalar]]:
    """Unroll a block into one dict for each (channel, sample), channel by channel.

    Keys in order: device, task, channel, block_index, sample_index, t_mono_ns, t_utc (ISO 8601), value, unit,
    error_type, error_message. The value is NaN where the block carries an error.
    """
    return [
        {
            "device": sample.device,
            "task": sample.task,
            "channel": sample.channel,
            "block_index": sample.block_index,
            "sample_index": sample.sample_index,
            "t_mono_ns": sample.t_mono_ns,
            "t_utc": sample.t_utc.isoformat(),
            "value": sample.value,
            "unit": sample.unit,
            "error_type": sample.error.type if sample.error else None,
            "error_message": sample.error.message if sample.error else None,
        }
        for sample in block_to_long_rows(block)
    ]


READING_KEYS = (
    "device",
    "task",
    "t_mono_ns",
    "t_utc",
    "t_midpoint_mono_ns",
    "requested_at",
    "received_at",
    "latency_s",
    "error_type",
    "error_message",
)
"""The keys of `reading_to_row` that are no channel's."""

_OF_POSTGRES = ("tableoid", "ctid", "xmin", "cmin", "xmax", "cmax")
"""Columns that every table there has already."""
RESERVED_COLUMNS = frozenset({*READING_KEYS, "run_id", "reading_index", "sensor_status", *_OF_POSTGRES})
_NUMBERED = re.compile(r"ch_\d+(_unit)?", re.IGNORECASE)


def channel_columns(names: Iterable[str]) -> dict[str, str]:
    """Return each channel's column: its name, or `ch_<n>` (n: its place among `names`) where that is not its alone.

    A name is not a channel's own when it is empty, a reserved column, equal to another's without case, another's
    `_unit` column, of the form `ch_<n>`, or longer than 63 bytes with `_unit`.
    """
    listed = list(names)
    folded = [name.casefold() for name in listed]
    taken = RESERVED_COLUMNS | {f"{name}_unit" for name in folded}
    columns: dict[str, str] = {}
    for place, (name, low) in enumerate(zip(listed, folded, strict=True)):
        own = low and low not in taken and folded.count(low) == 1 and not _NUMBERED.fullmatch(low)
        fits = len(f"{name}_unit".encode("utf-8", "surrogatepass")) <= 63
        columns[name] = name if own and fits else f"ch_{place}"
    return columns


def reading_to_row(reading: DaqReading, columns: Mapping[str, str] | None = None) -> dict[str, Scalar]:
    """Flatten a reading into one dict.

    Keys in order: device, task, t_mono_ns, t_utc, t_midpoint_mono_ns, requested_at, received_at, latency_s, a column
    for each channel, `<column>_unit` for each channel, error_type, error_message. Times are ISO 8601. `columns` names
    the channels' columns; by default `channel_columns` of this reading, so that no channel overwrites a fixed key.
    """
    if columns is None:
        columns = channel_columns(dict.fromkeys([*reading.values, *reading.units]))
    row: dict[str, Scalar] = {
        "device": reading.device,
        "task": reading.task,
        "t_mono_ns": reading.t_mono_ns,
        "t_utc": reading.t_utc.isoformat(),
        "t_midpoint_mono_ns": reading.t_midpoint_mono_ns,
        "requested_at": reading.requested_at.isoformat(),
        "received_at": reading.received_at.isoformat(),
        "latency_s": reading.latency_s,
    }
    row.update({columns[name]: value for name, value in reading.values.items()})
    row.update({f"{columns[name]}_unit": unit for name, unit in reading.units.items()})
    row["error_type"] = reading.error.type if reading.error else None
    row["error_message"] = reading.error.message if reading.error else None
    return row
