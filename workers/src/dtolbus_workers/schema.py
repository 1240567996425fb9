"""Which columns a table has: the set that a stand-alone sink locks, and the column that each channel is given."""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from dtolbus.jsonreading import read_json
from dtolbus.records import DaqReading, Scalar
from dtolbus.rows import READING_KEYS, RESERVED_COLUMNS, channel_columns, reading_to_row

STATUS_COLUMN = "sensor_status"
"""JSON by channel: its status, or the name of a value that the format cannot hold ("nan", "inf", "-inf")."""

READING_BASE = (*READING_KEYS, STATUS_COLUMN)
"""The columns of a stand-alone sink's readings that are no channel's."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def check_identifier(name: str, *, label: str) -> str:
    """Return `name` if it may be a table's; raises ValueError that names the argument `label`."""
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"{label} must match ^[A-Za-z_][A-Za-z0-9_]{{0,62}}$, got {name!r}")
    return name


def quoted(identifier: str) -> str:
    """Return the identifier in SQL's double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


class SchemaLock:
    """A column set that is locked on the first write; later rows are projected onto it.

    A column that a later row lacks becomes None; one that it has too many is dropped, with one warning for each such
    column. Rows with no other columns than `base` (a failed reading names no channel) do not lock.
    """

    def __init__(self, *, sink_name: str, logger: logging.Logger, base: Sequence[str] = ()) -> None:
        self._sink_name = sink_name
        self._log = logger
        self._base = tuple(base)
        self._columns: tuple[str, ...] | None = None
        self._warned: set[str] = set()

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The locked columns in order, or None before the first write that locks."""
        return self._columns

    @property
    def is_locked(self) -> bool:
        """Whether a write, or a table that was there, has locked the columns."""
        return self._columns is not None

    def lock(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Lock to exactly these columns, as of a table that is there already."""
        self._columns = tuple(dict.fromkeys(columns))
        return self._columns

    def observe(self, rows: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
        """Lock on the rows' columns if they have any beyond the base; return the columns to write now."""
        if self._columns is None:
            found = dict.fromkeys(column for row in rows for column in row)
            if not self._base or set(found) - set(self._base):
                self._columns = _in_order(found, self._base)
        return self._columns if self._columns is not None else self._base

    def project(self, row: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return the row with the locked columns, in their order (with the base's, before a write has locked)."""
        columns = self._columns if self._columns is not None else self._base
        for column in row:
            if column not in columns and column not in self._warned:
                self._warned.add(column)
                self._log.warning(
                    "column dropped: the sink's columns were locked by its first write",
                    extra={"sink": self._sink_name, "column": column},
                )
        return {column: row.get(column) for column in columns}

    def reset(self) -> None:
        """Forget the columns, for another file."""
        self._columns = None
        self._warned.clear()


def _in_order(found: Mapping[str, None], base: Sequence[str]) -> tuple[str, ...]:
    """Return the columns found, those of the base that follow the channels' (errors, status) at the end again."""
    tail = [column for column in ("error_type", "error_message", STATUS_COLUMN) if column in base and column in found]
    return (*(column for column in found if column not in tail), *tail)


class ColumnNames:
    """The column of each channel in one table; a name once given stays, and no two channels share one."""

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self._columns: dict[str, str] = dict(known or {})

    @property
    def columns(self) -> Mapping[str, str]:
        """Each channel's column, of all channels met so far."""
        return self._columns

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Return the columns of the channels, giving new ones theirs.

        Raises nothing: a name that cannot be a column's (empty, reserved, too long, another's without case, with a NUL)
        gets `ch_<n>`, n its place among `names`, or the next free number.
        """
        listed = list(dict.fromkeys(names))
        new = [name for name in listed if name not in self._columns]
        if new:
            proposed = channel_columns(listed)
            for place, name in enumerate(listed):
                if name in new:
                    self._columns[name] = self._free(proposed[name], place)
        return {name: self._columns[name] for name in listed}

    def _free(self, proposed: str, place: int) -> str:
        taken = {*RESERVED_COLUMNS}
        for column in self._columns.values():
            taken |= {column.casefold(), f"{column}_unit".casefold()}
        number = place
        while (
            {proposed.casefold(), f"{proposed}_unit".casefold()} & taken or "\0" in proposed or not _encodable(proposed)
        ):
            proposed = f"ch_{number}"
            number += 1
        return proposed


def _encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def plain(value: Any) -> Any:
    """Return a NumPy scalar as Python's own; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def unwritable(given: object) -> str | None:
    """Return why no text format can store a value, or None if it can."""
    value = plain(given)
    if isinstance(value, str):
        return None if _encodable(value) else f"the text {value!r:.60} is no Unicode: it has half of a surrogate pair"
    if value is None or isinstance(value, int | float):
        return None
    return f"a value of type {type(value).__name__} is neither number nor text: {value!r:.60}"


def reading_names(readings: Iterable[DaqReading]) -> list[str]:
    """Return the channels that the readings name, in order, each once."""
    return list(dict.fromkeys(name for r in readings for name in (*r.values, *r.units, *r.sensor_status)))


def reading_row(
    reading: DaqReading, columns: Mapping[str, str], *, keeps_nan: bool, keeps_inf: bool
) -> dict[str, Scalar]:
    """Return `reading_to_row` with the status column at its end; floats that the format cannot hold become None."""
    row = reading_to_row(reading, columns)
    status: dict[str, int | str] = dict(reading.sensor_status)
    for name, given in reading.values.items():
        value = plain(given)
        row[columns[name]] = value
        if isinstance(value, float) and not (keeps_nan if math.isnan(value) else keeps_inf or math.isfinite(value)):
            row[columns[name]] = None
            status[name] = status.get(name) or repr(value)
    row[STATUS_COLUMN] = msgspec.json.encode(status).decode() if status else None
    return row


def restored_value(value: object, channel: str, status_text: str | None) -> object:
    """Return a reading's value as it was, from what is stored of it: a float named in the status column comes back."""
    if value is not None or not status_text:
        return value
    named: dict[str, Any] = read_json(status_text, dict[str, Any])
    status = named.get(channel)
    return float(status) if isinstance(status, str) else None
