"""Readings' values as typed cells: which column a channel's value goes into, so that no type lies and no name clashes.

A channel's main column holds numbers as float64. A value that a float64 cannot hold, a text or a large int, goes into a
second column of the same channel, so no column ever changes its type and no value is rounded.
"""

import re
from collections.abc import Iterable, Mapping, Set
from typing import Any, NamedTuple

import msgspec
import numpy as np

from dtolbus import wire
from dtolbus.parquet.footer import CellKind
from dtolbus.records import DaqReading, Record, RunInfo
from dtolbus.rows import RESERVED_COLUMNS, channel_columns


class ColumnKey(NamedTuple):
    """What one column holds."""

    device: str
    task: str
    channel: str
    kind: CellKind


Columns = Mapping[ColumnKey, str]

NO_ROOM = "no room in the table of readings"
"""How the reason begins where a reading needs more columns, or more bytes in its row, than the database allows."""

_NUMBERED = re.compile(r"ch_\d+", re.IGNORECASE)


def cell_kind(value: Any) -> CellKind | None:
    """Return the kind of column that holds `value` exactly; None holds no value.

    Raises:
        ValueError: no column can: an int beyond 64 bits, or a type that is no scalar.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return "text"
    if isinstance(value, float | bool | np.floating | np.bool_):
        return "number"
    if isinstance(value, int | np.integer):
        if abs(int(value)) <= 2**53:
            return "number"
        if -(2**63) <= value < 2**63:
            return "integer"
        raise ValueError(f"the int {value} is beyond 64 bits")
    raise ValueError(f"a value of type {type(value).__name__} is no number and no text: {value!r:.60}")


def wanted_columns(run: RunInfo, readings: Iterable[DaqReading]) -> dict[ColumnKey, None]:
    """Return the columns that the run's channels and these readings need, in order.

    Raises:
        ValueError: as `cell_kind`.
    """
    names = list(run.channel_names)
    others: dict[ColumnKey, None] = {}
    for reading in readings:
        names += [*reading.values, *reading.units]
        for channel, value in reading.values.items():
            kind = cell_kind(value)
            if kind not in (None, "number"):
                others[ColumnKey(run.device, run.task, channel, kind)] = None
    return dict.fromkeys(ColumnKey(run.device, run.task, name, "number") for name in names) | others


def assign_columns(known: Columns, wanted: Iterable[ColumnKey]) -> dict[ColumnKey, str]:
    """Return the columns of the keys that are wanted and not yet known.

    A channel's main column is its name where `channel_columns` allows it among the wanted and nobody else uses it in
    any case; two tasks share such a column. Every other column is a `ch_<n>` that is nobody else's: n is the channel's
    place among the wanted, or the next free number.
    """
    keys = list(wanted)
    own = channel_columns(dict.fromkeys(key.channel for key in keys if key.kind == "number"))
    holders = {column: key.channel for key, column in known.items()}
    used = RESERVED_COLUMNS | {name for column in holders for name in _names_of(column)}
    places = {channel: place for place, channel in enumerate(own)}
    assigned: dict[ColumnKey, str] = {}
    for key in keys:
        if key in known:
            continue
        column = own.get(key.channel) if key.kind == "number" else None
        is_own = column == key.channel and not _NUMBERED.fullmatch(column)
        is_shared = is_own and holders.get(key.channel) == key.channel
        if not is_own or (not is_shared and _names_of(key.channel) & used):
            number = places[key.channel] if key.kind == "number" else len(places)
            while _names_of(f"ch_{number}") & used:
                number += 1
            column = f"ch_{number}"
        assert column is not None  # noqa: S101  # narrows the type, nothing rests on it
        assigned[key] = column
        holders[column] = key.channel
        used = used | _names_of(column)
    return assigned


def beyond_room(needs: Iterable[Set[str]], room: int) -> list[int]:
    """Return the places of those whose new columns no longer fit, taking them in order.

    `needs` are the columns that each of them needs and the table lacks; `room` is how many it can still take.
    """
    taken: set[str] = set()
    beyond = []
    for place, columns in enumerate(needs):
        if len(taken | columns) <= room:
            taken |= columns
        else:
            beyond.append(place)
    return beyond


def _names_of(column: str) -> frozenset[str]:
    return frozenset((column.casefold(), f"{column.casefold()}_unit"))


def status_text(reading: DaqReading) -> str | None:
    """Return the reading's sensor status as a JSON object by channel, or None where it has none."""
    return msgspec.json.encode(reading.sensor_status).decode() if reading.sensor_status else None


def put_aside_frames(run: RunInfo, record: Record) -> bytes:
    """Return a record that is put aside, as a msgpack array of its wire frames; empty where not even that can be."""
    try:
        return msgspec.msgpack.encode([bytes(frame) for frame in wire.encode(wire.RunRecord(run, record))])
    except (ValueError, TypeError, OverflowError):
        return b""
