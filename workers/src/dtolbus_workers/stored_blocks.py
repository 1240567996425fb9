"""Blocks put together again from rows, for `verify`: of samples, of summaries, of both."""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from dtolbus_workers.destination import StoredBlock

SampleRow = tuple[int, str, int, float | None]
"""block_index, channel, sample_index, value."""


def sampled(rows: Iterable[SampleRow]) -> Iterator[StoredBlock]:
    """Yield the blocks of rows in the order of their commits: block by block, channel by channel.

    A block that comes twice is yielded twice. A value that is None is NaN; a channel that lacks samples is filled up
    with NaN, so that it differs.
    """
    gathered: dict[str, list[float]] = {}
    block: tuple[int, int] | None = None
    for (index, channel), group in itertools.groupby(rows, key=lambda row: row[:2]):
        samples = list(group)
        if block is not None and (index != block[0] or channel in gathered):
            yield _gathered(block, gathered)
            gathered, block = {}, None
        if block is None:
            block = (index, samples[0][2])
        gathered[channel] = [np.nan if value is None else value for *_, value in samples]
    if block is not None:
        yield _gathered(block, gathered)


def _gathered(block: tuple[int, int], by_channel: Mapping[str, list[float]]) -> StoredBlock:
    longest = max(map(len, by_channel.values()))
    values = np.full((len(by_channel), longest), np.nan)
    for row, samples in zip(values, by_channel.values(), strict=True):
        row[: len(samples)] = samples
    return StoredBlock(*block, values, None)


def summarised(summaries: Iterable[Mapping[str, Any]], channels: int) -> Iterator[StoredBlock]:
    """Yield the blocks of summary rows, in their order; one without samples has values of shape (channels, 0)."""
    for summary in summaries:
        empty = None if summary["samples_per_channel"] else np.empty((channels, 0))
        yield StoredBlock(summary["block_index"], summary["first_sample_index"], empty, summary)


def joined(samples: Iterable[StoredBlock], summaries: Iterable[StoredBlock]) -> Iterator[StoredBlock]:
    """Yield the blocks by index, those that have both as one; where there is more, it is doubled and stays so."""
    parts = heapq.merge(samples, summaries, key=lambda block: block.block_index)
    for _, group in itertools.groupby(parts, key=lambda block: block.block_index):
        same = list(group)
        if len(same) == 2 and same[0].summary is None and same[1].summary is not None:
            same = [same[0]._replace(summary=same[1].summary)]
        yield from same
