"""A run read back from Postgres for `verify`, while a worker may be writing to it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dtolbus.errors import CannotStartError
from dtolbus.records import Gap, RunInfo
from dtolbus.topics import stream_name
from dtolbus_workers import postgres_link
from dtolbus_workers.columns import BLOCK_COLUMNS
from dtolbus_workers.destination import (
    Position,
    SampleRun,
    SampleTexts,
    Stored,
    StoredAside,
    StoredBlock,
    StoredEvent,
    StoredReading,
)
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_tables import FIND_COLUMNS, READING_END, READING_START, BusTables, by_table, quoted
from dtolbus_workers.stored_blocks import ROW_TEXTS, floats, guarded, header_remarks, joined, sampled, summarised

T = TypeVar("T")
_OF_RUN = "WHERE run_id = $1 AND stream = $2"
_GAPS = "SELECT from_index, to_index, cause, first_sample, end_sample FROM {gaps} {where} ORDER BY 1"
_EVENTS = "SELECT record_index, sample_index, t_utc, kind, message FROM {events} {where} ORDER BY 1"
_PUT_ASIDE = "SELECT record_index, reason, frames FROM {put_aside} {where} ORDER BY 1"
_HEADER = "SELECT header FROM {runs} {where}"
_SAMPLES = (
    "SELECT {texts}, block_index, array_agg(sample_index ORDER BY sample_index), "
    "array_agg(t_mono_ns ORDER BY sample_index), "
    "array_agg((extract(epoch FROM t_utc) * 1000000)::bigint ORDER BY sample_index), "
    "array_agg(value ORDER BY sample_index), "
    "CASE WHEN count(sensor_status) > 0 THEN array_agg(sensor_status ORDER BY sample_index) END FROM {samples} "
    "WHERE run_id = $1 AND block_index >= $2 AND block_index < $3 GROUP BY {texts}, block_index ORDER BY block_index"
)
_HAS_INDEX = "SELECT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = $1::regclass)"
_PATIENCE_S = 86_400.0
"""How long one look through a table without an index may take."""
_FIXED = (*READING_START, *READING_END)
_BLOCKS_AT_ONCE = 256
_CHANNELS_AT_ONCE = 64
_INT8_MIN, _INT8_MAX = -(2**63), 2**63 - 1
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
    remarks = header_remarks(facts.header, run)
    return Stored(
        position=facts.position,
        gaps=facts.gaps,
        events=facts.events,
        put_aside=facts.put_aside,
        blocks=guarded(reader.blocks(), remarks, "blocks"),
        readings=guarded(reader.all_of(reader.readings), remarks, "readings"),
        checksums="exact" if facts.has_samples or run.kind == "readings" else "summary",
        destination_id=facts.destination_id,
        remarks=remarks,
    )


class _Facts(NamedTuple):
    position: Position
    gaps: list[Gap]
    events: list[StoredEvent]
    put_aside: list[StoredAside]
    header: str | None
    destination_id: str | None
    has_samples: bool


class _Reader:
    def __init__(self, config: PostgresConfig, run: RunInfo) -> None:
        self._config = config
        self._run = run
        self._tables = BusTables(config)
        self._key = (run.run_id, stream_name(run.device, run.task))
        self._order = {channel: place for place, channel in enumerate(run.channel_names)}

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

    async def facts(self, connection: Any) -> _Facts | None:
        """Return what the schema holds besides rows; None: no such run."""
        tables = self._tables
        if tables.names["dtolbus_position"] not in by_table(await connection.fetch(FIND_COLUMNS, tables.schema)):
            return None
        position = await connection.fetchrow(
            tables.sql("SELECT next, backfilled FROM {dtolbus_position} {where}", where=_OF_RUN), *self._key
        )
        if position is None:
            return None
        gaps, events, aside = [
            await connection.fetch(tables.sql(query, where=_OF_RUN), *self._key)
            for query in (_GAPS, _EVENTS, _PUT_ASIDE)
        ]
        return _Facts(
            position=Position(*position),
            gaps=[Gap(*gap) for gap in gaps],
            events=[StoredEvent(*map(_iso, event)) for event in events],
            put_aside=[StoredAside(*record) for record in aside],
            header=await connection.fetchval(tables.sql(_HEADER, where=_OF_RUN), *self._key),
            destination_id=await connection.fetchval(
                tables.sql("SELECT value FROM {dtolbus} WHERE key = 'destination_id'")
            ),
            has_samples=await self._has_samples(connection),
        )

    async def _has_samples(self, connection: Any) -> bool:
        await self._is_indexed(connection)
        query = self._tables.sql("SELECT EXISTS (SELECT 1 FROM {samples} WHERE run_id = $1)")
        return bool(await connection.fetchval(query, self._run.run_id, timeout=_PATIENCE_S))

    async def _is_indexed(self, connection: Any) -> bool:
        """Say whether a range of blocks can be found in `samples`; where not, no statement is cut short."""
        is_indexed = bool(await connection.fetchval(_HAS_INDEX, self._tables["samples"]))
        if not is_indexed:
            await connection.execute("SET LOCAL statement_timeout = 0")
        return is_indexed

    def blocks(self) -> Iterator[StoredBlock]:
        """Yield the run's blocks by index: samples, summary, or both."""
        samples = sampled(map(_sample_run, self.all_of(self.samples)))
        summaries = (dict(zip(BLOCK_COLUMNS, map(_iso, row), strict=True)) for row in self.all_of(self.summaries))
        yield from joined(samples, summarised(summaries, len(self._run.channels)))

    async def samples(self, connection: Any) -> AsyncGenerator[Any, None]:
        """Yield a row of _SAMPLES for each channel of each block that has rows in `samples`, by block and channel."""
        query = self._tables.sql(_SAMPLES, texts=", ".join(ROW_TEXTS))
        if not await self._is_indexed(connection):
            async for row in self._sorted(connection, query):
                yield row
            return
        onward = self._tables.sql("SELECT min(block_index) FROM {samples} WHERE run_id = $1 AND block_index >= $2")
        start = await connection.fetchval(onward, self._run.run_id, _INT8_MIN)
        while start is not None:
            end = start + _BLOCKS_AT_ONCE
            rows = await connection.fetch(query, self._run.run_id, start, end)
            rows.sort(key=self._place)
            for row in rows:
                yield row
            start = end if rows else await connection.fetchval(onward, self._run.run_id, end)

    async def _sorted(self, connection: Any, query: str) -> AsyncGenerator[Any, None]:
        """Yield the rows of one look through the table, which the server sorts."""
        arguments = (self._run.run_id, _INT8_MIN, _INT8_MAX)
        rows: list[Any] = []
        async for row in connection.cursor(query, *arguments, prefetch=_CHANNELS_AT_ONCE, timeout=_PATIENCE_S):
            if rows and rows[0]["block_index"] != row["block_index"]:
                for done in sorted(rows, key=self._place):
                    yield done
                rows.clear()
            rows.append(row)
        for done in sorted(rows, key=self._place):
            yield done

    def _place(self, row: Any) -> tuple[int, int]:
        return row["block_index"], self._order.get(row["channel"], len(self._order))

    async def summaries(self, connection: Any) -> AsyncGenerator[Any, None]:
        """Yield the rows of `blocks`."""
        columns = ", ".join(map(quoted, BLOCK_COLUMNS))
        query = self._tables.sql(
            "SELECT {columns} FROM {blocks} WHERE run_id = $1 ORDER BY block_index", columns=columns
        )
        async for row in connection.cursor(query, self._run.run_id, prefetch=_READINGS_AT_ONCE):
            yield row

    async def readings(self, connection: Any) -> AsyncGenerator[StoredReading, None]:
        """Yield the readings by index: a value for each channel."""
        known = await connection.fetch(
            self._tables.sql('SELECT channel, "column", kind FROM {dtolbus_columns} WHERE device = $1 AND task = $2'),
            self._run.device,
            self._run.task,
        )
        units = [(channel, f"{column}_unit") for channel, column, kind in known if kind == "number"]
        names = ["reading_index", *_FIXED, *(column for _, column, _ in known), *(column for _, column in units)]
        query = self._tables.sql(
            "SELECT {columns} FROM {readings} WHERE run_id = $1 ORDER BY reading_index",
            columns=", ".join(map(quoted, names)),
        )
        async for index, *cells in connection.cursor(query, self._run.run_id, prefetch=_READINGS_AT_ONCE):
            fixed, rest = cells[: len(_FIXED)], cells[len(_FIXED) :]
            values: dict[str, Any] = {}
            for (channel, _, _), cell in zip(known, rest, strict=False):
                values[channel] = cell if values.get(channel) is None else values[channel]
            given = {channel: cell for (channel, _), cell in zip(units, rest[len(known) :], strict=True)}
            yield StoredReading(index, values, given, dict(zip(_FIXED, fixed, strict=True)))


def _sample_run(row: Any) -> SampleRun:
    *texts, block_index, sample_index, t_mono_ns, t_utc_us, values, status = row
    t_utc_ns = np.array(t_utc_us, np.int64) * 1000
    return SampleRun(
        block_index, SampleTexts(*texts), sample_index, t_mono_ns, t_utc_ns, floats(values, nulls=False), status
    )


def _iso(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
