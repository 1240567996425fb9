"""`pipe`: nothing that was read is lost on its way into a sink."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.protocol.specimens import reading, reading_run

from dtolbus import DaqReading, DtolSinkWriteError, InMemorySink, pipe

RUN = reading_run()


async def stream(count: int, error: BaseException | None = None) -> AsyncIterator[DaqReading]:
    for k in range(count):
        yield reading(RUN, k)
    if error is not None:
        raise error


def indexes(sink: InMemorySink) -> list[int]:
    return [one.reading_index for one in sink.readings]


def test_everything_arrives_in_batches_and_is_counted() -> None:
    async def go() -> list[int]:
        async with InMemorySink() as sink:
            assert await pipe(stream(150), sink, batch_size=64) == 150
            return indexes(sink)

    assert asyncio.run(go()) == list(range(150))


def test_what_was_read_is_written_when_the_stream_breaks() -> None:
    async def go() -> list[int]:
        async with InMemorySink() as sink:
            with pytest.raises(OSError, match="gone"):
                await pipe(stream(63, OSError("gone")), sink)
            return indexes(sink)

    assert asyncio.run(go()) == list(range(63))


def test_an_idle_stream_is_flushed() -> None:
    class Told(InMemorySink):
        def __init__(self) -> None:
            super().__init__()
            self.wrote = asyncio.Event()

        async def write_many(self, items: Sequence[DaqReading]) -> None:
            await super().write_many(items)
            self.wrote.set()

    async def idle() -> AsyncIterator[DaqReading]:
        yield reading(RUN, 0)
        await asyncio.Event().wait()

    async def go() -> list[int]:
        async with Told() as sink:
            task = asyncio.create_task(pipe(idle(), sink, flush_interval_s=0.01))
            await asyncio.wait_for(sink.wrote.wait(), 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return indexes(sink)

    assert asyncio.run(go()) == [0]


def test_a_failed_flush_is_tried_again() -> None:
    class Flaky(InMemorySink):
        failures = 2

        async def write_many(self, items: Sequence[DaqReading]) -> None:
            if self.failures:
                self.failures -= 1
                raise DtolSinkWriteError("the database is away")
            await super().write_many(items)

    async def go() -> list[int]:
        async with Flaky() as sink:
            assert await pipe(stream(20), sink, batch_size=20) == 20
            return indexes(sink)

    assert asyncio.run(go()) == list(range(20))


@pytest.mark.parametrize(("size", "interval"), [(0, 1.0), (1, 0.0)])
def test_settings_that_make_no_sense_are_refused(size: int, interval: float) -> None:
    async def go() -> None:
        async with InMemorySink() as sink:
            await pipe(stream(1), sink, batch_size=size, flush_interval_s=interval)

    with pytest.raises(ValueError, match="must be"):
        asyncio.run(go())


def test_a_sink_in_memory_keeps_its_records_when_closed_and_opens_again() -> None:
    async def go() -> list[int]:
        sink = InMemorySink()
        with pytest.raises(RuntimeError, match="before open"):
            await sink.write_many([reading(RUN, 0)])
        async with sink:
            await sink.write_many([reading(RUN, 0)])
        async with sink:
            await sink.write_many([reading(RUN, 1)])
        return indexes(sink)

    assert asyncio.run(go()) == [0, 1]
