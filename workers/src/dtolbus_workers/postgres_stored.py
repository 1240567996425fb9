"""A run read back from Postgres for `verify`, while a worker may be writing to it."""

import asyncio
import contextlib
import heapq
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from dtolbus.errors import CannotStartError
from dtolbus.records import Gap, RunInfo
from dtolbus.topics import stream_name
from dtolbus_workers import postgres_link
from dtolbus_workers.columns import BLOCK_COLUMNS
from dtolbus_workers.destination import Position, Stored, StoredBlock
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_tables import FIND_COLUMNS, BusTables, by_table, quoted

T = TypeVar("T")
_OF_RUN = "WHERE run_id = $1 AND stream = $2"
_EVENTS = "SELECT record_index FROM {events} {where} ORDER BY 1"
_PUT_ASIDE = "SELECT record_index FROM {put_aside} {where} ORDER BY 1"
_SAMPLES = (
    "SELECT block_index, channel, min(sample_index), array_agg(value ORDER BY sample_index) FROM {samples} "
    "WHERE run_id = $1 AND block_index >= $2 AND block_index < $3 GROUP BY 1, 2 ORDER BY 1"
)
_BLOCKS_AT_ONCE = 256
_READINGS_AT_ONCE = 1000


class _Loop:
    """An event loop on a thread of its own, so that a blocking caller can use asyncpg, inside a running loop too."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres-stored", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Drawn(Iterator[T]):
    """An async generator's items, drawn by a blocking caller."""

    def __init__(self, loop: _Loop, items: AsyncGenerator[T, None]) -> None:
        self._loop = loop
        self._items = items

    def __next__(self) -> T:
        try:
            return self._loop.run(self._draw())
        except StopAsyncIteration:
            raise StopIteration from None

    async def _draw(self) -> T:
        return await anext(self._items)

    def close(self) -> None:
        self._loop.run(self._items.aclose())


def stored(config: PostgresConfig, run: RunInfo) -> Stored | None:
    """Return what the schema holds of the run, read-only and without a lock, or None. It blocks.

    Each iterator has a connection of its own, from its first to its last item.

    Raises:
        CannotStartError: the server is away or refuses.
    """
    reader = _Reader(config, run)
    facts = reader.once(reader.facts)
    if facts is None:
        return None
    position, gaps, events, put_aside, has_samples = facts
    return Stored(
        position=position,
        gaps=gaps,
        events=events,
        put_aside=put_aside,
        blocks=reader.blocks(),
        readings=reader.all_of(reader.readings),
        checksums="exact" if has_samples or run.kind == "readings" else "summary",
    )


class _Reader:
    def __init__(self, config: PostgresConfig, run: RunInfo) -> None:
        self._config = config
        self._run = run
        self._tables = BusTables(config)
        self._key = (run.run_id, stream_name(run.device, run.task))

    def once(self, ask: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """Return what `ask` answers on a connection of its own."""

        async def answer(connection: Any) -> AsyncGenerator[T, None]:
            yield await ask(connection)

        (found,) = self.all_of(answer)
        return found

    def all_of(self, ask: Callable[[Any], AsyncGenerator[T, None]]) -> Iterator[T]:
        """Yield what `ask` yields on a connection of its own, in one read-only snapshot."""
        loop = _Loop()
        connection: Any = None
        try:
            connection = loop.run(postgres_link.connect(self._config, application_name="dtolbus-verify"))
            loop.run(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            items = ask(connection)
            with contextlib.closing(_Drawn(loop, items)) as drawn:
                yield from drawn
        except postgres_link.outside_errors(ValueError) as error:
            raise CannotStartError(
                f"{self._config.target()} cannot be read: {postgres_link.reason(error)}; "
                f"start the server, or set DTOLBUS_DSN"
            ) from error
        finally:
            if connection is not None:
                loop.run(postgres_link.disconnect(connection))
            loop.close()

    async def facts(self, connection: Any) -> tuple[Position, list[Gap], list[int], list[int], bool] | None:
        """Return position, gaps, events, what is put aside, and whether there are samples; None: no such run."""
        tables = self._tables
        if tables.names["dtolbus_position"] not in by_table(await connection.fetch(FIND_COLUMNS, tables.schema)):
            return None
        position = await connection.fetchrow(
            tables.sql("SELECT next, backfilled FROM {dtolbus_position} {where}", where=_OF_RUN), *self._key
        )
        if position is None:
            return None
        columns = "from_index, to_index, cause, first_sample, end_sample"
        gaps = await connection.fetch(
            tables.sql("SELECT {columns} FROM {gaps} {where} ORDER BY 1", columns=columns, where=_OF_RUN), *self._key
        )
        events, put_aside = [
            [row[0] for row in await connection.fetch(tables.sql(query, where=_OF_RUN), *self._key)]
            for query in (_EVENTS, _PUT_ASIDE)
        ]
        samples = await connection.fetchval(
            tables.sql("SELECT EXISTS (SELECT 1 FROM {samples} WHERE run_id = $1)"), self._run.run_id
        )
        return Position(*position), [Gap(*gap) for gap in gaps], events, put_aside, samples

    def blocks(self) -> Iterator[StoredBlock]:
        """Yield the run's blocks by index: samples, summary, or both."""
        parts = heapq.merge(self.all_of(self.samples), self.all_of(self.summaries), key=lambda block: block.block_index)
        for _, same in itertools.groupby(parts, key=lambda block: block.block_index):
            found = list(same)
            if len(found) == 2 and found[0].values is not None and found[1].summary is not None:
                found = [found[0]._replace(summary=found[1].summary)]
            yield from found

    async def samples(self, connection: Any) -> AsyncGenerator[StoredBlock, None]:
        """Yield the blocks that have rows in `samples`."""
        last = await connection.fetchval(
            self._tables.sql("SELECT max(block_index) FROM {samples} WHERE run_id = $1"), self._run.run_id
        )
        for start in range(0, -1 if last is None else last + 1, _BLOCKS_AT_ONCE):
            end = start + _BLOCKS_AT_ONCE
            rows = await connection.fetch(self._tables.sql(_SAMPLES), self._run.run_id, start, end)
            for index, group in itertools.groupby(rows, key=lambda row: row[0]):
                yield self._block(index, list(group))

    def _block(self, index: int, rows: list[Any]) -> StoredBlock:
        by_channel = {channel: values for _, channel, _, values in rows}
        values = np.full((len(self._run.channels), max(map(len, by_channel.values()))), np.nan)
        for out, channel in zip(values, self._run.channel_names, strict=True):
            given = by_channel.get(channel, [])
            out[: len(given)] = [np.nan if value is None else value for value in given]
        return StoredBlock(index, min(row[2] for row in rows), values, None)

    async def summaries(self, connection: Any) -> AsyncGenerator[StoredBlock, None]:
        """Yield the blocks that have a row in `blocks`."""
        columns = ", ".join(map(quoted, BLOCK_COLUMNS))
        query = self._tables.sql(
            "SELECT {columns} FROM {blocks} WHERE run_id = $1 ORDER BY block_index", columns=columns
        )
        async for row in connection.cursor(query, self._run.run_id, prefetch=_READINGS_AT_ONCE):
            summary = {name: _iso(value) for name, value in zip(BLOCK_COLUMNS, row, strict=True)}
            empty = None if summary["samples_per_channel"] else np.empty((len(self._run.channels), 0))
            yield StoredBlock(summary["block_index"], summary["first_sample_index"], empty, summary)

    async def readings(self, connection: Any) -> AsyncGenerator[tuple[int, Mapping[str, Any]], None]:
        """Yield the readings by index: a value for each channel."""
        rows = await connection.fetch(
            self._tables.sql('SELECT channel, "column" FROM {dtolbus_columns} WHERE device = $1 AND task = $2'),
            self._run.device,
            self._run.task,
        )
        columns = ", ".join(["reading_index", *(quoted(column) for _, column in rows)])
        query = self._tables.sql(
            "SELECT {columns} FROM {readings} WHERE run_id = $1 ORDER BY reading_index", columns=columns
        )
        async for index, *cells in connection.cursor(query, self._run.run_id, prefetch=_READINGS_AT_ONCE):
            values: dict[str, Any] = {}
            for (channel, _), cell in zip(rows, cells, strict=True):
                values[channel] = cell if values.get(channel) is None else values[channel]
            yield index, values


def _iso(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
