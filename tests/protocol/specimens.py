"""Runs and records to test with."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from dtolbus.records import Channel, Clock, DaqBlock, DaqEvent, DaqReading, RunInfo
from dtolbus.runblocks import block_of_run

START_NS = 1_772_366_400_000_000_000
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def block_run(run_id: str = "run-1", channels: int = 2, **fields: Any) -> RunInfo:
    settings: dict[str, Any] = {
        "device": "dt9806",
        "task": "vibration",
        "rate_hz": 1000.0,
        "dtype": "uint16",
        "block_samples": 10,
        "meta": {"operator": "gö"},
    }
    return RunInfo(
        run_id=run_id,
        kind="blocks",
        channels=tuple(
            Channel(f"ai{k}", "V", 20 / 65536, -10.0, (-10.0, 10.0), 1.0, "offset_binary", 16, k)
            for k in range(channels)
        ),
        started_utc_ns=START_NS,
        started_mono_ns=5_000,
        **{**settings, **fields},
    )


def block(run: RunInfo, index: int, samples: int = 10, **fields: Any) -> DaqBlock:
    period_ns = 1e9 / run.rate_hz
    first = index * samples
    codes = np.random.default_rng(index).integers(0, 65536, (len(run.channels), samples)).astype(run.dtype)
    offset_ns = round(first * period_ns)
    return block_of_run(
        run,
        index=index,
        first_sample=first,
        codes=fields.pop("codes", codes),
        t_mono_ns=run.started_mono_ns + offset_ns,
        clock=Clock(run.started_utc_ns + offset_ns, period_ns),
        **fields,
    )


def reading_run(run_id: str = "run-2", names: tuple[str, ...] = ("tc0", "tc1")) -> RunInfo:
    return RunInfo(
        run_id=run_id,
        device="dt9828",
        task="temperature",
        kind="readings",
        channels=tuple(Channel(name, "degC") for name in names),
        rate_hz=5.0,
        started_utc_ns=START_NS,
        started_mono_ns=5_000,
    )


def reading(run: RunInfo, index: int, **fields: Any) -> DaqReading:
    settings: dict[str, Any] = {
        "values": {name: 20.0 + index + k / 8 for k, name in enumerate(run.channel_names)},
        "units": run.units,
        "requested_at": START,
        "received_at": START,
        "t_utc": START,
        "t_mono_ns": 5_000 + index * 200_000_000,
        "latency_s": 0.001,
    }
    return DaqReading(
        device=run.device, task=run.task, run_id=run.run_id, reading_index=index, **{**settings, **fields}
    )


def event(run: RunInfo, index: int, **fields: Any) -> DaqEvent:
    settings: dict[str, Any] = {"kind": "overrun", "message": "the board overran", "sample_index": 10 * index}
    return DaqEvent(device=run.device, task=run.task, run_id=run.run_id, record_index=index, **{**settings, **fields})
