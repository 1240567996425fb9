"""What a sink holds, put together again for `verify`: blocks of samples, of summaries, of both; headers."""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.jsonreading import read_json
from dtolbus.records import RunInfo
from dtolbus_workers.destination import SampleRun, SampleTexts, StoredBlock

T = TypeVar("T")
ROW_TEXTS = ("run_id", "device", "task", "channel", "unit", "error_type", "error_message")
ROW_COLUMNS = (*ROW_TEXTS, "block_index", "sample_index", "t_mono_ns", "t_utc", "value", "sensor_status")
"""How `runs_of` wants the rows."""
_EXACT = 2**53
_UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, IndexError, AttributeError, OSError)


def runs_of(rows: Iterable[Sequence[Any]], *, nulls: bool) -> Iterator[SampleRun]:
    """Yield rows of ROW_COLUMNS, in the order of their commits, as runs; `nulls`: no value stands for NaN.

    Raises ValueError where a value is no number.
    """
    for (*texts, block_index), group in itertools.groupby(rows, key=_texts_and_block):
        columns = [list(column) for column in zip(*(row[len(ROW_TEXTS) + 1 :] for row in group), strict=True)]
        sample_index, t_mono_ns, t_utc, values, status = columns
        yield SampleRun(
            block_index,
            SampleTexts(*texts),
            sample_index,
            t_mono_ns,
            t_utc,
            floats(values, nulls=nulls),
            None if status.count(None) == len(status) else status,
        )


def _texts_and_block(row: Sequence[Any]) -> Sequence[Any]:
    return row[: len(ROW_TEXTS) + 1]


def floats(values: list[Any], *, nulls: bool) -> NDArray[np.float64]:
    """Return numbers as floats; None is NaN, if there may be `nulls`.

    Raises ValueError where one is no number, or no float holds it.
    """
    kinds = set(map(type, values))
    if not kinds <= ({float, int, type(None)} if nulls else {float, int}):
        raise ValueError(f"a value of a sample is no number: {min(kind.__name__ for kind in kinds)}")
    if int in kinds and any(type(value) is int and abs(value) > _EXACT for value in values):
        raise ValueError("a value of a sample is an int that no float holds")
    return np.array(values, np.float64)


def sampled(runs: Iterable[SampleRun]) -> Iterator[StoredBlock]:
    """Yield the blocks of runs that come block by block, channel by channel.

    A block that comes twice is yielded twice. A channel that lacks samples is filled up with NaN.
    """
    gathered: dict[str | None, SampleRun] = {}
    index: int | None = None
    for run in runs:
        if gathered and (run.block_index != index or run.texts.channel in gathered):
            yield _gathered(list(gathered.values()))
            gathered = {}
        index = run.block_index
        gathered[run.texts.channel] = run
    if gathered:
        yield _gathered(list(gathered.values()))


def _gathered(runs: list[SampleRun]) -> StoredBlock:
    longest = max(len(run.values) for run in runs)
    values = np.full((len(runs), longest), np.nan)
    for row, run in zip(values, runs, strict=True):
        row[: len(run.values)] = run.values
    return StoredBlock(int(runs[0].block_index), int(min(runs[0].sample_index)), values, None, runs)


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


def header_remarks(header: str | bytes | None, run: RunInfo) -> list[str]:
    """Return what is to be said of the run header (JSON) that a sink keeps; None: it keeps none."""
    if header is None:
        return ["the run's header is not there"]
    try:
        kept: object = read_json(header)
        expected: object = read_json(msgspec.json.encode(run))
        same = kept == expected
    except ValueError:
        same = False
    return [] if same else ["the run's header is not the journal's"]


def guarded(items: Iterator[T], remarks: list[str], what: str) -> Iterator[T]:
    """Yield the items; where one cannot be read, say so in `remarks`, and end."""
    try:
        yield from items
    except _UNREADABLE as error:
        remarks.append(f"{what} cannot be read on ({type(error).__name__}: {error})")
