"""Partitions of `samples` by month, made in the transaction whose rows need them."""

import contextlib
import logging
from collections.abc import Iterable, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock
from dtolbus_workers import postgres_link
from dtolbus_workers.postgres_tables import BusTables, quoted

log = logging.getLogger(__name__)

_BOUNDS = r"""
SELECT extract(epoch FROM begin_)::float8, extract(epoch FROM end_)::float8 FROM (
    SELECT (regexp_match(bound, 'FROM \(''([^'']+)''\)'))[1]::timestamptz AS begin_,
           (regexp_match(bound, 'TO \(''([^'']+)''\)'))[1]::timestamptz AS end_
    FROM (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
          WHERE i.inhparent = $1::regclass) AS parts
    WHERE bound <> 'DEFAULT') AS ranges
"""
_NAMES = "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1"
_NOT_TAKEN = ("42P17", "23514")
"""SQLSTATE of a partition that would overlap another, or whose rows lie in the default one."""


class Range(NamedTuple):
    """A partition's bounds, s since 1970; None: it has none there."""

    begin_s: float | None
    end_s: float | None


def months_of(blocks: Iterable[DaqBlock]) -> set[int]:
    """Return the months that the blocks' samples are in, counted from January 1970."""
    found: set[int] = set()
    for block in blocks:
        if not block.channels or not block.samples_per_channel:
            continue
        with contextlib.suppress(ValueError, OverflowError):  # making its rows tells what is wrong with it
            instants = (block.sample_offsets_ns() + block.t_utc_ns).view("datetime64[ns]")
            ends = np.array([instants.min(), instants.max()]).astype("datetime64[M]").astype(int).tolist()
            found.update(ends if ends[0] == ends[1] else _distinct(instants))
    return found


def _distinct(instants: NDArray[np.datetime64]) -> list[int]:
    months: list[int] = np.unique(instants.astype("datetime64[M]")).astype(int).tolist()
    return months


def uncovered(months: Iterable[int], ranges: Sequence[Range]) -> list[int]:
    """Return the months that are not whole within one of the partitions, in order."""
    return [month for month in sorted(months) if not any(_holds(part, month) for part in ranges)]


def _holds(part: Range, month: int) -> bool:
    begins = part.begin_s is None or part.begin_s <= _start_s(month)
    return begins and (part.end_s is None or part.end_s >= _start_s(month + 1))


def _start_s(month: int) -> float:
    return float(np.datetime64(month, "M").astype("datetime64[s]").astype(np.int64))


def _bound(month: int) -> str:
    return f"'{np.datetime64(month, 'M')}-01 00:00:00+00'"


def free_name(table: str, month: int, taken: Iterable[str]) -> str:
    """Return a name for the month's partition; not the usual one where that was detached, or is somebody else's."""
    names = set(taken)
    usual = f"{table}_{str(np.datetime64(month, 'M')).replace('-', '_')}"
    name, number = usual, 2
    while name in names:
        name, number = f"{usual}_{number}", number + 1
    return name


class Months:
    """The partitions that are known to be there."""

    def __init__(self, tables: BusTables) -> None:
        self._tables = tables
        self._known: set[int] = set()

    def forget(self) -> None:
        """Believe nothing: a transaction was rolled back, or somebody else may have changed the table."""
        self._known.clear()

    async def make(self, connection: Any, months: Set[int]) -> None:
        """Make the partitions of these months that are not there, in the connection's transaction.

        Readers go on meanwhile: a table is made and attached, which locks out neither them nor their new queries.
        """
        wanted = months - self._known
        if not wanted:
            return
        ranges = [Range(*found) for found in await connection.fetch(_BOUNDS, self._tables["samples"])]
        lacking = uncovered(wanted, ranges)
        taken = {name for (name,) in await connection.fetch(_NAMES, self._tables.schema)} if lacking else set()
        for month in lacking:
            name = free_name(self._tables.names["samples"], month, taken)
            await self._attach(connection, name, month)
            taken.add(name)
        self._known |= wanted

    async def _attach(self, connection: Any, name: str, month: int) -> None:
        parent, part = self._tables["samples"], f"{quoted(self._tables.schema)}.{quoted(name)}"
        try:
            async with connection.transaction():
                await connection.execute(
                    f"CREATE TABLE {part} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED)"
                )
                await connection.execute(
                    f"ALTER TABLE {parent} ATTACH PARTITION {part} "
                    f"FOR VALUES FROM ({_bound(month)}) TO ({_bound(month + 1)})"
                )
        except postgres_link.load().PostgresError as error:
            if error.sqlstate not in _NOT_TAKEN:
                raise
            # somebody's own partition is in the way: its rows may fit into that one, which the COPY finds out
            log.warning("partition not made", extra={"partition": name, "why": postgres_link.reason(error)})
