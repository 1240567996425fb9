"""Parts of a bus's Parquet folder read with pyarrow: footers, and the row groups that are within a window."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dtolbus.parquet.footer import PartFooter, Span, parse_footer
from dtolbus.parquet.samples import ParquetSamples
from dtolbus.parquet.wide import (
    FLOATS_SUFFIX,
    SAMPLE_INDEX,
    STATUS_SUFFIX,
    T_UTC,
    measured_by_block,
    with_junctions,
)
from dtolbus.parquet.window import Window

UNREADABLE = (ValueError, KeyError, OSError, msgspec.MsgspecError, pa.ArrowException)


class Piece(NamedTuple):
    """What one row group has within the window."""

    sample_index: NDArray[np.int64]
    """Shape (samples,)."""
    t_utc_ns: NDArray[np.int64]
    """Shape (samples,)."""
    data: NDArray[np.float64]
    """Shape (channels, samples)."""
    status: dict[str, NDArray[np.int64]]
    """By channel, of those that have any; shape (samples,)."""

    def within(self, window: Window) -> "Piece":
        """Return what of it is in the window."""
        place = window.places(self.sample_index, self.t_utc_ns)
        status = {name: column[place] for name, column in self.status.items()}
        return Piece(self.sample_index[place], self.t_utc_ns[place], self.data[:, place], status)


def read_footer(path: Path) -> PartFooter:
    """Return what a part says of itself, and nothing else is read. Raises one of UNREADABLE."""
    return _footer(pq.read_metadata(path))


def _footer(metadata: Any) -> PartFooter:
    found = metadata.metadata or {}
    return parse_footer({key.decode(): value.decode("utf-8", "replace") for key, value in found.items()})


def pieces(path: Path, channels: Sequence[str], window: Window) -> Iterator[Piece]:
    """Yield what a part has of the channels within the window; row groups outside of it are not read.

    Raises one of UNREADABLE: ValueError where the rows are not those that the footer tells of.
    """
    with pq.ParquetFile(path) as file:
        footer = _footer(file.metadata)
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        starts = [0, *accumulate(group.num_rows for group in groups)]
        for number, group in enumerate(groups):
            span = _span(group)
            if span is not None and (window.is_over_before(span) or window.begins_after(span)):
                continue
            if footer.layout == "wide":
                piece = _Wide(file, footer, channels).piece(number, starts[number], starts[number + 1])
            else:
                piece = _long_piece(file, number, channels)
            piece = piece.within(window)
            if len(piece.sample_index):
                yield piece


def _span(group: Any) -> Span | None:
    """Return a row group's range by its statistics; None where it has none."""
    ranges = {}
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema in (SAMPLE_INDEX, T_UTC):
            found = column.statistics
            if found is None or not found.has_min_max:
                return None
            ranges[column.path_in_schema] = (found.min_raw, found.max_raw + 1)
    return Span(*ranges[SAMPLE_INDEX], *ranges[T_UTC]) if len(ranges) == 2 else None


def _ns(column: Any) -> NDArray[np.int64]:
    found: NDArray[np.int64] = column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
    return found


class _Wide:
    """A part of the wide layout, of which some channels are read."""

    def __init__(self, file: Any, footer: PartFooter, channels: Sequence[str]) -> None:
        self._file = file
        self._footer = footer
        self._channels = channels
        self._has_codes = footer.values == "codes"
        self._needed = with_junctions(channels, footer.run.channels)
        columns = {channel: column for channel, _, column in footer.columns}
        self._columns = {channel.name: columns[channel.name] for channel in self._needed}
        present = set(file.schema_arrow.names)
        self._status = {name: s for name, own in self._columns.items() if (s := own + STATUS_SUFFIX) in present}
        self._floats = {name: floats for name in channels if (floats := self._columns[name] + FLOATS_SUFFIX) in present}

    def piece(self, number: int, start: int, end: int) -> Piece:
        """Return a row group: the part's rows [start, end)."""
        names = [SAMPLE_INDEX, T_UTC, *(self._columns.values() if self._has_codes else self._values())]
        names += [*self._status.values(), *self._floats.values()]
        table = self._file.read_row_group(number, columns=names)
        status = {
            name: table.column(column).fill_null(0).to_numpy()
            for name, column in self._status.items()
            if table.column(column).null_count < len(table)
        }
        data = self._decoded(table, status, start, end) if self._has_codes else self._stored(table)
        kept = {name: column for name, column in status.items() if name in self._channels}
        return Piece(table.column(SAMPLE_INDEX).to_numpy(), _ns(table.column(T_UTC)), data, kept)

    def _values(self) -> list[str]:
        return [self._columns[name] for name in self._channels]

    def _stored(self, table: Any) -> NDArray[np.float64]:
        data = np.empty((len(self._channels), len(table)))
        for row, column in zip(data, self._values(), strict=True):
            row[:] = table.column(column).to_numpy()
        return data

    def _decoded(self, table: Any, status: dict[str, NDArray[np.int64]], start: int, end: int) -> NDArray[np.float64]:
        """Return what the codes say; where there are none the floats instead, or NaN."""
        own = [table.column(self._columns[channel.name]) for channel in self._needed]
        codes = np.stack([(column.fill_null(0) if column.null_count else column).to_numpy() for column in own])
        data = measured_by_block(codes, self._needed, status, self._samples(start, end))[: len(self._channels)]
        for name, row, column in zip(self._channels, data, own, strict=False):
            if column.null_count:
                lacks = column.is_null().to_numpy()
                row[lacks] = table.column(self._floats[name]).to_numpy()[lacks] if name in self._floats else np.nan
        return data

    def _samples(self, start: int, end: int) -> list[int]:
        """Return the samples of each block in the part's rows [start, end)."""
        samples = [rows.samples for rows in self._footer.blocks]
        begins = list(accumulate(samples, initial=0))
        found = samples[bisect_left(begins, start) : bisect_left(begins, end)]
        if sum(found) != end - start:
            raise ValueError("its row groups are not those of the blocks that its footer names")
        return found


def _long_piece(file: Any, number: int, channels: Sequence[str]) -> Piece:
    names = ["channel", SAMPLE_INDEX, T_UTC, "value", "sensor_status"]
    table = file.read_row_group(number, columns=names)
    words = table.column("channel").unify_dictionaries().combine_chunks()
    codes, known = words.indices.to_numpy(), words.dictionary.to_pylist()
    places = [
        np.flatnonzero(codes == known.index(name)) if name in known else np.empty(0, np.intp) for name in channels
    ]
    if len({len(place) for place in places}) > 1:
        raise ValueError("its channels have unequal numbers of samples")
    sample_index, value = table.column(SAMPLE_INDEX).to_numpy(), table.column("value").to_numpy()
    data = np.stack([value[place] for place in places]).astype(np.float64, copy=False)
    column = table.column("sensor_status")
    status = {}
    if column.null_count < len(table):
        codes_of, is_null = column.fill_null(0).to_numpy(), column.is_null().to_numpy()
        found = ((name, place) for name, place in zip(channels, places, strict=True) if not is_null[place].all())
        status = {name: codes_of[place] for name, place in found}
    return Piece(sample_index[places[0]], _ns(table.column(T_UTC))[places[0]], data, status)


def table_of(samples: ParquetSamples) -> Any:
    """Return the samples as `pyarrow.Table`; see `ParquetSamples.to_arrow`."""
    utc = samples.t_utc.view(np.int64)
    instants = pa.Array.from_buffers(pa.timestamp("ns", "UTC"), len(utc), [None, pa.py_buffer(utc)])
    arrays = [pa.array(samples.sample_index), instants, *map(pa.array, samples.data)]
    fields = [pa.field(SAMPLE_INDEX, pa.int64()), pa.field(T_UTC, instants.type)]
    for name, unit in zip(samples.channels, samples.units, strict=True):
        fields.append(pa.field(name, pa.float64(), metadata={} if unit is None else {"unit": unit}))
    for name, column in samples.status.items():
        arrays.append(pa.array(column))
        fields.append(pa.field(f"{name}{STATUS_SUFFIX}", pa.int64()))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
