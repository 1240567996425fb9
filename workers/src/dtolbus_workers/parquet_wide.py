"""Blocks read back from a part of the wide layout, for `verify`. Imports pyarrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dtolbus.parquet.footer import BlockRows, PartFooter
from dtolbus.parquet.wide import FLOATS_SUFFIX, SAMPLE_INDEX, STATUS_SUFFIX, T_UTC, measured
from dtolbus_workers.destination import SampleRun, SampleTexts, StoredBlock
from dtolbus_workers.parquet_parts import row_groups


def wide_blocks(path: Path, footer: PartFooter) -> Iterator[StoredBlock]:
    """Yield the blocks of a part, a row group in memory at a time.

    Raises ValueError where the rows are not those that the footer tells of.
    """
    part = _Part(footer)
    told = iter(footer.blocks)
    for table in row_groups([path]):
        group = part.group(table)
        start = 0
        while start < len(table):
            rows = next(told, None)
            if rows is None or rows.samples < 1 or start + rows.samples > len(table):
                raise ValueError("its rows are not those of the blocks that its footer names")
            yield group.block(rows, slice(start, start + rows.samples))
            start += rows.samples
    if next(told, None) is not None:
        raise ValueError("it lacks the rows of blocks that its footer names")


class _Part:
    def __init__(self, footer: PartFooter) -> None:
        self.run = footer.run
        self.values = footer.values
        columns = {channel: column for channel, _, column in footer.columns}
        self.columns = [columns[name] for name in self.run.channel_names]
        self.kind = pa.type_for_alias(self.run.dtype if self.values == "codes" else self.values)

    def group(self, table: Any) -> "_Group":
        for column in self.columns:
            if table.schema.field(column).type != self.kind:
                raise ValueError(f"the column {column} is of type {table.schema.field(column).type}, not {self.kind}")
        return _Group(self, table)


class _Group:
    """One row group, by column."""

    def __init__(self, part: _Part, table: Any) -> None:
        self._part = part
        self._sample_index = _whole(table, SAMPLE_INDEX).to_numpy()
        self._t_utc_ns = _whole(table, T_UTC).cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
        own = [table.column(name) if part.values == "codes" else _whole(table, name) for name in part.columns]
        self._lacks = np.stack([_nulls(column) for column in own])
        self._values = np.stack([(c.fill_null(0) if c.null_count else c).to_numpy() for c in own])
        names = [f"{name}{FLOATS_SUFFIX}" for name in part.columns]
        self._floats = [table.column(name) for name in names] if set(names) <= set(table.column_names) else None
        self._status = {
            channel: table.column(f"{name}{STATUS_SUFFIX}")
            for channel, name in zip(part.run.channel_names, part.columns, strict=True)
            if f"{name}{STATUS_SUFFIX}" in table.column_names
        }

    def block(self, rows: BlockRows, place: slice) -> StoredBlock:
        part, run = self._part, self._part.run
        samples, utc = self._sample_index[place], self._t_utc_ns[place]
        listed = {name: column.slice(place.start, rows.samples) for name, column in self._status.items()}
        status = {name: own.to_pylist() for name, own in listed.items() if own.null_count < rows.samples}
        codes = None
        if part.values != "codes":
            values = self._values[:, place].astype(np.float64)
        elif self._lacks[:, place].any():
            values = self._without_codes(rows, place)
        else:
            codes = np.ascontiguousarray(self._values[:, place])
            known = {name: np.array([code or 0 for code in own], np.int64) for name, own in status.items()}
            values = np.full(codes.shape, np.nan) if rows.error else measured(codes, run.channels, known)
        error = (rows.error.type, rows.error.message) if rows.error else (None, None)
        mono = rows.t_mono_ns + (utc - utc[0])
        runs = [
            SampleRun(
                rows.block_index,
                SampleTexts(run.run_id, run.device, run.task, channel.name, channel.unit, *error),
                samples,
                mono,
                utc,
                row,
                status.get(channel.name),
            )
            for channel, row in zip(run.channels, values, strict=True)
        ]
        first, is_float32 = int(samples[0]), part.values == "float32"
        return StoredBlock(rows.block_index, first, values, None, runs, codes=codes, is_float32=is_float32)

    def _without_codes(self, rows: BlockRows, place: slice) -> NDArray[np.float64]:
        """Return the floats of a block that has no codes; NaN where there are none of these either."""
        if not self._lacks[:, place].all():
            raise ValueError(f"block {rows.block_index} has codes for some of its samples only")
        if rows.error is not None:
            return np.full((len(self._part.columns), rows.samples), np.nan)
        if self._floats is None:
            raise ValueError(f"block {rows.block_index} has neither codes nor values")
        found = [column.slice(place.start, rows.samples) for column in self._floats]
        if any(column.null_count for column in found):
            raise ValueError(f"block {rows.block_index} has neither codes nor values for some of its samples")
        return np.stack([column.to_numpy() for column in found])


def _whole(table: Any, name: str) -> Any:
    column = table.column(name)
    if column.null_count:
        raise ValueError(f"the column {name} has nulls")
    return column


def _nulls(column: Any) -> NDArray[np.bool_]:
    if not column.null_count:
        return np.zeros(len(column), np.bool_)
    nulls: NDArray[np.bool_] = column.is_null().to_numpy()
    return nulls
