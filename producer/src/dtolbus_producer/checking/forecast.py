"""How many bytes a second a run puts into the journal and into each kind of sink. Pure."""

import time
from typing import NamedTuple

import numpy as np

from dtolbus.chunks import encode_record
from dtolbus.records import Clock, DaqReading, Record, RunInfo, block_of_run, utc_from_ns
from dtolbus.wire import topic_of_run

_INDEX = 1_000_000
"""A record's number of usual length."""
_VALUE = 1234.56789012345


class _Sizes(NamedTuple):
    """What a kind of sink writes, bytes; measured with the simulated boards, 3 to 10 channels."""

    sample: float
    """One sample of one channel."""
    block: float
    """A block's summary row …"""
    block_channel: float
    """… and what each channel adds to it."""
    reading: float
    reading_channel: float
    second: float = 0.0
    """Whatever is measured: a Parquet file's own schema and footer, one in 10 s."""


_SIZES = {
    "parquet": _Sizes(2.1, 0, 0, 1, 5, 900),
    "sqlite": _Sizes(128, 630, 58, 280, 10),
    "postgres": _Sizes(142, 760, 75, 350, 10),
    "csv": _Sizes(124, 480, 59, 225, 15),
    "jsonl": _Sizes(294, 730, 71, 430, 29),
}
_USUAL_MODE = {"parquet": "samples", "sqlite": "summary", "postgres": "summary", "csv": "skip", "jsonl": "skip"}


def journal_bytes_s(run: RunInfo) -> float:
    """Return what the run adds to the journal, bytes/s, its headers included."""
    chunk = sum(len(part) for part in encode_record(_usual_record(run), _INDEX))
    return chunk * run.rate_hz / run.block_samples


def sink_bytes_s(kind: str, blocks: str | None, topics: tuple[str, ...], run: RunInfo) -> float:
    """Return about what a sink stores of the run, bytes/s; `blocks` None is the kind's own way."""
    mode = blocks or _USUAL_MODE[kind]
    if topics and not topic_of_run(run).decode().startswith(topics):
        return 0.0
    sizes, channels = _SIZES[kind], len(run.channels)
    if run.kind == "readings":
        return run.rate_hz * (sizes.reading + channels * sizes.reading_channel) + sizes.second
    samples = run.rate_hz * channels * sizes.sample if mode in ("samples", "both") else 0.0
    rows = run.rate_hz / run.block_samples if mode in ("summary", "both") else 0.0
    return samples + rows * (sizes.block + channels * sizes.block_channel) + (sizes.second if samples else 0.0)


class Flow(NamedTuple):
    """A run, and how much faster than its rate it comes."""

    run: RunInfo
    speed: float = 1.0

    @property
    def journal_bytes_s(self) -> float:
        """What it adds to the journal, bytes/s."""
        return self.speed * journal_bytes_s(self.run)

    def sink_bytes_s(self, kind: str, blocks: str | None, topics: tuple[str, ...]) -> float:
        """Return about what a sink stores of it, bytes/s."""
        return self.speed * sink_bytes_s(kind, blocks, topics, self.run)


def hours_left(free_bytes: float, bytes_s: float) -> float | None:
    """Return after how many hours the room is used up; None: never."""
    return max(0.0, free_bytes) / bytes_s / 3600 if bytes_s > 0 else None


def _usual_record(run: RunInfo) -> Record:
    now = time.time_ns()
    instant = utc_from_ns(now)
    if run.kind == "readings":
        return DaqReading(
            device=run.device,
            task=run.task,
            values=dict.fromkeys(run.channel_names, _VALUE),
            units=run.units,
            requested_at=instant,
            received_at=instant,
            t_utc=instant,
            t_mono_ns=now,
            t_midpoint_mono_ns=now,
            latency_s=1 / _INDEX,
            run_id=run.run_id,
            reading_index=_INDEX,
        )
    return block_of_run(
        run,
        index=_INDEX,
        first_sample=_INDEX * run.block_samples,
        codes=np.zeros((len(run.channels), run.block_samples), dtype=run.dtype),
        t_mono_ns=now,
        clock=Clock(now, 1e9 / run.rate_hz),
        read_started_at=instant,
        read_finished_at=instant,
    )
