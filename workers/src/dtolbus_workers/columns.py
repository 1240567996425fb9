"""Blocks as columns and as summaries: what every sink builds its rows from, without a Python row for each sample."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock, Scalar

SAMPLE_COLUMNS = (
    "run_id",
    "device",
    "task",
    "channel",
    "block_index",
    "sample_index",
    "t_mono_ns",
    "t_utc",
    "value",
    "unit",
    "sensor_status",
    "error_type",
    "error_message",
)
"""The bus's sample table; the stand-alone sinks leave out `run_id`."""

BLOCK_COLUMNS = (
    "run_id",
    "device",
    "task",
    "block_index",
    "first_sample_index",
    "samples_per_channel",
    "sample_rate_hz",
    "block_period_ns",
    "task_started_at",
    "t0",
    "t_mono_ns",
    "t_utc",
    "t_midpoint_mono_ns",
    "read_started_at",
    "read_finished_at",
    "elapsed_s",
    "channels",
    "units",
    "is_linearised",
    "min",
    "max",
    "mean",
    "rms",
    "error_type",
    "error_message",
)
"""The bus's table of block summaries; the stand-alone sinks leave out `run_id`."""


@dataclass(frozen=True)
class SampleColumns:
    """One block's samples, channel by channel; what is the same for all samples stands once."""

    block: DaqBlock
    sample_index: NDArray[np.int64]
    """Shape (samples,)."""
    t_mono_ns: NDArray[np.int64]
    """Shape (samples,)."""
    t_utc_ns: NDArray[np.int64]
    """ns since 1970, shape (samples,)."""
    values: NDArray[np.float64]
    """Shape (channels, samples)."""

    def status_of(self, channel: str) -> NDArray[np.int64] | None:
        """Return the channel's status for each sample, or None where it has none."""
        return self.block.sensor_status.get(channel)


def sample_columns(block: DaqBlock) -> SampleColumns:
    """Return the block's samples by column."""
    offsets = block.sample_offsets_ns()
    return SampleColumns(
        block=block,
        sample_index=np.arange(block.first_sample_index, block.first_sample_index + block.samples_per_channel),
        t_mono_ns=offsets + block.t_mono_ns,
        t_utc_ns=offsets + block.t_utc_ns,
        values=values_of(block),
    )


def values_of(block: DaqBlock) -> NDArray[np.float64]:
    """Return `block.data`, shape (channels, samples), but let the block keep none that is computed from its codes.

    A batch holds many blocks, and floats are four times as large as codes of 16 bits: to keep them costs memory, and
    more time, for memory that is new each time, than to compute them.
    """
    return block.data if block.has_own_data or block.error is not None else block.scaled()


def block_summary(block: DaqBlock) -> dict[str, Scalar]:
    """Return the block's row in `blocks`; keys and order are BLOCK_COLUMNS.

    min, max, mean and rms are JSON arrays with a number for each channel, over its samples that are not NaN; null
    where there is none, or where JSON has no such number.
    """
    period = block.block_period_ns
    t_utc = block.t_utc.isoformat()
    return {
        "run_id": block.run_id,
        "device": block.device,
        "task": block.task,
        "block_index": block.block_index,
        "first_sample_index": block.first_sample_index,
        "samples_per_channel": block.samples_per_channel,
        "sample_rate_hz": block.sample_rate_hz,
        "block_period_ns": period,
        "task_started_at": _iso(block.task_started_at),
        "t0": t_utc if block.t0 is block.t_utc else _iso(block.t0),
        "t_mono_ns": block.t_mono_ns,
        "t_utc": t_utc,
        "t_midpoint_mono_ns": block.t_midpoint_mono_ns,
        "read_started_at": _iso(block.read_started_at),
        "read_finished_at": _iso(block.read_finished_at),
        "elapsed_s": block.elapsed_s,
        "channels": _texts(block.channels),
        "units": _texts(tuple(map(block.units.get, block.channels))),
        "is_linearised": block.is_linearised,
        **_statistics(values_of(block)),
        "error_type": block.error.type if block.error else None,
        "error_message": block.error.message if block.error else None,
    }


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


@lru_cache(maxsize=64)
def _texts(texts: tuple[str | None, ...]) -> str:
    """Return the channels' names, or units, as JSON; they are the same for each block of a run."""
    return _json(texts)


def _statistics(data: NDArray[np.float64]) -> dict[str, Scalar]:
    """Return min, max, mean and rms of each row, as JSON arrays."""
    samples = data.shape[1]
    if samples:
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.add.reduce(data, axis=1) / samples  # what `mean` is, without its checks
            rms = np.sqrt(np.add.reduce(data * data, axis=1) / samples)
        if math.isfinite(sum(rms.tolist())):  # then every value is finite
            return _arrays(row.tolist() for row in (data.min(1), data.max(1), mean, rms))
    rows = [
        [value if value is not None and math.isfinite(value) else None for value in _row_statistics(r)] for r in data
    ]
    return _arrays(zip(*rows, strict=True) if rows else [(), (), (), ()])


def _arrays(columns: Iterable[Sequence[float | None]]) -> dict[str, Scalar]:
    return dict(zip(("min", "max", "mean", "rms"), map(_json, columns), strict=True))


def _row_statistics(row: NDArray[np.float64]) -> tuple[float | None, float | None, float | None, float | None]:
    valid = row[~np.isnan(row)]
    if not valid.size:
        return None, None, None, None
    with np.errstate(over="ignore", invalid="ignore"):
        return float(valid.min()), float(valid.max()), float(valid.mean()), float(np.sqrt(np.mean(valid * valid)))
