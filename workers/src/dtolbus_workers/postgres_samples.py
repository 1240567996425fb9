"""A batch's samples into Postgres: a few COPY streams, whose rows are made while the server takes those before."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from dtolbus.records import DaqBlock
from dtolbus_workers import pgcopy
from dtolbus_workers.columns import SAMPLE_COLUMNS
from dtolbus_workers.destination import OneThread, RecordRefusedError
from dtolbus_workers.postgres_tables import BusTables

COPY_ROWS = 200_000
"""Sample rows in one COPY: about 35 MB, well below the timeouts."""
CHUNK_ROWS = 4_000
"""Sample rows that are made at once, if no block has more: about 0.6 MB."""
_CHUNK_BYTES = 1 << 19
"""The server begins with a message once it has all of it: large ones would make it wait."""
_LAST_WORDS_S = 1.0
"""How long a COPY may take to say why its connection is lost."""


async def copy_samples(
    connection: Any, tables: BusTables, blocks: Sequence[DaqBlock], thread: OneThread, *, timeout_s: float
) -> None:
    """Copy a row for each sample of the blocks into `samples`; each COPY ends within `timeout_s`.

    Raises:
        RecordRefusedError: a block at fault.
        OSError, asyncpg's errors: the server is away or refuses.
    """
    for group in in_groups([block for block in blocks if block.channels and block.samples_per_channel], COPY_ROWS):
        async with aclosing(_chunks(group, thread)) as chunks:
            copying = connection.copy_to_table(
                tables.names["samples"],
                schema_name=tables.schema,
                columns=list(SAMPLE_COLUMNS),
                source=chunks,
                format="binary",
            )
            await _ended(connection, copying, timeout_s)


def in_groups(blocks: Sequence[DaqBlock], rows: int) -> Iterator[list[DaqBlock]]:
    """Yield the blocks in groups that end as soon as they have so many rows of samples."""
    group: list[DaqBlock] = []
    found = 0
    for block in blocks:
        group.append(block)
        found += len(block.channels) * block.samples_per_channel
        if found >= rows:
            yield group
            group, found = [], 0
    if group:
        yield group


async def _chunks(blocks: Sequence[DaqBlock], thread: OneThread) -> AsyncGenerator[bytes | memoryview, None]:
    """Yield a COPY stream."""
    yield pgcopy.HEADER
    for group in in_groups(blocks, CHUNK_ROWS):
        for chunk in await thread.run(encoded, group):
            yield chunk
    yield pgcopy.TRAILER


def encoded(blocks: Sequence[DaqBlock]) -> list[bytes | memoryview]:
    """Return the blocks' rows in chunks of about _CHUNK_BYTES, in order. Raises RecordRefusedError."""
    chunks: list[bytes | memoryview] = []
    small: list[memoryview] = []
    size = 0
    for piece in _pieces(blocks):
        small.append(piece)
        size += len(piece)
        if size >= _CHUNK_BYTES:
            chunks.append(b"".join(small) if len(small) > 1 else piece)
            small, size = [], 0
    return [*chunks, b"".join(small)] if small else chunks


def _pieces(blocks: Sequence[DaqBlock]) -> Iterator[memoryview]:
    """Yield the blocks' rows in pieces of _CHUNK_BYTES at most, none of them empty."""
    for block in blocks:
        try:
            channels = pgcopy.sample_rows(block)
        except (ValueError, OverflowError) as error:
            raise RecordRefusedError(block.index, str(error)) from error
        for rows in channels:
            yield from (rows[start : start + _CHUNK_BYTES] for start in range(0, len(rows), _CHUNK_BYTES))


async def _ended(connection: Any, copying: Awaitable[Any], timeout_s: float) -> None:
    """Await a COPY that is fed, which asyncpg itself lets wait for ever for room in a socket that is lost.

    Raises:
        ConnectionResetError: the connection is lost.
        TimeoutError: it takes longer than `timeout_s`.
        Exception: what the COPY raises.
    """
    task = asyncio.ensure_future(copying)
    lost = asyncio.get_running_loop().create_future()

    def on_lost(_: Any) -> None:
        if not lost.done():
            lost.set_result(None)

    connection.add_termination_listener(on_lost)
    try:
        await asyncio.wait({task, lost}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            await asyncio.wait({task}, timeout=_LAST_WORDS_S)
        if task.done():
            task.result()
        elif lost.done():
            raise ConnectionResetError("the connection was lost while samples were sent")
        else:
            raise TimeoutError(f"the server took samples for longer than {timeout_s:g} s")
    finally:
        connection.remove_termination_listener(on_lost)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_LAST_WORDS_S)
