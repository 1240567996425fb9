"""What a sink is, the drivers that feed one from a stream, and a sink that keeps records in memory."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from dtolbus.errors import DtolSinkWriteError
from dtolbus.records import DaqBlock, DaqReading

log = logging.getLogger(__name__)


class _Sink(Protocol):
    """A destination with a life cycle: `async with sink:` opens and closes it."""

    async def open(self) -> None:
        """Open what the sink writes to. Does nothing when it is open; a closed sink may be opened again."""

    async def close(self) -> None:
        """Make durable what was written, and release it. Does nothing when it is closed."""

    async def __aenter__(self) -> Self:
        """Open the sink."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the sink."""


class ReadingSink(_Sink, Protocol):
    """A sink of readings."""

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Append the readings, all or none."""


class BlockSink(_Sink, Protocol):
    """A sink of blocks. A block is a batch already, so it takes one a call."""

    async def write(self, block: DaqBlock) -> None:
        """Append one block."""


class RawBlockSink(_Sink, Protocol):
    """A sink of raw codes."""

    async def write_raw(self, block: DaqBlock) -> None:
        """Append one block's raw codes."""


class SinkBase:
    """The life cycle that every sink shares; a sink adds `open` and `close`."""

    async def open(self) -> None:
        """Open what the sink writes to."""
        raise NotImplementedError

    async def close(self) -> None:
        """Make durable what was written, and release it."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()


class InMemorySink(SinkBase):
    """Keeps every record in a list; for tests, notebooks and short runs. Closing keeps the records."""

    def __init__(self) -> None:
        self._readings: list[DaqReading] = []
        self._blocks: list[DaqBlock] = []
        self._open = False

    @property
    def readings(self) -> list[DaqReading]:
        """The readings written so far, in order."""
        return self._readings

    @property
    def blocks(self) -> list[DaqBlock]:
        """The blocks written so far, in order."""
        return self._blocks

    @property
    def is_open(self) -> bool:
        """Whether the sink takes records now."""
        return self._open

    async def open(self) -> None:
        """Take records from now on."""
        self._open = True

    async def close(self) -> None:
        """Take no more records; what was taken stays."""
        self._open = False

    async def write(self, block: DaqBlock) -> None:
        """Append one block. Raises RuntimeError before `open`."""
        self._check_open("write")
        self._blocks.append(block)

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Append the readings. Raises RuntimeError before `open`."""
        self._check_open("write_many")
        self._readings.extend(items)

    def _check_open(self, operation: str) -> None:
        if not self._open:
            raise RuntimeError(f"InMemorySink: {operation} called before open()")


async def pipe(
    stream: AsyncIterator[DaqReading], sink: ReadingSink, *, batch_size: int = 64, flush_interval_s: float = 1.0
) -> int:
    """Feed a stream of readings to an open sink in batches; return how many the sink took.

    A batch is written when it holds `batch_size` readings or `flush_interval_s` seconds after its first, also while the
    stream is silent. However the stream ends, by an exception or by cancellation too, what was read is written first.
    A write that fails with DtolSinkWriteError is tried 3 times.

    Raises:
        ValueError: `batch_size` is below 1 or `flush_interval_s` not above 0.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size!r}")
    if flush_interval_s <= 0:
        raise ValueError(f"flush_interval_s must be > 0, got {flush_interval_s!r}")
    batch: list[DaqReading] = []
    written = 0
    source = aiter(stream)
    pending: asyncio.Future[DaqReading] | None = None
    try:
        while True:
            due: float | None = None
            while len(batch) < batch_size and (due is None or time.monotonic() < due):
                pending = pending or asyncio.ensure_future(anext(source))
                await asyncio.wait([pending], timeout=None if due is None else due - time.monotonic())
                if pending.done():
                    arrived, pending = pending, None
                    batch.append(arrived.result())
                    due = due or time.monotonic() + flush_interval_s
            written += await _write_retried(sink, batch)
            batch.clear()
    except StopAsyncIteration:
        pass
    finally:
        if pending is not None:
            pending.cancel()
        written += await _write_retried(sink, batch)
    return written


async def _write_retried(sink: ReadingSink, batch: Sequence[DaqReading]) -> int:
    """Write the batch, again after 0.1 and 0.2 s if the outside failed; return how many readings it held."""
    for wait_s in (0.1, 0.2, None):
        try:
            if batch:
                await sink.write_many(list(batch))
            break
        except DtolSinkWriteError as error:
            if wait_s is None:
                raise
            log.warning("sink write failed, trying again", extra={"error": str(error), "records": len(batch)})
            await asyncio.sleep(wait_s)
    return len(batch)


async def pipe_blocks(
    stream: AsyncIterator[DaqBlock], sink: BlockSink, *, flush_interval_s: float | None = None
) -> int:
    """Feed a stream of blocks to an open sink, one by one; return how many the sink took.

    `flush_interval_s` is accepted beside `pipe`'s, and not used: a block is a batch already.
    """
    del flush_interval_s
    written = 0
    async for block in stream:
        await sink.write(block)
        written += 1
    return written
