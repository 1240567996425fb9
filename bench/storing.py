"""What the benches of the databases share: batches of new blocks, and sinks run from plain code."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.items import SMALL, block, codes, run_info
from dtolbus.records import DaqBlock, utc_from_ns
from dtolbus_workers.destination import Destination, RunBatch

Row = tuple[str | int | float | None, ...]


class Stream:
    """A run whose blocks are made as they are asked for: nothing of one is worked out when it is given."""

    def __init__(self) -> None:
        self.run = run_info(SMALL)
        self._codes: list[NDArray[np.int16]] = [codes(SMALL, first_sample=k * SMALL) for k in range(16)]
        self._next = 0

    def blocks(self, count: int) -> list[DaqBlock]:
        """Return the next blocks."""
        begin, self._next = self._next, self._next + count
        return [block(self.run, index, self._codes[index % len(self._codes)]) for index in range(begin, begin + count)]

    def batch(self, count: int) -> RunBatch:
        """Return the next blocks as a worker commits them."""
        begin = self._next
        return RunBatch(run=self.run, from_index=begin, to_index=begin + count, records=tuple(self.blocks(count)))


class Opened:
    """A destination that is open until the `with` block is left, and a loop that runs it."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self.loop = asyncio.Runner()

    def __enter__(self) -> Self:
        self.loop.run(self._destination.open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.loop.run(self._destination.close())
        self.loop.close()

    def commit_s(self, batches: Sequence[RunBatch]) -> float:
        """Commit the batches and return how long that took, s."""

        async def go() -> float:
            began = time.perf_counter()
            for batch in batches:
                await self._destination.commit(batch)
            return time.perf_counter() - began

        return self.loop.run(go())


def took_s(call: Callable[[], object]) -> float:
    """Return how long the call took, s."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def rows_by_hand(block: DaqBlock, utcs: Sequence[str]) -> Iterator[Row]:
    """Yield the block's rows as one writes them by hand, with these instants."""
    offsets = block.sample_offsets_ns().tolist()
    monos = [block.t_mono_ns + offset for offset in offsets]
    indexes = range(block.first_sample_index, block.end_sample_index)
    before = (block.run_id, block.device, block.task)
    for channel, values in zip(block.channels, block.data.tolist(), strict=True):
        unit = block.units[channel]
        for index, mono, utc, value in zip(indexes, monos, utcs, values, strict=True):
            yield (*before, channel, block.block_index, index, mono, utc, value, unit, None, None, None)


def iso_by_hand(block: DaqBlock) -> list[str]:
    """Return the samples' instants as text."""
    return [utc_from_ns(block.t_utc_ns + offset).isoformat() for offset in block.sample_offsets_ns().tolist()]
