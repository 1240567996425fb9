"""Blocks as tables of the wide layout: a row for each sample instant, a column for each channel. Imports pyarrow."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, groupby
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dtolbus.parquet.footer import BlockRows, Values
from dtolbus.parquet.wide import FLOATS_SUFFIX, SAMPLE_INDEX, STATUS_SUFFIX, T_UTC
from dtolbus.records import Channel, DaqBlock, RunInfo
from dtolbus_workers.arrow import UTC_NS, instants
from dtolbus_workers.columns import values_of
from dtolbus_workers.destination import RecordRefusedError
from dtolbus_workers.misfit import Described

_VALUES = 1 << 20
"""About how many values are a row group."""
_INT64 = 1 << 63
_FAULTS = (ValueError, OverflowError, pa.ArrowException)


class WideTables:
    """The blocks of one part, all with samples: its schema, and its row groups one after another.

    A column is nullable only where something is null, for writing and reading go faster so. A channel has a status
    column where any of its samples has a status; and a part of codes a column of floats for each channel where any of
    its blocks has none.

    Raises RecordRefusedError for a block that does not fit.
    """

    def __init__(self, run: RunInfo, values: Values, columns: dict[str, str], blocks: Sequence[DaqBlock]) -> None:
        self._run = run
        self._values = values
        self._columns = columns
        self._blocks = blocks
        described = Described(run)
        for block in blocks:
            reason = described.misfit(block) or _unwritable(block)
            if reason:
                raise RecordRefusedError(block.index, reason)
        with_status = {name for block in blocks for name in block.sensor_status}
        self._status = [name for name in columns if name in with_status]
        self._has_codes = [values == "codes" and not b.error and described.has_codes(b) for b in blocks]
        self._has_floats = values == "codes" and any(
            not has and not block.error for has, block in zip(self._has_codes, blocks, strict=True)
        )
        self.schema = self._schema()
        self.rows = tuple(BlockRows(b.block_index, b.samples_per_channel, b.t_mono_ns, b.error) for b in blocks)

    def _schema(self) -> Any:
        kind = pa.type_for_alias(self._run.dtype if self._values == "codes" else self._values)
        has_nulls = self._values == "codes" and not all(self._has_codes)
        fields = [pa.field(SAMPLE_INDEX, pa.int64(), nullable=False), pa.field(T_UTC, UTC_NS, nullable=False)]
        fields += [
            pa.field(self._columns[channel.name], kind, has_nulls, _described(channel, self._values))
            for channel in self._run.channels
        ]
        if self._has_floats:
            fields += [
                pa.field(
                    self._columns[channel.name] + FLOATS_SUFFIX, pa.float64(), True, _described(channel, "float64")
                )
                for channel in self._run.channels
            ]
        fields += [pa.field(self._columns[name] + STATUS_SUFFIX, pa.int64()) for name in self._status]
        return pa.schema(fields)

    def __iter__(self) -> Iterator[Any]:
        """Yield the row groups, whole blocks at a time; the next is made while one is encoded."""
        return _ahead(self._tables())

    def _tables(self) -> Iterator[Any]:
        ends = list(accumulate(len(block.channels) * block.samples_per_channel for block in self._blocks))
        numbered = zip(self._blocks, self._has_codes, ends, strict=True)
        for _, group in groupby(numbered, key=lambda block: (block[2] - 1) // _VALUES):
            piece = [(block, has_codes) for block, has_codes, _ in group]
            try:
                table = self._table(piece)
            except _FAULTS:
                self._refuse_first(piece)
                raise
            yield table

    def _refuse_first(self, piece: list[tuple[DaqBlock, bool]]) -> None:
        """Raise RecordRefusedError for the first block that fails by itself."""
        for block in piece:
            try:
                self._table([block])
            except _FAULTS as error:
                raise RecordRefusedError(block[0].index, str(error)) from error

    def _table(self, piece: list[tuple[DaqBlock, bool]]) -> Any:
        blocks = [block for block, _ in piece]
        counts = [block.samples_per_channel for block in blocks]
        places = [slice(end - count, end) for end, count in zip(accumulate(counts), counts, strict=True)]
        rows = sum(counts)
        arrays = [*_instants(blocks, places, rows)]
        if self._values == "codes":
            arrays += self._codes(piece, places, rows)
        else:
            found = np.empty((len(self._columns), rows), self._values)
            with np.errstate(over="ignore"):  # beyond float32 is infinity
                for block, place in zip(blocks, places, strict=True):
                    found[:, place] = _whole(values_of(block), block)
            arrays += [pa.array(row) for row in found]
        arrays += [_status(name, blocks, places, rows) for name in self._status]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _codes(self, piece: list[tuple[DaqBlock, bool]], places: list[slice], rows: int) -> Iterator[Any]:
        """Yield the channels' codes, null where a block has none; then, if any has floats instead, those."""
        codes = np.empty((len(self._columns), rows), self._run.dtype)
        lacks = None if all(has_codes for _, has_codes in piece) else np.zeros(rows, np.bool_)
        for (block, has_codes), place in zip(piece, places, strict=True):
            if has_codes:
                assert block.raw_codes is not None  # noqa: S101  # narrows the type, nothing rests on it
                codes[:, place] = _whole(block.raw_codes, block)
            else:
                assert lacks is not None  # noqa: S101  # narrows the type, nothing rests on it
                codes[:, place], lacks[place] = 0, True
        yield from (pa.array(row, mask=lacks) for row in codes)
        if self._has_floats:
            floats = np.zeros(codes.shape)
            gives = np.zeros(rows, np.bool_)
            for (block, has_codes), place in zip(piece, places, strict=True):
                if not has_codes and not block.error:
                    floats[:, place] = _whole(block.data, block)
                    gives[place] = True
            yield from (pa.array(row, mask=~gives) for row in floats)


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Return the items, each made on another thread while the one before it is used; the first is begun at once."""
    pool = ThreadPoolExecutor(1, "parquet-rows")
    first = pool.submit(next, items, None)

    def drawn() -> Iterator[Any]:
        coming = first
        with pool:
            while (item := coming.result()) is not None:
                coming = pool.submit(next, items, None)
                yield item

    return drawn()


def _unwritable(block: DaqBlock) -> str | None:
    """Return why no footer can hold what is a block's, or None."""
    try:
        if block.error is not None:
            msgspec.json.encode(block.error)
    except (ValueError, OverflowError) as error:
        return str(error)
    for number in (block.block_index, block.t_mono_ns):
        if not -_INT64 <= number < _INT64:
            return f"{number} is beyond 64 bits"
    return None


def _whole(array: NDArray[Any], block: DaqBlock) -> NDArray[Any]:
    """Return the block's samples of an array; raises ValueError where it lacks some, which NumPy might repeat."""
    if array.shape[-1] < block.samples_per_channel:
        raise ValueError(f"an array of {array.shape[-1]} samples for {block.samples_per_channel}")
    return array[..., : block.samples_per_channel]


def _described(channel: Channel, values: Values) -> dict[str, str]:
    """Return what a column says of itself: for people and programs that look no further than the schema."""
    about = {"dtolbus.channel": channel.name, "dtolbus.values": values}
    if channel.unit is not None:
        about["dtolbus.unit"] = channel.unit
    if values == "codes":
        about |= {"dtolbus.scale": repr(channel.scale), "dtolbus.offset": repr(channel.offset)}
        if channel.conversion is not None:
            about["dtolbus.conversion"] = msgspec.json.encode(channel.conversion).decode()
    return about


def _instants(blocks: Iterable[DaqBlock], places: Iterable[slice], rows: int) -> tuple[Any, Any]:
    """Return the columns that say when: sample_index and t_utc."""
    samples, utc = np.empty(rows, np.int64), np.empty(rows, np.int64)
    known: tuple[int, float] | None = None
    for block, place in zip(blocks, places, strict=True):
        if known != (block.samples_per_channel, block.period_ns):  # the clock fit changes now and then
            known = (block.samples_per_channel, block.period_ns)
            counted, offsets = np.arange(block.samples_per_channel), block.sample_offsets_ns()
        np.add(counted, np.int64(block.first_sample_index), out=samples[place])
        np.add(offsets, np.int64(block.t_utc_ns), out=utc[place])
    return pa.array(samples), instants(utc)


def _status(name: str, blocks: Iterable[DaqBlock], places: Iterable[slice], rows: int) -> Any:
    """Return a channel's status for each sample; null where its block has none of it."""
    found: NDArray[np.int64] = np.zeros(rows, np.int64)
    lacks = np.ones(rows, np.bool_)
    for block, place in zip(blocks, places, strict=True):
        if name in block.sensor_status:
            found[place] = _whole(block.sensor_status[name], block)
            lacks[place] = False
    return pa.array(found, mask=lacks)
